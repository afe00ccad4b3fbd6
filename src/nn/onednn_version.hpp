// Where oneDNN 2.x and 3.x differ, for all who use it: they say what they want here and look the same for both.
// 3.0 did away with operation descriptors (what they took goes to the primitive descriptor, which comes with the
// attributes last), gave norms a descriptor of the result beside the input's, took the scale from post-operations, and
// the shift from the arguments of batch norm's backward.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

namespace equinorm::nn::onednn {

/// args: what describes the operation of Primitive, in the order that both have.
template <class Primitive, class... Args>
typename Primitive::primitive_desc describe(const dnnl::engine& engine, const dnnl::primitive_attr& attributes,
                                            const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine, args..., attributes);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(args...), attributes, engine);
#endif
}

/// hint: the description of forward.
template <class Primitive, class Hint, class... Args>
typename Primitive::primitive_desc describe_backward(const dnnl::engine& engine, const dnnl::primitive_attr& attributes,
                                                     const Hint& hint, const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine, args..., hint, attributes);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(args...), attributes, engine, hint);
#endif
}

/// Batch or layer norm of tensors that all look like `data`.
template <class Forward>
typename Forward::primitive_desc describe_norm(const dnnl::engine& engine, dnnl::prop_kind kind,
                                               const dnnl::memory::desc& data, float epsilon,
                                               dnnl::normalization_flags flags) {
#if DNNL_VERSION_MAJOR >= 3
  return describe<Forward>(engine, {}, kind, data, data, epsilon, flags);
#else
  return describe<Forward>(engine, {}, kind, data, epsilon, flags);
#endif
}

template <class Backward, class Hint>
typename Backward::primitive_desc describe_norm_backward(const dnnl::engine& engine, const Hint& hint,
                                                         const dnnl::memory::desc& data, float epsilon,
                                                         dnnl::normalization_flags flags) {
  const auto kind = dnnl::prop_kind::backward;
#if DNNL_VERSION_MAJOR >= 3
  return describe_backward<Backward>(engine, {}, hint, kind, data, data, data, epsilon, flags);
#else
  return describe_backward<Backward>(engine, {}, hint, kind, data, data, epsilon, flags);
#endif
}

/// Whether batch norm's backward wants the shift among its arguments, on which no gradient depends, or refuses it.
inline constexpr bool kBatchNormBackwardTakesShift = DNNL_VERSION_MAJOR < 3;

inline void append_relu(dnnl::post_ops& post) {
#if DNNL_VERSION_MAJOR >= 3
  post.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
#else
  post.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
#endif
}

}  // namespace equinorm::nn::onednn
