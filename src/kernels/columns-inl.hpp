// The column family: kernels over one block [rows, columns], coefficients per column.
#if defined(EQUINORM_KERNELS_COLUMNS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_COLUMNS_INL_HPP
#undef EQUINORM_KERNELS_COLUMNS_INL_HPP
#else
#define EQUINORM_KERNELS_COLUMNS_INL_HPP
#endif

#include <algorithm>
#include <array>
#include <cstddef>

#include "kernels/elementwise-inl.hpp"
#include "reduce/columns-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Vectors side by side in a strip whose coefficients stay in registers. With AVX2 some stay in the first cache
/// instead, which costs less than to go down single vectors (measured: 4 to 37 % less, behind silu up to 4 % more).
/// With SSE4 backward took up to a quarter longer so.
inline constexpr std::size_t kElementwiseStrip = HWY_TARGET <= HWY_AVX2 ? 4 : 1;
template <class T>
inline constexpr std::size_t kElementwiseColumns = hn::MaxLanes(Tag<T>()) * kElementwiseStrip;
/// Elements of a tile, of one input or of two: they stay in the first cache, the output too, while strips go over them.
/// Of halves whose output goes around the caches a smaller one is faster (measured; why is not known).
inline constexpr std::size_t kTileOfOne = 8192, kTileOfTwo = 2048, kStreamedHalves = 2048;
/// Rows of a tile, however wide: in fewer, coefficients cost as much to load as what they are applied to.
inline constexpr std::size_t kLeastTileRows = 4;
/// The longest rows whose coefficients stay in the first cache beside what they are applied to: of 65 channels, folded.
inline constexpr std::size_t kMostAlong = 1040;

/// Whether rows so far apart (bytes) meet at the same places of their pages: loads of one then seem to wait for stores
/// of another (measured: strips down rows of 1024 floats took up to half as long again, if both tensors began alike, as
/// large ones do; down those of a page and a line, of 65 channels, up to a third).
constexpr bool RowsMeet(std::size_t stride) {
  return stride % (kPageBytes / 2) == 0 || stride % kPageBytes == kLineBytes;
}

/// The longest rows whose output is claimed: of one input, four are a page of floats; of two, and their coefficients.
/// Longer ones of two are written along single rows instead (measured: of 160 to 384 columns 3 to 14 % faster; but 7 to
/// 13 % slower where all is in the second cache).
inline constexpr std::size_t kMostClaimedOfOne = kPageBytes / sizeof(float) / kLeastTileRows, kMostClaimedOfTwo = 144;
/// The longest rows whose output is claimed by the page.
inline constexpr std::size_t kMostByPage = 64;

/// Whether a block is written in the order of memory, by vectors of whole lines: a strip takes its rows. Then each line
/// is claimed some lines before it is written (measured: of y 4 to 5 % less time than with claims by the page).
template <class T>
bool WrittenInOrder(const Block& block) {
  return kMasks && block.columns == block.stride && block.columns <= kElementwiseColumns<T>;
}

/// What precedes a tile whose output stays in the caches: the lines of `out` are fetched, those of an input beside x
/// read before.
template <class T>
struct Claim {
  T* out;          ///< or nullptr: nothing is claimed
  const T* input;  ///< or nullptr

  /// One tensor after the other, a page at a time: where reads and writes of more than the second cache holds take
  /// turns line by line, they take longer than both by themselves (measured: with claims 4 to 16 % less).
  HWY_INLINE void operator()(std::size_t begin, std::size_t count) const {
    if (input != nullptr) ReadLines(input + begin, count);
    ClaimLines(out + begin, count);
  }
};

/// Calls strip(d, vectors, column, count, begin, end) for tiles of some rows of kInputs inputs, begin … end − 1, strip
/// by strip: the coefficients of a strip stay in registers. An output around the caches is written along single rows,
/// unless a strip is one, or coefficients are too many: memory is read and written faster in its order (by a third,
/// measured) than coefficients are loaded. So are rows that would meet, and long ones of two inputs. Strips narrower
/// than a line never go down rows around the caches: only whole lines are written at full speed. Of long rows nothing
/// is claimed.
template <class T, std::size_t kInputs, class Strip>
HWY_INLINE void ForEachTile(const Block& block, bool stream, const Claim<T>& claim, const Strip& strip) {
  constexpr std::size_t kStrip = kElementwiseColumns<T>;
  constexpr bool kWholeLines = kStrip * sizeof(T) >= kLineBytes;
  constexpr bool kOne = kInputs == 1;
  constexpr std::size_t kElements = kOne ? kTileOfOne : kTileOfTwo;
  const std::size_t elements = stream && kByPairs<T> ? kStreamedHalves : kElements;
  const bool is_short = block.columns <= (kOne ? kMostClaimedOfOne : kMostClaimedOfTwo);
  const bool claims = claim.out != nullptr && block.columns == block.stride && is_short;
  std::size_t rows = std::clamp<std::size_t>(elements / block.columns, kLeastTileRows, 64);
  if (claims) rows = block.columns <= kMostByPage ? kPageBytes / sizeof(T) / block.columns : kLeastTileRows;
  const bool in_order =
      !kByPairs<T> && block.columns == block.stride && block.columns > kStrip && block.columns <= kMostAlong;
  const bool too_long = !kOne && claim.out != nullptr && !claims;
  const bool along = stream || too_long || RowsMeet(block.stride * sizeof(T));
  const std::size_t tile = (in_order && along) || (stream && !kWholeLines) ? 1 : rows;
  for (std::size_t r = 0; r < block.rows; r += tile) {
    const std::size_t end = std::min(r + tile, block.rows);
    if (claims) claim(r * block.stride, (end - r) * block.columns);
    ForEachStripOrPart<kElementwiseStrip>(Tag<T>(), block.columns,
                                          [&](auto d, auto vectors, std::size_t c, std::size_t count)
                                              HWY_ATTR { strip(d, vectors, c, count, r, end); });
  }
}

/// What is fetched of kInputs inputs while a pass writes a block: memory in its order, into the second cache, if the
/// output goes around the caches and rows follow one another (kInOrder); else what lies behind a vector, which memory
/// foresees by itself but for the strips of long rows.
template <bool kInOrder, std::size_t kInputs, class T>
class TileFetch {
 public:
  /// ahead: how far behind a vector of short rows that do not follow one another.
  HWY_INLINE TileFetch(const Block& block, bool stream, std::size_t ahead)
      : far_(kInputs > 1 || block.columns > kElementwiseColumns<T>) {
    constexpr std::size_t kStrip = 256 / sizeof(Parameter<T>);
    if (kInOrder) {
      constexpr std::size_t kOfStrips = kInputs == 1 ? kAhead<T> : kAhead<T> / 4;
      distance_ = block.columns > kElementwiseColumns<T> ? 2 * kAhead<T> / kInputs : kOfStrips;
      // At least what is read side by side (measured: of rows of 1280 floats backward 7 %, of y 4 % less).
      if (block.columns > kMostAlong) distance_ = kLeastTileRows * block.columns + kAhead<T>;
    } else if (stream) {
      distance_ = block.columns >= kInputs * kAhead<T> / 2 ? kStrip : ahead;
    } else {
      distance_ = block.columns >= kAhead<T> ? kAhead<T> / 2 : 0;
    }
  }

  /// Whether it fetches more than what is read at once. (To fetch that costs up to 3 % of one input, measured; of two
  /// nothing.)
  HWY_INLINE explicit operator bool() const { return kInOrder || distance_ != 0; }

  /// Before `count` elements at `at` are written.
  template <class... Inputs>
  HWY_INLINE void operator()(std::size_t at, std::size_t count, const Inputs*... inputs) {
    if constexpr (!kInOrder) {
      (hwy::Prefetch(inputs + at + distance_), ...);
      return;
    } else if (far_) {
      (FetchFar(inputs + distance_), ...);
    } else {
      (hwy::Prefetch(inputs + distance_), ...);  // one input of rows of a strip: nearly foreseen
    }
    distance_ += count;
  }

 private:
  bool far_;
  std::size_t distance_;
};

/// Calls f(in_order): see TileFetch.
template <class F>
HWY_INLINE void WithOrder(const Block& block, bool stream, const F& f) {
  WithBool(stream && block.columns == block.stride, f);
}

/// Calls f with the coefficients of 1 or kElementwiseStrip vectors, make(0), make(1), …
template <std::size_t kVectors, class Make, class F>
HWY_INLINE void WithStrip(const Make& make, const F& f) {
  static_assert(kVectors == 1 || kVectors == 4);
  if constexpr (kVectors == 4) {
    f(make(0), make(1), make(2), make(3));
  } else {
    f(make(0));
  }
}

/// Calls f(at, count) for what is fetched of kVectors vectors from `begin` on: one vector, or of two bytes two.
template <class T, std::size_t kVectors, class D, class F>
HWY_INLINE void ForEachFetch(D d, std::size_t begin, const F& f) {
  constexpr std::size_t kOfFetch = kByPairs<T> && kVectors > 1 ? 2 : 1;
  const std::size_t count = kOfFetch * hn::Lanes(d);
  Unroll<kVectors / kOfFetch>([&](auto i) EQUINORM_INLINE { f(begin + i * count, count); });
}

template <class T>
void ColumnMoments(const T* x, const Block& block, std::size_t count, double* mean, double* m2) {
  AccumulateColumnMoments(x, block, count, mean, m2);
}

template <class T>
void NormalizeColumns(const Forward<T>& tensors, const Block& block, const Coefficients<T>& coefficients) {
  WithForward(tensors, [&](auto gate, auto residual) HWY_ATTR {
    WithOrder(block, tensors.stream, [&](auto in_order) HWY_ATTR {
      Forward<T> t = tensors;  // in registers: a store may not be thought to change it
      if constexpr (in_order) t.stream = true;
      const Coefficients<T> k = coefficients;
      TileFetch<in_order, 1, T> fetch(block, t.stream, t.ahead);
      const bool in_strips = WrittenInOrder<T>(block);
      const Claim<T> claim{t.claim && !in_strips ? t.y : nullptr, t.residual};
      // Else line by line: also of rows too long for that (measured: of 512 and more columns up to 11 % less; of dx up
      // to 8 % more, and by halves of lines up to a tenth).
      const bool claims_ahead = kMasks && !t.stream && ((t.claim && in_strips) || block.columns > kMostClaimedOfOne);
      ForEachTile<T, 1>(
          block, t.stream, claim,
          [&](auto d, auto vectors, std::size_t c, std::size_t count, std::size_t r, std::size_t end) HWY_ATTR {
            using N = Normalizer<decltype(d)>;
            const auto make = [&](std::size_t v) HWY_ATTR { return N(PerColumn(), d, k, c + v * hn::Lanes(d)); };
            WithStrip<vectors>(make, [&](const auto&... normalizers) HWY_ATTR {
              for (; r < end; ++r) {
                const std::size_t begin = r * block.stride + c;
                ForEachFetch<T, vectors>(d, begin, [&](std::size_t at, std::size_t fetched) EQUINORM_INLINE {
                  if (fetch) fetch(at, fetched, t.x);
                  if (claims_ahead) ClaimLine(t.y + at + kClaimAhead<T>);
                  if (residual && t.stream) FetchFar(t.residual + at + kFarAhead<T>);
                });
                if constexpr (vectors == 1) {
                  Normalize<gate, residual>(d, t, begin, count, normalizers...);
                } else {
                  NormalizeVectors<gate, residual>(d, t, begin, normalizers...);
                }
              }
            });
          });
    });
  });
}

/// g of a vector in a strip of kVectors, which stand side by side in memory, stored if it is wanted. Tensors and K are
/// Backward and Coefficients, or references to such.
template <Gate kGate, bool kOutput, bool kWrites, class Tensors, class K>
struct ColumnGradient {
  template <class D, std::size_t kVectors>
  HWY_INLINE hn::Vec<D> operator()(D d, Constant<kVectors>, std::size_t at, std::size_t column, std::size_t count,
                                   hn::Vec<D> difference) const {
    const auto g = GatedGradient<kGate, kOutput>(d, t, at, count, difference, Normalizer<D>(PerColumn(), d, k, column));
    if (kWrites || (kGate == Gate::any && t.g != nullptr)) {
      constexpr bool kWholeLines = kVectors * hn::MaxLanes(d) * sizeof(*t.g) >= kLineBytes;
      StoreResult(g, d, t.g + at, count, kWholeLines && t.stream);
    }
    return g;
  }

  Tensors t;
  K k;
};

template <class T>
void ColumnDots(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients, double* sum,
                double* dot) {
  const auto accumulate = [&](auto gate, auto output, auto writes) HWY_ATTR {
    using Tensors = Backward<T>;
    using K = Coefficients<T>;
    const Tensors t = tensors;
    const K k = coefficients;
    const ColumnGradient<gate, output, writes, const Tensors&, const K&> gradient{t, k};
    const ColumnGradient<gate, output, writes, Tensors, K> by_value{t, k};
    const auto accumulate_of = [&](const auto& inputs) EQUINORM_INLINE {
      constexpr bool kShort = gate != Gate::any;
      AccumulateColumnDots<kShort>(inputs, block, k.mean, k.unit, gradient, by_value, sum, dot);
    };
    if constexpr (output) {
      accumulate_of(std::array{t.x, t.dy, t.y});
    } else {
      accumulate_of(std::array{t.x, t.dy});
    }
  };
  WithSums(tensors, accumulate);
}

template <class T>
void GradientColumns(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients) {
  WithBackward(tensors, [&](auto gate, auto output, auto residual) HWY_ATTR {
    WithOrder(block, tensors.stream, [&](auto in_order) HWY_ATTR {
      Backward<T> t = tensors;
      if constexpr (in_order) t.stream = true;
      const Coefficients<T> k = coefficients;
      TileFetch<in_order, 2, T> fetch(block, t.stream, t.ahead);
      const Claim<T> claim{t.claim ? t.dx : nullptr, t.dy};
      ForEachTile<T, 2>(
          block, t.stream, claim,
          [&](auto d, auto vectors, std::size_t c, std::size_t count, std::size_t r, std::size_t end) HWY_ATTR {
            using N = Differentiator<decltype(d)>;
            const auto make = [&](std::size_t v) HWY_ATTR { return N(PerColumn(), d, k, c + v * hn::Lanes(d)); };
            WithStrip<vectors>(make, [&](const auto&... differentiators) HWY_ATTR {
              for (; r < end; ++r) {
                const std::size_t begin = r * block.stride + c;
                ForEachFetch<T, vectors>(d, begin, [&](std::size_t at, std::size_t fetched) EQUINORM_INLINE {
                  if constexpr (in_order && output) {
                    fetch(at, fetched, t.x, t.dy, t.y);
                  } else {
                    fetch(at, fetched, t.x, t.dy);
                  }
                });
                if constexpr (vectors == 1) {
                  Differentiate<gate, output, residual>(d, t, begin, count, differentiators...);
                } else {
                  DifferentiateVectors<gate, output, residual>(d, t, begin, differentiators...);
                }
              }
            });
          });
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
