// What the kernels add to Highway. Included once per instruction set (the guard toggles); everything here lives in
// that target's namespace.
//
// Statistics add up to kTogether values as they are computed; such sums are widened, a vector of floats to two of
// doubles, and added in double. Each step rounds by itself, or not at all (a product of two floats is exact in double,
// fused with an addition or not): the same bits on all instruction sets.
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

/// How many values are added before they are widened: a widening costs as much as three additions.
inline constexpr std::size_t kTogether = 8;

/// Two values that are summed side by side.
template <class D>
struct Pair {
  HWY_INLINE Pair() : first(hn::Zero(D())), second(hn::Zero(D())) {}
  HWY_INLINE Pair(hn::Vec<D> first_, hn::Vec<D> second_) : first(first_), second(second_) {}

  hn::Vec<D> first, second;
};

/// Sums of up to kTogether pairs of kVectors vectors.
template <class D, std::size_t kVectors>
struct Pairs {
  HWY_INLINE Pairs() = default;
  HWY_INLINE void Add(std::size_t v, const Pair<D>& pair) {
    of[v].first = hn::Add(of[v].first, pair.first);
    of[v].second = hn::Add(of[v].second, pair.second);
  }

  Pair<D> of[kVectors];
};

/// Sums of pairs of kVectors vectors, in double: those of up to kTogether additions are widened at once.
template <class D, std::size_t kVectors>
class PairSums {
 public:
  using Wide = Widened<D>;
  using D64 = typename Wide::Wide;

  HWY_INLINE PairSums() {
    for (std::size_t v = 0; v < kVectors; ++v) {
      for (std::size_t part = 0; part < Wide::kParts; ++part) first[v][part] = second[v][part] = hn::Zero(D64());
    }
  }

  /// Adds value(i, v) for i = begin … end − 1, at most kTogether of them, and all v.
  template <class Value>
  HWY_INLINE void Add(std::size_t begin, std::size_t end, const Value& value) {
    Pairs<D, kVectors> pairs;
    for (std::size_t v = 0; v < kVectors; ++v) pairs.of[v] = value(begin, v);
    for (std::size_t i = begin + 1; i < end; ++i) {
      for (std::size_t v = 0; v < kVectors; ++v) pairs.Add(v, value(i, v));
    }
    Add(pairs.of);
  }

  /// Adds what up to kTogether pairs came to.
  HWY_INLINE void Add(const Pair<D> (&pairs)[kVectors]) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Wide wide_first(pairs[v].first), wide_second(pairs[v].second);
      for (std::size_t part = 0; part < Wide::kParts; ++part) {
        first[v][part] = hn::Add(first[v][part], wide_first.parts[part]);
        second[v][part] = hn::Add(second[v][part], wide_second.parts[part]);
      }
    }
  }

  /// To and from memory of kSaved doubles.
  static constexpr std::size_t kSaved = 2 * kVectors * Wide::kParts * Wide::kLanes;
  HWY_INLINE void Save(double* HWY_RESTRICT p) const {
    for (const auto* sums : {&first, &second}) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        for (std::size_t part = 0; part < Wide::kParts; ++part, p += Wide::kLanes) {
          hn::StoreU((*sums)[v][part], D64(), p);
        }
      }
    }
  }
  HWY_INLINE void Restore(const double* HWY_RESTRICT p) {
    for (auto* sums : {&first, &second}) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        for (std::size_t part = 0; part < Wide::kParts; ++part, p += Wide::kLanes) {
          (*sums)[v][part] = hn::LoadU(D64(), p);
        }
      }
    }
  }

  hn::Vec<D64> first[kVectors][Wide::kParts], second[kVectors][Wide::kParts];
};

/// From where on a sum of `count` squares, computed as T is, is what it seems: those of floats vanish below 2⁻¹²⁶, but
/// what vanished is then less than a rounding of the sum, even if denormals are flushed to zero.
template <class T>
HWY_INLINE double SmallestSumOfSquares(std::size_t count) {
  return std::is_same_v<T, double> ? 0.0 : static_cast<double>(count) * 0x1p-100;
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
