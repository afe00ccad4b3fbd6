#include "nn/layers/batch_norm.hpp"

#include <algorithm>

namespace equinorm::nn {

BatchNorm::BatchNorm(std::string name, const Shape& shape, const NormSpec& spec, Activation activation, bool residual,
                     bool training)
    // A batch that is not finite shows in the loss; it must not poison the running statistics on its way there.
    : NormLayer(std::move(name), shape, activation, residual, training, true),
      options_{spec.epsilon, activation, NonFinitePolicy::skip, spec.single_value} {
  running_.options = spec.running;
  plan_.saved = 2 * channels_ * sizeof(double);
  plan_.state = 2 * channels_ * sizeof(float);
  plan_.workspace = batch_norm_workspace_bytes<float>(shape, Layout::channels_last);
}

void BatchNorm::bind(Binding binding) {
  Layer::bind(std::move(binding));
  running_.mean = reinterpret_cast<float*>(bound_.state);
  running_.variance = running_.mean + channels_;
  std::fill_n(running_.mean, channels_, 0.0F);
  std::fill_n(running_.variance, channels_, 1.0F);
  state_ = {name(), {running_.mean, channels_}, {running_.variance, channels_}, &running_, {}, {}};
  if (bound_.saved == nullptr) return;
  batch_.mean = reinterpret_cast<double*>(bound_.saved);
  batch_.variance = batch_.mean + channels_;
  state_.batch_mean = {batch_.mean, channels_};
  state_.batch_variance = {batch_.variance, channels_};
}

void BatchNorm::forward(const Call& call) {
  check(call.training ? batch_norm_forward(options_, x(), affine(), residual(), y(), batch_, &running_, execution(call))
                      : batch_norm_inference(options_, x(), affine(), running_.mean, running_.variance, residual(), y(),
                                             execution(call)));
}

void BatchNorm::backward(const Call& call) {
  check(batch_norm_backward(options_, x(), kept_y(), {}, dy(), affine(), batch_, dx(), dresidual(), gradients(),
                            execution(call)));
}

}  // namespace equinorm::nn
