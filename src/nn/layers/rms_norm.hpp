// RMS norm as a layer: each position over its channels, by their root mean square, and γ alone behind it, as in
// PyTorch. The operation, whose residual stands before the norm and not behind it, is in equinorm/rms_norm.hpp.
#pragma once

#include "equinorm/rms_norm.hpp"
#include "nn/layers/norm.hpp"

namespace equinorm::nn {

class RmsNorm final : public NormLayer {
 public:
  RmsNorm(std::string name, const Shape& shape, double epsilon, Activation activation, bool training);

  void forward(const Call& call) override;
  void backward(const Call& call) override;

 private:
  double* mean_square() const { return reinterpret_cast<double*>(bound_.saved); }  // none in a net for inference

  RmsNormOptions options_;
};

}  // namespace equinorm::nn
