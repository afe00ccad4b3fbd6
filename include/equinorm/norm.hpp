// What all normalizations share: y = act(γ·x̂ + β), x̂ = (x − μ)/√(σ² + ε), whatever μ and σ² are taken over.
#pragma once

#include "equinorm/tensor.hpp"
#include "equinorm/types.hpp"

namespace equinorm {

/// The activation fused behind a norm, on z = γ·x̂ + β (+ residual). Backward computes z again, to the same bits.
enum class Activation {
  none,
  relu,        ///< max(z, 0)
  leaky_relu,  ///< z where z > 0, else 0.01·z
  silu,        ///< z·sigmoid(z), also called swish
  gelu,        ///< z·Φ(z), Φ the normal distribution: the exact form, by erf
};

/// The slope of leaky_relu below 0, PyTorch's default.
inline constexpr double kLeakySlope = 0.01;

/// γ and β; nullptr stands for all ones and all zeros.
template <class T>
struct Affine {
  const Parameter<T>* gamma = nullptr;
  const Parameter<T>* beta = nullptr;
};

/// The gradients of γ and β; nullptr leaves one out.
template <class T>
struct AffineGradients {
  Parameter<T>* gamma = nullptr;
  Parameter<T>* beta = nullptr;
};

/// A direction in which a norm is differentiated (*_jvp): the rates of change of forward's inputs. What is absent or
/// nullptr does not change.
template <class T>
struct Tangents {
  TensorView<const T> x{};
  TensorView<const T> residual{};
  Affine<T> affine{};
};

/// The statistics that x was normalized with: written by forward, read by backward. What an element belongs to (a
/// channel, a row, a group of a sample) says the operation.
struct Statistics {
  double* mean = nullptr;
  double* variance = nullptr;  ///< biased, without ε
};

}  // namespace equinorm
