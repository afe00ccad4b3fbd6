#include "nn/layers/linear.hpp"

namespace equinorm::nn {

WeightedLayer::WeightedLayer(std::string name, std::string_view kind, const Shape& weight, const onednn::Passes& passes,
                             std::unique_ptr<onednn::Operation> operation)
    : Layer(std::move(name), kind), passes_(passes), operation_(std::move(operation)) {
  std::size_t taps = 1;  // of the kernel: 1 for a linear layer
  for (std::size_t axis = 2; axis < weight.rank(); ++axis) taps *= weight[axis];
  plan_.parameters.push_back({"weight", ParameterKind::weight, weight, static_cast<double>(weight[1] * taps),
                              static_cast<double>(weight[0] * taps)});
  if (passes.bias) plan_.parameters.push_back({"bias", ParameterKind::bias, {weight[0]}});
  plan_.keeps_input = true;
  plan_.workspace = operation_->workspace_bytes();
}

void WeightedLayer::bind(Binding binding) {
  Layer::bind(std::move(binding));
  const Parameter& weight = bound_.parameters[0];
  const Parameter* bias = passes_.bias ? &bound_.parameters[1] : nullptr;
  operation_->bind({.x = in().values,
                    .weight = weight.values.data(),
                    .bias = bias != nullptr ? bias->values.data() : nullptr,
                    .y = out().values,
                    .dy = out().gradient,
                    .dx = in().gradient,
                    .dweight = weight.gradient.data(),
                    .dbias = bias != nullptr ? bias->gradient.data() : nullptr,
                    .workspace = bound_.workspace});
}

void WeightedLayer::forward(const Call&) {
  operation_->forward();
}

void WeightedLayer::backward(const Call&) {
  operation_->backward_weight();
  if (passes_.input_gradient) operation_->backward_input();
}

}  // namespace equinorm::nn
