// The values that every norm is tested on; each says why it is there. For tests alone.
#pragma once

#include <vector>

namespace equinorm::cases {

struct ValueCase {
  const char* name;
  double mean;  ///< in units of σ for an index-free normal
  double sigma;
  const char* why;
};

inline const std::vector<ValueCase>& values() {
  static const std::vector<ValueCase> table = {
      {"normal", 0, 1, "what training sees"},
      {"mean_1e3", 1e3, 1, "E[x²] − E[x]² in float has lost everything here"},
      {"mean_1e6", 1e6, 1, "σ is 16 steps of a float"},
      {"mean_-1e6", -1e6, 1, "the same below zero"},
      {"small", 1e-3, 1e-6, "σ² beside ε"},
      {"denormal", 0, 1e-39, "denormal inputs"},
      {"large", 1e15, 1e15, "far from one"},
      {"huge", 0, 1e36, "differences near the largest float: the careful path"},
      {"huge_mean", 1e36, 1e30, "a mean of 2^120"},
      {"constant", 3.25, 0, "no variance: x̂ = 0 exactly"},
  };
  return table;
}

}  // namespace equinorm::cases
