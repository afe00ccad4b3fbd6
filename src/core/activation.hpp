// The activations on single values, for careful paths and tests; kernels have their own (simd/activation-inl.hpp), and
// references too.
#pragma once

#include <cmath>
#include <numbers>

#include "equinorm/norm.hpp"

namespace equinorm {

/// act(z); NaN gives NaN, −∞ its limit.
template <class Real>
Real activate(Activation activation, Real z) {
  switch (activation) {
    case Activation::none:
      return z;
    case Activation::relu:
      return z < 0 ? 0 : z;
    case Activation::leaky_relu:
      return z < 0 ? z * kLeakySlope : z;
    case Activation::silu:
      return z == -HUGE_VAL ? 0 : z / (1 + std::exp(-z));
    case Activation::gelu:
      return z == -HUGE_VAL ? 0 : z * std::erfc(-z * std::numbers::sqrt2_v<Real> / 2) / 2;
  }
  return z;
}

/// Whether act'(z) depends on z's sign alone, which is act(z)'s too.
inline bool has_slope_of_sign(Activation activation) {
  return activation == Activation::relu || activation == Activation::leaky_relu;
}

/// act'(z), at 0 that of z < 0.
template <class Real>
Real activation_slope(Activation activation, Real z) {
  switch (activation) {
    case Activation::none:
      return 1;
    case Activation::relu:
      return z <= 0 ? 0 : 1;
    case Activation::leaky_relu:
      return z <= 0 ? kLeakySlope : 1;
    case Activation::silu: {
      if (std::isinf(z)) return z > 0 ? 1 : 0;
      const Real sigmoid = 1 / (1 + std::exp(-z));
      return sigmoid * (1 + z * (1 - sigmoid));
    }
    case Activation::gelu: {
      if (std::isinf(z)) return z > 0 ? 1 : 0;
      const Real density = std::exp(-z * z / 2) * std::numbers::inv_sqrtpi_v<Real> / std::numbers::sqrt2_v<Real>;
      return std::erfc(-z * std::numbers::sqrt2_v<Real> / 2) / 2 + z * density;
    }
  }
  return 1;
}

}  // namespace equinorm
