// The shapes and values that norms of rows are tested on; each says why it is there.
#pragma once

#include <cstddef>
#include <vector>

namespace equinorm::cases {

struct RowShape {
  std::size_t rows, features;
  const char* why;
};

inline const std::vector<RowShape>& row_shapes() {
  static const std::vector<RowShape> table = {
      {1, 1, "one value: x̂ = 0 whatever it is"},
      {3, 2, "the least that has a variance"},
      {5, 3, "fewer features than any vector has lanes"},
      {4, 15, "one less than a vector of floats"},
      {4, 17, "a vector and one"},
      {9, 31, "one less than the fixed lanes"},
      {9, 32, "the fixed lanes"},
      {9, 33, "one more"},
      {40, 60, "rows that are not whole cache lines"},
      {7, 65, "a strip of columns and one"},
      {6, 128, "four groups of lanes, which backward adds at once"},
      {6, 263, "four groups, four more, and a rest"},
      {3, 1000, "more than one sampled group of lanes"},
      {2, 4099, "a long row"},
      {3, 17001, "rows too long for the first cache"},
      {1100, 64, "two chunks of rows"},
      {17, 4500, "two chunks of long rows"},
  };
  return table;
}

}  // namespace equinorm::cases
