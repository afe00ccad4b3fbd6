// What the kernels add to Highway. Included once per instruction set (the guard toggles); everything here lives in
// that target's namespace.
//
// Statistics widen a vector of floats to two of doubles. A product of two floats is exact in double: a fused and an
// unfused multiply-add give the same bits, and so do all instruction sets.
#if defined(EQUINORM_SIMD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_SIMD_INL_HPP
#undef EQUINORM_SIMD_INL_HPP
#else
#define EQUINORM_SIMD_INL_HPP
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>
#include <type_traits>
#include <utility>

#include "simd/elements-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F64 = hn::ScalableTag<double>;

template <std::size_t n>
using Constant = std::integral_constant<std::size_t, n>;

/// After the parameters of a lambda within an inner loop: a call there would put its captures into memory.
#undef EQUINORM_INLINE
#define EQUINORM_INLINE HWY_ATTR __attribute__((always_inline))

/// Calls f(Constant<0>()) … f(Constant<n − 1>()). Arrays of vectors that are indexed by these alone stay in registers;
/// a loop is unrolled too late for that.
template <class F, std::size_t... i>
HWY_INLINE void UnrollOver(std::index_sequence<i...>, const F& f) {
  (f(Constant<i>()), ...);
}
template <std::size_t n, class F>
HWY_INLINE void Unroll(const F& f) {
  UnrollOver(std::make_index_sequence<n>(), f);
}

/// Bytes that a pass along memory fetches ahead: one page, where the hardware's own prefetch ends.
inline constexpr std::size_t kPrefetchBytes = 4096;

template <class T>
HWY_INLINE void PrefetchAhead(const T* p) {
  hwy::Prefetch(p + kPrefetchBytes / sizeof(T));
}

/// The shift that moments are taken about is the mean of every how-manieth of `count` values: of 8 to 15 of them.
inline std::size_t SampleStep(std::size_t count) {
  return count < 16 ? 1 : count / 8;
}

/// A vector as doubles: of floats two vectors, or one where there is a single lane; of doubles itself.
template <class D>
struct Widened {
  static constexpr bool kIsDouble = std::is_same_v<hn::TFromD<D>, double>;
  static constexpr bool kSingle = kIsDouble || hn::MaxLanes(D()) == 1;
  static constexpr std::size_t kParts = kSingle ? 1 : 2;
  using Half = std::conditional_t<kSingle, D, hn::Half<D>>;
  using Wide = hn::Rebind<double, Half>;
  static constexpr std::size_t kLanes = hn::MaxLanes(Wide());

  HWY_INLINE explicit Widened(hn::Vec<D> v) {
    if constexpr (kIsDouble) {
      parts[0] = v;
    } else if constexpr (kSingle) {
      parts[0] = hn::PromoteTo(Wide(), v);
    } else {
      parts[0] = hn::PromoteTo(Wide(), hn::LowerHalf(Half(), v));
      parts[1] = hn::PromoteTo(Wide(), hn::UpperHalf(Half(), v));
    }
  }
  /// From memory: a load widens on its way.
  template <class T>
  HWY_INLINE explicit Widened(const T* p) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const auto v = LoadElements(Half(), p + part * kLanes);
      if constexpr (kIsDouble) {
        parts[part] = v;
      } else {
        parts[part] = hn::PromoteTo(Wide(), v);
      }
    }
  }

  /// a·b + c, of parts. The product of two floats is exact in double, so fusing changes nothing; of doubles it would.
  static HWY_INLINE hn::Vec<Wide> MulAdd(hn::Vec<Wide> a, hn::Vec<Wide> b, hn::Vec<Wide> c) {
    if constexpr (kIsDouble) {
      return hn::Add(hn::Mul(a, b), c);
    } else {
      return hn::MulAdd(a, b, c);
    }
  }

  hn::Vec<Wide> parts[kParts];
};

/// Lanes(d) elements at p, widened: what is narrower than a float goes by way of one whole vector.
template <class D, class T>
HWY_INLINE Widened<D> LoadWidened(D d, const T* p) {
  if constexpr (sizeof(T) < sizeof(float)) {
    return Widened<D>(LoadElements(d, p));
  } else {
    return Widened<D>(p);
  }
}

/// Calls strip(d, Constant<vectors>, column) over the columns: full strips of kVectors vectors, then single vectors,
/// then single lanes. What is computed for a column does not depend on which of the three it falls in.
template <std::size_t kVectors, class D, class Strip>
HWY_INLINE void ForEachStrip(D d, std::size_t columns, const Strip& strip) {
  const std::size_t lanes = hn::Lanes(d);
  std::size_t column = 0;
  for (; column + kVectors * lanes <= columns; column += kVectors * lanes) strip(d, Constant<kVectors>(), column);
  for (; column + lanes <= columns; column += lanes) strip(d, Constant<1>(), column);
  for (; column < columns; ++column) strip(hn::CappedTag<hn::TFromD<D>, 1>(), Constant<1>(), column);
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
