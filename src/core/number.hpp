// Numbers in messages.
#pragma once

#include <charconv>
#include <concepts>
#include <string>

namespace equinorm {

/// The shortest text that reads back as this number: std::to_string makes 0.000000 of 1e-31.
template <class Number>
  requires std::integral<Number> || std::floating_point<Number>
std::string text_of(Number value) {
  char text[32];  // the longest double has 24 characters
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace equinorm
