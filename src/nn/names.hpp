// Choices by name: a table of names is parsed, printed and quoted in errors by the same three functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "equinorm/status.hpp"

namespace equinorm::nn {

template <class Value>
struct Named {
  std::string_view name;
  Value value;
};

/// Rows: anything with a name.
template <class Row>
[[noreturn]] void throw_unknown(std::string_view what, std::string_view found, std::span<const Row> rows) {
  std::string choices;
  for (const Row& row : rows) choices += (choices.empty() ? "" : ", ") + std::string(row.name);
  throw Error("unknown " + std::string(what) + " \"" + std::string(found) + "\"; expected one of: " + choices);
}

template <class Value>
Value parse_name(std::string_view what, std::string_view text, std::span<const Named<Value>> rows) {
  for (const Named<Value>& row : rows) {
    if (row.name == text) return row.value;
  }
  throw_unknown(what, text, rows);
}

template <class Value>
std::string_view name_in(std::span<const Named<Value>> rows, Value value) {
  for (const Named<Value>& row : rows) {
    if (row.value == value) return row.name;
  }
  return "?";
}

}  // namespace equinorm::nn
