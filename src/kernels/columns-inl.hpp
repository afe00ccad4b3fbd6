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

inline constexpr std::size_t kElementwiseStrip = HWY_TARGET <= HWY_AVX3 ? 4 : 1;
/// Elements of a tile, of one input or of two: they stay in the first cache, the output too, while strips go over them.
/// Of halves whose output goes around the caches a smaller one is faster (measured; why is not known).
inline constexpr std::size_t kTileOfOne = 8192, kTileOfTwo = 2048, kStreamedHalves = 2048;
/// Rows of a tile, however wide: in fewer, coefficients cost as much to load as what they are applied to.
inline constexpr std::size_t kLeastTileRows = 4;

/// Calls strip(d, vectors, column, begin, end) for tiles of some rows, begin … end − 1, strip by strip: the
/// coefficients of a strip stay in registers. Strips narrower than a line go along single rows if the output goes
/// around the caches: only whole lines do so at full speed.
template <class T, std::size_t kElements, class Strip>
HWY_INLINE void ForEachTile(const Block& block, bool stream, const Strip& strip) {
  constexpr bool kWholeLines = kElementwiseStrip * hn::MaxLanes(Tag<T>()) * sizeof(T) >= 64;
  const std::size_t elements = stream && kByPairs<T> ? kStreamedHalves : kElements;
  const std::size_t rows = std::clamp<std::size_t>(elements / block.columns, kLeastTileRows, 64);
  const std::size_t tile = stream && !kWholeLines ? 1 : rows;
  for (std::size_t r = 0; r < block.rows; r += tile) {
    const std::size_t end = std::min(r + tile, block.rows);
    ForEachStrip<kElementwiseStrip>(
        Tag<T>(), block.columns, [&](auto d, auto vectors, std::size_t c) HWY_ATTR { strip(d, vectors, c, r, end); });
  }
}

/// How many elements behind a vector its inputs are fetched. Memory foresees by itself (0 fetches what is there), but
/// not the strips of long rows. Where the output goes around the caches, of rows of `many` columns or more the next
/// strip is fetched, of shorter ones `ahead`; else half a page ahead of rows as long as one.
template <class T>
HWY_INLINE std::size_t FetchDistance(const Block& block, std::size_t many, bool stream, std::size_t ahead) {
  constexpr std::size_t kStrip = 256 / sizeof(Parameter<T>);
  if (stream) return block.columns >= many ? kStrip : ahead;
  return block.columns >= kAhead<T> ? kAhead<T> / 2 : 0;
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

/// Calls f with each of one or four coefficients, or where results are stored so with two at a time.
template <class T, class F, class N>
HWY_INLINE void ForEachResult(const F& f, const N& only) {
  f(only);
}
template <class T, class F, class N>
HWY_INLINE void ForEachResult(const F& f, const N& a, const N& b, const N& c, const N& e) {
  if constexpr (kByPairs<T>) {
    f(a, b), f(c, e);
  } else {
    f(a), f(b), f(c), f(e);
  }
}

template <class T>
void ColumnMoments(const T* x, const Block& block, std::size_t count, double* mean, double* m2) {
  AccumulateColumnMoments(x, block, count, mean, m2);
}

template <class T>
void NormalizeColumns(const Forward<T>& tensors, const Block& block, const Coefficients<T>& coefficients) {
  WithForward(tensors, [&](auto gate, auto residual, auto stream) HWY_ATTR {
    const Forward<T> t = tensors;  // in registers: a store may not be thought to change it
    const Coefficients<T> k = coefficients;
    const T* fetched = t.x + FetchDistance<T>(block, kAhead<T> / 2, t.stream, t.ahead);
    ForEachTile<T, kTileOfOne>(
        block, t.stream, [&](auto d, auto vectors, std::size_t c, std::size_t r, std::size_t end) HWY_ATTR {
          using N = Normalizer<decltype(d)>;
          const auto make = [&](std::size_t v) HWY_ATTR { return N(PerColumn(), d, k, c + v * hn::Lanes(d)); };
          WithStrip<vectors>(make, [&](const auto&... normalizers) HWY_ATTR {
            for (; r < end; ++r) {
              std::size_t at = r * block.stride + c;
              const auto write = [&](const auto&... some) HWY_ATTR {
                hwy::Prefetch(fetched + at);
                if constexpr (stream && residual) hwy::Prefetch(t.residual + at + kAhead<T>);
                if constexpr (sizeof...(some) == 2) {
                  NormalizePair<gate, residual, stream>(d, t, at, some...);
                } else {
                  Normalize<gate, residual, stream>(d, t, at, hn::Lanes(d), some...);
                }
                at += sizeof...(some) * hn::Lanes(d);
              };
              ForEachResult<T>(write, normalizers...);
            }
          });
        });
  });
}

template <class T>
void ColumnDots(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients, double* sum,
                double* dot) {
  WithGate(tensors, [&](auto gate, auto output) HWY_ATTR {
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const auto gradient = [&](auto d, std::size_t at, std::size_t column, auto difference) HWY_ATTR {
      using N = Normalizer<decltype(d)>;
      return GatedGradient<gate, output>(d, t, at, hn::Lanes(d), difference, N(PerColumn(), d, k, column));
    };
    const auto accumulate = [&](const auto& inputs) EQUINORM_INLINE {
      constexpr bool kHeavy = gate == Gate::any;
      AccumulateColumnDots<kHeavy>(inputs, block, k.mean, k.unit, gradient, sum, dot);
    };
    if constexpr (output) {
      accumulate(std::array{t.x, t.dy, t.y});
    } else {
      accumulate(std::array{t.x, t.dy});
    }
  });
}

template <class T>
void GradientColumns(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients) {
  WithBackward(tensors, [&](auto gate, auto output, auto residual, auto stream) HWY_ATTR {
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const std::size_t distance = FetchDistance<T>(block, kAhead<T>, t.stream, t.ahead);
    const T *fetched_x = t.x + distance, *fetched_dy = t.dy + distance;
    ForEachTile<T, kTileOfTwo>(
        block, t.stream, [&](auto d, auto vectors, std::size_t c, std::size_t r, std::size_t end) HWY_ATTR {
          using N = Differentiator<decltype(d)>;
          const auto make = [&](std::size_t v) HWY_ATTR { return N(PerColumn(), d, k, c + v * hn::Lanes(d)); };
          WithStrip<vectors>(make, [&](const auto&... differentiators) HWY_ATTR {
            for (; r < end; ++r) {
              std::size_t at = r * block.stride + c;
              const auto write = [&](const auto&... some) HWY_ATTR {
                hwy::Prefetch(fetched_x + at);
                hwy::Prefetch(fetched_dy + at);
                if constexpr (sizeof...(some) == 2) {
                  DifferentiatePair<gate, output, residual, stream>(d, t, at, some...);
                } else {
                  Differentiate<gate, output, residual, stream>(d, t, at, hn::Lanes(d), some...);
                }
                at += sizeof...(some) * hn::Lanes(d);
              };
              ForEachResult<T>(write, differentiators...);
            }
          });
        });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
