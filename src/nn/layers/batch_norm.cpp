#include "nn/layers/batch_norm.hpp"

#include <algorithm>

namespace equinorm::nn {
namespace {

template <class T>
TensorView<T> view(T* data, const Shape& shape) {
  return {data, shape, Layout::channels_last};
}

void check(const Status& status, const std::string& layer) {
  if (!status.ok()) throw Error("layer " + layer + ": " + status.message());
}

}  // namespace

BatchNorm::BatchNorm(std::string name, const Shape& shape, const NormSpec& spec, Activation activation, bool residual,
                     bool training)
    : Layer(std::move(name), "norm"), residual_(residual), channels_(shape[shape.rank() - 1]) {
  // A batch that is not finite shows in the loss; it must not poison the running statistics on its way there.
  options_ = {spec.epsilon, activation, NonFinitePolicy::skip, spec.single_value};
  running_.options = spec.running;
  plan_.parameters = {{"weight", ParameterKind::gamma, {channels_}}, {"bias", ParameterKind::beta, {channels_}}};
  plan_.placement = training ? Placement::own : Placement::may_share;
  plan_.gradient_shares = residual ? 1 : 0;  // the residual's gradient is dy behind the activation: in place
  plan_.keeps_input = true;
  plan_.keeps_output = residual && activation != Activation::none;
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

Execution BatchNorm::execution(const Call& call) const {
  return {call.threads, bound_.workspace, plan_.workspace};
}

void BatchNorm::forward(const Call& call) {
  const Shape& shape = in().shape;
  const Affine<float> affine{bound_.parameters[0].values.data(), bound_.parameters[1].values.data()};
  const TensorView<const float> x = view<const float>(in().values, shape);
  const TensorView<const float> residual =
      residual_ ? view<const float>(in(1).values, shape) : TensorView<const float>{};
  const TensorView<float> y = view(out().values, shape);
  check(call.training
            ? batch_norm_forward(options_, x, affine, residual, y, batch_, &running_, execution(call))
            : batch_norm_inference(options_, x, affine, running_.mean, running_.variance, residual, y, execution(call)),
        name());
}

void BatchNorm::backward(const Call& call) {
  const Shape& shape = in().shape;
  const Affine<float> affine{bound_.parameters[0].values.data(), bound_.parameters[1].values.data()};
  const AffineGradients<float> gradients{bound_.parameters[0].gradient.data(), bound_.parameters[1].gradient.data()};
  check(batch_norm_backward(options_, view<const float>(in().values, shape),
                            plan_.keeps_output ? view<const float>(out().values, shape) : TensorView<const float>{},
                            view<const float>(out().gradient, shape), affine, batch_, view(in().gradient, shape),
                            residual_ ? view(in(1).gradient, shape) : TensorView<float>{}, gradients, execution(call)),
        name());
}

}  // namespace equinorm::nn
