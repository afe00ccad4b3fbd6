// Batch norm as a layer: y = act(γ·x̂ + β + r), the residual r being the second input if there is one. The operation and
// its formulas are in equinorm/batch_norm.hpp.
#pragma once

#include "equinorm/batch_norm.hpp"
#include "nn/layer.hpp"

namespace equinorm::nn {

class BatchNorm final : public Layer {
 public:
  BatchNorm(std::string name, const Shape& shape, const NormSpec& spec, Activation activation, bool residual,
            bool training);

  void bind(Binding binding) override;
  void forward(const Call& call) override;
  void backward(const Call& call) override;
  const NormState* norm() const override { return &state_; }

 private:
  Execution execution(const Call& call) const;

  BatchNormOptions options_;
  bool residual_;
  std::size_t channels_;
  RunningStatistics<float> running_;
  Statistics batch_;
  NormState state_;
};

}  // namespace equinorm::nn
