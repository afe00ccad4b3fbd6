// The values that every norm is tested on; each says why it is there. For tests alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/elements.hpp"
#include "core/philox.hpp"

namespace equinorm::cases {

struct ValueCase {
  const char* name;
  double mean;  ///< in units of σ for an index-free normal
  double sigma;
  const char* why;
  double outlier = 0;  ///< where it is not 0, the first value
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

inline const ValueCase kNormal = values().front();

/// Beside them an outlier, and what is hostile to T alone.
template <class T>
std::vector<ValueCase> hostile_values() {
  constexpr bool is_half = std::is_same_v<T, float16>;
  std::vector<ValueCase> table = values();
  table.push_back({"outlier", 0, 1, "one value makes σ, and K if it is in the sample", is_half ? 3e4 : 1e8});
  if (is_half) {
    table.push_back({"denormal_float16", 0, 1e-6, "denormal inputs"});
    table.push_back({"huge_float16", 0, 2e4, "values up to the largest"});
  }
  if (std::is_same_v<T, double>) {
    table.push_back({"mean_1e12", 1e12, 1, "σ is 8192 steps of a double"});
    table.push_back({"denormal_float64", 0, 1e-310, "denormal inputs, whose squares are 0"});
    table.push_back({"huge_float64", 0, 1e150, "squares near the largest double"});
  }
  return table;
}

/// From so many on, the values of a tensor repeat: drawing more takes longer than all that is done with them. A prime,
/// so that no cut of a shape is in step.
inline constexpr std::size_t kPeriod = 65537;

/// The first normal numbers of a stream, `count` of them or as many as a period has: drawn once, as tests ask for the
/// same ones over and over.
inline const std::vector<double>& draw(std::uint64_t seed, std::uint64_t stream, std::size_t count) {
  thread_local std::map<std::pair<std::uint64_t, std::uint64_t>, std::vector<double>> streams;
  std::vector<double>& drawn = streams[{seed, stream}];
  const Philox random(seed, stream);
  const std::size_t wanted = std::min(count, kPeriod + 1);
  while (drawn.size() < wanted) drawn.push_back(random.normal(drawn.size()));
  return drawn;
}

/// Normal values of a case, of either sign ±60000 where T cannot hold them.
template <class T>
std::vector<T> make(const ValueCase& value, std::size_t count, std::uint64_t seed, std::uint64_t stream = 1) {
  const std::vector<double>& normals = draw(seed, stream, count);
  std::vector<T> x(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (i > kPeriod) {  // behind the outlier, of which there is one
      x[i] = x[i - kPeriod];
      continue;
    }
    const double wanted = i == 0 && value.outlier != 0 ? value.outlier : value.mean + value.sigma * normals[i];
    x[i] = to_element<T>(wanted);
    if (!std::isfinite(to_double(x[i]))) x[i] = to_element<T>(std::copysign(60000, wanted));
  }
  return x;
}

}  // namespace equinorm::cases
