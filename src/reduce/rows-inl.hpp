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

/// Near the mean: that of the first values, for RowMoments to take differences from.
template <class T>
HWY_INLINE Parameter<T> RowShift(const T* HWY_RESTRICT x, std::size_t length) {
  const std::size_t sampled = SampledLength(length);
  return SumOfFirst(x, sampled) / static_cast<Parameter<T>>(sampled);
}

/// The sums that the moments of a row are found from, their lanes not added yet: what that ends in can wait until other
/// work has been begun.
struct RowSums {
  hn::Vec<F64> first, second;
};

/// A row that is taken in pieces is so in pieces of so many values.
inline constexpr std::size_t kPieceOfRow = kTogether * kSegmentLanes;

/// Adds Σd and Σd², d = x − shift, or without kCentered Σx² alone, of a row or a piece of one: `length` values, of
/// which `count` from i on are load(i, count), each called for once.
template <bool kCentered, class T, class Load>
HWY_INLINE void AddDifferences(std::size_t length, Parameter<T> shift, const Load& load, LanePairs<Tag<T>>& sums) {
  using D = Tag<T>;
  constexpr D d;
  const auto shifts = hn::Set(d, shift);
  const auto pair = [&](std::size_t i, std::size_t count) EQUINORM_INLINE {
    const auto value = load(i, count), difference = kCentered ? hn::Sub(value, shifts) : value;
    return Pair<D>{kCentered ? difference : hn::Zero(d), difference, difference};
  };
  AddPairs(
      d, length, [&](std::size_t i) EQUINORM_INLINE { return pair(i, hn::MaxLanes(d)); }, pair, sums);
}

template <bool kCentered, class D>
HWY_INLINE RowSums FoldRow(const LanePairs<D>& sums) {
  return {kCentered ? FoldVectors(sums.first) : hn::Zero(F64()), FoldVectors(sums.second)};
}

/// The sums of a row, as above.
template <bool kCentered, class T, class Load>
HWY_INLINE RowSums SumsOfRow(std::size_t length, Parameter<T> shift, const Load& load) {
  LanePairs<Tag<T>> sums;
  AddDifferences<kCentered, T>(length, shift, load, sums);
  return FoldRow<kCentered, Tag<T>>(sums);
}

/// Mean and biased variance.
struct RowMean {
  double mean, variance;
};

/// Those of values whose differences from a shift have these sums.
HWY_INLINE RowMean MomentsAbout(double sum, double squares, double inverse_length, double shift) {
  const double offset = sum * inverse_length;
  return {shift + offset, std::max(squares - sum * offset, 0.0) * inverse_length};
}

/// The moments of a row whose sums, computed as T is, do not do.
template <class T>
HWY_NOINLINE RowMean UnusualRowMoments(const T* HWY_RESTRICT x, std::size_t length, Parameter<T> shift) {
  const auto [sum, squares] = WideSegmentSums(x, 1, 0, length, shift);
  if (!std::isfinite(squares)) {
    const Moments moments = CarefulSegmentMoments(x, 1, 0, length);
    return {moments.mean, moments.variance()};
  }
  return MomentsAbout(sum, squares, 1.0 / static_cast<double>(length), shift);
}

/// The moments of a row, from SumsOfRow to a shift near its mean (see AccumulateColumnMoments).
template <class T>
HWY_INLINE RowMean RowMoments(const RowSums& sums, const T* HWY_RESTRICT x, std::size_t length, double inverse_length,
                              Parameter<T> shift) {
  const double sum = FoldLanes(F64(), sums.first), squares = FoldLanes(F64(), sums.second);
  if (!IsTrusted<T>(squares, length)) [[unlikely]]
    return UnusualRowMoments(x, length, shift);
  return MomentsAbout(sum, squares, inverse_length, shift);
}

/// Σx²/length, from SumsOfRow. Where floats do not do, the square of one, and the sum of any number of them, fit in a
/// double.
template <class T>
HWY_INLINE double RowMeanSquare(const RowSums& sums, const T* HWY_RESTRICT x, std::size_t length,
                                double inverse_length) {
  const double squares = FoldLanes(F64(), sums.second);
  return (IsTrusted<T>(squares, length) ? squares : WideSegmentSums(x, 1, 0, length, 0).squares) * inverse_length;
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
