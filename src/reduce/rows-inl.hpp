// Reductions over single rows, in double, by the fixed lanes of segments-inl.hpp: moments, the mean square, and the
// sums of a row norm's backward pass. A row's results depend on nothing but the row.
#if defined(EQUINORM_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_ROWS_INL_HPP
#undef EQUINORM_ROWS_INL_HPP
#else
#define EQUINORM_ROWS_INL_HPP
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "reduce/moments.hpp"
#include "reduce/segments-inl.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Near the mean: that of every eighth group of lanes, for RowMoments to take differences from.
template <class T>
HWY_INLINE Parameter<T> RowShift(const T* HWY_RESTRICT x, std::size_t length) {
  using D = Tag<T>;
  constexpr D d;
  hn::Vec<D> sums[LaneSums<D>::kVectors];
  for (auto& sum : sums) sum = hn::Zero(d);
  std::size_t count = std::min(length, kSegmentLanes);
  if (length < kSegmentLanes) {
    ForEachPart(
        d, length, [&](std::size_t v, std::size_t i) EQUINORM_INLINE { sums[v] = LoadElements(d, x + i); },
        [&](std::size_t v, std::size_t i, std::size_t rest) EQUINORM_INLINE { sums[v] = LoadFirst(d, x + i, rest); });
  } else {
    count = 0;
    for (std::size_t i = 0; i + kSegmentLanes <= length; i += 8 * kSegmentLanes, count += kSegmentLanes) {
      Unroll<LaneSums<D>::kVectors>(
          [&](auto v) EQUINORM_INLINE { sums[v] = hn::Add(sums[v], LoadElements(d, x + i + v * hn::MaxLanes(d))); });
    }
  }
  return FoldLanes(d, sums) / static_cast<Parameter<T>>(count);
}

/// Mean and biased variance.
struct RowMean {
  double mean, variance;
};

/// The moments of a row, from sums of differences to a shift near its mean (see AccumulateColumnMoments).
template <class T>
HWY_INLINE RowMean RowMoments(const T* HWY_RESTRICT x, std::size_t length, double inverse_length, Parameter<T> shift) {
  using D = Tag<T>;
  constexpr D d;
  const auto shift_vector = hn::Set(d, shift);
  LaneSums<D> sums, squares;
  const auto take = [&](std::size_t v, hn::Vec<D> difference) EQUINORM_INLINE {
    const Widened<D> wide(difference);
    sums.Add(v, wide);
    squares.AddProduct(v, wide, wide);
  };
  ForEachPart(
      d, length,
      [&](std::size_t v, std::size_t i) EQUINORM_INLINE { take(v, hn::Sub(LoadElements(d, x + i), shift_vector)); },
      [&](std::size_t v, std::size_t i, std::size_t count) EQUINORM_INLINE {
        const auto difference = hn::Sub(LoadFirst(d, x + i, count), shift_vector);
        take(v, hn::IfThenElseZero(hn::FirstN(d, count), difference));
      });
  const double sum = sums.Total(), square = squares.Total(), offset = sum * inverse_length;
  if (!std::isfinite(square)) {
    const Moments moments = CarefulSegmentMoments(x, 1, 0, length);
    return {moments.mean, moments.variance()};
  }
  return {static_cast<double>(shift) + offset, std::max(square - sum * offset, 0.0) * inverse_length};
}

/// Σx²/length. The square of a float, and the sum of any number of them, fit in a double.
template <class T>
HWY_INLINE double RowMeanSquare(const T* HWY_RESTRICT x, std::size_t length, double inverse_length) {
  using D = Tag<T>;
  constexpr D d;
  LaneSums<D> squares;
  const auto take = [&](std::size_t v, const Widened<D>& wide) EQUINORM_INLINE { squares.AddProduct(v, wide, wide); };
  ForEachPart(
      d, length, [&](std::size_t v, std::size_t i) EQUINORM_INLINE { take(v, LoadWidened(d, x + i)); },
      [&](std::size_t v, std::size_t i, std::size_t count)
          EQUINORM_INLINE { take(v, Widened<D>(LoadFirst(d, x + i, count))); });
  return squares.Total() * inverse_length;
}

/// Σa (if kFirst) and Σb over a row; values(index, count, a, b) sets both for the `count` values from index on. Both
/// are rounded already: four values of a lane are added as they are, and the sums of four in double.
template <bool kFirst, class T, class Values>
HWY_INLINE void RowDots(std::size_t length, const Values& values, double* first, double* second) {
  using D = Tag<T>;
  constexpr D d;
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  LaneSums<D> firsts, seconds;
  const auto take = [&](std::size_t v, hn::Vec<D> a, hn::Vec<D> b) EQUINORM_INLINE {
    if constexpr (kFirst) firsts.Add(v, Widened<D>(a));
    seconds.Add(v, Widened<D>(b));
  };
  const std::size_t fours = length / (4 * kSegmentLanes) * (4 * kSegmentLanes);
  for (std::size_t i = 0; i < fours; i += 4 * kSegmentLanes) {
    Unroll<LaneSums<D>::kVectors>([&](auto v) EQUINORM_INLINE {
      hn::Vec<D> a[4], b[4];
      Unroll<4>([&](auto j) EQUINORM_INLINE { values(i + j * kSegmentLanes + v * kLanes, kLanes, a[j], b[j]); });
      take(v, hn::Add(hn::Add(a[0], a[1]), hn::Add(a[2], a[3])), hn::Add(hn::Add(b[0], b[1]), hn::Add(b[2], b[3])));
    });
  }
  ForEachPart(
      d, length - fours,
      [&](std::size_t v, std::size_t i) EQUINORM_INLINE {
        hn::Vec<D> a, b;
        values(fours + i, kLanes, a, b);
        take(v, a, b);
      },
      [&](std::size_t v, std::size_t i, std::size_t count) EQUINORM_INLINE {
        hn::Vec<D> a, b;
        values(fours + i, count, a, b);
        const auto mask = hn::FirstN(d, count);
        take(v, hn::IfThenElseZero(mask, a), hn::IfThenElseZero(mask, b));
      });
  *first = firsts.Total();
  *second = seconds.Total();
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
