// Batch norm as a layer. The operation and its formulas are in equinorm/batch_norm.hpp.
#pragma once

#include "equinorm/batch_norm.hpp"
#include "nn/layers/norm.hpp"

namespace equinorm::nn {

class BatchNorm final : public NormLayer {
 public:
  BatchNorm(std::string name, const Shape& shape, const NormSpec& spec, Activation activation, bool residual,
            bool training);

  void bind(Binding binding) override;
  void forward(const Call& call) override;
  void backward(const Call& call) override;
  const NormState* norm() const override { return &state_; }

 private:
  BatchNormOptions options_;
  RunningStatistics<float> running_;
  Statistics batch_;
  NormState state_;
};

}  // namespace equinorm::nn
