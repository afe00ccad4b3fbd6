// The pieces of tensors that kernels work on: all that one call sees.
#pragma once

#include <cstddef>

namespace equinorm {

/// Columns: a matrix [rows, columns], rows `stride` elements apart.
struct Block {
  std::size_t rows, stride, columns;
  bool much = false;    ///< more is to come behind it than the caches hold
  bool cached = false;  ///< the caches hold all of it; sums may be rounded otherwise then: only the shape may say so
  bool tall = false;    ///< of several inputs: they come from no farther than the last cache
};

/// Rows of up to so many bytes of what is computed in are narrow: the registers of AVX-512 hold their sums.
inline constexpr std::size_t kNarrowBytes = 512;

/// Segments: `samples` of them for each of `channels` ≤ kMaxPlaneChannels channels, `length` elements each. Samples are
/// `stride` elements apart; within a sample, channels are `spacing` apart.
struct PlaneBlock {
  std::size_t samples, stride, channels, spacing, length;
  bool cached = false;  ///< the caches hold all that there is
};
inline constexpr std::size_t kMaxPlaneChannels = 32;

/// How many elements before their use a pass along memory fetches them: a page, where the hardware's own prefetch ends;
/// into the second cache two pages.
template <class T>
inline constexpr std::size_t kAhead = 4096 / sizeof(T);
template <class T>
inline constexpr std::size_t kFarAhead = 2 * kAhead<T>;
/// How many elements before it writes them such a pass claims their lines.
template <class T>
inline constexpr std::size_t kClaimAhead = 1024 / sizeof(T);

}  // namespace equinorm
