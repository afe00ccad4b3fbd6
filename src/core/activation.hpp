// The activations on single values in double, for careful paths; kernels have their own (simd/activation-inl.hpp).
#pragma once

#include <cmath>
#include <numbers>

#include "equinorm/norm.hpp"

namespace equinorm {

/// act(z); NaN gives NaN, −∞ its limit.
inline double activate(Activation activation, double z) {
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
      return z == -HUGE_VAL ? 0 : z * std::erfc(-z * std::numbers::sqrt2 / 2) / 2;
  }
  return z;
}

/// act'(z), at 0 that of z < 0.
inline double activation_slope(Activation activation, double z) {
  switch (activation) {
    case Activation::none:
      return 1;
    case Activation::relu:
      return z <= 0 ? 0 : 1;
    case Activation::leaky_relu:
      return z <= 0 ? kLeakySlope : 1;
    case Activation::silu: {
      if (std::isinf(z)) return z > 0 ? 1 : 0;
      const double sigmoid = 1 / (1 + std::exp(-z));
      return sigmoid * (1 + z * (1 - sigmoid));
    }
    case Activation::gelu: {
      if (std::isinf(z)) return z > 0 ? 1 : 0;
      const double density = std::exp(-z * z / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
      return std::erfc(-z * std::numbers::sqrt2 / 2) / 2 + z * density;
    }
  }
  return 1;
}

}  // namespace equinorm
