// The activations that are fused behind a norm.
#if defined(EQUINORM_ACTIVATION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_ACTIVATION_INL_HPP
#undef EQUINORM_ACTIVATION_INL_HPP
#else
#define EQUINORM_ACTIVATION_INL_HPP
#endif

#include <hwy/highway.h>

#include "equinorm/norm.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// act(z); NaN gives NaN.
template <class D>
HWY_INLINE hn::Vec<D> Activate(D d, Activation activation, hn::Vec<D> z) {
  const auto negative = hn::Lt(z, hn::Zero(d));
  switch (activation) {
    case Activation::relu:
      return hn::IfThenZeroElse(negative, z);
    case Activation::leaky_relu:
      return hn::IfThenElse(negative, hn::Mul(z, hn::Set(d, hn::TFromD<D>{kLeakySlope})), z);
    case Activation::none:
    case Activation::silu:
    case Activation::gelu:
      break;
  }
  return z;
}

/// dy·act'(z): the gradient before the activation. relu and leaky_relu look at z's sign alone, which is act(z)'s too.
template <class D>
HWY_INLINE hn::Vec<D> ActivationGradient(D d, Activation activation, hn::Vec<D> dy, hn::Vec<D> z) {
  const auto stopped = hn::Le(z, hn::Zero(d));
  switch (activation) {
    case Activation::relu:
      return hn::IfThenZeroElse(stopped, dy);
    case Activation::leaky_relu:
      return hn::IfThenElse(stopped, hn::Mul(dy, hn::Set(d, hn::TFromD<D>{kLeakySlope})), dy);
    case Activation::none:
    case Activation::silu:
    case Activation::gelu:
      break;
  }
  return dy;
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
