// Batch norm element by element in double, for channels so large that float arithmetic would overflow or underflow on
// the way to a result that itself fits: |mean| > 2^100 or σ² > 2^80. Rare, hence simple.
#pragma once

#include <cmath>
#include <type_traits>

#include "core/activation.hpp"
#include "core/elements.hpp"
#include "kernels/kernels.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

/// A channel in double: z = (x − mean)·scale + shift, dx = (g·scale − offset) − (x − mean)·slope.
struct Channel {
  double mean, scale, shift;
  double offset = 0, slope = 0;
};

/// Whether floats are too narrow for a channel. One that is not finite never asks for care: it is NaN either way.
template <class T>
bool needs_care(double mean, double variance) {
  if (std::is_same_v<T, double> || !std::isfinite(mean) || !std::isfinite(variance)) return false;
  return std::abs(mean) > 0x1p100 || variance > 0x1p80;
}

template <class T>
void careful_normalize(const Geometry& g, std::size_t c, const kernels::Forward<T>& t, const Channel& k) {
  for (std::size_t i = 0; i < g.values; ++i) {
    const std::size_t at = g.at(c, i);
    double z = (to_double(t.x[at]) - k.mean) * k.scale + k.shift;
    if (t.residual != nullptr) z += to_double(t.residual[at]);
    t.y[at] = to_element<T>(activate(t.activation, z));
  }
}

template <class T>
double careful_gradient(const kernels::Backward<T>& t, std::size_t at, double difference, const Channel& k) {
  const double z = t.y != nullptr ? to_double(t.y[at]) : difference * k.scale + k.shift;
  return to_double(t.dy[at]) * activation_slope(t.activation, z);
}

/// Adds Σg to *sum and Σ g·d to *dot.
template <class T>
void careful_dots(const Geometry& g, std::size_t c, const kernels::Backward<T>& t, const Channel& k, double* sum,
                  double* dot) {
  for (std::size_t i = 0; i < g.values; ++i) {
    const std::size_t at = g.at(c, i);
    const double difference = to_double(t.x[at]) - k.mean;
    const double gradient = careful_gradient(t, at, difference, k);
    *sum += gradient;
    *dot += gradient * difference;
  }
}

template <class T>
void careful_differentiate(const Geometry& g, std::size_t c, const kernels::Backward<T>& t, const Channel& k) {
  for (std::size_t i = 0; i < g.values; ++i) {
    const std::size_t at = g.at(c, i);
    const double difference = to_double(t.x[at]) - k.mean;
    const double gradient = careful_gradient(t, at, difference, k);
    const double dsum = t.dsum == nullptr ? 0 : to_double(t.dsum[at]);
    if (t.dresidual != nullptr) t.dresidual[at] = to_element<T>(gradient);
    t.dx[at] = to_element<T>((gradient * k.scale - k.offset) - difference * k.slope + dsum);
  }
}

}  // namespace equinorm::batch_norm
