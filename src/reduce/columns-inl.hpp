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
/// How far ahead (bytes) the beginnings of pages are fetched: two lines in a row seem to set the hardware's own
/// prefetch, which ends with a page, to work on one. Of rows of up to so many elements, of all inputs, that brought in
/// more than an order that it foresees (measured; where the first caches hold all it cost up to 0.7 %).
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

/// Fetches the beginnings of pages of what lies kFarBytes behind the elements begin … end − 1: see kMostByPages.
template <class T, std::size_t kInputs>
HWY_INLINE void FetchPages(const std::array<const T*, kInputs>& inputs, std::size_t begin, std::size_t end) {
  constexpr std::size_t kLine = kLineBytes / sizeof(T), kPage = kPageBytes / sizeof(T), kFar = kFarBytes / sizeof(T);
  for (std::size_t at = begin + kFar; at < end + kFar; at += kPage) {
    for (const std::size_t line : {at, at + kLine}) {
      Unroll<kInputs>([&](auto k) EQUINORM_INLINE { FetchFar(inputs[k] + line); });
    }
  }
}
template <class T, std::size_t kInputs>
HWY_INLINE bool GoesByPages(const Block& block) {
  return block.columns == block.stride && kInputs * block.columns <= kMostByPages;
}

/// The sums of a strip over the rows first … last − 1, up to kTogether, before each of which fetch(row) is called, or
/// nothing if that is nullptr: of the pairs term(tag, Constant<vectors side by side>, row, column, count). `count`
/// lanes of the last vector are there.
template <class D, std::size_t kVectors, class TermOf, class Fetch>
HWY_INLINE Pairs<D, kVectors> SumRows(std::size_t first, std::size_t last, std::size_t column, std::size_t count,
                                      const TermOf& term, const Fetch& fetch) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  Pairs<D, kVectors> pairs;
  for (std::size_t row = first; row < last; ++row) {
    if constexpr (!std::is_null_pointer_v<Fetch>) fetch(row);
    Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
      pairs.Add(v, term(D(), Constant<kVectors>(), row, column + v * kLanes, v + 1 < kVectors ? kLanes : count));
    });
  }
  return pairs;
}
/// The same over up to kSumRows.
template <class D, std::size_t kVectors, class TermOf, class Fetch>
HWY_INLINE Pairs<D, kVectors> SumMoreRows(std::size_t first, std::size_t last, std::size_t column, std::size_t count,
                                          const TermOf& term, const Fetch& fetch) {
  Pairs<D, kVectors> sums;
  for (std::size_t row = first; row < last; row += kTogether) {
    sums.Add(SumRows<D, kVectors>(row, std::min(row + kTogether, last), column, count, term, fetch));
  }
  return sums;
}

/// Pairs to and from memory: the first ones, then the second.
template <class D, std::size_t kVectors>
HWY_INLINE void StorePairs(const Pairs<D, kVectors>& pairs, hn::TFromD<D>* HWY_RESTRICT p) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
    hn::StoreU(pairs.first[v], D(), p + v * kLanes);
    hn::StoreU(pairs.second[v], D(), p + (kVectors + v) * kLanes);
  });
}
template <class D, std::size_t kVectors>
HWY_INLINE Pairs<D, kVectors> LoadPairs(const hn::TFromD<D>* HWY_RESTRICT p) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  Pairs<D, kVectors> pairs;
  Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
    pairs.first[v] = hn::LoadU(D(), p + v * kLanes);
    pairs.second[v] = hn::LoadU(D(), p + (kVectors + v) * kLanes);
  });
  return pairs;
}

/// Adds the sums of a strip to sum and product ([columns]).
template <class D, std::size_t kVectors>
HWY_INLINE void AddStrip(const Pairs<D, kVectors>& pairs, std::size_t column, std::size_t count,
                         double* HWY_RESTRICT sum, double* HWY_RESTRICT product) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
    const std::size_t at = column + v * kLanes, lanes = v + 1 < kVectors ? kLanes : count;
    AddWidened(D(), pairs.first[v], sum + at, lanes);
    AddWidened(D(), pairs.second[v], product + at, lanes);
  });
}

/// Adds those of up to kDeepRows.
template <class D, std::size_t kVectors, class TermOf>
HWY_INLINE void AddDeepRows(std::size_t first, std::size_t last, std::size_t column, std::size_t count,
                            const TermOf& term, double* HWY_RESTRICT sum, double* HWY_RESTRICT product) {
  Pairs<D, kVectors> sums;
  for (std::size_t row = first; row < last; row += kSumRows) {
    sums.Add(SumMoreRows<D, kVectors>(row, std::min(row + kSumRows, last), column, count, term, nullptr));
  }
  AddStrip(sums, column, count, sum, product);
}

/// The same by a call: each function around it would be compiled with all of this again (ColumnDots of float by itself
/// took 32 s then, and 19 now). kWhole: the last vector is. The term is without references, so that what it reads from
/// stays in registers.
template <class D, std::size_t kVectors, bool kWhole, class TermOf>
HWY_NOINLINE void AddDeepStrip(std::size_t first, std::size_t last, std::size_t column, std::size_t part,
                               const TermOf term, double* HWY_RESTRICT sum, double* HWY_RESTRICT product) {
  AddDeepRows<D, kVectors>(first, last, column, kWhole ? hn::MaxLanes(D()) : part, term, sum, product);
}

/// Adds the pairs term(tag, Constant<vectors side by side>, row, column, count) of a matrix to sum and product
/// ([columns]), kDeepRows at a time, of which kSumsTogether sums of kSumRows, too, are added before they are widened.
/// Of the inputs nothing is fetched but the beginnings of pages: what is read in order memory foresees, and in the
/// caches a fetch costs more than it brings. kShort: the term is. Then narrow rows are whole strips.
template <bool kShort, class T, std::size_t kInputs, class TermOf>
HWY_INLINE void AccumulatePairsDeep(const std::array<const T*, kInputs>& inputs, const Block& block,
                                    double* HWY_RESTRICT sum, double* HWY_RESTRICT product, const TermOf& term) {
  const bool by_pages = GoesByPages<T, kInputs>(block);
  for (std::size_t r = 0; r < block.rows; r += kDeepRows) {
    const std::size_t end = std::min(r + kDeepRows, block.rows);
    if (by_pages) FetchPages(inputs, r * block.stride, end * block.stride);
    const auto strip = [&](auto d, auto vectors, std::size_t column, std::size_t count) EQUINORM_INLINE {
      using D = decltype(d);
      if constexpr (kInputs == 1) {  // called, it took 2 % longer
        AddDeepRows<D, vectors>(r, end, column, count, term, sum, product);
      } else if (!kMasks || vectors == kColumnStrip || (vectors == 1 && count == hn::MaxLanes(d))) {
        AddDeepStrip<D, vectors, true>(r, end, column, count, term, sum, product);
      } else if constexpr (kMasks && vectors != kColumnStrip) {
        AddDeepStrip<D, vectors, false>(r, end, column, count, term, sum, product);
      }
    };
    ForEachColumnStrip<kShort>(Tag<T>(), block.columns, strip);
  }
}

/// The same of up to kMostColumns, kRows at a time along their columns, in strips. What comes next of the inputs is
/// fetched: of rows that follow one another the memory behind, in its order (in the order of strips it took up to a
/// fifth longer), else the next strip, or at the end of the columns the next rows.
///
/// Of kFlatRows the sums of a strip wait as floats, in memory, until there are kSumsTogether of them, and then are
/// widened: widening all would take as long as the rest. Of kTallRows they wait in registers, and what is kept of each
/// column is read and written more rarely. kShort: much memory is fetched into the second cache, and in order (of a
/// long term it took longer, measured).
template <std::size_t kRows, bool kShort, class T, std::size_t kInputs, class TermOf>
HWY_INLINE void AccumulatePairsOf(const std::array<const T*, kInputs>& inputs, const Block& block,
                                  double* HWY_RESTRICT sum, double* HWY_RESTRICT product, const TermOf& term) {
  constexpr bool kWait = kRows == kFlatRows, kTall = kRows == kTallRows;
  static_assert(kWait || kTall);
  const std::size_t rows = block.rows, stride = block.stride, columns = block.columns;
  const bool in_order = kShort && (block.much || columns == stride), by_pages = GoesByPages<T, kInputs>(block);
  const std::size_t ahead = (in_order ? kMuchNearBytes : kNearBytes) / kInputs / sizeof(T);
  OrderedFetch<kInputs, T> fetch(inputs, block, std::max(ahead / columns, kRows));  // at least those read side by side
  HWY_ALIGN Parameter<T> waiting[kWait ? 2 * kMostColumns : 1];  // of each strip the sums, then those of products
  for (std::size_t r = 0; r < rows; r += kRows) {
    const std::size_t end = std::min(r + kRows, rows), summed = r % kSumRows;
    if (by_pages) FetchPages(inputs, r * stride, end * stride);
    const auto strip = [&](auto d, auto vectors, std::size_t column, std::size_t count) EQUINORM_INLINE {
      using D = decltype(d);
      constexpr std::size_t kLanes = hn::MaxLanes(d), kWidth = vectors * kLanes;
      Pairs<D, vectors> pairs;
      const auto add = [&](const auto& fetch_row) EQUINORM_INLINE {
        if constexpr (kWait) {
          pairs = SumRows<D, vectors>(r, end, column, count, term, fetch_row);
        } else {
          pairs = SumMoreRows<D, vectors>(r, end, column, count, term, fetch_row);
        }
      };
      const auto fetch_ordered = [&](std::size_t) EQUINORM_INLINE { fetch.template Fetch<kWidth, (vectors > 1)>(); };
      if constexpr (kTall) {  // whose rows follow one another
        add(fetch_ordered);
      } else {
        const std::size_t next = column + 2 * kWidth <= columns ? kWidth : kRows * stride - column;
        const auto fetch_strip = [&](std::size_t row) EQUINORM_INLINE {
          Unroll<kInputs>([&](auto k) EQUINORM_INLINE {
            const T* from = inputs[k] + row * stride + column + next;
            for (std::size_t i = 0; i < kWidth; i += kLineBytes / sizeof(T)) hwy::Prefetch(from + i);
          });
        };
        if constexpr (kShort) {
          if (in_order) {
            add(fetch_ordered);
          } else {
            add(fetch_strip);
          }
        } else {
          add(fetch_strip);
        }
      }
      if constexpr (kWait) {
        Parameter<T>* sums = waiting + 2 * column;
        if (summed > 0) pairs.Add(LoadPairs<D, vectors>(sums));
        if (summed + kTogether < kSumRows && end < rows) return StorePairs(pairs, sums);
      }
      AddStrip(pairs, column, count, sum, product);
    };
    ForEachStripOrPart<kColumnStrip>(Tag<T>(), columns, strip);
  }
}

/// The same, deep where rows are narrow, or with kDeepInCaches where the caches hold the block: down many wide rows is
/// far from the order of memory (measured: up to 40 % more time where that is the limit; of two inputs in the caches up
/// to 16 %). Those may be tall. by_value is the same term, without references, for a function of its own.
template <bool kShort, bool kDeepInCaches, class T, std::size_t kInputs, class TermOf, class ByValue>
HWY_INLINE void AccumulatePairs(const std::array<const T*, kInputs>& inputs, const Block& block,
                                double* HWY_RESTRICT sum, double* HWY_RESTRICT product, const TermOf& term,
                                const ByValue& by_value) {
  const bool follow = block.columns == block.stride, narrow = follow && block.columns <= kNarrowColumns<T>;
  if (narrow || (kDeepInCaches && block.cached)) {
    AccumulatePairsDeep<kShort>(inputs, block, sum, product, by_value);
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

/// d, d and d, of d = x − shift: a pair whose sums are Σd and Σd².
template <class T>
HWY_INLINE auto DifferencesFrom(const T* x, std::size_t stride, const Parameter<T>* shifts) {
  return [=](auto d, auto, std::size_t row, std::size_t column, std::size_t count) EQUINORM_INLINE {
    const auto difference = hn::Sub(LoadCount(d, x + row * stride + column, count), hn::LoadU(d, shifts + column));
    return Pair<decltype(d)>{difference, difference, difference};
  };
}

/// Σd and Σd² ([columns]). Part of its caller: called, it took 8 % longer where memory is the limit.
template <class T>
HWY_INLINE void DifferenceSums(const T* HWY_RESTRICT x, Block block, const Parameter<T>* HWY_RESTRICT shifts,
                               double* HWY_RESTRICT sums, double* HWY_RESTRICT squares) {
  std::fill_n(sums, block.columns, 0.0);
  std::fill_n(squares, block.columns, 0.0);
  const auto term = DifferencesFrom(x, block.stride, shifts);
  AccumulatePairs<true, true>(std::array{x}, block, sums, squares, term, term);
}

/// The same by a call, where it is rare: in one way for all blocks, which is less to compile.
template <class T>
HWY_NOINLINE void DifferenceSumsAgain(const T* HWY_RESTRICT x, Block block, const Parameter<T>* HWY_RESTRICT shifts,
                                      double* HWY_RESTRICT sums, double* HWY_RESTRICT squares) {
  std::fill_n(sums, block.columns, 0.0);
  std::fill_n(squares, block.columns, 0.0);
  AccumulatePairsOf<kFlatRows, false>(std::array{x}, block, sums, squares, DifferencesFrom(x, block.stride, shifts));
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

/// g and g·d·unit of the vector at `column` of the row that begins at x + begin, where d = x − mean and
/// g = gradient(tag, Constant<vectors side by side>, index, column, count, d).
template <class D, std::size_t kVectors, class T, class Gradient>
HWY_INLINE Pair<D> DotPair(D d, Constant<kVectors> vectors, std::size_t begin, std::size_t column, std::size_t count,
                           const T* HWY_RESTRICT x, const Parameter<T>* HWY_RESTRICT mean,
                           const Parameter<T>* HWY_RESTRICT unit, const Gradient& gradient) {
  const std::size_t index = begin + column;
  const auto difference = hn::Sub(LoadCount(d, x + index, count), hn::LoadU(d, mean + column));
  const auto g = gradient(d, vectors, index, column, count, difference);
  return {g, g, hn::Mul(difference, hn::LoadU(d, unit + column))};
}

/// Adds Σ g and Σ g·d to sum and dot ([columns]), d and g as in DotPair: g is what the activation let through; index
/// counts elements from x. Products are of d·unit ([columns]), a power of two that brings d near 1: so they vanish only
/// beside a g that is denormal itself. Inputs are x and what else gradient reads; by_value is the same gradient,
/// without references. kShort: it is short, not as behind SiLU or GELU.
template <bool kShort, class T, std::size_t kInputs, class Gradient, class ByValue>
HWY_INLINE void AccumulateColumnDots(const std::array<const T*, kInputs>& inputs, const Block& block,
                                     const Parameter<T>* HWY_RESTRICT mean, const Parameter<T>* HWY_RESTRICT unit,
                                     const Gradient& gradient, const ByValue& by_value, double* HWY_RESTRICT sum,
                                     double* HWY_RESTRICT dot) {
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
        [&](auto d, auto vectors, std::size_t row, std::size_t column, std::size_t count) EQUINORM_INLINE {
          return DotPair(d, vectors, row * stride, begin + column, count, x, mean, unit, gradient);
        },
        [=](auto d, auto vectors, std::size_t row, std::size_t column, std::size_t count) EQUINORM_INLINE {
          return DotPair(d, vectors, row * stride, begin + column, count, x, mean, unit, by_value);
        });
  }
  ScaleColumns<true>(unit, block.columns, dot);
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
