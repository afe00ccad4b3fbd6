// The activations in long double, for the references of row norms alone: the kernels have others.
#pragma once

#include <cmath>
#include <numbers>

#include "equinorm/norm.hpp"

namespace equinorm::reference {

/// act(z) and act'(z).
struct Activated {
  long double value, slope;
};

/// At 0 the slope is that of z < 0; of NaN everything is NaN; of ±∞ the limits.
inline Activated activated(Activation activation, long double z) {
  if (std::isnan(z)) return {z, z};
  const bool positive = z > 0;
  const auto smooth = [&](long double share, long double slope) -> Activated {  // z·share(z)
    if (std::isinf(z)) return positive ? Activated{z, 1} : Activated{0, 0};
    return {z * share, slope};
  };
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return positive ? Activated{z, 1} : Activated{0, 0};
    case Activation::leaky_relu:
      return positive ? Activated{z, 1} : Activated{kLeakySlope * z, kLeakySlope};
    case Activation::silu: {
      const long double share = 1 / (1 + std::exp(-z)), rest = 1 / (1 + std::exp(z));
      return smooth(share, share + z * share * rest);
    }
    case Activation::gelu: {
      const long double share = std::erfc(-z / std::numbers::sqrt2_v<long double>) / 2;
      const long double density = std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi_v<long double>);
      return smooth(share, share + z * density);
    }
  }
  return {z, 1};
}

}  // namespace equinorm::reference
