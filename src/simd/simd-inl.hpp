// What the kernels add to Highway. Included once per instruction set (the guard toggles); everything here lives in
// that target's namespace.
//
// Statistics add up to kTogether values as they are computed, and up to kSumsTogether such sums, or four times as many;
// these are widened, a vector of floats to two of doubles, and added in double. The same bits on all instruction sets:
// each step rounds alike on all, a product and a sum of floats at once (MulAdd), or not at all (a product of two floats
// is exact in double, fused with an addition or not).
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

#include "core/pages.hpp"
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

/// Fetches a line into the second cache. So much memory is fetched: hwy::Prefetch fetches into the first, which waits
/// for fewer lines at a time, too few for a memory that is far away (measured: sums of 100 MB took nearly twice as
/// long).
template <class T>
HWY_INLINE void FetchFar(const T* p) {
  __builtin_prefetch(p, 0, 2);
}

/// Fetches the line at p, which is to be written: for passes along memory whose outputs stay in the caches. Stores
/// leave in their order, so one whose line is far holds up all behind it, and loads from the same place of another page
/// seem to wait for those.
template <class T>
HWY_INLINE void ClaimLine(T* p) {
  __builtin_prefetch(p, 1, 3);
}

/// The same for the lines of the `count` elements at p.
template <class T>
HWY_INLINE void ClaimLines(T* p, std::size_t count) {
  for (std::size_t i = 0; i < count; i += kLineBytes / sizeof(T)) ClaimLine(p + i);
}

/// Reads a byte of each line of the `count` elements at p: unlike a fetch, it is waited for.
template <class T>
HWY_INLINE void ReadLines(const T* p, std::size_t count) {
  for (std::size_t i = 0; i < count; i += kLineBytes / sizeof(T)) {
    static_cast<void>(*reinterpret_cast<const volatile unsigned char*>(p + i));
  }
}

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

/// Writes results of arithmetic, n vectors, one behind the other.
template <bool kStream, std::size_t n, class D, class T>
HWY_INLINE void StoreVectors(const hn::Vec<D> (&v)[n], D d, T* p) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  if constexpr (kByPairs<T> && n % 2 == 0) {
    Unroll<n / 2>([&](auto i) EQUINORM_INLINE { StorePair<kStream>(v[2 * i], v[2 * i + 1], d, p + 2 * i * kLanes); });
  } else {
    Unroll<n>([&](auto i) EQUINORM_INLINE { StoreElements<kStream>(v[i], d, p + i * kLanes); });
  }
}

/// The same; of a single vector `count` lanes.
template <bool kStream, std::size_t n, class D, class T>
HWY_INLINE void StoreVectors(const hn::Vec<D> (&v)[n], D d, T* p, std::size_t count) {
  if constexpr (n == 1) {
    StoreCount<kStream>(v[0], d, p, count);
  } else {
    StoreVectors<kStream>(v, d, p);
  }
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

/// Adds the first `count` lanes of v to the doubles at sum.
template <class D>
HWY_INLINE void AddWidened(D, hn::Vec<D> v, double* HWY_RESTRICT sum, std::size_t count) {
  using Wide = Widened<D>;
  constexpr typename Wide::Wide d64;
  const Wide wide(v);
  for (std::size_t part = 0; part < Wide::kParts; ++part, sum += Wide::kLanes) {
    const std::size_t lanes = std::min(count - std::min(count, part * Wide::kLanes), Wide::kLanes);
    StoreCount<false>(hn::Add(LoadCount(d64, sum, lanes), wide.parts[part]), d64, sum, lanes);
  }
}

/// a + b of doubles, rounded to odd: rounded to float it is then what a + b is to float (Boldo & Melquiond, "Emulation
/// of a FMA and correctly rounded sums", 2008).
template <class D>
HWY_INLINE hn::Vec<D> AddToOdd(D d, hn::Vec<D> a, hn::Vec<D> b) {
  const hn::RebindToUnsigned<D> du;
  const auto sum = hn::Add(a, b), zero = hn::Zero(d), one = hn::Set(d, 1.0);
  // What the sum lacks (Knuth's TwoSum); of one that is not finite NaN, which is neither above zero nor below.
  const auto back = hn::Sub(sum, a), lost = hn::Add(hn::Sub(a, hn::Sub(sum, back)), hn::Sub(b, back));
  const auto inexact = hn::Or(hn::Gt(lost, zero), hn::Lt(lost, zero));
  const auto bits = hn::BitCast(du, sum), last = hn::Set(du, 1);
  const auto outwards = hn::Eq(hn::CopySign(one, lost), hn::CopySign(one, sum));
  const auto neighbour =
      hn::IfThenElse(outwards, hn::BitCast(d, hn::Add(bits, last)), hn::BitCast(d, hn::Sub(bits, last)));
  const auto odd = hn::Eq(hn::And(bits, last), last);
  return hn::IfThenElse(hn::AndNot(hn::RebindMask(d, odd), inexact), neighbour, sum);
}

/// a·b + c of floats, rounded once, where the processor has no instruction for it: in double, where the product is
/// exact. That the sum is rounded before it is rounded to float matters only if it then lies half way between two
/// floats, or beside denormal ones.
template <class D>
HWY_NOINLINE hn::Vec<D> EmulatedMulAdd(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c) {
  using Wide = Widened<D>;
  using D64 = typename Wide::Wide;
  constexpr D64 d64;
  constexpr hn::RebindToUnsigned<D64> du;
  const Wide wide_a(a), wide_b(b), wide_c(c);
  const auto rest = hn::Set(du, 0x1FFFFFFF), half = hn::Set(du, 0x10000000);  // of a float's last place
  hn::Vec<typename Wide::Half> rounded[Wide::kParts];
  for (std::size_t part = 0; part < Wide::kParts; ++part) {
    const auto product = hn::Mul(wide_a.parts[part], wide_b.parts[part]);
    auto sum = hn::Add(product, wide_c.parts[part]);
    const auto tie = hn::RebindMask(d64, hn::Eq(hn::And(hn::BitCast(du, sum), rest), half));
    if (!hn::AllFalse(d64, hn::Or(tie, hn::Lt(hn::Abs(sum), hn::Set(d64, 0x1p-126))))) [[unlikely]] {
      sum = AddToOdd(d64, product, wide_c.parts[part]);
    }
    rounded[part] = hn::DemoteTo(typename Wide::Half(), sum);
  }
  if constexpr (Wide::kParts == 1) {
    return rounded[0];
  } else {
    return hn::Combine(d, rounded[1], rounded[0]);
  }
}

/// Whether a·b + c of D's elements is one instruction that rounds once. All processors that get this far have it, but
/// those with SSE4 alone; of doubles it would be too dear to emulate on these, so no one uses it.
template <class D>
inline constexpr bool kFuses = !std::is_same_v<hn::TFromD<D>, double> && HWY_TARGET != HWY_SSE4;

/// a·b + c, the same bits on all instruction sets: of floats rounded once, of doubles twice.
template <class D>
HWY_INLINE hn::Vec<D> MulAdd(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c) {
  if constexpr (kFuses<D>) {
    return hn::MulAdd(a, b, c);
  } else if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    return hn::Add(hn::Mul(a, b), c);
  } else {
    return EmulatedMulAdd(d, a, b, c);
  }
}
/// a·b − c, and c − a·b, alike.
template <class D>
HWY_INLINE hn::Vec<D> MulSub(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c) {
  if constexpr (kFuses<D>) {
    return hn::MulSub(a, b, c);
  } else {
    return MulAdd(d, a, b, hn::Neg(c));
  }
}
template <class D>
HWY_INLINE hn::Vec<D> NegMulAdd(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c) {
  if constexpr (kFuses<D>) {
    return hn::NegMulAdd(a, b, c);
  } else {
    return MulAdd(d, hn::Neg(a), b, c);
  }
}

/// Whether part of a vector is loaded and stored as fast as all of it.
inline constexpr bool kMasks = HWY_TARGET <= HWY_AVX3;

/// How many values are added before they are widened: a widening costs as much as three additions.
inline constexpr std::size_t kTogether = 8;
/// How many sums of so many are added before they are widened, where registers hold them.
inline constexpr std::size_t kSumsTogether = 4;

/// A value and a product, a·b, that are summed side by side.
template <class D>
struct Pair {
  hn::Vec<D> value, a, b;
};

/// Sums of up to kTogether pairs of kVectors vectors.
template <class D, std::size_t kVectors>
struct Pairs {
  HWY_INLINE Pairs() {
    Unroll<kVectors>([&](auto v) EQUINORM_INLINE { first[v] = second[v] = hn::Zero(D()); });
  }
  HWY_INLINE void Set(std::size_t v, const Pair<D>& pair) {
    first[v] = pair.value;
    second[v] = hn::Mul(pair.a, pair.b);
  }
  HWY_INLINE void Add(std::size_t v, const Pair<D>& pair) {
    first[v] = hn::Add(first[v], pair.value);
    second[v] = MulAdd(D(), pair.a, pair.b, second[v]);
  }
  HWY_INLINE void Add(const Pairs& pairs) {
    Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
      first[v] = hn::Add(first[v], pairs.first[v]);
      second[v] = hn::Add(second[v], pairs.second[v]);
    });
  }

  hn::Vec<D> first[kVectors], second[kVectors];
};

/// Sums of pairs of kVectors vectors, in double: those of up to kTogether additions are widened at once.
template <class D, std::size_t kVectors>
class PairSums {
 public:
  using Wide = Widened<D>;
  using D64 = typename Wide::Wide;
  using Sums = Pairs<D, kVectors>;

  HWY_INLINE PairSums() {
    for (std::size_t v = 0; v < kVectors; ++v) {
      for (std::size_t part = 0; part < Wide::kParts; ++part) first[v][part] = second[v][part] = hn::Zero(D64());
    }
  }

  /// The sums of value(i, v) for i = begin … begin + kTogether − 1, for all v.
  template <class Value>
  static HWY_INLINE Sums Together(std::size_t begin, const Value& value) {
    Sums pairs;
    Unroll<kVectors>([&](auto v) EQUINORM_INLINE { pairs.Set(v, value(begin, v)); });
    const auto add = [&](std::size_t i) EQUINORM_INLINE {
      Unroll<kVectors>([&](auto v) EQUINORM_INLINE { pairs.Add(v, value(begin + i, v)); });
    };
    if constexpr (kMasks) {  // long enough: unrolled, that took much of the time in which kernels compile
      add(1);
      for (std::size_t i = 2; i < kTogether; i += 2) add(i), add(i + 1);
    } else {  // unrolled, all that is added waited in memory, as registers are few (measured: up to 7 % more time)
#pragma GCC unroll 1
      for (std::size_t i = 1; i < kTogether; ++i) add(i);
    }
    return pairs;
  }
  /// The same for i = begin … end − 1, fewer of them.
  template <class Value>
  static HWY_INLINE Sums Fewer(std::size_t begin, std::size_t end, const Value& value) {
    Sums pairs;
    for (std::size_t v = 0; v < kVectors; ++v) pairs.Set(v, value(begin, v));
    for (std::size_t i = begin + 1; i < end; ++i) {
      for (std::size_t v = 0; v < kVectors; ++v) pairs.Add(v, value(i, v));
    }
    return pairs;
  }

  /// Adds what up to kTogether pairs came to.
  HWY_INLINE void Add(const Pairs<D, kVectors>& pairs) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Wide wide_first(pairs.first[v]), wide_second(pairs.second[v]);
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
  /// Nothing yet, or what was saved, or what there is.
  HWY_INLINE void Begin(bool anew, bool saved, const double* HWY_RESTRICT p) {
    if (anew) {
      *this = PairSums();
    } else if (saved) {
      Restore(p);
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

/// Calls strip(d, Constant<vectors>, column, count) likewise; `count` lanes of the last vector are there. Single lanes
/// are one vector that is not full where that is as fast.
template <std::size_t kVectors, class D, class Strip>
HWY_INLINE void ForEachStripOrPart(D d, std::size_t columns, const Strip& strip) {
  const std::size_t whole = kMasks ? columns / hn::Lanes(d) * hn::Lanes(d) : columns;
  ForEachStrip<kVectors>(d, whole, [&](auto tag, auto vectors, std::size_t column) EQUINORM_INLINE {
    strip(tag, vectors, column, hn::MaxLanes(tag));
  });
  if constexpr (kMasks) {
    if (whole < columns) strip(d, Constant<1>(), whole, columns - whole);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
