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
#include <type_traits>

#include "core/elements.hpp"
#include "reduce/blocks.hpp"
#include "reduce/moments.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Vectors side by side in a strip of columns, whose sums stay in registers.
inline constexpr std::size_t kColumnStrip = 4;

/// Columns of a panel, whose sums in double stay in the first cache. (Narrower ones are farther from the order of
/// memory: in panels of 512 moments of 100 MB in rows of 1024 took a fifth longer.)
inline constexpr std::size_t kPanel = 1024;
/// The most columns that AccumulatePairs takes at once.
inline constexpr std::size_t kMostColumns = 2048;

/// Rows of up to so many columns are narrow.
template <class T>
inline constexpr std::size_t kNarrowColumns = kNarrowBytes / sizeof(Parameter<T>);

/// 1/x of a power of two, exactly, without a division.
template <class D>
HWY_INLINE hn::Vec<D> PowerReciprocal(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> bits;
  using Bits = hn::TFromD<decltype(bits)>;
  constexpr int kFraction = sizeof(Bits) == 4 ? 23 : 52;
  constexpr Bits kTwice = sizeof(Bits) == 4 ? 2 * 127 : 2 * 1023;
  return hn::BitCast(d, hn::Sub(hn::Set(bits, static_cast<Bits>(kTwice << kFraction)), hn::BitCast(bits, x)));
}

/// How far ahead (bytes, of all inputs) memory is fetched that is read in its order, and where there is much of it.
inline constexpr std::size_t kNearBytes = 8 << 10, kMuchNearBytes = 24 << 10;
/// How far ahead (bytes) the beginnings of pages are fetched where there is much to come: two lines in a row seem to
/// set the hardware's own prefetch, which ends with a page, to work on one. Of rows of up to so many elements, of all
/// inputs, that brought in more than an order that it foresees (measured).
inline constexpr std::size_t kFarBytes = 32 << 10, kMostByPages = 512;

/// Strips as ForEachStripOrPart has them, of kColumnStrip vectors; or kWhole, with the registers of AVX-512, of the
/// whole row, if it is narrow: memory is read in its order then.
template <bool kWhole, class D, class Strip>
HWY_INLINE void ForEachColumnStrip(D d, std::size_t columns, const Strip& strip) {
  if constexpr (kWhole && kMasks) {
    constexpr std::size_t kLanes = hn::MaxLanes(D());
    static_assert(kColumnStrip == 4 && kNarrowBytes == 8 * kLanes * sizeof(hn::TFromD<D>));
    const std::size_t count = (columns + kLanes - 1) % kLanes + 1;  // of the last vector
    switch ((columns + kLanes - 1) / kLanes) {
      case 5:
        return strip(d, Constant<5>(), 0, count);
      case 6:
        return strip(d, Constant<6>(), 0, count);
      case 7:
        return strip(d, Constant<7>(), 0, count);
      case 8:
        return strip(d, Constant<8>(), 0, count);
      default:
        break;
    }
  }
  ForEachStripOrPart<kColumnStrip>(d, columns, strip);
}

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

/// Fetches inputs in the order of memory, some rows ahead of where they are read. Of rows that do not follow one
/// another what lies between two is left out.
template <std::size_t kInputs, class T>
class OrderedFetch {
 public:
  HWY_INLINE OrderedFetch(const std::array<const T*, kInputs>& inputs, const Block& block, std::size_t rows_ahead)
      : next_(inputs), columns_(block.columns), gap_(block.stride - block.columns) {
    for (const T*& next : next_) next += rows_ahead * block.stride;
  }

  /// The next kCount elements: of a strip of several vectors into the second cache.
  template <std::size_t kCount, bool kFar>
  HWY_INLINE void Fetch() {
    constexpr std::size_t kLine = kLineBytes / sizeof(T);
    Unroll<kInputs>([&](auto k) EQUINORM_INLINE {
      Unroll<(kCount + kLine - 1) / kLine>([&](auto i) EQUINORM_INLINE {
        if constexpr (kFar) {
          FetchFar(next_[k] + i * kLine);
        } else {
          hwy::Prefetch(next_[k] + i * kLine);
        }
      });
    });
    Skip(kCount);
    if (gap_ == 0) return;
    column_ += kCount;
    if (column_ >= columns_) Skip(gap_), column_ = 0;
  }

 private:
  HWY_INLINE void Skip(std::size_t count) {
    for (const T*& next : next_) next += count;
  }

  std::array<const T*, kInputs> next_;
  std::size_t columns_, gap_, column_ = 0;
};

/// Rows whose sums are widened at once.
inline constexpr std::size_t kSumRows = kSumsTogether * kTogether;
/// How many rows a strip goes down: where memory is the limit few, so that it is read nearly in its order.
inline constexpr std::size_t kFlatRows = kTogether, kTallRows = kSumRows, kDeepRows = kSumsTogether * kSumRows;
/// So many bytes of all inputs may be tall: two such pieces, of which one is fetched, stay in the second cache.
inline constexpr std::size_t kTallBytes = 128 << 10;

/// Adds the pairs term(tag, Constant<vectors side by side>, row, column, count) of a matrix of up to kMostColumns to
/// sum and product ([columns]), kTogether rows at a time along their columns, in strips (ForEachColumnStrip). Inputs
/// are what term reads, and what comes next of them is fetched: of rows that follow one another the memory behind, in
/// its order (in the order of strips it took up to a fifth longer), else the next strip, or at the end of the columns
/// the next rows.
///
/// Of kFlatRows the sums of a strip wait as floats, in memory, until there are kSumsTogether of them, and then are
/// widened: widening all would take as long as the rest. Of kTallRows they wait in registers, and what is kept of each
/// column is read and written more rarely. Of kDeepRows kSumsTogether of those, too, are added before they are widened.
/// And nothing is fetched but the beginnings of pages: what is read in order memory foresees, and in the caches a fetch
/// costs more than it brings. kShort: the term is. Then much memory is fetched into the second cache, and in order (of
/// a long one it took longer, measured), and narrow rows are whole strips.
template <std::size_t kRows, bool kShort, class T, std::size_t kInputs, class TermOf>
HWY_INLINE void AccumulatePairsOf(const std::array<const T*, kInputs>& inputs, const Block& block,
                                  double* HWY_RESTRICT sum, double* HWY_RESTRICT product, const TermOf& term) {
  constexpr bool kDeep = kRows == kDeepRows, kWait = kRows == kFlatRows;
  constexpr std::size_t kLine = kLineBytes / sizeof(T), kPage = kPageBytes / sizeof(T), kFar = kFarBytes / sizeof(T);
  const std::size_t rows = block.rows, stride = block.stride, columns = block.columns;
  const bool in_order = kShort && (block.much || columns == stride);
  const bool by_pages = block.much && columns == stride && kInputs * columns <= kMostByPages;
  const std::size_t ahead = (in_order ? kMuchNearBytes : kNearBytes) / kInputs / sizeof(T);
  OrderedFetch<kInputs, T> fetch(inputs, block, std::max(ahead / columns, kRows));  // at least those read side by side
  HWY_ALIGN Parameter<T> waiting[kWait ? 2 * kMostColumns : 1];  // of each strip the sums, then those of products
  for (std::size_t r = 0; r < rows; r += kRows) {
    const std::size_t end = std::min(r + kRows, rows), summed = r % kSumRows;
    for (std::size_t at = r * stride + kFar; by_pages && at < end * stride + kFar; at += kPage) {
      for (const std::size_t line : {at, at + kLine}) {
        Unroll<kInputs>([&](auto k) EQUINORM_INLINE { FetchFar(inputs[k] + line); });
      }
    }
    const auto strip = [&](auto d, auto vectors, std::size_t column, std::size_t count) EQUINORM_INLINE {
      using D = decltype(d);
      constexpr std::size_t kLanes = hn::MaxLanes(d), kWidth = vectors * kLanes;
      const auto count_of = [&](auto v) EQUINORM_INLINE { return v + 1 < vectors ? kLanes : count; };
      const std::size_t next = column + 2 * kWidth <= columns ? kWidth : kRows * stride - column;
      // Up to kTogether rows.
      const auto add_rows = [&](std::size_t first, std::size_t last, [[maybe_unused]] auto ordered) EQUINORM_INLINE {
        Pairs<D, vectors> pairs;
        for (std::size_t row = first; row < last; ++row) {
          if constexpr (!kDeep && ordered) {
            fetch.template Fetch<kWidth, (vectors > 1)>();
          } else if constexpr (!kDeep) {
            Unroll<kInputs>([&](auto k) EQUINORM_INLINE {
              const T* from = inputs[k] + row * stride + column + next;
              for (std::size_t i = 0; i < kWidth; i += kLine) hwy::Prefetch(from + i);
            });
          }
          Unroll<vectors>(
              [&](auto v) EQUINORM_INLINE { pairs.Add(v, term(d, vectors, row, column + v * kLanes, count_of(v))); });
        }
        return pairs;
      };
      // Up to kSumRows.
      const auto add_sums = [&](std::size_t first, std::size_t last, auto ordered) EQUINORM_INLINE {
        Pairs<D, vectors> sums;
        for (std::size_t row = first; row < last; row += kTogether) {
          sums.Add(add_rows(row, std::min(row + kTogether, last), ordered));
        }
        return sums;
      };
      Pairs<D, vectors> pairs;
      if constexpr (kDeep) {
        for (std::size_t row = r; row < end; row += kSumRows) {
          pairs.Add(add_sums(row, std::min(row + kSumRows, end), std::false_type()));
        }
      } else {
        const auto add = [&](auto ordered) EQUINORM_INLINE {
          if constexpr (kWait) {
            pairs = add_rows(r, end, ordered);
          } else {
            pairs = add_sums(r, end, ordered);
          }
        };
        if (in_order) {
          add(std::true_type());
        } else {
          add(std::false_type());
        }
      }
      if constexpr (kWait) {
        Parameter<T>*const first = waiting + 2 * column, *const second = first + kWidth;
        if (summed > 0) {
          Unroll<vectors>([&](auto v) EQUINORM_INLINE {
            pairs.first[v] = hn::Add(pairs.first[v], hn::LoadU(d, first + v * kLanes));
            pairs.second[v] = hn::Add(pairs.second[v], hn::LoadU(d, second + v * kLanes));
          });
        }
        if (summed + kTogether < kSumRows && end < rows) {
          Unroll<vectors>([&](auto v) EQUINORM_INLINE {
            hn::StoreU(pairs.first[v], d, first + v * kLanes);
            hn::StoreU(pairs.second[v], d, second + v * kLanes);
          });
          return;
        }
      }
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        const std::size_t at = column + v * kLanes;
        AddWidened(d, pairs.first[v], sum + at, count_of(v));
        AddWidened(d, pairs.second[v], product + at, count_of(v));
      });
    };
    ForEachColumnStrip<kDeep && kShort>(Tag<T>(), columns, strip);
  }
}

/// The same, deep where rows are narrow, or with kDeepInCaches where the caches hold the block: down many wide rows is
/// far from the order of memory (measured: up to 40 % more time where that is the limit; of two inputs in the caches up
/// to 16 %). Those may be tall.
template <bool kShort, bool kDeepInCaches, class T, std::size_t kInputs, class TermOf>
HWY_INLINE void AccumulatePairs(const std::array<const T*, kInputs>& inputs, const Block& block,
                                double* HWY_RESTRICT sum, double* HWY_RESTRICT product, const TermOf& term) {
  const bool follow = block.columns == block.stride, narrow = follow && block.columns <= kNarrowColumns<T>;
  if (narrow || (kDeepInCaches && block.cached)) {
    AccumulatePairsOf<kDeepRows, kShort>(inputs, block, sum, product, term);
    return;
  }
  if constexpr (kShort && !kDeepInCaches && std::is_same_v<T, float>) {  // of other types it was not measured
    if (block.tall && follow && kInputs * kTallRows * block.columns * sizeof(T) <= kTallBytes) {
      AccumulatePairsOf<kTallRows, kShort>(inputs, block, sum, product, term);
      return;
    }
  }
  AccumulatePairsOf<kFlatRows, kShort>(inputs, block, sum, product, term);
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

/// Brings the shifts near the mean of those columns that a sample misled about (is_misled); says whether there are any.
template <class P>
HWY_INLINE bool MoveShifts(std::size_t rows, std::size_t columns, const double* HWY_RESTRICT sums,
                           const double* HWY_RESTRICT squares, P* HWY_RESTRICT shifts) {
  const double inverse = 1.0 / static_cast<double>(rows);
  bool any = false;
  ForEachStrip<1>(F64(), columns, [&](auto d64, auto, std::size_t column) HWY_ATTR {
    const auto sum = hn::LoadU(d64, sums + column);
    const auto offset = hn::Mul(sum, hn::Set(d64, inverse));
    const auto most = hn::Mul(hn::LoadU(d64, squares + column), hn::Set(d64, kMostOfShift));
    if (hn::AllFalse(d64, hn::Gt(hn::Mul(sum, offset), most))) [[likely]]
      return;
    for (std::size_t i = column; i < column + hn::Lanes(d64); ++i) {
      if (is_misled(sums[i], squares[i], inverse)) {
        const double mean = static_cast<double>(shifts[i]) + sums[i] * inverse;
        any = any || static_cast<P>(mean) != shifts[i];
        shifts[i] = static_cast<P>(mean);
      }
    }
  });
  return any;
}

/// Σd and Σd² ([columns]) of d = x − shift. Part of its caller: called, it took 8 % longer where memory is the limit.
template <class T>
HWY_INLINE void DifferenceSums(const T* HWY_RESTRICT x, Block block, const Parameter<T>* HWY_RESTRICT shifts,
                               double* HWY_RESTRICT sums, double* HWY_RESTRICT squares) {
  std::fill_n(sums, block.columns, 0.0);
  std::fill_n(squares, block.columns, 0.0);
  AccumulatePairs<true, true>(
      std::array{x}, block, sums, squares,
      [=](auto d, auto, std::size_t row, std::size_t column, std::size_t count) EQUINORM_INLINE {
        const auto difference =
            hn::Sub(LoadCount(d, x + row * block.stride + column, count), hn::LoadU(d, shifts + column));
        return Pair<decltype(d)>{difference, difference, difference};
      });
}

/// The same by a call, where it is rare.
template <class T>
HWY_NOINLINE void DifferenceSumsAgain(const T* HWY_RESTRICT x, Block block, const Parameter<T>* HWY_RESTRICT shifts,
                                      double* HWY_RESTRICT sums, double* HWY_RESTRICT squares) {
  DifferenceSums(x, block, shifts, sums, squares);
}

/// Takes the moments of x, a block of at least a row, into mean and m2 ([columns]), which hold those of `count` rows
/// before: sums of differences d from a shift K near the mean. A difference is exact where the mean is large
/// (Sterbenz's lemma), else rounded relative to its size.
///
/// K is the mean of every SampleStep-th row. That is near enough for all but a few values: an outlier of size A among
/// s samples moves K by A/s, and σ by A/√rows at least. Where it was not, which the sums tell, they are taken again
/// from the mean that they gave: so Σd² is at most kMostShifted times M2, whatever the values, or K within a rounding
/// of the mean.
template <class T>
void AccumulateColumnMoments(const T* HWY_RESTRICT x, const Block& block, std::size_t count, double* HWY_RESTRICT mean,
                             double* HWY_RESTRICT m2) {
  using P = Parameter<T>;
  HWY_ALIGN P shifts[kPanel];
  HWY_ALIGN double sums[kPanel], squares[kPanel];
  const std::size_t rows = block.rows, stride = block.stride;
  const std::size_t sample = SampleStep(rows), samples = (rows + sample - 1) / sample;
  const auto weight = P{1} / static_cast<P>(samples);
  for (std::size_t first = 0; first < block.columns; first += kPanel) {
    Block piece = block;
    piece.columns = std::min(block.columns - first, kPanel);
    const std::size_t width = piece.columns;
    const T* panel = x + first;
    const auto sample_strip = [&](auto d, auto vectors, std::size_t column, std::size_t lanes) EQUINORM_INLINE {
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        const std::size_t at = column + v * hn::MaxLanes(d);
        auto shift = hn::Zero(d);
        for (std::size_t r = 0; r < rows; r += sample) {
          shift = hn::Add(shift, LoadCount(d, panel + r * stride + at, lanes));
        }
        hn::StoreU(hn::Mul(shift, hn::Set(d, weight)), d, shifts + at);
      });
    };
    ForEachStripOrPart<kColumnStrip>(Tag<T>(), width, sample_strip);
    DifferenceSums(panel, piece, shifts, sums, squares);
    if (MoveShifts(rows, width, sums, squares, shifts)) [[unlikely]]
      DifferenceSumsAgain(panel, piece, shifts, sums, squares);
    const ColumnBlock<T> found(panel, rows, stride, count);
    ForEachStrip<1>(Tag<T>(), width, [&](auto d, auto, std::size_t column) HWY_ATTR {
      using Wide = Widened<decltype(d)>;
      constexpr typename Wide::Wide d64;
      hn::Vec<typename Wide::Wide> sum[Wide::kParts], square[Wide::kParts];
      for (std::size_t part = 0; part < Wide::kParts; ++part) {
        sum[part] = hn::LoadU(d64, sums + column + part * Wide::kLanes);
        square[part] = hn::LoadU(d64, squares + column + part * Wide::kLanes);
      }
      found.Take(d, column, hn::LoadU(d, shifts + column), sum, square, mean + first, m2 + first);
    });
  }
}

/// Multiplies x ([columns]) by unit ([columns]), a power of two, or with kInverse by 1/unit: exactly.
template <bool kInverse, class P>
HWY_INLINE void ScaleColumns(const P* HWY_RESTRICT unit, std::size_t columns, double* HWY_RESTRICT x) {
  ForEachStrip<1>(Tag<P>(), columns, [&](auto d, auto, std::size_t column) HWY_ATTR {
    using Wide = Widened<decltype(d)>;
    constexpr typename Wide::Wide d64;
    const auto power = hn::LoadU(d, unit + column);
    const Wide factor(kInverse ? PowerReciprocal(d, power) : power);
    for (std::size_t part = 0; part < Wide::kParts; ++part) {
      double* at = x + column + part * Wide::kLanes;
      hn::StoreU(hn::Mul(hn::LoadU(d64, at), factor.parts[part]), d64, at);
    }
  });
}

/// Adds Σ g and Σ g·d to sum and dot ([columns]), where d = x − mean and g = gradient(tag, Constant<vectors side by
/// side>, index, column, count, d) is what the activation let through; index counts elements from x. Products are of
/// d·unit ([columns]), a power of two that brings d near 1: so they vanish only beside a g that is denormal itself.
/// Inputs are x and what else gradient reads. kShort: gradient is, not as behind SiLU or GELU.
template <bool kShort, class T, std::size_t kInputs, class Gradient>
HWY_INLINE void AccumulateColumnDots(const std::array<const T*, kInputs>& inputs, const Block& block,
                                     const Parameter<T>* HWY_RESTRICT mean, const Parameter<T>* HWY_RESTRICT unit,
                                     const Gradient& gradient, double* HWY_RESTRICT sum, double* HWY_RESTRICT dot) {
  const T* HWY_RESTRICT x = inputs[0];
  const std::size_t stride = block.stride;
  ScaleColumns<false>(unit, block.columns, dot);
  for (std::size_t begin = 0; begin < block.columns; begin += kMostColumns) {
    Block piece = block;
    piece.columns = std::min(block.columns - begin, kMostColumns);
    auto panel = inputs;
    for (auto& input : panel) input += begin;
    AccumulatePairs<kShort, false>(
        panel, piece, sum + begin, dot + begin,
        [&](auto d, auto vectors, std::size_t row, std::size_t panel_column, std::size_t count) EQUINORM_INLINE {
          const std::size_t column = begin + panel_column;
          const std::size_t index = row * stride + column;
          const auto difference = hn::Sub(LoadCount(d, x + index, count), hn::LoadU(d, mean + column));
          const auto g = gradient(d, vectors, index, column, count, difference);
          return Pair<decltype(d)>{g, g, hn::Mul(difference, hn::LoadU(d, unit + column))};
        });
  }
  ScaleColumns<true>(unit, block.columns, dot);
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
