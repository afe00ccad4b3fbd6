// Convolution (cross-correlation, as everywhere in this field) with a square kernel, zero padding and a stride.
//   y[n,i,j,o] = b[o] + Σ_{a,b,c} x[n, i·s+a−p, j·s+b−p, c] · W[o,c,a,b];  x, y: channels-last, W: [out, in, k, k]
#pragma once

#include "nn/layers/linear.hpp"

namespace equinorm::nn {

class Conv2d final : public WeightedLayer {
 public:
  Conv2d(std::string name, const onednn::ConvolutionShape& shape, const onednn::Passes& passes)
      : WeightedLayer(std::move(name), "conv", {shape.out_channels, shape.in_channels, shape.kernel, shape.kernel},
                      passes, std::make_unique<onednn::Operation>(shape, passes)) {}
};

}  // namespace equinorm::nn
