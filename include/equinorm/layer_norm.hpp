// Layer normalization: each row by its own statistics (Ba, Kiros & Hinton 2016, arXiv:1607.06450).
//
//   forward    s = x + r, rounded to T;  y = act(z),  z = γ·x̂ + β,  x̂ = (s − μ)/√(σ² + ε)
//   backward   g = dy·act'(z),  h = g·γ,  dx = (h − mean(h) − x̂·mean(h·x̂))/√(σ² + ε) (+ ds) = ds/dr
//              dγ = Σ g·x̂,  dβ = Σ g over all rows
//
// A row is the elements of the last `normalized_axes` axes, in the order of memory whatever the layout is called; μ and
// the biased variance σ² are taken over it, γ and β have an entry for each of its elements. Tensors have rank 1–5, all
// of a call the same shape; each may have a row_stride of its own. T is float, double, bfloat16 or float16; parameters
// are Parameter<T>, statistics and the sums over rows double. A row's results depend on that row alone, and on nothing
// else: not on its neighbours, nor on threads, instruction set or alignment; dγ and dβ depend on all rows but padding.
#pragma once

#include <cstddef>
#include <type_traits>

#include "equinorm/execution.hpp"
#include "equinorm/export.h"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm {

struct LayerNormOptions {
  double epsilon = 1e-5;            ///< inside the root; at least 1e-30
  std::size_t normalized_axes = 1;  ///< how many of the last axes make a row: PyTorch's len(normalized_shape)
  Activation activation = Activation::none;
  /// [N], N the first extent of x, which is not normalized: sample n ends after lengths[n] of its positions, which are
  /// its rows in the order of memory (one, if all axes but the first are normalized). The rows behind are padding: they
  /// count nowhere, are not read, are 0 in y, sum and dx, and so are their statistics. How many there are changes no
  /// bit of the rest. nullptr: no padding; lengths that leave none may give other bits of dγ and dβ.
  const std::size_t* lengths = nullptr;
};

/// Scratch that backward needs for this shape and these options, in bytes. Forward needs none.
template <class T>
EQUINORM_API std::size_t layer_norm_workspace_bytes(const LayerNormOptions& options, const Shape& shape);

/// Forward. x: [rows…, features…]. affine: [features]. residual may be absent; sum receives s, and may be absent too.
/// statistics, [rows] each, are for backward, and may be absent. y may be x or residual, and so may sum, in place of
/// one another; without a sum s is put together in y, or aside. No rows are fine.
template <class T>
EQUINORM_API Status layer_norm_forward(const LayerNormOptions& options, TensorView<const T> x,
                                       const std::type_identity_t<Affine<T>>& affine,
                                       std::type_identity_t<TensorView<const T>> residual,
                                       std::type_identity_t<TensorView<T>> sum, std::type_identity_t<TensorView<T>> y,
                                       const Statistics& statistics, const Execution& execution = {});

/// Backward. x is what was normalized: forward's x, or its sum where there was a residual; statistics are forward's.
/// dsum (may be absent) is the gradient that reaches the sum from elsewhere; dx, which includes it, is the gradient of
/// both x and the residual. gradients: [features] each. dx may be x, dy or dsum. No rows give gradients of 0.
template <class T>
EQUINORM_API Status layer_norm_backward(const LayerNormOptions& options, TensorView<const T> x,
                                        std::type_identity_t<TensorView<const T>> dy,
                                        const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                                        std::type_identity_t<TensorView<const T>> dsum,
                                        std::type_identity_t<TensorView<T>> dx,
                                        const std::type_identity_t<AffineGradients<T>>& gradients,
                                        const Execution& execution = {});

/// The derivative of forward in a direction (Jacobian-vector product), of which backward is the transpose:
/// ẏ = act'(z)·ż, ż = γ·x̂̇ + γ̇·x̂ + β̇, x̂̇ = (ẋ − mean(ẋ) − x̂·mean(ẋ·x̂))/√(σ² + ε). x is what was normalized,
/// forward's x or its sum, and tangents.x its rate of change (ẋ + ṙ for a sum; tangents.residual must be absent);
/// statistics are forward's. y_tangent receives ẏ, and may be x or tangents.x; it is 0 in padding. In double
/// throughout, for those who study norms: it is not as fast as the other passes.
template <class T>
EQUINORM_API Status layer_norm_jvp(const LayerNormOptions& options, TensorView<const T> x,
                                   const std::type_identity_t<Tangents<T>>& tangents,
                                   const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                                   std::type_identity_t<TensorView<T>> y_tangent, const Execution& execution = {});

}  // namespace equinorm
