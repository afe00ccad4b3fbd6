// From the statistics of channels, and the sums of their gradients, to coefficients: in double, each operation rounded
// by itself, as channel.hpp has it for one channel. (One channel after the other, inference on an image of 2048
// channels of 7×7 took two thirds longer.)
#if defined(EQUINORM_KERNELS_CHANNELS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_CHANNELS_INL_HPP
#undef EQUINORM_KERNELS_CHANNELS_INL_HPP
#else
#define EQUINORM_KERNELS_CHANNELS_INL_HPP
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <type_traits>

#include "kernels/channel.hpp"
#include "kernels/kernels.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// A vector of doubles from and to memory that may be of floats.
template <class D, class P>
HWY_INLINE hn::Vec<D> LoadWide(D d, const P* HWY_RESTRICT p) {
  if constexpr (std::is_same_v<P, double>) {
    return hn::LoadU(d, p);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<P, D>(), p));
  }
}
template <class D, class P>
HWY_INLINE void StoreNarrow(hn::Vec<D> v, D d, P* HWY_RESTRICT p) {
  if constexpr (std::is_same_v<P, double>) {
    hn::StoreU(v, d, p);
  } else {
    constexpr hn::Rebind<P, D> narrow;
    hn::StoreU(hn::DemoteTo(narrow, v), narrow, p);
  }
}

/// As kernels::mean_rest.
template <class P, class D>
HWY_INLINE hn::Vec<D> MeanRest(D d, hn::Vec<D> mean) {
  if constexpr (std::is_same_v<P, double>) {
    return hn::Zero(d);
  } else {
    const auto rest = hn::Sub(mean, hn::PromoteTo(d, hn::DemoteTo(hn::Rebind<P, D>(), mean)));
    return hn::IfThenElseZero(hn::IsFinite(rest), rest);
  }
}

/// As kernels::power_of_two and kernels::unit_of.
template <class D>
HWY_INLINE hn::Vec<D> PowerOfTwo(D d, hn::Vec<D> x) {
  return hn::And(x, hn::BitCast(d, hn::Set(hn::RebindToUnsigned<D>(), 0x7FF0'0000'0000'0000U)));
}
template <class D>
HWY_INLINE hn::Vec<D> UnitOf(D d, hn::Vec<D> inverse_deviation, hn::Vec<D> mean) {
  constexpr hn::RebindToUnsigned<D> bits;
  const auto one = hn::Set(d, 1.0), size = hn::Abs(mean), least = hn::Set(d, 0x1p-100);
  const auto power = PowerOfTwo(d, hn::IfThenElse(hn::Lt(size, one), one, size));
  const auto both = hn::Add(hn::BitCast(bits, hn::Set(d, 0x1p100)), hn::BitCast(bits, one));
  const auto most = hn::BitCast(d, hn::Sub(both, hn::BitCast(bits, power)));
  auto unit = PowerOfTwo(d, inverse_deviation);
  unit = hn::IfThenElse(hn::Lt(most, unit), most, unit);
  return hn::IfThenElse(hn::Lt(unit, least), least, unit);
}

/// Whether a channel needs care, as kernels::needs_care has it.
template <class T, class D>
HWY_INLINE bool NeedsCare(D d, hn::Vec<D> mean, hn::Vec<D> variance) {
  if (std::is_same_v<T, double>) return false;
  const auto large = hn::Or(hn::Gt(hn::Abs(mean), hn::Set(d, kernels::kMostMean)),
                            hn::Gt(variance, hn::Set(d, kernels::kMostVariance)));
  return !hn::AllFalse(d, hn::And(large, hn::And(hn::IsFinite(mean), hn::IsFinite(variance))));
}
template <class T, class D>
HWY_INLINE bool NeedsCare(D d, hn::Vec<D> slope) {
  if (std::is_same_v<T, double>) return false;
  const auto steep = hn::Gt(hn::Abs(slope), hn::Set(d, kernels::kMostSlope));
  return !hn::AllFalse(d, hn::And(steep, hn::IsFinite(slope)));
}

/// Calls f(tag, c) → bool for the channels begin … end − 1, those from c on that a vector holds at a time; says whether
/// one of them was true.
template <class F>
HWY_INLINE bool AnyOfChannels(std::size_t begin, std::size_t end, const F& f) {
  bool any = false;
  ForEachStrip<1>(F64(), end - begin,
                  [&](auto d, auto, std::size_t i) EQUINORM_INLINE { any = f(d, begin + i) || any; });
  return any;
}

template <class T>
bool PrepareChannels(const kernels::ChannelStatistics<T>& statistics, const kernels::CoefficientArrays<T>& out,
                     std::size_t begin, std::size_t end) {
  using P = Parameter<T>;
  const kernels::ChannelStatistics<T> s = statistics;
  const kernels::CoefficientArrays<T> k = out;
  return AnyOfChannels(begin, end, [&](auto d, std::size_t c) EQUINORM_INLINE {
    const auto mean = hn::LoadU(d, s.mean + c), variance = hn::LoadU(d, s.variance + c);
    const auto inverse = hn::Div(hn::Set(d, 1.0), hn::Sqrt(hn::Add(variance, hn::Set(d, s.epsilon))));
    const auto scale = s.gamma == nullptr ? inverse : hn::Mul(LoadWide(d, s.gamma + c), inverse);
    const auto shift = s.beta == nullptr ? hn::Zero(d) : LoadWide(d, s.beta + c);
    hn::StoreU(inverse, d, s.inverse_deviation + c);
    StoreNarrow(mean, d, k.mean + c);
    StoreNarrow(scale, d, k.scale + c);
    StoreNarrow(hn::Sub(shift, hn::Mul(MeanRest<P>(d, mean), scale)), d, k.shift + c);
    StoreNarrow(UnitOf(d, inverse, mean), d, k.unit + c);
    return NeedsCare<T>(d, mean, variance);
  });
}

template <class T>
bool FinishChannels(const kernels::ChannelStatistics<T>& statistics, const kernels::ChannelGradients<T>& gradients,
                    const kernels::CoefficientArrays<T>& out, std::size_t begin, std::size_t end) {
  using P = Parameter<T>;
  const kernels::ChannelStatistics<T> s = statistics;
  const kernels::ChannelGradients<T> g = gradients;
  const kernels::CoefficientArrays<T> k = out;
  return AnyOfChannels(begin, end, [&](auto d, std::size_t c) EQUINORM_INLINE {
    const auto mean = hn::LoadU(d, s.mean + c), inverse = hn::LoadU(d, s.inverse_deviation + c);
    const auto rest = MeanRest<P>(d, mean), values = hn::Set(d, g.values);
    const auto sum = hn::LoadU(d, g.sum + c);
    auto dot = hn::LoadU(d, g.dot + c);
    if (!g.exact) {
      dot = hn::Sub(dot, hn::Mul(sum, rest));
      hn::StoreU(dot, d, g.dot + c);
    }
    if (g.dgamma != nullptr) StoreNarrow(hn::Mul(dot, inverse), d, g.dgamma + c);
    if (g.dbeta != nullptr) StoreNarrow(sum, d, g.dbeta + c);
    const auto scale = s.gamma == nullptr ? inverse : hn::Mul(LoadWide(d, s.gamma + c), inverse);
    const auto offset = hn::Mul(hn::Div(sum, values), scale);
    const auto slope = hn::Mul(hn::Mul(hn::Mul(hn::Div(dot, values), inverse), inverse), scale);
    StoreNarrow(hn::Sub(offset, hn::Mul(rest, slope)), d, k.offset + c);
    StoreNarrow(slope, d, k.slope + c);
    const bool finite = hn::AllTrue(d, hn::And(hn::IsFinite(sum), hn::IsFinite(dot)));
    return !finite || NeedsCare<T>(d, mean, hn::LoadU(d, s.variance + c)) || NeedsCare<T>(d, slope);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
