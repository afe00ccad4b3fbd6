// The activations that are fused behind a norm, and their slopes, without libm and without a fused multiply-add: the
// same bits on every instruction set. Errors, measured over dense samples (activation_test.cpp), are a few ulp.
//
// exp(−h) = 2^n·p(r) with n = round(−h/ln 2), r = −h − n·ln 2 by Cody & Waite's split of ln 2 ("Software manual for the
// elementary functions", 1980). The normal distribution's tail is exp(−a²/2)·R(a), where (a + k)·R(a) is a polynomial
// in t = (a − k)/(a + k): one form for all a, relatively exact however small the tail (the substitution of Shepherd &
// Laframboise, "Chebyshev approximation of (1 + 2x)·exp(x²)·erfc x", 1981). Both polynomials interpolate at Chebyshev
// nodes. Results scale by 2^n last, in two steps, so that they are rounded once where they are denormal.
#if defined(EQUINORM_ACTIVATION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_ACTIVATION_INL_HPP
#undef EQUINORM_ACTIVATION_INL_HPP
#else
#define EQUINORM_ACTIVATION_INL_HPP
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "equinorm/norm.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
struct ActivationConstants;

template <>
struct ActivationConstants<float> {
  static constexpr float kRound = 0x1.8p23F;                                 ///< adding it rounds to integers
  static constexpr float kLn2High = 0x1.63p-1F, kLn2Low = -0x1.BD0106p-13F;  ///< n·high is exact
  using Bits = std::uint32_t;
  static constexpr int kFraction = 23;
  static constexpr Bits kBias = 127, kLift = 100;        ///< 2^(n + lift) is normal
  static constexpr Bits kUpperHalf = 0xFFFFF000U;        ///< its square is exact
  static constexpr float kSiluEnd = 120, kGeluEnd = 15;  ///< act(−end) is 0
  static constexpr float kExp[] = {0x1p-1F, 0x1.5554d8p-3F, 0x1.555516p-5F, 0x1.12106cp-7F, 0x1.6d1606p-10F};
  static constexpr float kTailOrigin = 3;  ///< k
  static constexpr float kTail[] = {0x1.754a76p-1F,   -0x1.04c72ap-1F, 0x1.d71382p-3F,  -0x1.832d32p-5F,
                                    -0x1.56d40ap-7F,  0x1.c8c7dcp-8F,  0x1.0c7a08p-10F, -0x1.0f2e8cp-10F,
                                    -0x1.0098a8p-12F, 0x1.1799cp-13F,  0x1.d17fe4p-15F};
};

template <>
struct ActivationConstants<double> {
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLn2High = 0x1.62E42FEEp-1, kLn2Low = 0x1.A39EF35793C76p-33;
  using Bits = std::uint64_t;
  static constexpr int kFraction = 52;
  static constexpr Bits kBias = 1023, kLift = 600;
  static constexpr Bits kUpperHalf = 0xFFFFFFFFF8000000U;
  static constexpr double kSiluEnd = 800, kGeluEnd = 39;
  static constexpr double kExp[] = {0x1.0000000000001p-1,  0x1.5555555555556p-3,  0x1.5555555553b6cp-5,
                                    0x1.1111111110918p-7,  0x1.6c16c1794e1dcp-10, 0x1.a01a01a83ba17p-13,
                                    0x1.a019b621f9d08p-16, 0x1.71de0be2b5e96p-19, 0x1.2894f52583578p-22,
                                    0x1.af3ce42b12b24p-26};
  static constexpr double kTailOrigin = 4;
  static constexpr double kTail[] = {
      0x1.82b4bb8c94dcep-1,  -0x1.373e3a893c287p-1,  0x1.8c6dbf2cfc2fdp-2,   -0x1.7dff2bff6889ap-3,
      0x1.eec4cc3e4560cp-5,  -0x1.ee2761034c407p-8,  -0x1.c81719cabcedep-9,  0x1.ab825f7e9996dp-10,
      0x1.17a4a6b9505f7p-13, -0x1.e4a415fb8cca5p-13, -0x1.0011cb7c88079p-19, 0x1.26cf8dea72ab1p-15,
      0x1.7fdd9eeeb883fp-21, -0x1.8d35cd874dc01p-18, -0x1.4f9d808db1d2fp-21, 0x1.11c074ae9e33fp-20,
      0x1.1b207d62865e8p-22, -0x1.4b471811b021p-23,  -0x1.480d99ae63529p-24, 0x1.f4eaa9c85bbbp-27,
      0x1.de6d02a26289cp-27, 0x1.3fb7ce475a168p-34,  -0x1.0959f1400a39p-30};
};

/// c[0] + c[1]·x + … by Horner.
template <class D, std::size_t n>
HWY_INLINE hn::Vec<D> Polynomial(D d, const hn::TFromD<D> (&c)[n], hn::Vec<D> x) {
  auto sum = hn::Set(d, c[n - 1]);
  for (std::size_t i = n - 1; i-- > 0;) sum = hn::Add(hn::Mul(sum, x), hn::Set(d, c[i]));
  return sum;
}

/// exp(−(head + tail)) as a power in [2^-½, 2^½] and a scale 2^n; head ≥ 0, tail ≥ 0 small.
template <class D>
struct NegativeExp {
  using K = ActivationConstants<hn::TFromD<D>>;

  HWY_INLINE NegativeExp(D d, hn::Vec<D> head, hn::Vec<D> tail) {
    const hn::RebindToUnsigned<D> du;
    const auto round = hn::Set(d, K::kRound);
    const auto shifted = hn::Add(hn::Mul(head, hn::Set(d, static_cast<hn::TFromD<D>>(-0x1.71547652B82FEp0))), round);
    const auto n = hn::Sub(shifted, round);
    auto r = hn::Sub(hn::Neg(head), hn::Mul(n, hn::Set(d, K::kLn2High)));
    r = hn::Sub(hn::Sub(r, hn::Mul(n, hn::Set(d, K::kLn2Low))), tail);
    const auto square = hn::Mul(r, r);
    power = hn::Add(hn::Add(hn::Mul(square, Polynomial(d, K::kExp, r)), r), hn::Set(d, hn::TFromD<D>{1}));
    // The low bits of `shifted` are n.
    const auto exponent = hn::Add(hn::BitCast(du, shifted), hn::Set(du, K::kBias + K::kLift));
    lifted_scale = hn::BitCast(d, hn::ShiftLeft<K::kFraction>(exponent));
  }

  /// v·2^n, rounded once.
  HWY_INLINE hn::Vec<D> Scale(D d, hn::Vec<D> v) const {
    const hn::RebindToUnsigned<D> du;
    const auto down = hn::BitCast(d, hn::Set(du, (K::kBias - K::kLift) << K::kFraction));
    return hn::Mul(hn::Mul(v, lifted_scale), down);
  }

  hn::Vec<D> power, lifted_scale;
};

/// What silu and gelu start from: |z| up to where act(−|z|) is 0, and z cut there. NaN stays NaN.
template <class D>
struct Clamped {
  HWY_INLINE Clamped(D d, hn::Vec<D> z, hn::TFromD<D> end) : negative(hn::Lt(z, hn::Zero(d))) {
    const auto limit = hn::Set(d, end), absolute = hn::Abs(z);
    magnitude = hn::IfThenElse(hn::Gt(absolute, limit), limit, absolute);
    value = hn::CopySign(magnitude, z);
  }

  hn::Mask<D> negative;
  hn::Vec<D> magnitude, value;
};

/// sigmoid(z) = 1/(1 + e) for z ≥ 0, e/(1 + e) below, e = exp(−|z|); there still to be scaled by 2^n.
template <class D>
struct Sigmoid {
  HWY_INLINE Sigmoid(D d, hn::Vec<D> z) : cut(d, z, NegativeExp<D>::K::kSiluEnd), exp(d, cut.magnitude, hn::Zero(d)) {
    const auto one = hn::Set(d, hn::TFromD<D>{1});
    e = exp.Scale(d, exp.power);
    inverse = hn::Div(one, hn::Add(one, e));
    unscaled = hn::IfThenElse(cut.negative, hn::Mul(exp.power, inverse), inverse);
  }

  HWY_INLINE hn::Vec<D> Scale(D d, hn::Vec<D> v) const { return hn::IfThenElse(cut.negative, exp.Scale(d, v), v); }

  Clamped<D> cut;
  NegativeExp<D> exp;
  hn::Vec<D> e, inverse, unscaled;
};

/// z·sigmoid(z). −∞ gives its limit, 0.
template <class D>
HWY_NOINLINE hn::Vec<D> Silu(D d, hn::Vec<D> z) {
  const Sigmoid<D> sigmoid(d, z);
  return sigmoid.Scale(d, hn::Mul(hn::IfThenElse(sigmoid.cut.negative, sigmoid.cut.value, z), sigmoid.unscaled));
}

/// s·(1 + z·(1 − s)), s = sigmoid(z).
template <class D>
HWY_NOINLINE hn::Vec<D> SiluSlope(D d, hn::Vec<D> z) {
  const Sigmoid<D> sigmoid(d, z);
  const auto rest = hn::IfThenElse(sigmoid.cut.negative, sigmoid.inverse, hn::Mul(sigmoid.e, sigmoid.inverse));
  const auto factor = hn::Add(hn::Set(d, hn::TFromD<D>{1}), hn::Mul(sigmoid.cut.value, rest));
  return sigmoid.Scale(d, hn::Mul(sigmoid.unscaled, factor));
}

/// The normal distribution's tail Φ(−|z|), still to be scaled by 2^n.
template <class D>
struct NormalTail {
  using K = ActivationConstants<hn::TFromD<D>>;

  HWY_INLINE NormalTail(D d, hn::Vec<D> z) : cut(d, z, K::kGeluEnd), exp(Exponential(d, cut.magnitude)) {
    const auto a = cut.magnitude, origin = hn::Set(d, K::kTailOrigin);
    const auto inverse = hn::Div(hn::Set(d, hn::TFromD<D>{1}), hn::Add(a, origin));
    const auto t = hn::Mul(hn::Sub(a, origin), inverse);
    unscaled = hn::Mul(exp.power, hn::Mul(inverse, Polynomial(d, K::kTail, t)));
  }

  /// exp(−a²/2): a² as the square of a's upper half, which is exact, and the small rest.
  static HWY_INLINE NegativeExp<D> Exponential(D d, hn::Vec<D> a) {
    const hn::RebindToUnsigned<D> du;
    const auto half = hn::Set(d, hn::TFromD<D>{0.5});
    const auto upper = hn::BitCast(d, hn::And(hn::BitCast(du, a), hn::Set(du, K::kUpperHalf)));
    const auto rest = hn::Mul(hn::Sub(a, upper), hn::Add(a, upper));
    return NegativeExp<D>(d, hn::Mul(hn::Mul(upper, upper), half), hn::Mul(rest, half));
  }

  Clamped<D> cut;
  NegativeExp<D> exp;
  hn::Vec<D> unscaled;
};

/// z·Φ(z). −∞ gives its limit, 0.
template <class D>
HWY_NOINLINE hn::Vec<D> Gelu(D d, hn::Vec<D> z) {
  const NormalTail<D> tail(d, z);
  const auto below = tail.exp.Scale(d, hn::Mul(tail.cut.value, tail.unscaled));
  const auto above = hn::Mul(z, hn::Sub(hn::Set(d, hn::TFromD<D>{1}), tail.exp.Scale(d, tail.unscaled)));
  return hn::IfThenElse(tail.cut.negative, below, above);
}

/// Φ(z) + z·φ(z).
template <class D>
HWY_NOINLINE hn::Vec<D> GeluSlope(D d, hn::Vec<D> z) {
  const NormalTail<D> tail(d, z);
  const auto root = hn::Set(d, static_cast<hn::TFromD<D>>(0x1.9884533D43651p-2));  // 1/√(2π)
  const auto density = hn::Mul(tail.cut.value, hn::Mul(tail.exp.power, root));
  const auto below = tail.exp.Scale(d, hn::Add(tail.unscaled, density));
  const auto cdf = hn::Sub(hn::Set(d, hn::TFromD<D>{1}), tail.exp.Scale(d, tail.unscaled));
  return hn::IfThenElse(tail.cut.negative, below, hn::Add(cdf, tail.exp.Scale(d, density)));
}

/// act(z); NaN gives NaN.
template <class D>
HWY_INLINE hn::Vec<D> Activate(D d, Activation activation, hn::Vec<D> z) {
  const auto negative = hn::Lt(z, hn::Zero(d));
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return hn::IfThenZeroElse(negative, z);
    case Activation::leaky_relu:
      return hn::IfThenElse(negative, hn::Mul(z, hn::Set(d, static_cast<hn::TFromD<D>>(kLeakySlope))), z);
    case Activation::silu:
      return Silu(d, z);
    case Activation::gelu:
      return Gelu(d, z);
  }
  return z;
}

/// dy·act'(z): the gradient before the activation. relu and leaky_relu look at z's sign alone, which is act(z)'s too.
template <class D>
HWY_INLINE hn::Vec<D> ActivationGradient(D d, Activation activation, hn::Vec<D> dy, hn::Vec<D> z) {
  const auto stopped = hn::Le(z, hn::Zero(d));
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return hn::IfThenZeroElse(stopped, dy);
    case Activation::leaky_relu:
      return hn::IfThenElse(stopped, hn::Mul(dy, hn::Set(d, static_cast<hn::TFromD<D>>(kLeakySlope))), dy);
    case Activation::silu:
      return hn::Mul(dy, SiluSlope(d, z));
    case Activation::gelu:
      return hn::Mul(dy, GeluSlope(d, z));
  }
  return dy;
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
