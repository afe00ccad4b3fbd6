// The lengths of samples that norms are tested on; each row says why it is there. For tests alone.
#pragma once

#include <cstddef>
#include <vector>

namespace equinorm::cases {

struct LengthCase {
  std::vector<std::size_t> lengths;
  std::size_t channels, longest;
  const char* why;
};

inline const std::vector<LengthCase>& lengths() {
  static const std::vector<LengthCase> table = [] {
    std::vector<LengthCase> rows = {
        {{5, 0, 9, 1, 7, 9, 3}, 1, 9, "one channel"},
        {{0, 0, 1, 2, 0}, 6, 2, "hardly a value, no sample's channel more than two"},
        {{5, 0, 9, 1, 7, 9, 3}, 36, 9, "more channels than planes taken at once"},
        {{5, 0, 9, 1, 7, 9, 3}, 130, 9, "wider than a strip of columns"},
        {{60, 7, 64, 33}, 40, 64, "planes of whole and broken vectors"},
        {{8193, 0, 700, 16390}, 2, 16390, "longer than a block; enough rows to fold"},
        {{}, 12, 6, "more samples than tasks"},
    };
    for (std::size_t n = 0; n < 75; ++n) rows.back().lengths.push_back(n % 7);
    return rows;
  }();
  return table;
}

}  // namespace equinorm::cases
