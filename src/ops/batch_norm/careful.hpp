// Batch norm element by element in double, for channels so large that float arithmetic would overflow or underflow on
// the way to a result that itself fits: |mean| > 2^100, σ² > 2^200 or a scale under 2^-100. Rare, hence simple.
#pragma once

#include <cmath>
#include <vector>

#include "ops/batch_norm/kernels.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

/// A channel in double.
struct CarefulChannel {
  double mean, scale, shift;     ///< scale = γ/√(σ² + ε)
  double g_mean = 0, slope = 0;  ///< backward: Σg/m, Σ(g·d)/(m·(σ² + ε))
};

/// Whether floats are too narrow for a channel. One that is not finite never asks for care: it is NaN either way.
inline bool needs_care(double mean, double variance, double scale) {
  if (!std::isfinite(mean) || !std::isfinite(variance)) return false;
  return std::abs(mean) > 0x1p100 || variance > 0x1p200 || (scale != 0 && std::abs(scale) < 0x1p-100);
}

inline void careful_normalize(const Geometry& g, std::size_t c, const ForwardTensors& t, const CarefulChannel& k) {
  for (std::size_t i = 0; i < g.values; ++i) {
    const std::size_t at = g.at(c, i);
    double y = (static_cast<double>(t.x[at]) - k.mean) * k.scale + k.shift;
    if (t.residual != nullptr) y += static_cast<double>(t.residual[at]);
    t.y[at] = static_cast<float>(t.relu && y < 0 ? 0 : y);
  }
}

inline double careful_gradient(const BackwardTensors& t, std::size_t at, double difference, const CarefulChannel& k) {
  const bool stopped =
      (t.mask == Mask::input && difference * k.scale + k.shift <= 0) || (t.mask == Mask::output && t.y[at] <= 0);
  return stopped ? 0 : static_cast<double>(t.dy[at]);
}

/// Adds Σg to *sum and Σ g·d to *dot.
inline void careful_dots(const Geometry& g, std::size_t c, const BackwardTensors& t, const CarefulChannel& k,
                         double* sum, double* dot) {
  for (std::size_t i = 0; i < g.values; ++i) {
    const std::size_t at = g.at(c, i);
    const double difference = static_cast<double>(t.x[at]) - k.mean;
    const double gradient = careful_gradient(t, at, difference, k);
    *sum += gradient;
    *dot += gradient * difference;
  }
}

inline void careful_differentiate(const Geometry& g, std::size_t c, const BackwardTensors& t, const CarefulChannel& k) {
  for (std::size_t i = 0; i < g.values; ++i) {
    const std::size_t at = g.at(c, i);
    const double difference = static_cast<double>(t.x[at]) - k.mean;
    const double gradient = careful_gradient(t, at, difference, k);
    if (t.dresidual != nullptr) t.dresidual[at] = static_cast<float>(gradient);
    t.dx[at] = static_cast<float>((gradient - k.g_mean - difference * k.slope) * k.scale);
  }
}

}  // namespace equinorm::batch_norm
