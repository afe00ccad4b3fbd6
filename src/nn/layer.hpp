// What a layer is: it says what it needs when it is made, is bound to memory once, and then runs forward and backward.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "equinorm/tensor.hpp"
#include "nn/net.hpp"
#include "nn/parameter.hpp"

namespace equinorm::nn {

/// A tensor that flows through the net, bound to the arena. Dense, channels-last, batch first.
struct Tensor {
  Shape shape;
  float* values = nullptr;
  float* gradient = nullptr;  ///< of the loss by values; nullptr where nobody needs it

  std::size_t elements() const { return shape.elements(); }
  std::size_t bytes() const { return elements() * sizeof(float); }
};

struct ParameterPlan {
  std::string suffix;  ///< such as "weight": the parameter is called <layer>.<suffix>
  ParameterKind kind;
  Shape shape;                     ///< in PyTorch's order
  double fan_in = 0, fan_out = 0;  ///< of weights
};

/// Where a layer's output lies.
enum class Placement {
  own,        ///< in memory of its own
  may_share,  ///< over its first input, if no one needs that any more
  same,       ///< it is its input: the bytes do not change
};

/// What a layer asks of the net.
struct LayerPlan {
  std::vector<ParameterPlan> parameters{};
  Placement placement = Placement::own;
  int gradient_shares = -1;   ///< the input whose gradient lies where the output's gradient lies; −1: none
  bool keeps_input = false;   ///< backward reads the first input
  bool keeps_output = false;  ///< backward reads the output
  std::size_t saved = 0;      ///< bytes of notes from forward to backward
  std::size_t state = 0;      ///< bytes that live as long as the net, beside the parameters
  std::size_t workspace = 0;  ///< bytes of scratch within one call
};

/// What a layer is bound to.
struct Binding {
  std::vector<Tensor> in{}, out{};
  std::span<const Parameter> parameters{};  ///< in the order of the plan
  std::byte* saved = nullptr;
  std::byte* state = nullptr;
  std::byte* workspace = nullptr;
};

/// How the net is being run.
struct Call {
  bool training = false;
  std::uint64_t seed = 0, step = 0;
  int threads = 1;
};

class Layer {
 public:
  Layer(std::string name, std::string_view kind) : name_(std::move(name)), kind_(kind) {}
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  const std::string& name() const { return name_; }
  std::string_view kind() const { return kind_; }
  const LayerPlan& plan() const { return plan_; }

  /// Called once, when all memory has its place.
  virtual void bind(Binding binding) { bound_ = std::move(binding); }

  /// Computes the outputs from the inputs.
  virtual void forward(const Call& call) = 0;

  /// Computes the gradients of inputs and parameters from those of the outputs, which it may destroy.
  virtual void backward(const Call& call) = 0;

  /// The running statistics of a normalization layer that has them; none of others.
  virtual const NormState* norm() const { return nullptr; }

 protected:
  const Tensor& in(std::size_t i = 0) const { return bound_.in[i]; }
  const Tensor& out(std::size_t i = 0) const { return bound_.out[i]; }

  LayerPlan plan_;  // set by the constructor
  Binding bound_;

 private:
  std::string name_;
  std::string_view kind_;
};

}  // namespace equinorm::nn
