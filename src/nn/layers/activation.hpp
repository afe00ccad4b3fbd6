// Elementwise non-linearities. Backward reads the output alone: relu' = [y > 0], sigmoid' = y(1 − y), tanh' = 1 − y².
#pragma once

#include "nn/layer.hpp"

namespace equinorm::nn {

class ActivationLayer final : public Layer {
 public:
  ActivationLayer(std::string name, Nonlinearity nonlinearity);
  void forward(const Call& call) override;
  void backward(const Call& call) override;

 private:
  Nonlinearity nonlinearity_;
};

}  // namespace equinorm::nn
