// Elements in memory and the vectors they are computed in: double as double, everything else as float. Conversions are
// exact on the way in and rounded to nearest, ties to even, on the way out; the same bits on every instruction set.
#if defined(EQUINORM_ELEMENTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_ELEMENTS_INL_HPP
#undef EQUINORM_ELEMENTS_INL_HPP
#else
#define EQUINORM_ELEMENTS_INL_HPP
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "equinorm/types.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Vectors that elements of T are computed in.
template <class T>
using Tag = hn::ScalableTag<Parameter<T>>;

/// Whether the instruction set converts binary16 by itself.
#if HWY_ARCH_X86
inline constexpr bool kHasFloat16 = HWY_TARGET <= HWY_AVX2;
#else
inline constexpr bool kHasFloat16 = HWY_ARCH_ARM_A64;
#endif

template <class D, class V>
HWY_INLINE hn::Vec<D> FromBFloat16(D d, V bits) {  // bits in the low halves
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

/// Rounded to nearest even, bits in the high halves, which are to be cut off: half of the last place kept, less one
/// unless that place is odd, is added before.
template <class D>
HWY_INLINE auto ToBFloat16(D, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::TestBit(bits, hn::Set(du, 0x10000U));
  const auto rounded = hn::Add(bits, hn::IfThenElse(odd, hn::Set(du, 0x8000U), hn::Set(du, 0x7FFFU)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000U));
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), quiet, rounded);
}

/// The fraction and exponent of a half, moved to where a float has them, are its value over 2^112, also if denormal.
template <class D, class V>
HWY_INLINE hn::Vec<D> FromFloat16(D d, V half) {  // bits in the low halves
  const hn::RebindToUnsigned<D> du;
  const auto sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000U)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7FFFU)));
  const auto value = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112F));
  const auto special = hn::Ge(value, hn::Set(d, 65536.0F));  // infinity, NaN
  const auto nan = hn::Gt(value, hn::Set(d, 65536.0F));
  auto bits = hn::BitCast(du, value);
  bits = hn::Or(bits, hn::IfThenElseZero(hn::RebindMask(du, special), hn::Set(du, 0x7F800000U)));
  bits = hn::Or(bits, hn::IfThenElseZero(hn::RebindMask(du, nan), hn::Set(du, 0x00400000U)));
  return hn::BitCast(d, hn::Or(bits, sign));
}

/// Adding a power of two 13 binary places above the value's own lets the adder round to the fraction of a half.
template <class D>
HWY_INLINE auto ToFloat16(D d, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto sign = hn::And(bits, hn::Set(du, 0x80000000U));
  const auto magnitude = hn::Xor(bits, sign);
  // Too large becomes infinity; the exponent of what is small is that of the smallest normal half, 2^-14.
  const auto scaled = hn::Mul(hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112F)), hn::Set(d, 0x1p-110F));
  const auto exponent = hn::Max(hn::And(magnitude, hn::Set(du, 0x7F800000U)), hn::Set(du, 113U << 23));
  const auto anchor = hn::BitCast(d, hn::Add(exponent, hn::Set(du, 15U << 23)));
  const auto sum = hn::BitCast(du, hn::Add(anchor, scaled));
  const auto finite =
      hn::Add(hn::And(hn::ShiftRight<13>(sum), hn::Set(du, 0x7C00U)), hn::And(sum, hn::Set(du, 0xFFFU)));
  const auto nan = hn::Or(hn::ShiftRight<13>(hn::And(magnitude, hn::Set(du, 0x007FFFFFU))), hn::Set(du, 0x7E00U));
  const auto half = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), nan, finite);
  return hn::Or(half, hn::ShiftRight<16>(sign));
}

/// Lanes(d) elements at p.
template <class D>
HWY_INLINE hn::Vec<D> LoadElements(D d, const hn::TFromD<D>* HWY_RESTRICT p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> LoadElements(D d, const bfloat16* HWY_RESTRICT p) {
  const hn::Rebind<std::uint16_t, D> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p));
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  if constexpr (hn::MaxLanes(D()) == 16) {  // one permutation in place of a widening and a shift
    const auto to_high_halves = hn::ShiftLeft<16>(hn::Iota(hn::RebindToUnsigned<D>(), 0)).raw;
    const auto wide = _mm512_castsi256_si512(bits.raw);
    return hn::Vec<D>{_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, to_high_halves, wide))};
  }
#endif
  return FromBFloat16(d, hn::PromoteTo(hn::RebindToUnsigned<D>(), bits));
}
template <class D>
HWY_INLINE hn::Vec<D> LoadElements(D d, const float16* HWY_RESTRICT p) {
  if constexpr (kHasFloat16) {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), reinterpret_cast<const hwy::float16_t*>(p)));
  } else {
    const hn::Rebind<std::uint16_t, D> d16;
    const auto bits = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p));
    return FromFloat16(d, hn::PromoteTo(hn::RebindToUnsigned<D>(), bits));
  }
}

/// Rounds v and writes it to the Lanes(d) elements at p; kStream: around the caches, p aligned to the vector there.
template <bool kStream, class D>
HWY_INLINE void StoreElements(hn::Vec<D> v, D d, hn::TFromD<D>* HWY_RESTRICT p) {
  if constexpr (kStream && hn::MaxLanes(D()) == hn::MaxLanes(hn::ScalableTag<hn::TFromD<D>>())) {
    hn::Stream(v, d, p);
  } else {
    hn::StoreU(v, d, p);
  }
}
template <bool kStream, class D16, class V>
HWY_INLINE void StoreHalves(V halves, D16 d16, std::uint16_t* HWY_RESTRICT p) {
  if constexpr (kStream && hn::MaxLanes(D16()) * sizeof(std::uint16_t) >= 16) {
    hn::Stream(halves, d16, p);
  } else {
    hn::StoreU(halves, d16, p);
  }
}
template <bool kStream, class D>
HWY_INLINE void StoreElements(hn::Vec<D> v, D d, bfloat16* HWY_RESTRICT p) {
  const auto bits = ToBFloat16(d, v);
  auto* halves = reinterpret_cast<std::uint16_t*>(p);
  if constexpr (hn::MaxLanes(D()) >= 4) {
    const hn::Repartition<std::uint16_t, D> both;
    const hn::Half<decltype(both)> d16;
    const auto pairs = hn::BitCast(both, bits);
    StoreHalves<kStream>(hn::LowerHalf(d16, hn::ConcatOdd(both, pairs, pairs)), d16, halves);
  } else {
    const hn::Rebind<std::uint16_t, D> d16;
    StoreHalves<kStream>(hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<D>(), hn::ShiftRight<16>(bits))), d16,
                         halves);
  }
}
template <bool kStream, class D>
HWY_INLINE void StoreElements(hn::Vec<D> v, D d, float16* HWY_RESTRICT p) {
  if constexpr (kHasFloat16) {
    const hn::Rebind<std::uint16_t, D> d16;
    const auto halves = hn::BitCast(d16, hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v));
    StoreHalves<kStream>(halves, d16, reinterpret_cast<std::uint16_t*>(p));
  } else {
    const hn::Rebind<std::uint16_t, D> d16;
    const auto halves = hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<D>(), ToFloat16(d, v)));
    StoreHalves<kStream>(halves, d16, reinterpret_cast<std::uint16_t*>(p));
  }
}

/// Whether two results are stored at a time: elements of two bytes are rounded in less time so.
template <class T>
inline constexpr bool kByPairs = sizeof(T) == 2;

/// Rounds a and b, results of arithmetic (a NaN among them is quiet), and writes them to the 2·Lanes(d) elements at p,
/// to the same bits as StoreElements.
template <bool kStream, class D, class T>
HWY_INLINE void StorePair(hn::Vec<D> a, hn::Vec<D> b, D d, T* HWY_RESTRICT p) {
  if constexpr (std::is_same_v<T, bfloat16> && hn::MaxLanes(D()) >= 4) {
    // The halves of both side by side: half the work of rounding each by itself. What is cut off carries into what is
    // kept if it is more than half of the last place, or half of it and that place odd.
    const hn::Repartition<std::uint16_t, D> d16;
    const auto bits_a = hn::BitCast(d16, a), bits_b = hn::BitCast(d16, b);
    const auto kept = hn::ConcatOdd(d16, bits_b, bits_a), cut = hn::ConcatEven(d16, bits_b, bits_a);
    auto* halves = reinterpret_cast<std::uint16_t*>(p);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    if constexpr (hn::MaxLanes(D()) == 16) {  // by masks. NaN, more than infinity whatever the sign, takes no carry
      const auto one = _mm512_set1_epi16(1), magnitude = hn::Add(kept, kept).raw;
      const auto number = _mm512_cmple_epu16_mask(magnitude, hn::Set(d16, 0xFF00).raw);
      const auto cut_or_odd = _mm512_ternarylogic_epi32(cut.raw, kept.raw, one, 0xF8);  // cut | (kept & 1)
      const auto carries = _mm512_mask_cmpgt_epu16_mask(number, cut_or_odd, hn::Set(d16, 0x8000).raw);
      const hn::Vec<decltype(d16)> rounded{_mm512_mask_add_epi16(kept.raw, carries, kept.raw, one)};
      StoreHalves<kStream>(rounded, d16, halves);
      return;
    }
#endif
    // The sum below overflows sixteen bits if there is a carry, which shows at the top of an average.
    const auto odd = hn::And(kept, hn::Set(d16, 1));
    const auto carry = hn::ShiftRight<15>(hn::AverageRound(cut, hn::Add(odd, hn::Set(d16, 0x7FFE))));
    // Infinity and NaN, whose exponent is all ones whatever the sign, take no carry.
    const auto special = hn::SaturatedSub(hn::Add(kept, kept), hn::Set(d16, 0xFEFF));
    StoreHalves<kStream>(hn::Add(kept, hn::SaturatedSub(carry, special)), d16, halves);
  } else {
    StoreElements<kStream>(a, d, p);
    StoreElements<kStream>(b, d, p + hn::MaxLanes(D()));
  }
}

/// The first `count` < Lanes(d) elements at p, the rest 0. Reads nothing behind them.
template <class D, class T>
HWY_INLINE hn::Vec<D> LoadFirst(D d, const T* HWY_RESTRICT p, std::size_t count) {
  if constexpr (!HWY_MEM_OPS_MIGHT_FAULT && std::is_same_v<T, hn::TFromD<D>>) {
    return hn::MaskedLoad(hn::FirstN(d, count), d, p);
  } else {
    HWY_ALIGN T buffer[hn::MaxLanes(D())] = {};
    std::memcpy(buffer, p, std::min(count, hn::MaxLanes(D())) * sizeof(T));
    return LoadElements(d, buffer);
  }
}

/// Writes the first `count` < Lanes(d) lanes of v to p and nothing behind them.
template <class D, class T>
HWY_INLINE void StoreFirst(hn::Vec<D> v, D d, T* HWY_RESTRICT p, std::size_t count) {
  if constexpr (!HWY_MEM_OPS_MIGHT_FAULT && std::is_same_v<T, hn::TFromD<D>>) {
    hn::BlendedStore(v, hn::FirstN(d, count), d, p);
  } else {
    HWY_ALIGN T buffer[hn::MaxLanes(D())];
    StoreElements<false>(v, d, buffer);
    std::memcpy(p, buffer, std::min(count, hn::MaxLanes(D())) * sizeof(T));
  }
}

/// All lanes, or the first `count` of them.
template <class D, class T>
HWY_INLINE hn::Vec<D> LoadCount(D d, const T* p, std::size_t count) {
  return count == hn::Lanes(d) ? LoadElements(d, p) : LoadFirst(d, p, count);
}
template <bool kStream, class D, class T>
HWY_INLINE void StoreCount(hn::Vec<D> v, D d, T* p, std::size_t count) {
  if (count == hn::Lanes(d)) {
    StoreElements<kStream>(v, d, p);
  } else {
    StoreFirst(v, d, p, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
