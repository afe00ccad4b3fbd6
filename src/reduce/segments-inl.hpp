// Reductions over segments of contiguous values, in double: the rows of a matrix, or the planes of a channel. A value
// belongs to one of 32 fixed lanes by its place in its segment; the lanes are combined in a fixed order.
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

#include "core/elements.hpp"
#include "reduce/blocks.hpp"
#include "reduce/moments.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

inline constexpr std::size_t kSegmentLanes = 32;

/// Fetches ahead within a long segment. Short ones are the caller's to fetch: what lies behind them may belong to
/// another channel.
template <class T>
HWY_INLINE void PrefetchSegment(const T* p, std::size_t length) {
  if (length * sizeof(T) >= kPrefetchBytes) PrefetchAhead(p);
}

/// The sum of the lanes of a vector, by halves: lane i takes lane i + lanes/2, then i + lanes/4, …
template <class D>
HWY_INLINE hn::TFromD<D> FoldLanes(D, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    return hn::GetLane(v);
  } else {
    const hn::Half<D> half;
    return FoldLanes(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// The same of n vectors, the lanes of all in a row: whatever the lanes of one, the order is the same.
template <class D, std::size_t n>
HWY_INLINE hn::TFromD<D> FoldLanes(D d, const hn::Vec<D> (&vectors)[n]) {
  if constexpr (n == 1) {
    return FoldLanes(d, vectors[0]);
  } else {
    hn::Vec<D> folded[n / 2];
    for (std::size_t i = 0; i < n / 2; ++i) folded[i] = hn::Add(vectors[i], vectors[i + n / 2]);
    return FoldLanes(d, folded);
  }
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
  Unroll<LaneSums<D>::kVectors>([&](auto v) EQUINORM_INLINE {
    const std::size_t at = i + v * kLanes;
    if (at + kLanes <= length) {
      body(v, at);
    } else if (at < length) {
      last(v, at, length - at);
    }
  });
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

/// The moments of each channel, to out. Two passes over one block in cache, as AccumulateColumnMoments.
template <class T>
void PlaneMoments(const T* HWY_RESTRICT x, const PlaneBlock& planes, Moments* HWY_RESTRICT out) {
  using D = Tag<T>;
  constexpr D d;
  const auto [samples, stride, channels, spacing, length] = planes;  // clang 14 lets no lambda capture these
  const auto n = static_cast<double>(samples * length);

  // Pass 1: shifts, as in AccumulateColumnMoments; of a sampled segment every eighth group of lanes.
  const std::size_t sample = SampleStep(samples), sampled_length = std::min<std::size_t>(kSegmentLanes, length);
  Parameter<T> shifts[kMaxPlaneChannels];
  for (std::size_t c = 0; c < channels; ++c) {
    hn::Vec<D> sum[LaneSums<D>::kVectors];
    for (auto& vector : sum) vector = hn::Zero(d);
    std::size_t count = 0;
    for (std::size_t s = 0; s < samples; s += sample) {
      for (std::size_t i = 0; i == 0 || i + kSegmentLanes <= length; i += 8 * kSegmentLanes) {
        const T* part = x + s * stride + c * spacing + i;
        ForEachPart(
            d, sampled_length,
            [&](std::size_t v, std::size_t j) HWY_ATTR { sum[v] = hn::Add(sum[v], LoadElements(d, part + j)); },
            [&](std::size_t v, std::size_t j, std::size_t rest)
                HWY_ATTR { sum[v] = hn::Add(sum[v], LoadFirst(d, part + j, rest)); });
        count += sampled_length;
      }
    }
    LaneSums<D> total;
    for (std::size_t v = 0; v < LaneSums<D>::kVectors; ++v) total.Add(v, Widened<D>(sum[v]));
    shifts[c] = static_cast<Parameter<T>>(total.Total() / static_cast<double>(count));
  }

  // Pass 2: differences from them.
  LaneSums<D> all_sums[kMaxPlaneChannels], all_squares[kMaxPlaneChannels];
  for (std::size_t s = 0; s < samples; ++s) {
    for (std::size_t c = 0; c < channels; ++c) {
      const T* segment = x + s * stride + c * spacing;
      const auto shift = hn::Set(d, shifts[c]);
      LaneSums<D> sums = all_sums[c], squares = all_squares[c];
      const auto take = [&](std::size_t v, hn::Vec<D> difference) HWY_ATTR {
        const Widened<D> wide(difference);
        sums.Add(v, wide);
        squares.AddProduct(v, wide, wide);
      };
      ForEachPart(
          d, length,
          [&](std::size_t v, std::size_t i) HWY_ATTR {
            PrefetchSegment(segment + i, planes.length);
            take(v, hn::Sub(LoadElements(d, segment + i), shift));
          },
          [&](std::size_t v, std::size_t i, std::size_t count) HWY_ATTR {
            const auto difference = hn::Sub(LoadFirst(d, segment + i, count), shift);
            take(v, hn::IfThenElseZero(hn::FirstN(d, count), difference));
          });
      all_sums[c] = sums;
      all_squares[c] = squares;
    }
  }
  for (std::size_t c = 0; c < channels; ++c) {
    const double sum = all_sums[c].Total(), square = all_squares[c].Total();
    const double offset = sum / n;
    out[c] = std::isfinite(square)
                 ? Moments{n, static_cast<double>(shifts[c]) + offset, std::max(square - sum * offset, 0.0)}
                 : CarefulSegmentMoments(x + c * spacing, samples, stride, length);
  }
}

/// Adds Σ g and Σ g·d of each channel to sum and dot ([channels]), d = x − mean[c]. g is what the activation let
/// through: gradient(index, channel, d), widened, or the first `count` values alone: last_gradient(index, channel,
/// count, d). index counts elements from x.
template <class T, class Gradient, class LastGradient>
HWY_INLINE void PlaneDots(const T* HWY_RESTRICT x, const PlaneBlock& planes, const Parameter<T>* HWY_RESTRICT mean,
                          const Gradient& gradient, const LastGradient& last_gradient, double* HWY_RESTRICT sum,
                          double* HWY_RESTRICT dot) {
  using D = Tag<T>;
  constexpr D d;
  const auto [samples, stride, channels, spacing, length] = planes;  // clang 14 lets no lambda capture these
  LaneSums<D> all_sums[kMaxPlaneChannels], all_dots[kMaxPlaneChannels];
  for (std::size_t s = 0; s < samples; ++s) {
    for (std::size_t c = 0; c < channels; ++c) {
      const std::size_t base = s * stride + c * spacing;
      const auto mean_vector = hn::Set(d, mean[c]);
      LaneSums<D> sums = all_sums[c], dots = all_dots[c];
      const auto take = [&](std::size_t v, const Widened<D>& g, hn::Vec<D> difference) HWY_ATTR {
        sums.Add(v, g);
        dots.AddProduct(v, g, Widened<D>(difference));
      };
      ForEachPart(
          d, length,
          [&](std::size_t v, std::size_t i) HWY_ATTR {
            PrefetchSegment(x + base + i, planes.length);
            const auto difference = hn::Sub(LoadElements(d, x + base + i), mean_vector);
            take(v, gradient(base + i, c, difference), difference);
          },
          [&](std::size_t v, std::size_t i, std::size_t count) HWY_ATTR {
            const auto difference = hn::Sub(LoadFirst(d, x + base + i, count), mean_vector);
            const auto mask = hn::FirstN(d, count);
            take(v, Widened<D>(hn::IfThenElseZero(mask, last_gradient(base + i, c, count, difference))),
                 hn::IfThenElseZero(mask, difference));
          });
      all_sums[c] = sums;
      all_dots[c] = dots;
    }
  }
  for (std::size_t c = 0; c < channels; ++c) {
    sum[c] += all_sums[c].Total();
    dot[c] += all_dots[c].Total();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
