// The shapes that batch norm is tested on; each row says why it is there.
#pragma once

#include <cstddef>
#include <vector>

#include "equinorm/tensor.hpp"

namespace equinorm::cases {

struct ShapeCase {
  Shape shape;
  Layout layout;
  const char* why;
};

inline const std::vector<ShapeCase>& shapes() {
  constexpr Layout last = Layout::channels_last, first = Layout::channels_first;
  static const std::vector<ShapeCase> table = {
      {{2, 1}, last, "the smallest batch of one channel"},
      {{2, 3}, last, "fewer columns than any vector has lanes"},
      {{5, 16}, last, "one vector of floats"},
      {{7, 17}, last, "a vector and one column"},
      {{128, 100}, last, "the digits net: rows that are not whole cache lines"},
      {{33, 64}, last, "one strip of columns, an odd number of rows"},
      {{4099, 1}, last, "one channel: rows folded 64 at a time, and a tail"},
      {{12321, 3}, last, "three channels folded to 96 columns, and a tail"},
      {{5000, 7}, last, "seven channels folded to 112 columns, and a tail"},
      {{3001, 9}, last, "nine channels folded to 126 columns for sums, to 144 else, with tails"},
      {{1100, 60}, last, "60 channels folded to 120 columns for sums, to 240 else"},
      {{4200, 65}, last, "65 channels: a part of a vector for sums, folded to 1040 columns else"},
      {{9000, 64}, last, "more than one chunk of rows"},
      {{77, 300}, last, "strips that go down 32 rows backward, and rests both ways"},
      {{37, 1024}, last, "rows that meet at the same places of their pages"},
      {{150, 2048}, last, "wide rows, more than one chunk"},
      {{40, 9001}, last, "wider than what is folded"},
      {{3, 5, 7, 20}, last, "rank 4"},
      {{2, 3, 4, 5, 6}, last, "rank 5"},
      {{6, 10}, first, "rank 2 channels-first is a matrix"},
      {{2, 3, 1}, first, "one value per plane"},
      {{4, 5, 3}, first, "planes shorter than any vector"},
      {{3, 4, 7, 7}, first, "planes of 49: a vector and a rest"},
      {{2, 3, 31}, first, "one value less than the fixed lanes"},
      {{2, 3, 33}, first, "one value more than the fixed lanes"},
      {{9, 21, 7, 7}, first, "planes taken as columns: a group of channels and a rest"},
      {{300, 35, 4, 4}, first, "the same in pieces of 128 samples, two whole groups and a rest"},
      {{8, 33, 64}, first, "the fewest samples and the longest planes that are"},
      {{2000, 2, 3, 11}, first, "the same with channels cut into parts"},
      {{9, 40, 14, 14}, first, "more channels than units: fused"},
      {{64, 40, 20, 20}, first, "more than one piece per channel"},
      {{3, 2, 260, 260}, first, "channels cut into parts, pieces within a plane"},
      {{2, 1, 9000}, first, "a plane longer than a block"},
      {{2, 2, 3, 4, 5}, first, "rank 5"},
  };
  return table;
}

}  // namespace equinorm::cases
