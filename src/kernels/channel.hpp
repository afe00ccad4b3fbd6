// What the values of one channel (or of one channel of a sample) are normalized with, in double, and how it becomes the
// coefficients of the kernels.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/pages.hpp"
#include "core/workspace.hpp"
#include "kernels/kernels.hpp"

namespace equinorm::kernels {

/// z = (x − mean)·scale + shift, dx = (g·scale − offset) − (x − mean)·slope.
struct Channel {
  double mean, scale, shift;
  double offset = 0, slope = 0;
};

/// What a mean lacks when it is kept as a P; 0 where that says nothing.
template <class P>
double mean_rest(double mean) {
  const double rest = mean - static_cast<double>(static_cast<P>(mean));
  return std::isfinite(rest) ? rest : 0;
}

/// The power of two below x ≥ 0.
inline double power_of_two(double x) {
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) & 0x7FF0'0000'0000'0000U);
}

/// Coefficients::unit: such that what is near the mean does not overflow either.
inline double unit_of(double inverse_deviation, double mean) {
  // 2¹⁰⁰ over a power of two: the difference of exponents.
  const double size = power_of_two(std::max(std::abs(mean), 1.0));
  const auto most = std::bit_cast<double>(std::bit_cast<std::uint64_t>(0x1p100) + std::bit_cast<std::uint64_t>(1.0) -
                                          std::bit_cast<std::uint64_t>(size));
  return std::max(std::min(power_of_two(inverse_deviation), most), 0x1p-100);
}

/// The kernels' coefficients of some columns or channels, to be written.
template <class T>
struct CoefficientArrays {
  using P = Parameter<T>;

  CoefficientArrays() = default;

  /// Long arrays, of a power of two, would all fall into the same few sets of a cache: they are staggered. But not
  /// where rows of `out` meet at the same places of their pages: there all lie beside it, see beside(). Of columns
  /// whole vectors are loaded, the last too: behind it is room for one.
  CoefficientArrays(Workspace& workspace, std::size_t count, const T* out) {
    const bool meet = std::is_same_v<T, P> && count * sizeof(P) % (kPageBytes / 2) == 0;
    const std::size_t spacing = meet || count < kStagger ? count : count + kStagger;
    P* next = workspace.take<P>(6 * spacing + (meet ? kPageBytes : kLineBytes) / sizeof(P));
    if (next == nullptr) return;  // only counted
    if (meet) next = beside(out, next);
    for (P** array : {&mean, &scale, &shift, &unit, &offset, &slope}) {
      *array = next;
      next += spacing;
    }
  }
  /// Array behind array, from `next` on.
  CoefficientArrays(P* next, std::size_t count)
      : mean(next),
        scale(next + count),
        shift(next + 2 * count),
        unit(next + 3 * count),
        offset(next + 4 * count),
        slope(next + 5 * count) {}
  operator Coefficients<T>() const { return {mean, scale, shift, unit, offset, slope}; }

  void write_forward(std::size_t at, const Channel& k) const {
    mean[at] = static_cast<P>(k.mean);
    scale[at] = static_cast<P>(k.scale);
    shift[at] = static_cast<P>(k.shift - mean_rest<P>(k.mean) * k.scale);
  }
  void write_unit(std::size_t at, const Channel& k, double inverse_deviation) const {
    unit[at] = static_cast<P>(unit_of(inverse_deviation, k.mean));
  }
  void write_backward(std::size_t at, const Channel& k) const {
    offset[at] = static_cast<P>(k.offset - mean_rest<P>(k.mean) * k.slope);
    slope[at] = static_cast<P>(k.slope);
  }

  P *mean = nullptr, *scale = nullptr, *shift = nullptr, *unit = nullptr, *offset = nullptr, *slope = nullptr;

 private:
  static constexpr std::size_t kStagger = 48;
};

inline constexpr double kMostMean = 0x1p100, kMostVariance = 0x1p80, kMostSlope = 0x1p120;

/// Whether floats are too narrow for values with these statistics, though the result may fit. What is not finite never
/// asks for care: it is NaN either way.
template <class T>
bool needs_care(double mean, double variance) {
  if (std::is_same_v<T, double> || !std::isfinite(mean) || !std::isfinite(variance)) return false;
  return std::abs(mean) > kMostMean || variance > kMostVariance;
}

/// The same of a slope.
template <class T>
bool needs_care(double slope) {
  return !std::is_same_v<T, double> && std::isfinite(slope) && std::abs(slope) > kMostSlope;
}

}  // namespace equinorm::kernels
