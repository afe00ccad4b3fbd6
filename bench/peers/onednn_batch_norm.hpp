// oneDNN's batch norm as a peer in the benchmarks: the same tensors, every scratch and workspace allocated beforehand.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "equinorm/tensor.hpp"

namespace equinorm::bench {

struct PeerTensors {
  float* x;
  float* residual;  ///< nullptr: none. oneDNN takes it as a binary add of its own pass, before its ReLU.
  float* y;
  float* dy;
  float* dx;
  float *gamma, *beta, *mean, *variance, *dgamma, *dbeta;
  bool relu;
};

struct OneDnnBatchNorm {
  std::function<void()> train, infer, backward;
};

/// Channels-last or channels-first [N, C, H, W] as PyTorch counts, whatever the layout.
OneDnnBatchNorm onednn_batch_norm(std::size_t n, std::size_t c, std::size_t h, std::size_t w, Layout layout,
                                  const PeerTensors& tensors);

}  // namespace equinorm::bench
