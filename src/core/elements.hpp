// Single elements of every type, for whatever goes one by one: references, tests, careful paths. By the definitions of
// the formats, with no word in common with the vector conversions of simd/elements-inl.hpp.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "equinorm/types.hpp"

namespace equinorm {

inline double to_double(double x) {
  return x;
}
inline double to_double(float x) {
  return static_cast<double>(x);
}
inline double to_double(bfloat16 x) {
  return static_cast<double>(std::bit_cast<float>(std::uint32_t{x.bits} << 16));
}
inline double to_double(float16 x) {
  const double sign = (x.bits & 0x8000U) != 0 ? -1 : 1;
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  if (exponent == 31) return fraction == 0 ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  return sign * std::ldexp(exponent == 0 ? fraction : fraction + 1024, std::max(exponent, 1) - 25);
}

namespace elements_detail {

/// x rounded to nearest even among the values with `digits` binary digits and exponents from `lowest` on (that of the
/// last place of denormals); beyond `largest` it is infinite.
inline double round_to(double x, int digits, int lowest, double largest) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int place = std::max(std::ilogb(x) - digits + 1, lowest);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -place)), place);
  return std::abs(rounded) > largest ? std::copysign(HUGE_VAL, x) : rounded;
}

}  // namespace elements_detail

/// The element nearest to x, ties to even.
template <class T>
T to_element(double x);
template <>
inline double to_element<double>(double x) {
  return x;
}
template <>
inline float to_element<float>(double x) {
  return static_cast<float>(x);
}
template <>
inline bfloat16 to_element<bfloat16>(double x) {
  // A signalling NaN cut off would be an infinity, and the compiler may take a float through double and back as it was.
  if (std::isnan(x)) return {static_cast<std::uint16_t>(std::signbit(x) ? 0xFFC0 : 0x7FC0)};
  const double rounded = elements_detail::round_to(x, 8, -133, 0x1.FEp127);
  return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(rounded)) >> 16)};
}
template <>
inline float16 to_element<float16>(double x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const auto with_sign = [sign](std::uint32_t bits) { return float16{static_cast<std::uint16_t>(sign | bits)}; };
  if (std::isnan(x)) return with_sign(0x7E00);
  const double rounded = std::abs(elements_detail::round_to(x, 11, -24, 65504));
  if (std::isinf(rounded)) return with_sign(0x7C00);
  if (rounded < 0x1p-14) return with_sign(static_cast<std::uint32_t>(std::ldexp(rounded, 24)));
  const int exponent = std::ilogb(rounded);
  const auto fraction = static_cast<std::uint32_t>(std::ldexp(rounded, 10 - exponent)) - 1024;
  return with_sign(static_cast<std::uint32_t>(exponent + 15) << 10 | fraction);
}

}  // namespace equinorm
