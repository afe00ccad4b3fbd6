// Reductions over single rows, into doubles, by the fixed lanes of segments-inl.hpp: moments, the mean square, and the
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
  const auto shifts = hn::Set(d, shift);
  LanePairs<D> sums;
  const auto pair = [&](hn::Vec<D> value) EQUINORM_INLINE {
    const auto difference = hn::Sub(value, shifts);
    return Pair<D>{difference, hn::Mul(difference, difference)};
  };
  AddPairs(
      d, length, [&](std::size_t i) EQUINORM_INLINE { return pair(LoadElements(d, x + i)); },
      [&](std::size_t i, std::size_t count) EQUINORM_INLINE { return pair(LoadFirst(d, x + i, count)); }, sums);
  const auto [sum, squares] = Trusted({Total(sums.first), Total(sums.second)}, x, 1, 0, length, shift);
  if (!std::isfinite(squares)) {
    const Moments moments = CarefulSegmentMoments(x, 1, 0, length);
    return {moments.mean, moments.variance()};
  }
  const double offset = sum * inverse_length;
  return {static_cast<double>(shift) + offset, std::max(squares - sum * offset, 0.0) * inverse_length};
}

/// Σx²/length. Where floats do not do, the square of one, and the sum of any number of them, fit in a double.
template <class T>
HWY_INLINE double RowMeanSquare(const T* HWY_RESTRICT x, std::size_t length, double inverse_length) {
  using D = Tag<T>;
  constexpr D d;
  LanePairs<D> sums;
  const auto pair = [&](hn::Vec<D> value) EQUINORM_INLINE { return Pair<D>{hn::Zero(d), hn::Mul(value, value)}; };
  AddPairs(
      d, length, [&](std::size_t i) EQUINORM_INLINE { return pair(LoadElements(d, x + i)); },
      [&](std::size_t i, std::size_t count) EQUINORM_INLINE { return pair(LoadFirst(d, x + i, count)); }, sums);
  return Trusted({0, Total(sums.second)}, x, 1, 0, length, 0).squares * inverse_length;
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
