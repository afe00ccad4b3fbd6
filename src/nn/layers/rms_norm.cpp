#include "nn/layers/rms_norm.hpp"

namespace equinorm::nn {

RmsNorm::RmsNorm(std::string name, const Shape& shape, double epsilon, Activation activation, bool training)
    : NormLayer(std::move(name), shape, activation, false, training, false),
      options_{.epsilon = epsilon, .normalized_axes = 1, .activation = activation} {
  plan_.saved = shape.elements() / channels_ * sizeof(double);
  plan_.workspace = rms_norm_workspace_bytes<float>(options_, shape);
}

void RmsNorm::forward(const Call& call) {
  check(rms_norm_forward(options_, x(), affine(), {}, {}, y(), mean_square(), execution(call)));
}

void RmsNorm::backward(const Call& call) {
  check(rms_norm_backward(options_, x(), dy(), affine(), mean_square(), {}, dx(), gradients(), execution(call)));
}

}  // namespace equinorm::nn
