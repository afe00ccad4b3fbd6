#include "nn/layers/group_norm.hpp"

namespace equinorm::nn {

GroupNorm::GroupNorm(std::string name, const Shape& shape, double epsilon, std::size_t groups, Activation activation,
                     bool residual, bool training)
    : NormLayer(std::move(name), shape, activation, residual, training, true), options_{groups, epsilon, activation} {
  plan_.saved = 2 * shape[0] * groups * sizeof(double);
  plan_.workspace = group_norm_workspace_bytes<float>(options_, shape, Layout::channels_last);
}

void GroupNorm::bind(Binding binding) {
  Layer::bind(std::move(binding));
  if (bound_.saved == nullptr) return;
  statistics_.mean = reinterpret_cast<double*>(bound_.saved);
  statistics_.variance = statistics_.mean + in().shape[0] * options_.groups;
}

void GroupNorm::forward(const Call& call) {
  check(group_norm_forward(options_, x(), affine(), residual(), y(), statistics_, execution(call)));
}

void GroupNorm::backward(const Call& call) {
  check(group_norm_backward(options_, x(), kept_y(), {}, dy(), affine(), statistics_, dx(), dresidual(), gradients(),
                            execution(call)));
}

}  // namespace equinorm::nn
