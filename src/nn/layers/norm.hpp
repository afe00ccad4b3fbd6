// What the normalization layers share: y = act(γ·x̂ + β + r), the residual r being the second input if there is one.
#pragma once

#include <string>
#include <utility>

#include "equinorm/execution.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "nn/layer.hpp"

namespace equinorm::nn {

class NormLayer : public Layer {
 protected:
  /// `shift`: whether there is a β.
  NormLayer(std::string name, const Shape& shape, Activation activation, bool residual, bool training, bool shift)
      : Layer(std::move(name), "norm"), channels_(shape[shape.rank() - 1]), residual_(residual) {
    plan_.parameters.push_back({"weight", ParameterKind::gamma, {channels_}});
    if (shift) plan_.parameters.push_back({"bias", ParameterKind::beta, {channels_}});
    plan_.placement = training ? Placement::own : Placement::may_share;
    plan_.gradient_shares = residual ? 1 : 0;  // the residual's gradient is dy behind the activation: in place
    plan_.keeps_input = true;
    plan_.keeps_output = residual && activation != Activation::none;
  }

  // The arguments of an operation.
  TensorView<const float> x() const { return view<const float>(in().values, in().shape); }
  TensorView<const float> residual() const {
    return residual_ ? view<const float>(in(1).values, in(1).shape) : TensorView<const float>{};
  }
  TensorView<float> y() const { return view(out().values, out().shape); }
  TensorView<const float> kept_y() const {
    return plan_.keeps_output ? view<const float>(out().values, out().shape) : TensorView<const float>{};
  }
  TensorView<const float> dy() const { return view<const float>(out().gradient, out().shape); }
  TensorView<float> dx() const { return view(in().gradient, in().shape); }
  TensorView<float> dresidual() const { return residual_ ? view(in(1).gradient, in(1).shape) : TensorView<float>{}; }
  Affine<float> affine() const { return {values(0), values(1)}; }
  AffineGradients<float> gradients() const { return {gradient(0), gradient(1)}; }
  Execution execution(const Call& call) const { return {call.threads, bound_.workspace, plan_.workspace}; }

  /// What an operation says of its arguments, with the layer's name.
  void check(const Status& status) const {
    if (!status.ok()) throw Error("layer " + name() + ": " + status.message());
  }

  std::size_t channels_;

 private:
  template <class T>
  static TensorView<T> view(T* data, const Shape& shape) {
    return {data, shape, Layout::channels_last};
  }
  const float* values(std::size_t i) const {
    return i < plan_.parameters.size() ? bound_.parameters[i].values.data() : nullptr;
  }
  float* gradient(std::size_t i) const {
    return i < plan_.parameters.size() ? bound_.parameters[i].gradient.data() : nullptr;
  }

  bool residual_;
};

}  // namespace equinorm::nn
