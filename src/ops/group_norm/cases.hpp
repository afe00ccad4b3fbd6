// The shapes that group norm is tested on; each row says why it is there.
#pragma once

#include <cstddef>
#include <vector>

#include "equinorm/tensor.hpp"

namespace equinorm::cases {

struct GroupCase {
  Shape shape;
  Layout layout;
  std::size_t groups;
  const char* why;
};

inline const std::vector<GroupCase>& group_shapes() {
  constexpr Layout last = Layout::channels_last, first = Layout::channels_first;
  static const std::vector<GroupCase> table = {
      {{2, 2}, last, 1, "no positions: two values a group"},
      {{5, 12}, last, 4, "groups shorter than any vector"},
      {{3, 40, 1}, first, 40, "one value a group: x̂ = 0"},
      {{70, 100}, last, 50, "more groups than are taken together, more samples than tasks"},
      {{3, 20000}, last, 2, "a group longer than a piece"},
      {{4, 5, 7, 6}, last, 3, "channels folded to fill vectors"},
      {{2, 31, 17, 3}, last, 3, "three channels, instance norm: a fold and a tail"},
      {{3, 9, 9, 64}, last, 8, "a strip of columns"},
      {{40, 7, 7, 96}, last, 96, "instance norm, more samples than tasks"},
      {{1, 90, 90, 48}, last, 6, "one sample cut into parts of its rows"},
      {{2, 300, 201, 3}, last, 1, "two samples cut into parts, with a tail"},
      {{4, 6, 7, 5}, first, 3, "planes of 35: a vector and a rest"},
      {{2, 64, 3, 3}, first, 64, "instance norm of planes shorter than a vector"},
      {{3, 80, 7, 7}, first, 40, "more groups than are taken together"},
      {{33, 8, 16, 16}, first, 2, "more units than tasks"},
      {{3, 17, 41, 25}, first, 17, "more groups than a scratch holds at once, tasks from the middle of them"},
      {{1, 64, 80, 80}, first, 2, "one sample cut into parts of its channels"},
      {{1, 70, 60, 61}, first, 1, "layer norm: a group cut into parts, more channels than one call takes"},
      {{2, 2, 3, 4, 5}, first, 2, "rank 5"},
      {{2, 3, 4, 5, 6}, last, 3, "rank 5"},
  };
  return table;
}

}  // namespace equinorm::cases
