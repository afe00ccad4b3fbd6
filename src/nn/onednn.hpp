// The one door to oneDNN: convolution and linear layers. It builds with oneDNN 2.x and 3.x, and nothing of oneDNN's
// types leaves it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace equinorm::nn::onednn {

/// A square kernel over images in channels-last.
struct ConvolutionShape {
  std::size_t batch, height, width, in_channels, out_channels;
  std::size_t kernel, stride, padding;

  std::size_t out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
  std::size_t out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
};

struct LinearShape {
  std::size_t rows, in_features, out_features;
};

/// Which passes are wanted.
struct Passes {
  bool bias = true;
  bool training = true;        ///< backward to the weights (and bias) beside forward
  bool input_gradient = true;  ///< backward to the input too
};

/// Where everything lies, given once. bias and its gradient are nullptr without one; dx without an input gradient.
struct Pointers {
  const float* x = nullptr;
  const float* weight = nullptr;  ///< PyTorch's order
  const float* bias = nullptr;
  float* y = nullptr;
  const float* dy = nullptr;
  float* dx = nullptr;
  float* dweight = nullptr;
  float* dbias = nullptr;
  std::byte* workspace = nullptr;  ///< workspace_bytes() of it, aligned to 64
};

/// y = x ∗ w + b and its backward passes. Planned by the constructor for the number of threads that
/// set_openmp_threads() gave this thread; running it allocates nothing on our side.
class Operation {
 public:
  Operation(const ConvolutionShape& shape, const Passes& passes);
  Operation(const LinearShape& shape, const Passes& passes);
  ~Operation();

  std::size_t workspace_bytes() const;
  void bind(const Pointers& pointers);

  void forward();
  void backward_input();   ///< dx from dy and the weights
  void backward_weight();  ///< dweight and dbias from x and dy

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The library's version, "2.6.3" for example.
std::string version();

}  // namespace equinorm::nn::onednn
