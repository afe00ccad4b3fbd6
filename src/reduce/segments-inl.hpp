// Reductions over segments of contiguous values, into doubles: the rows of a matrix, or the planes of a channel. A
// value belongs to one of 32 fixed lanes by its place in its segment; the lanes are combined in a fixed order.
#if defined(EQUINORM_SEGMENTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_SEGMENTS_INL_HPP
#undef EQUINORM_SEGMENTS_INL_HPP
#else
#define EQUINORM_SEGMENTS_INL_HPP
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "core/elements.hpp"
#include "reduce/blocks.hpp"
#include "reduce/moments.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

inline constexpr std::size_t kSegmentLanes = 32;

/// The sum of the lanes of a vector, by halves: lane i takes lane i + lanes/2, then i + lanes/4, …
template <class D>
HWY_INLINE hn::TFromD<D> FoldLanes(D, hn::Vec<D> v) {
  constexpr D d;
  if constexpr (hn::MaxLanes(d) == 1) {
    return hn::GetLane(v);
  } else if constexpr (hn::MaxLanes(d) == 2) {
    return hn::GetLane(hn::Add(v, hn::Reverse(d, v)));
  } else {
    const hn::Half<D> half;
    return FoldLanes(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// The same of n vectors, the lanes of all in a row, down to the lanes of one.
template <class V, std::size_t n>
HWY_INLINE V FoldVectors(const V (&vectors)[n]) {
  if constexpr (n == 1) {
    return vectors[0];
  } else {
    V folded[n / 2];
    for (std::size_t i = 0; i < n / 2; ++i) folded[i] = hn::Add(vectors[i], vectors[i + n / 2]);
    return FoldVectors(folded);
  }
}
/// Of sums of kVectors vectors, each of kParts.
template <class V, std::size_t kVectors, std::size_t kParts>
HWY_INLINE V FoldVectors(const V (&sums)[kVectors][kParts]) {
  V flat[kVectors * kParts];
  for (std::size_t i = 0; i < kVectors * kParts; ++i) flat[i] = sums[i / kParts][i % kParts];
  return FoldVectors(flat);
}

/// Down to a single value: whatever the lanes of a vector, the order is the same.
template <class D, std::size_t n>
HWY_INLINE hn::TFromD<D> FoldLanes(D d, const hn::Vec<D> (&vectors)[n]) {
  return FoldLanes(d, FoldVectors(vectors));
}

/// 32 sums in double, in vectors: vector v of D is widened to kParts of them.
template <class D>
class LaneSums {
 public:
  static constexpr std::size_t kVectors = kSegmentLanes / hn::MaxLanes(D());
  static constexpr std::size_t kParts = Widened<D>::kParts;

  HWY_INLINE LaneSums() {
    for (auto& part : parts_) part = hn::Zero(F64());
  }
  HWY_INLINE void Add(std::size_t v, const Widened<D>& value) {
    for (std::size_t part = 0; part < kParts; ++part)
      parts_[kParts * v + part] = hn::Add(parts_[kParts * v + part], value.parts[part]);
  }
  HWY_INLINE void AddProduct(std::size_t v, const Widened<D>& a, const Widened<D>& b) {
    for (std::size_t part = 0; part < kParts; ++part) {
      parts_[kParts * v + part] = Widened<D>::MulAdd(a.parts[part], b.parts[part], parts_[kParts * v + part]);
    }
  }

  /// The total, lanes added by halves.
  HWY_INLINE double Total() const { return FoldLanes(F64(), parts_); }

 private:
  hn::Vec<F64> parts_[kParts * kVectors];
};

/// Calls body(v, offset) for the vectors of one segment of `length` values, and last(v, offset, count) for
/// the one that it fills only in part; value i goes to lane i mod 32.
template <class D, class Body, class Last>
HWY_INLINE void ForEachPart(D, std::size_t length, const Body& body, const Last& last) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  std::size_t i = 0;
  for (; i + kSegmentLanes <= length; i += kSegmentLanes) {
    Unroll<LaneSums<D>::kVectors>([&](auto v) EQUINORM_INLINE { body(v, i + v * kLanes); });
  }
  if (i == length) return;
  Unroll<LaneSums<D>::kVectors>([&](auto v) EQUINORM_INLINE {
    const std::size_t at = i + v * kLanes;
    if (at + kLanes <= length) {
      body(v, at);
    } else if (at < length) {
      last(v, at, length - at);
    }
  });
}

/// The sums of pairs in the 32 lanes.
template <class D>
using LanePairs = PairSums<D, LaneSums<D>::kVectors>;

/// What waits to be added to such sums, until kSumsTogether of what kTogether pairs came to are widened as one.
template <class D>
class WaitingPairs {
 public:
  HWY_INLINE WaitingPairs() = default;  // an implicit one would be compiled for another processor
  HWY_INLINE void Add(const typename LanePairs<D>::Sums& pairs) { pairs_.Add(pairs), ++count_; }
  HWY_INLINE bool full() const { return count_ == kSumsTogether; }
  HWY_INLINE void End(LanePairs<D>& sums) {
    sums.Add(pairs_);
    pairs_ = {};
    count_ = 0;
  }

 private:
  typename LanePairs<D>::Sums pairs_;
  std::size_t count_ = 0;
};

/// The pairs of the groups of 32 values of a segment: value(i) gives those of the vector at i.
template <class D, class Value>
HWY_INLINE auto PairsOfGroups(D, const Value& value) {
  return [&](std::size_t group, std::size_t v)
             EQUINORM_INLINE { return value(group * kSegmentLanes + v * hn::MaxLanes(D())); };
}

/// Adds the pairs of the rest of a segment from `begin` on, fewer than 32 values: last(i, count) gives those of the
/// first `count` lanes of the vector at i, and anything else in the others.
template <class D, class Value, class Last>
HWY_INLINE void AddLastPairs(D d, std::size_t begin, std::size_t length, const Value& value, const Last& last,
                             LanePairs<D>& sums) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  if (begin == length) return;
  sums.Add(LanePairs<D>::Fewer(0, 1, [&](std::size_t, std::size_t v) EQUINORM_INLINE {
    const std::size_t i = begin + v * kLanes, count = std::min(length - std::min(i, length), kLanes);
    if (count == kLanes) return value(i);
    if (count == 0) return Pair<D>{hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    const Pair<D> pair = last(i, count);
    const auto mask = hn::FirstN(d, count);
    return Pair<D>{hn::IfThenElseZero(mask, pair.value), hn::IfThenElseZero(mask, pair.a),
                   hn::IfThenElseZero(mask, pair.b)};
  }));
}

/// Adds the pairs of one segment. kWaits: sums wait (see WaitingPairs).
template <bool kWaits = false, class D, class Value, class Last>
HWY_INLINE void AddPairs(D d, std::size_t length, const Value& value, const Last& last, LanePairs<D>& sums) {
  const std::size_t whole = length / kSegmentLanes;
  const auto at = PairsOfGroups(d, value);
  if constexpr (kWaits) {
    WaitingPairs<D> waiting;
    for (std::size_t j = 0; j < whole; j += kTogether) {
      waiting.Add(j + kTogether <= whole ? LanePairs<D>::Together(j, at) : LanePairs<D>::Fewer(j, whole, at));
      if (waiting.full() || j + kTogether >= whole) waiting.End(sums);
    }
  } else {
    std::size_t j = 0;
    for (; j + kTogether <= whole; j += kTogether) sums.Add(LanePairs<D>::Together(j, at));
    if (j < whole) sums.Add(LanePairs<D>::Fewer(j, whole, at));
  }
  AddLastPairs(d, whole * kSegmentLanes, length, value, last, sums);
}

/// The total of one of the two, lanes added by halves.
template <std::size_t kVectors, std::size_t kParts>
HWY_INLINE double Total(const hn::Vec<F64> (&sums)[kVectors][kParts]) {
  return FoldLanes(F64(), FoldVectors(sums));
}

/// Σd and Σd² over all values of some segments, d = x − shift.
struct SegmentSums {
  double sum, squares;
};

/// Each d² exact in double: for squares that are too small or too large for floats. Slow, and rare but for zeros.
template <class T>
HWY_NOINLINE SegmentSums WideSegmentSums(const T* HWY_RESTRICT x, std::size_t segments, std::size_t stride,
                                         std::size_t length, Parameter<T> shift) {
  using D = Tag<T>;
  constexpr D d;
  const auto shifts = hn::Set(d, shift);
  LaneSums<D> sums, squares;
  const auto take = [&](auto v, hn::Vec<D> difference) EQUINORM_INLINE {
    const Widened<D> wide(difference);
    sums.Add(v, wide);
    squares.AddProduct(v, wide, wide);
  };
  for (std::size_t s = 0; s < segments; ++s) {
    const T* segment = x + s * stride;
    ForEachPart(
        d, length,
        [&](auto v, std::size_t i) EQUINORM_INLINE { take(v, hn::Sub(LoadElements(d, segment + i), shifts)); },
        [&](auto v, std::size_t i, std::size_t count) EQUINORM_INLINE {
          take(v, hn::IfThenElseZero(hn::FirstN(d, count), hn::Sub(LoadFirst(d, segment + i, count), shifts)));
        });
  }
  return {sums.Total(), squares.Total()};
}

/// Whether a sum of `count` squares, computed as T is, is what it seems.
template <class T>
HWY_INLINE bool IsTrusted(double squares, std::size_t count) {
  return squares >= SmallestSumOfSquares<T>(count) && squares <= std::numeric_limits<double>::max();
}

/// The moments of `segments` segments of `length` values, `stride` elements apart, in double without vectors: for
/// values so large that a difference of two overflows a float.
template <class T>
Moments CarefulSegmentMoments(const T* HWY_RESTRICT x, std::size_t segments, std::size_t stride, std::size_t length) {
  Moments result{static_cast<double>(segments * length), 0, 0};
  for (std::size_t s = 0; s < segments; ++s) {
    for (std::size_t i = 0; i < length; ++i) result.mean += to_double(x[s * stride + i]);
  }
  result.mean /= result.count;
  for (std::size_t s = 0; s < segments; ++s) {
    for (std::size_t i = 0; i < length; ++i) {
      const double difference = to_double(x[s * stride + i]) - result.mean;
      result.m2 += difference * difference;
    }
  }
  return result;
}

/// The sum of the first `count` values in float, roughly, for a shift.
template <class T>
HWY_INLINE Parameter<T> SumOfFirst(const T* HWY_RESTRICT x, std::size_t count) {
  using D = Tag<T>;
  constexpr D d;
  hn::Vec<D> sums[LaneSums<D>::kVectors];
  for (auto& sum : sums) sum = hn::Zero(d);
  ForEachPart(
      d, count, [&](auto v, std::size_t i) EQUINORM_INLINE { sums[v] = hn::Add(sums[v], LoadElements(d, x + i)); },
      [&](auto v, std::size_t i, std::size_t rest)
          EQUINORM_INLINE { sums[v] = hn::Add(sums[v], LoadFirst(d, x + i, rest)); });
  return FoldLanes(d, sums);
}

/// How many values at the start of a segment the shift is the mean of: one of kRarity at least, if one of `step`
/// segments is sampled. They lie together, where memory is about to be read: values from all over a segment would each
/// be waited for.
constexpr std::size_t SampledLength(std::size_t length, std::size_t step = 1) {
  constexpr std::size_t kRarity = 64, kGroup = kSegmentLanes * kRarity;
  return std::min((length * step + kGroup - 1) / kGroup * kSegmentLanes, length);
}

/// Samples of up to so many bytes of all channels together are fetched whole.
inline constexpr std::size_t kMostWholeSample = 16 << 10;

/// How many elements behind the place where a pass over segments reads what it reads next is fetched: the same place of
/// the next sample, or of long ones what lies two pages behind. (Always two pages, all or most of it was other
/// channels' where samples are short: measured with a second cache of 2 MB, batch norm took up to 5 % longer in
/// training, and 1 to 25 % backward.)
template <class T>
HWY_INLINE std::size_t FetchDistance(const PlaneBlock& planes) {
  const bool whole = planes.samples > 1 && planes.channels * planes.length * sizeof(T) <= kMostWholeSample;
  return whole ? planes.stride : kFarAhead<T>;
}

/// Takes the moments of each channel into mean and m2 ([channels]), which hold those of `count` values before.
/// Differences are from the mean of a sample; where that misled (is_misled), they are summed again, in double. In the
/// caches nothing is fetched and sums wait (measured: together 2 to 9 % less, each by itself seldom any).
template <class T>
void PlaneMoments(const T* HWY_RESTRICT x, const PlaneBlock& planes, std::size_t count, double* HWY_RESTRICT mean,
                  double* HWY_RESTRICT m2) {
  using D = Tag<T>;
  constexpr D d;
  const auto [samples, stride, channels, spacing, length, cached] = planes;  // clang 14 lets no lambda capture these
  const double n = static_cast<double>(samples * length), inverse = 1 / n;

  const std::size_t step = SampleStep(samples), sampled = SampledLength(length, step);
  const std::size_t taken = (samples + step - 1) / step * sampled;
  const auto weight = Parameter<T>{1} / static_cast<Parameter<T>>(taken);
  Parameter<T> shifts[kMaxPlaneChannels];
  for (std::size_t c = 0; c < channels; ++c) {
    shifts[c] = 0;
    for (std::size_t s = 0; s < samples; s += step) shifts[c] += SumOfFirst(x + s * stride + c * spacing, sampled);
    shifts[c] *= weight;
  }

  const auto finish = [&, samples = samples, stride = stride, spacing = spacing, length = length](
                          std::size_t c, const LanePairs<D>& sums) HWY_ATTR {
    const SegmentSums seen{Total(sums.first), Total(sums.second)};
    const bool right = IsTrusted<T>(seen.squares, samples * length) && !is_misled(seen.sum, seen.squares, inverse);
    const auto [sum, squares] = right ? seen : WideSegmentSums(x + c * spacing, samples, stride, length, shifts[c]);
    const double offset = sum * inverse;
    const Moments found = std::isfinite(squares) ? Moments{n, static_cast<double>(shifts[c]) + offset,
                                                           std::max(squares - sum * offset, 0.0)}
                                                 : CarefulSegmentMoments(x + c * spacing, samples, stride, length);
    merge_moments(count, mean[c], m2[c], found);
  };

  const std::size_t ahead = FetchDistance<T>(planes);
  HWY_ALIGN double all[kMaxPlaneChannels][LanePairs<D>::kSaved];
  LanePairs<D> sums;
  for (std::size_t s = 0; s < samples; ++s) {
    for (std::size_t c = 0; c < channels; ++c) {
      const T* segment = x + s * stride + c * spacing;
      const auto shift = hn::Set(d, shifts[c]);
      sums.Begin(s == 0, channels > 1, all[c]);
      const auto pair = [&](hn::Vec<D> value) EQUINORM_INLINE {
        const auto difference = hn::Sub(value, shift);
        return Pair<D>{difference, difference, difference};
      };
      const auto add = [&, length = length](const auto& fetch) EQUINORM_INLINE {
        AddPairs<true>(
            d, length,
            [&](std::size_t i) EQUINORM_INLINE {
              fetch(segment + i + ahead);
              return pair(LoadElements(d, segment + i));
            },
            [&](std::size_t i, std::size_t rest) EQUINORM_INLINE { return pair(LoadFirst(d, segment + i, rest)); },
            sums);
      };
      if (cached) {
        add([](const T*) EQUINORM_INLINE {});
      } else {
        add([](const T* p) EQUINORM_INLINE { FetchFar(p); });
      }
      if (s + 1 == samples) {
        finish(c, sums);
      } else if (channels > 1) {
        sums.Save(all[c]);
      }
    }
  }
}

/// Adds Σ g and Σ g·d of each channel to sum and dot ([channels]), d = x − mean[c]. g is what the activation let
/// through: gradient(index, channel, count, d), of which the first `count` lanes are valid; index counts elements from
/// x. Before whole vectors fetch(index) is called, of what is read soon. Products are of d·unit[c], as in
/// AccumulateColumnDots.
template <class T, class Gradient, class Fetch>
HWY_INLINE void PlaneDots(const T* HWY_RESTRICT x, const PlaneBlock& planes, const Parameter<T>* HWY_RESTRICT mean,
                          const Parameter<T>* HWY_RESTRICT unit, const Gradient& gradient, const Fetch& fetch,
                          double* HWY_RESTRICT sum, double* HWY_RESTRICT dot) {
  using D = Tag<T>;
  constexpr D d;
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  const auto [samples, stride, channels, spacing, length, cached] = planes;  // clang 14 lets no lambda capture these
  const std::size_t ahead = FetchDistance<T>(planes);
  HWY_ALIGN double all[kMaxPlaneChannels][LanePairs<D>::kSaved];
  LanePairs<D> sums;
  for (std::size_t s = 0; s < samples; ++s) {
    for (std::size_t c = 0; c < channels; ++c) {
      const std::size_t base = s * stride + c * spacing;
      const auto means = hn::Set(d, mean[c]), units = hn::Set(d, unit[c]);
      sums.Begin(s == 0, channels > 1, all[c]);
      const auto pair = [&](std::size_t i, std::size_t count) EQUINORM_INLINE {
        const auto difference = hn::Sub(LoadCount(d, x + base + i, count), means);
        const auto g = gradient(base + i, c, count, difference);
        return Pair<D>{g, g, hn::Mul(difference, units)};
      };
      AddPairs(
          d, length,
          [&](std::size_t i) EQUINORM_INLINE {
            fetch(base + i + ahead);
            return pair(i, kLanes);
          },
          pair, sums);
      if (s + 1 == samples) {
        sum[c] += Total(sums.first);
        dot[c] += Total(sums.second) / static_cast<double>(unit[c]);
      } else if (channels > 1) {
        sums.Save(all[c]);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
