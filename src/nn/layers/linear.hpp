// Linear: y = x·Wᵀ + b.  x: [rows, in], W: [out, in], b: [out].
//   dx = dy·W,  dW = dyᵀ·x,  db = Σ_rows dy
#pragma once

#include <memory>
#include <string>

#include "nn/layer.hpp"
#include "nn/onednn.hpp"

namespace equinorm::nn {

/// What linear layers and convolutions have in common: weights, an optional bias, an operation of oneDNN.
class WeightedLayer : public Layer {
 public:
  void bind(Binding binding) override;
  void forward(const Call& call) override;
  void backward(const Call& call) override;

 protected:
  WeightedLayer(std::string name, std::string_view kind, const Shape& weight, const onednn::Passes& passes,
                std::unique_ptr<onednn::Operation> operation);

 private:
  onednn::Passes passes_;
  std::unique_ptr<onednn::Operation> operation_;
};

class Linear final : public WeightedLayer {
 public:
  Linear(std::string name, const onednn::LinearShape& shape, const onednn::Passes& passes)
      : WeightedLayer(std::move(name), "linear", {shape.out_features, shape.in_features}, passes,
                      std::make_unique<onednn::Operation>(shape, passes)) {}
};

}  // namespace equinorm::nn
