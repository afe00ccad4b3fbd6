// Pooling over images in channels-last: non-overlapping windows (maximum, average) and the whole image (global
// average). A window that would cross the lower or right edge is left out, as in PyTorch.
#pragma once

#include "nn/layer.hpp"

namespace equinorm::nn {

/// y = max over the window; backward sends dy to the first position of the maximum, which is kept in a byte. A NaN in
/// the window wins.
class MaxPool final : public Layer {
 public:
  MaxPool(std::string name, const Shape& out, std::size_t window, bool training);
  void forward(const Call& call) override;
  void backward(const Call& call) override;

 private:
  std::size_t window_;
};

/// y = mean over the window; dx = dy/window².
class AveragePool final : public Layer {
 public:
  AveragePool(std::string name, std::size_t window);
  void forward(const Call& call) override;
  void backward(const Call& call) override;

 private:
  std::size_t window_;
};

/// [n, h, w, c] → [n, c]: y = mean over h·w; dx = dy/(h·w).
class GlobalAveragePool final : public Layer {
 public:
  explicit GlobalAveragePool(std::string name);
  void forward(const Call& call) override;
  void backward(const Call& call) override;
};

}  // namespace equinorm::nn
