// What the entry points of batch norm share: checks of arguments, the size of a workspace, running statistics.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "core/check.hpp"
#include "core/number.hpp"
#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

template <class T>
std::size_t scratch_bytes(const Geometry& g) {
  Workspace count;
  const Scratch<T> scratch(g, count);
  return count.used();
}

/// Whether every statistic is finite, as a P too where running statistics are to hold it. Here and below the variances
/// are given times `times`: moments have sums.
template <class P>
bool all_finite(const Statistics& statistics, std::size_t channels, bool as_parameters, double times = 1) {
  const double limit =
      as_parameters ? static_cast<double>(std::numeric_limits<P>::max()) : std::numeric_limits<double>::max();
  for (std::size_t c = 0; c < channels; ++c) {
    if (!(std::abs(statistics.mean[c]) <= limit && statistics.variance[c] / times <= limit)) return false;
  }
  return true;
}

template <class T>
void update_running(RunningStatistics<T>& running, const Statistics& statistics, std::size_t channels, double m,
                    double times = 1) {
  using P = Parameter<T>;
  const RunningOptions& options = running.options;
  ++running.batches;
  const double w = options.cumulative ? 1.0 / static_cast<double>(running.batches) : options.running_weight;
  const bool unbiased = options.variance == VarianceKind::unbiased;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto blend = [w](P& old, double value) {
      old = static_cast<P>((1.0 - w) * static_cast<double>(old) + w * value);
    };
    blend(running.mean[c], statistics.mean[c]);
    if (unbiased && m == 1) continue;  // 0/0: one value has no unbiased variance
    const double variance = statistics.variance[c] / times;
    blend(running.variance[c], unbiased ? variance * (m / (m - 1.0)) : variance);
  }
}

inline Checks& check_statistics(Checks& checks, const Statistics& statistics) {
  checks.require(statistics.mean != nullptr, "statistics.mean is null", "[channels] doubles");
  return checks.require(statistics.variance != nullptr, "statistics.variance is null", "[channels] doubles");
}

template <class T>
Checks& check_running(Checks& checks, const RunningStatistics<T>* running) {
  if (running == nullptr) return checks;
  checks.require(running->mean != nullptr, "running.mean is null", "[channels] values");
  checks.require(running->variance != nullptr, "running.variance is null", "[channels] values");
  const double w = running->options.running_weight;
  if (w >= 0 && w <= 1) return checks;
  return checks.require(false, "running_weight is " + text_of(w), "a number from 0 to 1");
}

}  // namespace equinorm::batch_norm
