// Reductions over segments of contiguous floats, in double: the rows of a matrix, or the planes of a channel. A value
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

#include "reduce/moments.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

inline constexpr std::size_t kSegmentLanes = 32;

/// 32 sums in double. Parts are vectors; part p holds lanes p·Lanes … of the 32.
class LaneSums {
 public:
  static constexpr std::size_t kParts = kSegmentLanes / hn::MaxLanes(F64());

  HWY_INLINE LaneSums() {
    for (auto& part : parts_) part = hn::Zero(F64());
  }
  HWY_INLINE hn::Vec<F64>& operator[](std::size_t part) { return parts_[part]; }

  /// The total, by halves: lane i takes lane i + 16, then i + 8, …
  HWY_INLINE double Total() const {
    HWY_ALIGN double lanes[kSegmentLanes];
    for (std::size_t p = 0; p < kParts; ++p) hn::Store(parts_[p], F64(), lanes + p * hn::Lanes(F64()));
    for (std::size_t half = kSegmentLanes / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    return lanes[0];
  }

 private:
  hn::Vec<F64> parts_[kParts];
};

/// Calls body(part, offset) for the vectors of one segment of `length` values, and last(part, offset, count) for those
/// that it fills only in part; value i goes to lane i mod 32.
template <class Body, class Last>
HWY_INLINE void ForEachPart(std::size_t length, const Body& body, const Last& last) {
  const std::size_t lanes = hn::Lanes(F64());
  std::size_t i = 0;
  for (; i + kSegmentLanes <= length; i += kSegmentLanes) {
    for (std::size_t p = 0; p < LaneSums::kParts; ++p) body(p, i + p * lanes);
  }
  for (std::size_t p = 0; p < LaneSums::kParts; ++p, i += lanes) {
    if (i + lanes <= length) {
      body(p, i);
    } else {
      if (i < length) last(p, i, length - i);
      break;
    }
  }
}

/// The moments of `segments` segments of `length` values, `stride` floats apart, in double without vectors: for values
/// so large that a difference of two overflows a float.
inline Moments CarefulSegmentMoments(const float* HWY_RESTRICT x, std::size_t segments, std::size_t stride,
                                     std::size_t length) {
  Moments result{static_cast<double>(segments * length), 0, 0};
  for (std::size_t s = 0; s < segments; ++s) {
    for (std::size_t i = 0; i < length; ++i) result.mean += static_cast<double>(x[s * stride + i]);
  }
  result.mean /= result.count;
  for (std::size_t s = 0; s < segments; ++s) {
    for (std::size_t i = 0; i < length; ++i) {
      const double difference = static_cast<double>(x[s * stride + i]) - result.mean;
      result.m2 += difference * difference;
    }
  }
  return result;
}

/// The moments of `segments` ≥ 1 segments of `length` ≥ 1 values, `stride` floats apart. Two passes over one block in
/// cache, as AccumulateColumnMoments.
inline Moments SegmentMoments(const float* HWY_RESTRICT x, std::size_t segments, std::size_t stride,
                              std::size_t length) {
  constexpr F64 d64;
  constexpr F32Half d32;
  constexpr std::size_t kParts = LaneSums::kParts;
  const auto n = static_cast<double>(segments * length);

  // Pass 1: a shift near the mean. Scaled before it is summed, so that the shift of huge values does not overflow.
  hn::Vec<F32Half> shift_parts[kParts];
  for (auto& part : shift_parts) part = hn::Zero(d32);
  const auto weight = hn::Set(d32, static_cast<float>(1.0 / n));
  for (std::size_t s = 0; s < segments; ++s) {
    const float* segment = x + s * stride;
    ForEachPart(
        length,
        [&](std::size_t p, std::size_t i)
            HWY_ATTR { shift_parts[p] = hn::Add(shift_parts[p], hn::Mul(hn::LoadU(d32, segment + i), weight)); },
        [&](std::size_t p, std::size_t i, std::size_t count) HWY_ATTR {
          shift_parts[p] = hn::Add(shift_parts[p], hn::Mul(LoadFirst(d32, segment + i, count), weight));
        });
  }
  LaneSums shift_sums;
  for (std::size_t p = 0; p < kParts; ++p) shift_sums[p] = hn::PromoteTo(d64, shift_parts[p]);
  const auto shift = static_cast<float>(shift_sums.Total());

  // Pass 2: differences from it.
  const auto shift_vector = hn::Set(d32, shift);
  LaneSums sums, squares;
  const auto take = [&](std::size_t p, hn::Vec<F32Half> difference) HWY_ATTR {
    const auto wide = hn::PromoteTo(d64, difference);
    sums[p] = hn::Add(sums[p], wide);
    squares[p] = hn::MulAdd(wide, wide, squares[p]);
  };
  for (std::size_t s = 0; s < segments; ++s) {
    const float* segment = x + s * stride;
    ForEachPart(
        length,
        [&](std::size_t p, std::size_t i) HWY_ATTR { take(p, hn::Sub(hn::LoadU(d32, segment + i), shift_vector)); },
        [&](std::size_t p, std::size_t i, std::size_t count) HWY_ATTR {
          const auto difference = hn::Sub(LoadFirst(d32, segment + i, count), shift_vector);
          take(p, hn::IfThenElseZero(hn::FirstN(d32, count), difference));
        });
  }
  const double sum = sums.Total(), square = squares.Total();
  if (!std::isfinite(square)) return CarefulSegmentMoments(x, segments, stride, length);
  const double offset = sum / n;
  return {n, static_cast<double>(shift) + offset, std::max(square - sum * offset, 0.0)};
}

/// Σ g and Σ g·d of a normalization's backward pass, d = x − mean.
struct Dots {
  double sum = 0;
  double dot = 0;
};

/// Dots over `segments` segments of `length` values, `stride` floats apart. g = gradient(d32, index, count, d) is what
/// the activation let through; index counts floats from x; count < Lanes asks for the first `count` values alone.
template <class Gradient>
HWY_INLINE Dots SegmentDots(const float* HWY_RESTRICT x, std::size_t segments, std::size_t stride, std::size_t length,
                            float mean_hi, float mean_lo, const Gradient& gradient) {
  constexpr F64 d64;
  constexpr F32Half d32;
  const auto hi = hn::Set(d32, mean_hi), lo = hn::Set(d32, mean_lo);
  LaneSums sums, dots;
  const auto take = [&](std::size_t p, hn::Vec<F32Half> g, hn::Vec<F32Half> difference) HWY_ATTR {
    const auto wide = hn::PromoteTo(d64, g);
    sums[p] = hn::Add(sums[p], wide);
    dots[p] = hn::MulAdd(wide, hn::PromoteTo(d64, difference), dots[p]);
  };
  for (std::size_t s = 0; s < segments; ++s) {
    const std::size_t base = s * stride;
    ForEachPart(
        length,
        [&](std::size_t p, std::size_t i) HWY_ATTR {
          const auto difference = hn::Sub(hn::Sub(hn::LoadU(d32, x + base + i), hi), lo);
          take(p, gradient(d32, base + i, hn::Lanes(d32), difference), difference);
        },
        [&](std::size_t p, std::size_t i, std::size_t count) HWY_ATTR {
          const auto difference = hn::Sub(hn::Sub(LoadFirst(d32, x + base + i, count), hi), lo);
          const auto g = gradient(d32, base + i, count, difference);
          const auto mask = hn::FirstN(d32, count);
          take(p, hn::IfThenElseZero(mask, g), hn::IfThenElseZero(mask, difference));
        });
  }
  return {sums.Total(), dots.Total()};
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
