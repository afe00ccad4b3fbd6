// Batch norm: arguments checked, then handed to the family that the layout calls for.
#include "equinorm/batch_norm.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <string>

#include "core/check.hpp"
#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/columns.hpp"
#include "ops/batch_norm/plan.hpp"
#include "ops/batch_norm/segments.hpp"

namespace equinorm {
namespace batch_norm {
namespace {

/// Under this many floats a second thread costs more than it brings.
constexpr std::size_t kSingleThreadFloats = 16 << 10;
/// The caller's workspace, or one of our own.
class Memory {
 public:
  Memory(const Execution& execution, std::size_t bytes) : base_(execution.workspace) {
    if (base_ != nullptr) return;
    own_.reset(new (std::align_val_t{64}) std::byte[bytes]);
    base_ = own_.get();
  }
  void* base() const { return base_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  void* base_;
  std::unique_ptr<std::byte, Free> own_;
};

std::size_t scratch_bytes(const Geometry& g) {
  Workspace count;
  const Scratch scratch(g, count);
  return count.used();
}

Workers workers_for(const Geometry& g, const Execution& execution) {
  return g.elements < kSingleThreadFloats ? Workers(1) : Workers(execution);
}

/// Whether every statistic is finite, as a float too where running statistics are to hold it.
bool all_finite(const BatchNormStatistics& statistics, std::size_t channels, bool as_floats) {
  const double limit =
      as_floats ? static_cast<double>(std::numeric_limits<float>::max()) : std::numeric_limits<double>::max();
  for (std::size_t c = 0; c < channels; ++c) {
    if (!(std::abs(statistics.mean[c]) <= limit && statistics.variance[c] <= limit)) return false;
  }
  return true;
}

void update_running(RunningStatistics& running, const BatchNormStatistics& statistics, const Geometry& g) {
  const RunningOptions& options = running.options;
  ++running.batches;
  const double w = options.cumulative ? 1.0 / static_cast<double>(running.batches) : options.running_weight;
  const bool unbiased = options.variance == VarianceKind::unbiased;
  const auto m = static_cast<double>(g.values);
  for (std::size_t c = 0; c < g.channels; ++c) {
    const auto blend = [w](float& old, double value) {
      old = static_cast<float>((1.0 - w) * static_cast<double>(old) + w * value);
    };
    blend(running.mean[c], statistics.mean[c]);
    if (unbiased && g.values == 1) continue;  // 0/0: one value has no unbiased variance
    blend(running.variance[c], unbiased ? statistics.variance[c] * (m / (m - 1.0)) : statistics.variance[c]);
  }
}

Checks& check_options(Checks& checks, const BatchNormOptions& options) {
  if (options.epsilon >= 1e-30 && std::isfinite(options.epsilon))
    return checks;  // no text for what is right: it allocates
  return checks.require(false, "epsilon is " + std::to_string(options.epsilon), "a finite number of at least 1e-30");
}

Checks& check_statistics(Checks& checks, const BatchNormStatistics& statistics) {
  checks.require(statistics.mean != nullptr, "statistics.mean is null", "[channels] doubles");
  return checks.require(statistics.variance != nullptr, "statistics.variance is null", "[channels] doubles");
}

Checks& check_running(Checks& checks, const RunningStatistics* running) {
  if (running == nullptr) return checks;
  checks.require(running->mean != nullptr, "running.mean is null", "[channels] floats");
  checks.require(running->variance != nullptr, "running.variance is null", "[channels] floats");
  const double w = running->options.running_weight;
  if (w >= 0 && w <= 1) return checks;
  return checks.require(false, "running_weight is " + std::to_string(w), "a number from 0 to 1");
}

}  // namespace
}  // namespace batch_norm

std::size_t batch_norm_workspace_bytes(const Shape& shape, Layout layout) {
  if (shape.rank() < 2 || shape.rank() > kMaxRank || shape.elements() == 0) return 0;
  return batch_norm::scratch_bytes(batch_norm::Geometry(shape, layout));
}

Status batch_norm_forward(const BatchNormOptions& options, TensorView<const float> x, const BatchNormAffine& affine,
                          TensorView<const float> residual, TensorView<float> y, const BatchNormStatistics& statistics,
                          RunningStatistics* running, const Execution& execution) {
  using namespace batch_norm;
  constexpr const char* kOp = "batch_norm_forward";
  Checks checks(kOp);
  check_options(checks, options).tensor("x", x);
  checks.like("residual", residual, x, true).like("y", y, x);
  check_running(check_statistics(checks, statistics), running);
  checks.workspace(execution, batch_norm_workspace_bytes(x.shape, x.layout));
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout);
  if (g.values == 0 || (g.values == 1 && options.single_value == SingleValuePolicy::error)) {
    return {StatusCode::too_few_values, std::string("[") + kOp + "] x has shape " + to_string(x.shape) + ", " +
                                            std::to_string(g.values) +
                                            " values per channel in training; expected at least 2"};
  }

  const std::size_t bytes = scratch_bytes(g);
  const Memory memory(execution, bytes);
  Workspace workspace(memory.base());
  const Scratch scratch(g, workspace);
  const ForwardChannels channels(options, affine, statistics.mean, statistics.variance);
  const ForwardTensors tensors{x.data, residual.data, y.data, options.activation == Activation::relu, false};
  const Workers workers = workers_for(g, execution);
  if (g.columns()) {
    const Columns columns(g, scratch, workers);
    columns.statistics(x.data, statistics);
    columns.normalize(tensors, channels);
  } else {
    Segments(g, scratch, workers).forward(tensors, statistics, channels);
  }

  if (options.non_finite != NonFinitePolicy::propagate && !all_finite(statistics, g.channels, running != nullptr)) {
    if (options.non_finite == NonFinitePolicy::error) {
      return {StatusCode::non_finite,
              std::string("[") + kOp + "] x, of shape " + to_string(x.shape) +
                  ", has a channel whose mean or variance is not finite; expected finite values"};
    }
    if (running != nullptr) ++running->skipped;
    return {};
  }
  if (running != nullptr) update_running(*running, statistics, g);
  return {};
}

Status batch_norm_inference(const BatchNormOptions& options, TensorView<const float> x, const BatchNormAffine& affine,
                            const float* mean, const float* variance, TensorView<const float> residual,
                            TensorView<float> y, const Execution& execution) {
  using namespace batch_norm;
  Checks checks("batch_norm_inference");
  check_options(checks, options).tensor("x", x);
  checks.like("residual", residual, x, true).like("y", y, x);
  checks.require(mean != nullptr, "mean is null", "[channels] floats");
  checks.require(variance != nullptr, "variance is null", "[channels] floats");
  if (!checks.ok()) return checks.status();
  const Geometry g(x.shape, x.layout);
  for (std::size_t c = 0; c < g.channels; ++c) {
    if (variance[c] < 0) {
      return checks
          .require(false, "variance[" + std::to_string(c) + "] is " + std::to_string(variance[c]), "a number >= 0")
          .status();
    }
  }
  if (g.elements == 0) return {};

  const Memory memory(execution, scratch_bytes(g));
  Workspace workspace(memory.base());
  const Scratch scratch(g, workspace);
  std::copy_n(mean, g.channels, scratch.first);
  std::copy_n(variance, g.channels, scratch.second);
  const ForwardChannels channels(options, affine, scratch.first, scratch.second);
  const ForwardTensors tensors{x.data, residual.data, y.data, options.activation == Activation::relu, false};
  const Workers workers = workers_for(g, execution);
  if (g.columns()) {
    Columns(g, scratch, workers).normalize(tensors, channels);
  } else {
    Segments(g, scratch, workers).normalize(tensors, channels);
  }
  return {};
}

Status batch_norm_backward(const BatchNormOptions& options, TensorView<const float> x, TensorView<const float> y,
                           TensorView<const float> dy, const BatchNormAffine& affine,
                           const BatchNormStatistics& statistics, TensorView<float> dx, TensorView<float> dresidual,
                           const BatchNormGradients& gradients, const Execution& execution) {
  using namespace batch_norm;
  const bool relu = options.activation == Activation::relu;
  Checks checks("batch_norm_backward");
  check_options(checks, options).tensor("x", x);
  checks.like("y", y, x, /*optional=*/!relu || dresidual.data == nullptr).like("dy", dy, x).like("dx", dx, x);
  checks.like("dresidual", dresidual, x, true);
  check_statistics(checks, statistics).workspace(execution, batch_norm_workspace_bytes(x.shape, x.layout));
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout);
  if (g.values == 0) {  // sums over nothing
    if (gradients.gamma != nullptr) std::fill_n(gradients.gamma, g.channels, 0.0F);
    if (gradients.beta != nullptr) std::fill_n(gradients.beta, g.channels, 0.0F);
    return {};
  }
  const Memory memory(execution, scratch_bytes(g));
  Workspace workspace(memory.base());
  const Scratch scratch(g, workspace);
  const ForwardChannels forward(options, affine, statistics.mean, statistics.variance);
  const BackwardChannels channels(forward, gradients, g.values);
  const Mask mask = !relu ? Mask::none : y.data != nullptr ? Mask::output : Mask::input;
  const BackwardTensors tensors{x.data, y.data, dy.data, dx.data, dresidual.data, mask, false};
  const Workers workers = workers_for(g, execution);
  if (g.columns()) {
    Columns(g, scratch, workers).differentiate(tensors, channels);
  } else {
    Segments(g, scratch, workers).differentiate(tensors, channels);
  }
  return {};
}

}  // namespace equinorm
