// A parameter of a net, as the optimizer, the checkpoint and the audit see it.
#pragma once

#include <span>
#include <string>

#include "equinorm/tensor.hpp"

namespace equinorm::nn {

enum class ParameterKind { weight, bias, gamma, beta };

/// Values lie in PyTorch's order: [out, in] for a linear layer, [out, in, height, width] for a convolution.
struct Parameter {
  std::string name;  ///< PyTorch's, such as "conv1.weight"
  ParameterKind kind;
  Shape shape;
  std::span<float> values;
  std::span<float> gradient;  ///< empty in a net that is planned for inference

  bool of_norm() const { return kind == ParameterKind::gamma || kind == ParameterKind::beta; }
};

}  // namespace equinorm::nn
