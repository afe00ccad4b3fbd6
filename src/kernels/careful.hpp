// The elementwise passes one element at a time in double, for channels so large that float arithmetic would overflow or
// underflow on the way to a result that itself fits (needs_care). Rare, hence simple.
#pragma once

#include <cstddef>

#include "core/activation.hpp"
#include "core/elements.hpp"
#include "kernels/channel.hpp"
#include "kernels/kernels.hpp"

namespace equinorm::kernels {

/// Elements begin, begin + step, …, of one channel.
struct Run {
  std::size_t begin, step, count;
};

template <class T>
void careful_normalize(const Run& run, const Forward<T>& t, const Channel& k) {
  for (std::size_t i = 0, at = run.begin; i < run.count; ++i, at += run.step) {
    double z = (to_double(t.x[at]) - k.mean) * k.scale + k.shift;
    if (t.residual != nullptr) z += to_double(t.residual[at]);
    t.y[at] = to_element<T>(activate(t.activation, z));
  }
}

template <class T>
double careful_gradient(const Backward<T>& t, std::size_t at, double difference, const Channel& k) {
  double z = t.y != nullptr ? to_double(t.y[at]) : difference * k.scale + k.shift;
  if (t.residual != nullptr) z += to_double(t.residual[at]);
  return to_double(t.dy[at]) * activation_slope(t.activation, z);
}

/// Adds Σg to *sum and Σ g·d to *dot.
template <class T>
void careful_dots(const Run& run, const Backward<T>& t, const Channel& k, double* sum, double* dot) {
  for (std::size_t i = 0, at = run.begin; i < run.count; ++i, at += run.step) {
    const double difference = to_double(t.x[at]) - k.mean;
    const double gradient = careful_gradient(t, at, difference, k);
    *sum += gradient;
    *dot += gradient * difference;
  }
}

template <class T>
void careful_differentiate(const Run& run, const Backward<T>& t, const Channel& k) {
  for (std::size_t i = 0, at = run.begin; i < run.count; ++i, at += run.step) {
    const double difference = to_double(t.x[at]) - k.mean;
    const double gradient = careful_gradient(t, at, difference, k);
    if (t.dresidual != nullptr) t.dresidual[at] = to_element<T>(gradient);
    t.dx[at] = to_element<T>((gradient * k.scale - k.offset) - difference * k.slope);
  }
}

}  // namespace equinorm::kernels
