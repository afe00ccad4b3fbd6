// RMS normalization: each row by its root mean square, without a mean (Zhang & Sennrich 2019, arXiv:1910.07467).
//
//   forward    s = x + r, rounded to T;  y = act(z),  z = γ·x̂ + β,  x̂ = s/√(q + ε),  q = mean(s²)
//   backward   g = dy·act'(z),  h = g·γ,  dx = (h − x̂·mean(h·x̂))/√(q + ε) (+ ds) = ds/dr
//              dγ = Σ g·x̂,  dβ = Σ g over all rows
//
// Rows, padding, tensors, types and guarantees are those of layer_norm.hpp. β is seldom used here, and may be absent as
// γ may.
#pragma once

#include <cstddef>
#include <type_traits>

#include "equinorm/execution.hpp"
#include "equinorm/export.h"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm {

struct RmsNormOptions {
  double epsilon = 1e-6;            ///< inside the root; at least 1e-30
  std::size_t normalized_axes = 1;  ///< how many of the last axes make a row
  Activation activation = Activation::none;
  const std::size_t* lengths = nullptr;  ///< padding: LayerNormOptions::lengths
};

/// Scratch that backward needs for this shape and these options, in bytes. Forward needs none.
template <class T>
EQUINORM_API std::size_t rms_norm_workspace_bytes(const RmsNormOptions& options, const Shape& shape);

/// Forward. x: [rows…, features…]. affine: [features]. residual may be absent; sum receives s, and may be absent too.
/// mean_square, [rows], receives q, without ε, for backward; it may be absent. y may be x or residual, and so may sum,
/// in place of one another; without a sum s is put together in y, or aside. No rows are fine.
template <class T>
EQUINORM_API Status rms_norm_forward(const RmsNormOptions& options, TensorView<const T> x,
                                     const std::type_identity_t<Affine<T>>& affine,
                                     std::type_identity_t<TensorView<const T>> residual,
                                     std::type_identity_t<TensorView<T>> sum, std::type_identity_t<TensorView<T>> y,
                                     double* mean_square, const Execution& execution = {});

/// Backward. x is what was normalized: forward's x, or its sum where there was a residual; mean_square is forward's.
/// dsum (may be absent) is the gradient that reaches the sum from elsewhere; dx, which includes it, is the gradient of
/// both x and the residual. gradients: [features] each. dx may be x, dy or dsum. No rows give gradients of 0.
template <class T>
EQUINORM_API Status rms_norm_backward(const RmsNormOptions& options, TensorView<const T> x,
                                      std::type_identity_t<TensorView<const T>> dy,
                                      const std::type_identity_t<Affine<T>>& affine, const double* mean_square,
                                      std::type_identity_t<TensorView<const T>> dsum,
                                      std::type_identity_t<TensorView<T>> dx,
                                      const std::type_identity_t<AffineGradients<T>>& gradients,
                                      const Execution& execution = {});

/// The derivative of forward in a direction (Jacobian-vector product), of which backward is the transpose:
/// ẏ = act'(z)·ż, ż = γ·x̂̇ + γ̇·x̂ + β̇, x̂̇ = (ẋ − x̂·mean(ẋ·x̂))/√(q + ε). x is what was normalized,
/// forward's x or its sum, and tangents.x its rate of change (ẋ + ṙ for a sum; tangents.residual must be absent);
/// mean_square is forward's. y_tangent receives ẏ, and may be x or tangents.x; it is 0 in padding. In double
/// throughout, for those who study norms: it is not as fast as the other passes.
template <class T>
EQUINORM_API Status rms_norm_jvp(const RmsNormOptions& options, TensorView<const T> x,
                                 const std::type_identity_t<Tangents<T>>& tangents,
                                 const std::type_identity_t<Affine<T>>& affine, const double* mean_square,
                                 std::type_identity_t<TensorView<T>> y_tangent, const Execution& execution = {});

}  // namespace equinorm
