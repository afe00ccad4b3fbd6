// Layers that compute nothing or next to nothing: flatten, fork, add.
#pragma once

#include "nn/layer.hpp"

namespace equinorm::nn {

/// [n, h, w, c] → [n, h·w·c]: the same bytes.
class Flatten final : public Layer {
 public:
  explicit Flatten(std::string name);
  void forward(const Call&) override {}
  void backward(const Call&) override {}
};

/// One tensor into two branches: both are it; their gradients add up.
class Fork final : public Layer {
 public:
  explicit Fork(std::string name);
  void forward(const Call&) override {}
  void backward(const Call& call) override;
};

/// Two branches into one: y = a + b. (With batch norm the sum is fused into the norm.)
class Add final : public Layer {
 public:
  explicit Add(std::string name);
  void forward(const Call& call) override;
  void backward(const Call& call) override;
};

}  // namespace equinorm::nn
