// Stands in for the kernels until they land: the scalar reference behind the public interface.
#include "equinorm/batch_norm.hpp"

#include <vector>

#include "ops/batch_norm/reference.hpp"

namespace equinorm {
namespace {
std::vector<double> widen(const float* data, std::size_t n) {
  return data == nullptr ? std::vector<double>{} : std::vector<double>(data, data + n);
}
std::size_t channels_of(const Shape& shape, Layout layout) {
  return layout == Layout::channels_last ? shape[shape.rank() - 1] : shape[1];
}
}  // namespace

std::size_t batch_norm_workspace_bytes(const Shape&, Layout) {
  return 0;
}

Status batch_norm_forward(const BatchNormOptions& options, TensorView<const float> x, const BatchNormAffine& affine,
                          TensorView<const float> residual, TensorView<float> y, const BatchNormStatistics& statistics,
                          RunningStatistics* running, const Execution&) {
  const std::size_t n = x.shape.elements(), c = channels_of(x.shape, x.layout);
  const auto result =
      reference::batch_norm_forward(widen(x.data, n), x.shape, x.layout, widen(affine.gamma, c), widen(affine.beta, c),
                                    widen(residual.data, n), options.activation == Activation::relu, options.epsilon);
  for (std::size_t i = 0; i < n; ++i) y.data[i] = static_cast<float>(result.y[i]);
  const double m = static_cast<double>(n) / static_cast<double>(c);
  if (running != nullptr) ++running->batches;
  for (std::size_t i = 0; i < c; ++i) {
    statistics.mean[i] = result.mean[i];
    statistics.variance[i] = result.variance[i];
    if (running == nullptr) continue;
    const double w =
        running->options.cumulative ? 1.0 / static_cast<double>(running->batches) : running->options.running_weight;
    const double variance =
        running->options.variance == VarianceKind::unbiased ? result.variance[i] * m / (m - 1) : result.variance[i];
    running->mean[i] = static_cast<float>((1 - w) * static_cast<double>(running->mean[i]) + w * result.mean[i]);
    running->variance[i] = static_cast<float>((1 - w) * static_cast<double>(running->variance[i]) + w * variance);
  }
  return {};
}

Status batch_norm_inference(const BatchNormOptions& options, TensorView<const float> x, const BatchNormAffine& affine,
                            const float* mean, const float* variance, TensorView<const float> residual,
                            TensorView<float> y, const Execution&) {
  const std::size_t n = x.shape.elements(), c = channels_of(x.shape, x.layout);
  const auto result = reference::batch_norm_inference(
      widen(x.data, n), x.shape, x.layout, widen(affine.gamma, c), widen(affine.beta, c), widen(mean, c),
      widen(variance, c), widen(residual.data, n), options.activation == Activation::relu, options.epsilon);
  for (std::size_t i = 0; i < n; ++i) y.data[i] = static_cast<float>(result[i]);
  return {};
}

Status batch_norm_backward(const BatchNormOptions& options, TensorView<const float> x, TensorView<const float> y,
                           TensorView<const float> dy, const BatchNormAffine& affine,
                           const BatchNormStatistics& statistics, TensorView<float> dx, TensorView<float> dresidual,
                           const BatchNormGradients& gradients, const Execution&) {
  const std::size_t n = x.shape.elements(), c = channels_of(x.shape, x.layout);
  const auto wide = widen(x.data, n);
  std::vector<bool> passed;
  if (options.activation == Activation::relu) {
    std::vector<double> out = widen(y.data, n);
    if (y.data == nullptr) {
      out = reference::batch_norm_inference(wide, x.shape, x.layout, widen(affine.gamma, c), widen(affine.beta, c),
                                            std::vector<double>(statistics.mean, statistics.mean + c),
                                            std::vector<double>(statistics.variance, statistics.variance + c), {}, true,
                                            options.epsilon);
    }
    for (const double value : out) passed.push_back(value > 0);
  }
  const auto result = reference::batch_norm_backward(wide, widen(dy.data, n), x.shape, x.layout, widen(affine.gamma, c),
                                                     passed, options.epsilon);
  for (std::size_t i = 0; i < n; ++i) {
    dx.data[i] = static_cast<float>(result.dx[i]);
    if (dresidual.data != nullptr) dresidual.data[i] = static_cast<float>(result.dresidual[i]);
  }
  for (std::size_t i = 0; i < c; ++i) {
    if (gradients.gamma != nullptr) gradients.gamma[i] = static_cast<float>(result.dgamma[i]);
    if (gradients.beta != nullptr) gradients.beta[i] = static_cast<float>(result.dbeta[i]);
  }
  return {};
}

}  // namespace equinorm
