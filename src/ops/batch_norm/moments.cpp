// Statistics that merge, over several calls, machines or models.
#include "reduce/moments.hpp"

#include <cmath>
#include <string>
#include <string_view>

#include "core/number.hpp"
#include "core/workspace.hpp"
#include "equinorm/batch_moments.hpp"
#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/columns.hpp"
#include "ops/batch_norm/edge.hpp"
#include "ops/batch_norm/ragged.hpp"
#include "ops/batch_norm/segments.hpp"

namespace equinorm {
namespace batch_norm {
namespace {

Checks& check_moments(Checks& checks, std::string_view name, const BatchMoments& moments) {
  const auto is = [&](const char* what) { return std::string(name) + what; };
  if (moments.mean == nullptr) return checks.require(false, is(".mean is null"), "[channels] doubles");
  if (moments.m2 == nullptr) return checks.require(false, is(".m2 is null"), "[channels] doubles");
  if (moments.count >= 0) return checks;
  return checks.require(false, is(".count is ") + text_of(moments.count), "a number of values");
}

Checks& check_channels(Checks& checks, std::string_view name, std::size_t channels, std::size_t expected) {
  return checks.require(channels == expected, [&] {
    return Checks::Text(std::string(name) + " has " + std::to_string(channels) + " channels", std::to_string(expected));
  });
}

void merge(const BatchMoments& other, BatchMoments& moments) {
  for (std::size_t c = 0; c < moments.channels; ++c) {
    Moments total{moments.count, moments.mean[c], moments.m2[c]};
    total.merge({other.count, other.mean[c], other.m2[c]});
    moments.mean[c] = total.mean;
    moments.m2[c] = total.m2;
  }
  moments.count += other.count;
}

}  // namespace
}  // namespace batch_norm

template <class T>
std::size_t batch_moments_workspace_bytes(const Shape& shape, Layout layout, const BatchNormOptions& options) {
  if (shape.rank() < 2 || shape.rank() > kMaxRank || shape.elements() == 0) return 0;
  const batch_norm::Geometry g(shape, layout, options.lengths);
  Workspace count;
  count.take<double>(g.channels);
  count.take<double>(g.channels);
  return count.used() + batch_norm::scratch_bytes<T>(g);
}

template <class T>
Status batch_moments_accumulate(const BatchNormOptions& options, TensorView<const T> x, BatchMoments& moments,
                                const Execution& execution) {
  using namespace batch_norm;
  Checks checks("batch_moments_accumulate");
  checks.tensor("x", x).lengths(options.lengths, x);
  check_moments(checks, "moments", moments);
  const std::size_t bytes = batch_moments_workspace_bytes<T>(x.shape, x.layout, options);
  checks.workspace(execution, bytes);
  if (!checks.ok()) return checks.status();
  const Geometry g(x.shape, x.layout, options.lengths);
  check_channels(checks, "moments", moments.channels, g.channels);
  if (!checks.ok() || g.values == 0) return checks.status();

  const Memory memory(execution, bytes);
  Workspace workspace(memory.base());
  auto* mean = workspace.take<double>(g.channels);
  auto* variance = workspace.take<double>(g.channels);
  const Scratch<T> scratch(g, workspace);
  const Workers workers = workers_for(g.elements, execution);
  const Statistics statistics{mean, variance};
  if (g.lengths != nullptr) {
    Ragged<T>(g, scratch, workers).statistics(x.data, statistics);
  } else if (g.columns()) {
    Columns<T>(g, scratch, workers).statistics(x.data, statistics);
  } else {
    Segments<T>(g, scratch, workers).statistics(x.data, statistics);
  }
  const auto count = static_cast<double>(g.values);
  for (std::size_t c = 0; c < g.channels; ++c) variance[c] *= count;
  merge({g.channels, count, mean, variance}, moments);
  return {};
}

Status batch_moments_merge(const BatchMoments& other, BatchMoments& moments) {
  using namespace batch_norm;
  Checks checks("batch_moments_merge");
  check_moments(checks, "moments", moments);
  check_moments(checks, "other", other);
  check_channels(checks, "other", other.channels, moments.channels);
  if (checks.ok()) merge(other, moments);
  return checks.status();
}

Status batch_moments_statistics(const BatchMoments& moments, const Statistics& statistics) {
  using namespace batch_norm;
  Checks checks("batch_moments_statistics");
  check_moments(checks, "moments", moments);
  check_statistics(checks, statistics);
  checks.require(moments.count > 0, "moments are of no values", "at least one a channel");
  for (std::size_t c = 0; checks.ok() && c < moments.channels; ++c) {
    statistics.mean[c] = moments.mean[c];
    statistics.variance[c] = moments.m2[c] / moments.count;
  }
  return checks.status();
}

template <class T>
Status batch_moments_commit(const BatchNormOptions& options, const BatchMoments& moments,
                            RunningStatistics<T>& running) {
  using namespace batch_norm;
  constexpr const char* kOp = "batch_moments_commit";
  Checks checks(kOp);
  check_moments(checks, "moments", moments);
  check_running(checks, &running);
  if (!checks.ok()) return checks.status();
  if (moments.count < 1 || (moments.count == 1 && options.single_value == SingleValuePolicy::error)) {
    return {StatusCode::too_few_values, std::string("[") + kOp + "] moments are of " + text_of(moments.count) +
                                            " values per channel; expected at least 2"};
  }
  const Statistics statistics{moments.mean, moments.m2};
  if (options.non_finite != NonFinitePolicy::propagate &&
      !all_finite<Parameter<T>>(statistics, moments.channels, true, moments.count)) {
    if (options.non_finite == NonFinitePolicy::skip) {
      ++running.skipped;
      return {};
    }
    return {StatusCode::non_finite,
            std::string("[") + kOp + "] a channel's mean or variance is not finite; expected finite values"};
  }
  update_running(running, statistics, moments.channels, moments.count, moments.count);
  return {};
}

template <class T>
Status pool_running_statistics(std::span<const RunningStatistics<T>> models, std::span<const double> weights,
                               std::size_t channels, RunningStatistics<T>& pooled) {
  Checks checks("pool_running_statistics");
  checks.require(!models.empty(), "models is empty", "at least one");
  checks.require(weights.empty() || weights.size() == models.size(), [&] {
    return Checks::Text("weights has " + std::to_string(weights.size()) + " elements",
                        std::to_string(models.size()) + ", one a model");
  });
  double total = 0;
  for (std::size_t i = 0; checks.ok() && i < models.size(); ++i) {
    batch_norm::check_running(checks, &models[i]);
    const double w = weights.empty() ? 1 : weights[i];
    checks.require(w >= 0 && std::isfinite(w), [&] {
      return Checks::Text("weights[" + std::to_string(i) + "] is " + text_of(w), "a finite number >= 0");
    });
    total += w;
  }
  batch_norm::check_running(checks, &pooled);
  checks.require(total > 0 && std::isfinite(total), "weights have no finite positive sum", "one");
  if (!checks.ok()) return checks.status();

  const auto weight = [&](std::size_t i) { return (weights.empty() ? 1 : weights[i]) / total; };
  std::uint64_t batches = 0;
  for (const auto& model : models) batches += model.batches;
  for (std::size_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < models.size(); ++i) mean += weight(i) * static_cast<double>(models[i].mean[c]);
    for (std::size_t i = 0; i < models.size(); ++i) {
      const double difference = static_cast<double>(models[i].mean[c]) - mean;
      variance += weight(i) * (static_cast<double>(models[i].variance[c]) + difference * difference);
    }
    pooled.mean[c] = static_cast<Parameter<T>>(mean);
    pooled.variance[c] = static_cast<Parameter<T>>(variance);
  }
  pooled.batches = batches;
  return {};
}

// The four element types.
// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define EQUINORM_INSTANTIATE(T)                                                                                 \
  template std::size_t batch_moments_workspace_bytes<T>(const Shape&, Layout, const BatchNormOptions&);         \
  template Status batch_moments_accumulate<T>(const BatchNormOptions&, TensorView<const T>, BatchMoments&,      \
                                              const Execution&);                                                \
  template Status batch_moments_commit<T>(const BatchNormOptions&, const BatchMoments&, RunningStatistics<T>&); \
  template Status pool_running_statistics<T>(std::span<const RunningStatistics<T>>, std::span<const double>,    \
                                             std::size_t, RunningStatistics<T>&);
EQUINORM_INSTANTIATE(float)
EQUINORM_INSTANTIATE(double)
EQUINORM_INSTANTIATE(bfloat16)
EQUINORM_INSTANTIATE(float16)
#undef EQUINORM_INSTANTIATE
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace equinorm
