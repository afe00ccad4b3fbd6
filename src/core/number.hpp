// Numbers in messages.
#pragma once

#include <charconv>
#include <string>

namespace equinorm {

/// The shortest text that reads back as this number: std::to_string makes 0.000000 of 1e-31.
template <class Number>
std::string text_of(Number value) {
  char text[32];  // the longest double has 24 characters
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace equinorm
