// Group normalization: statistics per sample over groups of channels and all positions (Wu & He 2018,
// arXiv:1803.08494). A group of one channel is instance normalization (Ulyanov, Vedaldi & Lempitsky 2016,
// arXiv:1607.08022; instance_norm.hpp), one group of all is layer normalization with an affine per channel.
//
//   forward    y = act(z),  z = γ·x̂ + β + r,  x̂ = (x − μ)/√(σ² + ε),  μ, σ²: mean and biased variance of a group
//   backward   g  = dy·act'(z)                                         (= dr, the gradient of the residual)
//              dβ = Σ g,   dγ = Σ g·x̂            (over samples and positions, per channel)
//              dx = (γ·g − Σ(γ·g)/m − x̂·Σ(γ·g·x̂)/m)/√(σ² + ε)      (sums over the group, of m elements)
//
// Tensors are dense, rank 2–5, channels-last [N, spatial…, C] or channels-first [N, C, spatial…]; every tensor of a
// call has the same shape and layout. Group k holds the channels k·C/G … (k + 1)·C/G − 1. T is float, double, bfloat16
// or float16; parameters are Parameter<T>, statistics double. Training and inference are the same. The results depend
// on shapes and values alone, those of a sample's y and dx on that sample alone.
#pragma once

#include <cstddef>
#include <type_traits>

#include "equinorm/execution.hpp"
#include "equinorm/export.h"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm {

struct GroupNormOptions {
  std::size_t groups = 1;  ///< divides the channels
  double epsilon = 1e-5;   ///< inside the root; at least 1e-30
  Activation activation = Activation::none;
  /// [N]: sample n ends after lengths[n] of its positions, in the order of memory; what lies behind (in every plane,
  /// channels-first) is padding: it counts nowhere, is not read, and is 0 in y, dx and dresidual. How much of it there
  /// is changes no bit of the rest. A sample of length 0 has mean and variance 0. nullptr: no padding; lengths that
  /// leave none may give other bits.
  const std::size_t* lengths = nullptr;
};

/// Scratch that every call needs for this shape and these options, in bytes; 0 where the arguments are wrong.
template <class T>
EQUINORM_API std::size_t group_norm_workspace_bytes(const GroupNormOptions& options, const Shape& shape, Layout layout);

/// Forward. residual may be absent. y may be x or residual (in place). affine: [channels] each. statistics: [N, groups]
/// each, or absent where backward will not follow. An empty tensor is fine. A value that is not finite spoils its group
/// alone.
template <class T>
EQUINORM_API Status group_norm_forward(const GroupNormOptions& options, TensorView<const T> x,
                                       const std::type_identity_t<Affine<T>>& affine,
                                       std::type_identity_t<TensorView<const T>> residual,
                                       std::type_identity_t<TensorView<T>> y, const Statistics& statistics = {},
                                       const Execution& execution = {});

/// Backward. x and statistics are forward's. Where an activation stood over a residual, its slope is
/// found by forward's `y` (relu and leaky_relu alone: z's sign is y's) or its `residual` (z is computed again, to the
/// same bits); if both would do, y is read. Without either, z is computed as of a forward without a residual; only
/// where dresidual is wanted, or y is given with silu or gelu, is it known to be missing, and an error. dresidual
/// (absent: not wanted) receives the gradient of the residual, g. gradients: [channels] each. dx may be dy, x or
/// residual; dresidual may be dy or residual if dx is not.
template <class T>
EQUINORM_API Status
group_norm_backward(const GroupNormOptions& options, TensorView<const T> x, std::type_identity_t<TensorView<const T>> y,
                    std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<const T>> dy,
                    const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                    std::type_identity_t<TensorView<T>> dx, std::type_identity_t<TensorView<T>> dresidual,
                    const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution = {});

/// The derivative of training forward in a direction (Jacobian-vector product), of which backward is the transpose:
/// ẏ = act'(z)·ż, ż = γ·x̂̇ + γ̇·x̂ + β̇ + ṙ, x̂̇ = (ẋ − mean(ẋ) − x̂·mean(ẋ·x̂))/√(σ² + ε), the means over a group.
/// x and statistics are forward's; residual too, needed only where an activation stands over it. y_tangent receives ẏ,
/// and may be any of the tensors that are read; it is 0 in padding. In double throughout, for those who study norms: it
/// is not as fast as the other passes.
template <class T>
EQUINORM_API Status group_norm_jvp(const GroupNormOptions& options, TensorView<const T> x,
                                   std::type_identity_t<TensorView<const T>> residual,
                                   const std::type_identity_t<Tangents<T>>& tangents,
                                   const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                                   std::type_identity_t<TensorView<T>> y_tangent, const Execution& execution = {});

}  // namespace equinorm
