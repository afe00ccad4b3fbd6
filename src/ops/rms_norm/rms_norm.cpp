// RMS norm: the row norm that takes no mean.
#include "equinorm/rms_norm.hpp"

#include "ops/rows/rows.hpp"

namespace equinorm {

template <class T>
std::size_t rms_norm_workspace_bytes(const RmsNormOptions& options, const Shape& shape) {
  if (shape.rank() < 1 || shape.rank() > kMaxRank) return 0;
  return rows::workspace_bytes(rows::Matrix(shape, options.normalized_axes, options.lengths));
}

template <class T>
Status rms_norm_forward(const RmsNormOptions& options, TensorView<const T> x,
                        const std::type_identity_t<Affine<T>>& affine,
                        std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<T>> sum,
                        std::type_identity_t<TensorView<T>> y, double* mean_square, const Execution& execution) {
  return rows::forward<T>({"rms_norm_forward", options}, x, affine, residual, sum, y, {nullptr, mean_square},
                          kernels::get<T>().rms_forward, execution);
}

template <class T>
Status rms_norm_backward(const RmsNormOptions& options, TensorView<const T> x,
                         std::type_identity_t<TensorView<const T>> dy, const std::type_identity_t<Affine<T>>& affine,
                         const double* mean_square, std::type_identity_t<TensorView<const T>> dsum,
                         std::type_identity_t<TensorView<T>> dx,
                         const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution) {
  return rows::backward<T>({"rms_norm_backward", options}, x, dy, affine, nullptr, {mean_square, "mean_square"}, dsum,
                           dx, gradients, kernels::get<T>().rms_backward, execution);
}

template <class T>
Status rms_norm_jvp(const RmsNormOptions& options, TensorView<const T> x,
                    const std::type_identity_t<Tangents<T>>& tangents, const std::type_identity_t<Affine<T>>& affine,
                    const double* mean_square, std::type_identity_t<TensorView<T>> y_tangent,
                    const Execution& execution) {
  return rows::jvp<T>({"rms_norm_jvp", options}, x, tangents, affine, nullptr, {mean_square, "mean_square"}, y_tangent,
                      execution);
}

// The four element types.
#define EQUINORM_INSTANTIATE(T)                                                                                      \
  template std::size_t rms_norm_workspace_bytes<T>(const RmsNormOptions&, const Shape&);                             \
  template Status rms_norm_forward<T>(const RmsNormOptions&, TensorView<const T>, const Affine<T>&,                  \
                                      TensorView<const T>, TensorView<T>, TensorView<T>, double*, const Execution&); \
  template Status rms_norm_backward<T>(const RmsNormOptions&, TensorView<const T>, TensorView<const T>,              \
                                       const Affine<T>&, const double*, TensorView<const T>, TensorView<T>,          \
                                       const AffineGradients<T>&, const Execution&);                                 \
  template Status rms_norm_jvp<T>(const RmsNormOptions&, TensorView<const T>, const Tangents<T>&, const Affine<T>&,  \
                                  const double*, TensorView<T>, const Execution&);
EQUINORM_INSTANTIATE(float)
EQUINORM_INSTANTIATE(double)
EQUINORM_INSTANTIATE(bfloat16)
EQUINORM_INSTANTIATE(float16)
#undef EQUINORM_INSTANTIATE

}  // namespace equinorm
