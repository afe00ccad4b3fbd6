// Batch normalization: statistics per channel over all rows (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1).
//
//   forward    y = act(z),  z = γ·x̂ + β + r,  x̂ = (x − μ_B) / √(σ²_B + ε)
//              μ_B, σ²_B: mean and biased variance of the batch
//
//   inference  the same with running statistics in place of μ_B, σ²_B
//
//   backward   g  = dy·act'(z) (= dr, the gradient of the residual)
//              dβ = Σ g,   dγ = Σ g·x̂,   dx = γ/√(σ²_B + ε) · (g − dβ/m − x̂·dγ/m)
//
// Tensors are dense, rank 2–5, channels-last [N, spatial…, C] or channels-first [N, C, spatial…]; every tensor of a
// call has the same shape and layout. m = elements / C values per channel (fewer with padding). T is float, double,
// bfloat16 or float16; parameters and running statistics are Parameter<T>, statistics double. The results depend on
// shapes and values alone: not on threads, nor on the instruction set, nor on alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "equinorm/execution.hpp"
#include "equinorm/export.h"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm {

/// What is done with a batch whose statistics are not finite. Running statistics take it in only under `propagate`.
enum class NonFinitePolicy {
  error,      ///< the call fails with StatusCode::non_finite; running statistics stay, y may be partly written
  skip,       ///< y is computed, running statistics stay, RunningStatistics::skipped counts it
  propagate,  ///< as PyTorch does: the running statistics are poisoned
};

/// What is done in training with one element per channel (m = 1), whose x̂ is 0 whatever x is.
enum class SingleValuePolicy {
  error,  ///< StatusCode::too_few_values
  allow,  ///< y = act(β + r); running statistics take the mean, and keep their variance if it is unbiased (0/0)
};

enum class VarianceKind {
  biased,    ///< Σ(x−μ)²/m, the note's
  unbiased,  ///< Σ(x−μ)²/(m−1), what PyTorch keeps in its running variance
};

struct BatchNormOptions {
  double epsilon = 1e-5;  ///< inside the root; at least 1e-30
  Activation activation = Activation::none;
  NonFinitePolicy non_finite = NonFinitePolicy::error;
  SingleValuePolicy single_value = SingleValuePolicy::error;
  /// [N]: sample n ends after lengths[n] of its positions, in the order of memory; what lies behind (in every plane,
  /// channels-first) is padding: it counts nowhere, is not read, and is 0 in y, dx and dresidual. How much of it there
  /// is changes no bit of the rest. nullptr: no padding; lengths that leave none may give other bits.
  const std::size_t* lengths = nullptr;
};

/// How a batch enters the running statistics: running = (1 − w)·running + w·batch.
struct RunningOptions {
  double running_weight = 0.1;  ///< w, the weight of the NEW value. The note's α = 0.9 is 1 − w.
  bool cumulative = false;      ///< w = 1/(batches seen, this one included): the plain average of all batches
  VarianceKind variance = VarianceKind::unbiased;

  // The dialects in use, spelt out: what each calls momentum, and which variance it keeps.
  static RunningOptions note(double alpha = 0.9) { return {1.0 - alpha, false, VarianceKind::biased}; }
  static RunningOptions torch(double momentum = 0.1) { return {momentum, false, VarianceKind::unbiased}; }
  static RunningOptions keras(double momentum = 0.99) { return {1.0 - momentum, false, VarianceKind::biased}; }
  static RunningOptions onnx(double momentum = 0.9) { return {1.0 - momentum, false, VarianceKind::biased}; }
};

/// Running statistics, [channels] each, and how many batches they hold.
template <class T>
struct RunningStatistics {
  Parameter<T>* mean = nullptr;
  Parameter<T>* variance = nullptr;
  std::uint64_t batches = 0;  ///< batches taken in
  std::uint64_t skipped = 0;  ///< non-finite batches left out (NonFinitePolicy::skip)
  RunningOptions options{};
};

/// Scratch that every call needs for this shape and these options, in bytes.
template <class T>
EQUINORM_API std::size_t batch_norm_workspace_bytes(const Shape& shape, Layout layout,
                                                    const BatchNormOptions& options = {});

/// Training forward. x, y: of the shape that is normalized. residual and running may be absent. y may be x or residual
/// (in place). statistics, [channels] each, is required. An empty batch (m = 0, some extent but not C is 0) is
/// too_few_values whatever the policy.
template <class T>
EQUINORM_API Status batch_norm_forward(const BatchNormOptions& options, TensorView<const T> x,
                                       const std::type_identity_t<Affine<T>>& affine,
                                       std::type_identity_t<TensorView<const T>> residual,
                                       std::type_identity_t<TensorView<T>> y, const Statistics& statistics,
                                       std::type_identity_t<RunningStatistics<T>*> running,
                                       const Execution& execution = {});

/// Inference forward with given statistics (mean, variance: [channels]); a row's result does not depend on other rows.
/// y may be x or residual. An empty batch is fine.
template <class T>
EQUINORM_API Status batch_norm_inference(const BatchNormOptions& options, TensorView<const T> x,
                                         const std::type_identity_t<Affine<T>>& affine,
                                         std::type_identity_t<const Parameter<T>*> mean,
                                         std::type_identity_t<const Parameter<T>*> variance,
                                         std::type_identity_t<TensorView<const T>> residual,
                                         std::type_identity_t<TensorView<T>> y, const Execution& execution = {});

/// Backward of training forward. x and statistics are forward's. Where an activation stood over a residual, its slope
/// is found by forward's `y` (relu and leaky_relu alone: z's sign is y's) or its `residual` (z is computed again, to
/// the same bits); if both would do, y is read. Without either, z is computed as of a forward without a residual; only
/// where dresidual is wanted, or y is given with silu or gelu, is it known to be missing, and an error. dresidual
/// (absent: not wanted) receives the gradient of the residual, g. gradients: [channels] each. dx may be dy, x or
/// residual; dresidual may be dy or residual if dx is not.
template <class T>
EQUINORM_API Status
batch_norm_backward(const BatchNormOptions& options, TensorView<const T> x, std::type_identity_t<TensorView<const T>> y,
                    std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<const T>> dy,
                    const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                    std::type_identity_t<TensorView<T>> dx, std::type_identity_t<TensorView<T>> dresidual,
                    const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution = {});

/// The derivative of training forward in a direction (Jacobian-vector product), of which backward is the transpose:
/// ẏ = act'(z)·ż, ż = γ·x̂̇ + γ̇·x̂ + β̇ + ṙ, x̂̇ = (ẋ − mean(ẋ) − x̂·mean(ẋ·x̂))/√(σ²_B + ε), the means over a channel.
/// x and statistics are forward's; residual too, needed only where an activation stands over it. y_tangent receives ẏ,
/// and may be any of the tensors that are read; it is 0 in padding. In double throughout, for those who study norms: it
/// is not as fast as the other passes.
template <class T>
EQUINORM_API Status batch_norm_jvp(const BatchNormOptions& options, TensorView<const T> x,
                                   std::type_identity_t<TensorView<const T>> residual,
                                   const std::type_identity_t<Tangents<T>>& tangents,
                                   const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                                   std::type_identity_t<TensorView<T>> y_tangent, const Execution& execution = {});

}  // namespace equinorm
