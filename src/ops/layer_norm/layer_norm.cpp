// Layer norm: the row norm that takes a mean.
#include "equinorm/layer_norm.hpp"

#include "ops/rows/rows.hpp"

namespace equinorm {

template <class T>
std::size_t layer_norm_workspace_bytes(const LayerNormOptions& options, const Shape& shape) {
  if (shape.rank() < 1 || shape.rank() > kMaxRank) return 0;
  return rows::workspace_bytes(rows::Matrix(shape, options.normalized_axes, options.lengths));
}

template <class T>
Status layer_norm_forward(const LayerNormOptions& options, TensorView<const T> x,
                          const std::type_identity_t<Affine<T>>& affine,
                          std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<T>> sum,
                          std::type_identity_t<TensorView<T>> y, const Statistics& statistics,
                          const Execution& execution) {
  return rows::forward<T>({"layer_norm_forward", options}, x, affine, residual, sum, y, statistics,
                          kernels::get<T>().layer_forward, execution);
}

template <class T>
Status layer_norm_backward(const LayerNormOptions& options, TensorView<const T> x,
                           std::type_identity_t<TensorView<const T>> dy, const std::type_identity_t<Affine<T>>& affine,
                           const Statistics& statistics, std::type_identity_t<TensorView<const T>> dsum,
                           std::type_identity_t<TensorView<T>> dx,
                           const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution) {
  const rows::Saved mean{statistics.mean, "statistics.mean"}, variance{statistics.variance, "statistics.variance"};
  return rows::backward<T>({"layer_norm_backward", options}, x, dy, affine, &mean, variance, dsum, dx, gradients,
                           kernels::get<T>().layer_backward, execution);
}

template <class T>
Status layer_norm_jvp(const LayerNormOptions& options, TensorView<const T> x,
                      const std::type_identity_t<Tangents<T>>& tangents, const std::type_identity_t<Affine<T>>& affine,
                      const Statistics& statistics, std::type_identity_t<TensorView<T>> y_tangent,
                      const Execution& execution) {
  const rows::Saved mean{statistics.mean, "statistics.mean"}, variance{statistics.variance, "statistics.variance"};
  return rows::jvp<T>({"layer_norm_jvp", options}, x, tangents, affine, &mean, variance, y_tangent, execution);
}

// The four element types.
#define EQUINORM_INSTANTIATE(T)                                                                                   \
  template std::size_t layer_norm_workspace_bytes<T>(const LayerNormOptions&, const Shape&);                      \
  template Status layer_norm_forward<T>(const LayerNormOptions&, TensorView<const T>, const Affine<T>&,           \
                                        TensorView<const T>, TensorView<T>, TensorView<T>, const Statistics&,     \
                                        const Execution&);                                                        \
  template Status layer_norm_backward<T>(const LayerNormOptions&, TensorView<const T>, TensorView<const T>,       \
                                         const Affine<T>&, const Statistics&, TensorView<const T>, TensorView<T>, \
                                         const AffineGradients<T>&, const Execution&);                            \
  template Status layer_norm_jvp<T>(const LayerNormOptions&, TensorView<const T>, const Tangents<T>&,             \
                                    const Affine<T>&, const Statistics&, TensorView<T>, const Execution&);
EQUINORM_INSTANTIATE(float)
EQUINORM_INSTANTIATE(double)
EQUINORM_INSTANTIATE(bfloat16)
EQUINORM_INSTANTIATE(float16)
#undef EQUINORM_INSTANTIATE

}  // namespace equinorm
