// Reductions over the columns of a matrix [rows, columns], by PairSums, into doubles: moments, and the two sums of a
// normalization's backward pass. Pure functions of one block of rows; the callers fix the blocks from the shape alone
// and take their results in index order.
#if defined(EQUINORM_COLUMNS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_COLUMNS_INL_HPP
#undef EQUINORM_COLUMNS_INL_HPP
#else
#define EQUINORM_COLUMNS_INL_HPP
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "core/elements.hpp"
#include "reduce/blocks.hpp"
#include "reduce/moments.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Vectors side by side in a strip of columns, whose sums stay in registers: of four in 32 registers, two in 16.
inline constexpr std::size_t kColumnStrip = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
/// The same where only sums of floats do.
inline constexpr std::size_t kWideStrip = 2 * kColumnStrip;

/// Up to so many columns the sums of backward go down strips; of more they go along the rows, which memory foresees.
inline constexpr std::size_t kNarrowDots = 64;

/// 1/x of a power of two, exactly, without a division.
template <class D>
HWY_INLINE hn::Vec<D> PowerReciprocal(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> bits;
  using Bits = hn::TFromD<decltype(bits)>;
  constexpr int kFraction = sizeof(Bits) == 4 ? 23 : 52;
  constexpr Bits kTwice = sizeof(Bits) == 4 ? 2 * 127 : 2 * 1023;
  return hn::BitCast(d, hn::Sub(hn::Set(bits, static_cast<Bits>(kTwice << kFraction)), hn::BitCast(bits, x)));
}

/// Fetches the next block while this one is worked on: strips go down a block, memory wants to be read along its rows.
/// Each step asks for as many elements, in order, as it works on itself. Past the end of a tensor it asks in vain. Of a
/// block that is some columns of a wider matrix the next is what stands behind it in the same rows.
template <class T, std::size_t kInputs>
class Prefetcher {
 public:
  Prefetcher(const std::array<const T*, kInputs>& inputs, std::size_t rows, std::size_t stride, std::size_t columns)
      : inputs_(inputs), next_(rows * stride), ahead_(stride == columns ? 0 : columns) {}
  /// Works on the kCount elements from `at` on.
  template <std::size_t kCount>
  HWY_INLINE void Step(std::size_t at) {
    const std::size_t next = ahead_ == 0 ? next_ : at + ahead_;
    for (const T* input : inputs_) {
      for (std::size_t i = 0; i < kCount; i += 64 / sizeof(T)) hwy::Prefetch(input + next + i);
    }
    next_ += kCount;
  }

 private:
  std::array<const T*, kInputs> inputs_;
  std::size_t next_, ahead_;
};

/// Adds the pairs term(tag, row, column) of a matrix to sum and product ([columns]), kTogether rows at a time along
/// their columns; scaled(tag, column, second) is what the second of a pair stands for. Inputs are what term reads: what
/// comes next of them is fetched, the next strip or at the end of the columns the next rows. Strips of kVectors.
template <std::size_t kVectors, class T, std::size_t kInputs, class TermOf, class Scaled>
HWY_INLINE void AccumulateWide(const std::array<const T*, kInputs>& inputs, std::size_t rows, std::size_t stride,
                               std::size_t columns, double* HWY_RESTRICT sum, double* HWY_RESTRICT product,
                               const TermOf& term, const Scaled& scaled) {
  for (std::size_t r = 0; r < rows; r += kTogether) {
    const std::size_t end = std::min(r + kTogether, rows);
    ForEachStrip<kVectors>(Tag<T>(), columns, [&](auto d, auto vectors, std::size_t column) EQUINORM_INLINE {
      using D = decltype(d);
      using Wide = Widened<D>;
      constexpr typename Wide::Wide d64;
      constexpr std::size_t kLanes = hn::MaxLanes(d), kWidth = vectors * kLanes;
      const std::size_t next = column + 2 * kWidth <= columns ? kWidth : kTogether * stride - column;
      Pairs<D, vectors> pairs;
      for (std::size_t row = r; row < end; ++row) {
        const std::size_t fetched = row * stride + column + next;
        for (std::size_t i = 0; i < kWidth; i += 64 / sizeof(T)) {
          Unroll<kInputs>([&](auto k) EQUINORM_INLINE { hwy::Prefetch(inputs[k] + fetched + i); });
        }
        Unroll<vectors>([&](auto v) EQUINORM_INLINE { pairs.Add(v, term(d, row, column + v * kLanes)); });
      }
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        const Wide first(pairs.of[v].first), second = scaled(d, column + v * kLanes, Wide(pairs.of[v].second));
        for (std::size_t part = 0; part < Wide::kParts; ++part) {
          const std::size_t at = column + v * kLanes + part * Wide::kLanes;
          hn::StoreU(hn::Add(hn::LoadU(d64, sum + at), first.parts[part]), d64, sum + at);
          hn::StoreU(hn::Add(hn::LoadU(d64, product + at), second.parts[part]), d64, product + at);
        }
      });
    });
  }
}

/// One column without vectors and without float: for values so large that a difference of two overflows a float.
template <class T>
Moments CarefulColumnMoments(const T* HWY_RESTRICT x, std::size_t rows, std::size_t stride) {
  Moments result{static_cast<double>(rows), 0, 0};
  for (std::size_t r = 0; r < rows; ++r) result.mean += to_double(x[r * stride]);
  result.mean /= result.count;
  for (std::size_t r = 0; r < rows; ++r) {
    const double difference = to_double(x[r * stride]) - result.mean;
    result.m2 += difference * difference;
  }
  return result;
}

/// Σd and Σd² of the vector of columns at x, d = x − shift, each d² exact in double: for squares that are too small or
/// too large for floats. Slow, and rare but for columns of zeros.
template <class D, class T>
HWY_NOINLINE void WideColumnSums(D d, const T* HWY_RESTRICT x, std::size_t rows, std::size_t stride, hn::Vec<D> shift,
                                 hn::Vec<typename Widened<D>::Wide>* sum, hn::Vec<typename Widened<D>::Wide>* squares) {
  using Wide = Widened<D>;
  const typename Wide::Wide d64;
  for (std::size_t part = 0; part < Wide::kParts; ++part) sum[part] = squares[part] = hn::Zero(d64);
  for (std::size_t r = 0; r < rows; ++r) {
    const Wide difference(hn::Sub(LoadElements(d, x + r * stride), shift));
    for (std::size_t part = 0; part < Wide::kParts; ++part) {
      sum[part] = hn::Add(sum[part], difference.parts[part]);
      squares[part] = Wide::MulAdd(difference.parts[part], difference.parts[part], squares[part]);
    }
  }
}

/// A block of rows whose sums become moments, merged with those of `count` rows before.
template <class T>
struct ColumnBlock {
  HWY_INLINE ColumnBlock(const T* x_, std::size_t rows_, std::size_t stride_, std::size_t count_)
      : x(x_), rows(rows_), stride(stride_), count(count_) {
    const auto n = static_cast<double>(rows), before = static_cast<double>(count), total = n + before;
    inverse = 1.0 / n, mean_weight = n / total, m2_weight = n * before / total;
  }

  /// The vector of columns at `column`, with the sums of differences from shift; mean and m2 are [columns].
  template <class D>
  HWY_INLINE void Take(D d, std::size_t column, hn::Vec<D> shift,
                       hn::Vec<typename Widened<D>::Wide> (&sum)[Widened<D>::kParts],
                       hn::Vec<typename Widened<D>::Wide> (&squares)[Widened<D>::kParts], double* HWY_RESTRICT mean,
                       double* HWY_RESTRICT m2) const {
    using Wide = Widened<D>;
    using D64 = typename Wide::Wide;
    constexpr D64 d64;
    const auto smallest = hn::Set(d64, SmallestSumOfSquares<T>(rows));
    const Wide wide_shift(shift);
    // Column by column below: what is done with one must not depend on how many lanes a vector has.
    bool trusted = true;
    for (std::size_t part = 0; part < Wide::kParts; ++part) {
      const auto& s = squares[part];
      trusted = trusted && hn::AllTrue(d64, hn::And(hn::IsFinite(s), hn::Ge(s, smallest)));
    }
    if (!trusted) {
      hn::Vec<D64> wide_sum[Wide::kParts], wide_squares[Wide::kParts];
      WideColumnSums(d, x + column, rows, stride, shift, wide_sum, wide_squares);
      for (std::size_t part = 0; part < Wide::kParts; ++part) {
        const auto trust = hn::And(hn::IsFinite(squares[part]), hn::Ge(squares[part], smallest));
        sum[part] = hn::IfThenElse(trust, sum[part], wide_sum[part]);
        squares[part] = hn::IfThenElse(trust, squares[part], wide_squares[part]);
      }
    }
    for (std::size_t part = 0; part < Wide::kParts; ++part) {
      const std::size_t at = column + part * Wide::kLanes;
      const bool careful = !hn::AllTrue(d64, hn::IsFinite(squares[part]));
      Moments overflow[Wide::kLanes];
      for (std::size_t lane = 0; careful && lane < Wide::kLanes; ++lane) {
        overflow[lane] = {static_cast<double>(count), count > 0 ? mean[at + lane] : 0, count > 0 ? m2[at + lane] : 0};
      }
      const auto offset = hn::Mul(sum[part], hn::Set(d64, inverse));
      auto block_mean = hn::Add(wide_shift.parts[part], offset);
      auto block_m2 = hn::Sub(squares[part], hn::Mul(sum[part], offset));
      block_m2 = hn::Max(block_m2, hn::Zero(d64));
      if (count > 0) {
        const auto old_mean = hn::LoadU(d64, mean + at);
        const auto delta = hn::Sub(block_mean, old_mean);
        block_mean = hn::Add(old_mean, hn::Mul(delta, hn::Set(d64, mean_weight)));
        const auto between = hn::Mul(hn::Mul(delta, delta), hn::Set(d64, m2_weight));
        block_m2 = hn::Add(hn::LoadU(d64, m2 + at), hn::Add(block_m2, between));
      }
      hn::StoreU(block_mean, d64, mean + at);
      hn::StoreU(block_m2, d64, m2 + at);
      for (std::size_t lane = 0; careful && lane < Wide::kLanes; ++lane) {
        if (std::isfinite(hn::ExtractLane(squares[part], lane))) continue;
        overflow[lane].merge(CarefulColumnMoments(x + at + lane, rows, stride));
        mean[at + lane] = overflow[lane].mean;
        m2[at + lane] = overflow[lane].m2;
      }
    }
  }

  const T* x;
  std::size_t rows, stride, count;
  double inverse, mean_weight, m2_weight;
};

/// Few columns: strip by strip down a block in the first cache, sums in registers. The shift K is the mean of every
/// SampleStep-th row. That is within a few σ of the block for all but a few values, whatever the values are: an outlier
/// of size A among the s samples moves K by A/s, and σ by A/√rows at least.
template <class T>
void AccumulateNarrowMoments(const T* HWY_RESTRICT x, std::size_t rows, std::size_t stride, std::size_t columns,
                             std::size_t count, double* HWY_RESTRICT mean, double* HWY_RESTRICT m2) {
  const std::size_t sample = SampleStep(rows), samples = (rows + sample - 1) / sample;
  const auto weight = Parameter<T>{1} / static_cast<Parameter<T>>(samples);
  const ColumnBlock<T> block(x, rows, stride, count);
  Prefetcher next(std::array{x}, rows, stride, columns);
  ForEachStrip<kColumnStrip>(Tag<T>(), columns, [&](auto d, auto vectors, std::size_t column) HWY_ATTR {
    using D = decltype(d);
    constexpr std::size_t kVectors = vectors, kLanes = hn::MaxLanes(D());
    hn::Vec<D> shift[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) shift[v] = hn::Zero(d);
    for (std::size_t r = 0; r < rows; r += sample) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        shift[v] = hn::Add(shift[v], LoadElements(d, x + r * stride + column + v * kLanes));
      }
    }
    for (std::size_t v = 0; v < kVectors; ++v) shift[v] = hn::Mul(shift[v], hn::Set(d, weight));
    PairSums<D, kVectors> sums;
    for (std::size_t r = 0; r < rows; r += kTogether) {
      sums.Add(r, std::min(r + kTogether, rows), [&](std::size_t row, std::size_t v) EQUINORM_INLINE {
        const std::size_t at = row * stride + column + v * kLanes;
        if (v == 0) next.template Step<kVectors * kLanes>(at);
        const auto difference = hn::Sub(LoadElements(d, x + at), shift[v]);
        return Pair<D>{difference, hn::Mul(difference, difference)};
      });
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      block.Take(d, column + v * kLanes, shift[v], sums.first[v], sums.second[v], mean, m2);
    }
  });
}

/// Many columns: kTogether rows at a time along the columns of a panel, whose sums stay in the first cache. Where at
/// least as many rows came before, K is their mean: nothing is read twice. It may be far from the mean μ of this block
/// of n rows, but no farther than all these rows differ: what the merge adds to their M2, (μ − K)²·n·count/(n + count),
/// is at least half of the n·(μ − K)² by which Σd² exceeds the block's own M2. So Σd² over such blocks is at most twice
/// M2.
template <class T>
void AccumulateWideMoments(const T* HWY_RESTRICT x, std::size_t rows, std::size_t stride, std::size_t columns,
                           std::size_t count, double* HWY_RESTRICT mean, double* HWY_RESTRICT m2) {
  using P = Parameter<T>;
  constexpr std::size_t kPanel = 512;
  HWY_ALIGN P shifts[kPanel];
  HWY_ALIGN double sums[kPanel], squares[kPanel];
  const std::size_t sample = SampleStep(rows), samples = (rows + sample - 1) / sample;
  const auto weight = P{1} / static_cast<P>(samples);
  for (std::size_t first = 0; first < columns; first += kPanel) {
    const std::size_t width = std::min(columns - first, kPanel);
    const T* panel = x + first;
    const ColumnBlock<T> block(panel, rows, stride, count);
    if (count >= rows) {
      for (std::size_t i = 0; i < width; ++i) shifts[i] = static_cast<P>(mean[first + i]);
    } else {
      ForEachStrip<kWideStrip>(Tag<T>(), width, [&](auto d, auto vectors, std::size_t column) EQUINORM_INLINE {
        Unroll<vectors>([&](auto v) EQUINORM_INLINE {
          const std::size_t at = column + v * hn::MaxLanes(d);
          auto shift = hn::Zero(d);
          for (std::size_t r = 0; r < rows; r += sample) {
            shift = hn::Add(shift, LoadElements(d, panel + r * stride + at));
          }
          hn::StoreU(hn::Mul(shift, hn::Set(d, weight)), d, shifts + at);
        });
      });
    }
    std::fill_n(sums, width, 0.0);
    std::fill_n(squares, width, 0.0);
    AccumulateWide<kWideStrip>(
        std::array{panel}, rows, stride, width, sums, squares,
        [&](auto d, std::size_t row, std::size_t column) EQUINORM_INLINE {
          const auto difference =
              hn::Sub(LoadElements(d, panel + row * stride + column), hn::LoadU(d, shifts + column));
          return Pair<decltype(d)>{difference, hn::Mul(difference, difference)};
        },
        [](auto, std::size_t, auto product) EQUINORM_INLINE { return product; });
    ForEachStrip<1>(Tag<T>(), width, [&](auto d, auto, std::size_t column) HWY_ATTR {
      using Wide = Widened<decltype(d)>;
      constexpr typename Wide::Wide d64;
      hn::Vec<typename Wide::Wide> sum[Wide::kParts], square[Wide::kParts];
      for (std::size_t part = 0; part < Wide::kParts; ++part) {
        sum[part] = hn::LoadU(d64, sums + column + part * Wide::kLanes);
        square[part] = hn::LoadU(d64, squares + column + part * Wide::kLanes);
      }
      block.Take(d, column, hn::LoadU(d, shifts + column), sum, square, mean + first, m2 + first);
    });
  }
}

/// Takes the moments of x: [rows ≥ 1, columns], rows `stride` floats apart, into mean and m2 ([columns]), which hold
/// those of `count` rows before: sums of differences from a shift K near the mean. A difference is exact where the mean
/// is large (Sterbenz's lemma), else rounded relative to |x − K|.
template <class T>
void AccumulateColumnMoments(const T* HWY_RESTRICT x, std::size_t rows, std::size_t stride, std::size_t columns,
                             std::size_t count, double* HWY_RESTRICT mean, double* HWY_RESTRICT m2) {
  if (columns <= kNarrowMoments) {
    AccumulateNarrowMoments(x, rows, stride, columns, count, mean, m2);
  } else {
    AccumulateWideMoments(x, rows, stride, columns, count, mean, m2);
  }
}

/// Adds Σ g and Σ g·d to sum and dot ([columns]), where d = x − mean and g = gradient(tag, index, column, d) is what
/// the activation let through; index counts elements from x. Products are of d·unit ([columns]), a power of two that
/// brings d near 1: so they vanish only beside a g that is denormal itself. Inputs are x and what else gradient reads,
/// fetched ahead. kHeavy: gradient is long, as behind SiLU or GELU, and is written out fewer times.
template <bool kHeavy, class T, std::size_t kInputs, class Gradient>
HWY_INLINE void AccumulateColumnDots(const std::array<const T*, kInputs>& inputs, std::size_t rows, std::size_t stride,
                                     std::size_t columns, const Parameter<T>* HWY_RESTRICT mean,
                                     const Parameter<T>* HWY_RESTRICT unit, const Gradient& gradient,
                                     double* HWY_RESTRICT sum, double* HWY_RESTRICT dot) {
  const T* HWY_RESTRICT x = inputs[0];
  if (columns > kNarrowDots) {
    const auto term = [&](auto d, std::size_t row, std::size_t column) EQUINORM_INLINE {
      const std::size_t index = row * stride + column;
      const auto difference = hn::Sub(LoadElements(d, x + index), hn::LoadU(d, mean + column));
      const auto g = gradient(d, index, column, difference);
      return Pair<decltype(d)>{g, hn::Mul(g, hn::Mul(difference, hn::LoadU(d, unit + column)))};
    };
    const auto scaled = [&](auto d, std::size_t column, auto product) EQUINORM_INLINE {
      const decltype(product) inverse(PowerReciprocal(d, hn::LoadU(d, unit + column)));
      for (std::size_t part = 0; part < product.kParts; ++part) {
        product.parts[part] = hn::Mul(product.parts[part], inverse.parts[part]);
      }
      return product;
    };
    constexpr std::size_t kStrip = kHeavy ? kColumnStrip : kWideStrip;
    AccumulateWide<kStrip>(inputs, rows, stride, columns, sum, dot, term, scaled);
    return;
  }
  Prefetcher next(inputs, rows, stride, columns);
  ForEachStrip<kColumnStrip>(Tag<T>(), columns, [&](auto d, auto vectors, std::size_t column) HWY_ATTR {
    using D = decltype(d);
    using Wide = Widened<D>;
    using D64 = typename Wide::Wide;
    constexpr D64 d64;
    constexpr std::size_t kVectors = vectors, kLanes = hn::MaxLanes(D());
    hn::Vec<D> means[kVectors], units[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      means[v] = hn::LoadU(d, mean + column + v * kLanes);
      units[v] = hn::LoadU(d, unit + column + v * kLanes);
    }
    PairSums<D, kVectors> sums;
    for (std::size_t r = 0; r < rows; r += kTogether) {
      sums.Add(r, std::min(r + kTogether, rows), [&](std::size_t row, std::size_t v) EQUINORM_INLINE {
        const std::size_t index = row * stride + column + v * kLanes;
        if (v == 0) next.template Step<kVectors * kLanes>(index);
        const auto difference = hn::Sub(LoadElements(d, x + index), means[v]);
        const auto g = gradient(d, index, column + v * kLanes, difference);
        return Pair<D>{g, hn::Mul(g, hn::Mul(difference, units[v]))};
      });
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Wide wide_unit(units[v]);
      for (std::size_t part = 0; part < Wide::kParts; ++part) {
        const std::size_t at = column + v * kLanes + part * Wide::kLanes;
        const auto in_units = hn::Div(sums.second[v][part], wide_unit.parts[part]);
        hn::StoreU(hn::Add(hn::LoadU(d64, sum + at), sums.first[v][part]), d64, sum + at);
        hn::StoreU(hn::Add(hn::LoadU(d64, dot + at), in_units), d64, dot + at);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
