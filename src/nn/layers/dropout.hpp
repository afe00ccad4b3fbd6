// Dropout (Srivastava et al. 2014), inverted: in training y = x·k/(1 − rate) with k = 0 at the rate given, else 1; in
// inference y = x. The mask is a function of (seed, layer, step, element): backward draws it again and nothing is
// stored.
#pragma once

#include "nn/layer.hpp"

namespace equinorm::nn {

class Dropout final : public Layer {
 public:
  Dropout(std::string name, double rate, bool training);
  void forward(const Call& call) override;
  void backward(const Call& call) override;

 private:
  void mask(const Call& call, const float* from, float* to) const;

  double rate_;
};

}  // namespace equinorm::nn
