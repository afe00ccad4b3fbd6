// Instance normalization: statistics per sample and channel over all positions (Ulyanov, Vedaldi & Lempitsky 2016,
// arXiv:1607.08022). It is group normalization with a group for every channel: shapes, types, bits and accuracy are
// those of group_norm.hpp; statistics are [N, channels].
#pragma once

#include <cstddef>
#include <type_traits>

#include "equinorm/group_norm.hpp"

namespace equinorm {

struct InstanceNormOptions {
  double epsilon = 1e-5;  ///< inside the root; at least 1e-30
  Activation activation = Activation::none;
  const std::size_t* lengths = nullptr;  ///< padding: GroupNormOptions::lengths
};

/// As group_norm_workspace_bytes.
template <class T>
EQUINORM_API std::size_t instance_norm_workspace_bytes(const InstanceNormOptions& options, const Shape& shape,
                                                       Layout layout);

/// As group_norm_forward.
template <class T>
EQUINORM_API Status instance_norm_forward(const InstanceNormOptions& options, TensorView<const T> x,
                                          const std::type_identity_t<Affine<T>>& affine,
                                          std::type_identity_t<TensorView<const T>> residual,
                                          std::type_identity_t<TensorView<T>> y, const Statistics& statistics = {},
                                          const Execution& execution = {});

/// As group_norm_backward.
template <class T>
EQUINORM_API Status instance_norm_backward(
    const InstanceNormOptions& options, TensorView<const T> x, std::type_identity_t<TensorView<const T>> y,
    std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<const T>> dy,
    const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics, std::type_identity_t<TensorView<T>> dx,
    std::type_identity_t<TensorView<T>> dresidual, const std::type_identity_t<AffineGradients<T>>& gradients,
    const Execution& execution = {});

/// As group_norm_jvp.
template <class T>
EQUINORM_API Status instance_norm_jvp(const InstanceNormOptions& options, TensorView<const T> x,
                                      std::type_identity_t<TensorView<const T>> residual,
                                      const std::type_identity_t<Tangents<T>>& tangents,
                                      const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                                      std::type_identity_t<TensorView<T>> y_tangent, const Execution& execution = {});

}  // namespace equinorm
