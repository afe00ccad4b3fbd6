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

/// Σd and Σd², d = x − shift, or without kCentered Σx² alone, of a row that may come in pieces. Sums wait (measured:
/// rows of 768 floats and more take 2 to 9 % less, of 128 1 to 3 more).
template <bool kCentered, class T>
class RowAdder {
 public:
  using D = Tag<T>;

  HWY_INLINE RowAdder() = default;  // see WaitingPairs

  /// A piece: `length` values, kPieceOfRow of them but at the end, of which `count` from i on are load(i, count), each
  /// called for once.
  template <class Load>
  HWY_INLINE void Add(std::size_t length, Parameter<T> shift, const Load& load) {
    constexpr D d;
    const auto shifts = hn::Set(d, shift);
    const auto pair = [&](std::size_t i, std::size_t count) EQUINORM_INLINE {
      const auto x = load(i, count), difference = kCentered ? hn::Sub(x, shifts) : x;
      return Pair<D>{kCentered ? difference : hn::Zero(d), difference, difference};
    };
    const auto value = [&](std::size_t i) EQUINORM_INLINE { return pair(i, hn::MaxLanes(d)); };
    const auto at = PairsOfGroups(d, value);
    const std::size_t whole = length / kSegmentLanes;
    std::size_t j = 0;
    for (; j + kTogether <= whole; j += kTogether) {
      waiting_.Add(LanePairs<D>::Together(j, at));
      if (waiting_.full()) waiting_.End(sums_);
    }
    if (j < whole) waiting_.Add(LanePairs<D>::Fewer(j, whole, at));
    AddLastPairs(d, whole * kSegmentLanes, length, value, pair, sums_);
  }

  HWY_INLINE RowSums End() {
    waiting_.End(sums_);
    return {kCentered ? FoldVectors(sums_.first) : hn::Zero(F64()), FoldVectors(sums_.second)};
  }

 private:
  LanePairs<D> sums_;
  WaitingPairs<D> waiting_;
};

/// The sums of a row, as above.
template <bool kCentered, class T, class Load>
HWY_INLINE RowSums SumsOfRow(std::size_t length, Parameter<T> shift, const Load& load) {
  RowAdder<kCentered, T> sums;
  sums.Add(length, shift, load);
  return sums.End();
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
