// Group norm as a layer, and with it layer norm (one group) and instance norm (a group for every channel). Training and
// inference are the same. The operation and its formulas are in equinorm/group_norm.hpp.
#pragma once

#include "equinorm/group_norm.hpp"
#include "nn/layers/norm.hpp"

namespace equinorm::nn {

class GroupNorm final : public NormLayer {
 public:
  GroupNorm(std::string name, const Shape& shape, double epsilon, std::size_t groups, Activation activation,
            bool residual, bool training);

  void bind(Binding binding) override;
  void forward(const Call& call) override;
  void backward(const Call& call) override;

 private:
  GroupNormOptions options_;
  Statistics statistics_;
};

}  // namespace equinorm::nn
