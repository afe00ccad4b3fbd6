// How a matrix [values, channels] is cut for the column kernels, from its shape alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <type_traits>

#include "core/pages.hpp"
#include "reduce/blocks.hpp"

namespace equinorm::kernels {

/// The cut of [values, channels]. `fold` consecutive rows are read as one of `width` = fold · channels columns, so that
/// odd channel counts fill vectors too; what is left over is a last row that is not full.
struct ColumnPlan {
  /// In rows of whole cache lines, of a strip at least: elements of T may be written around the caches.
  template <class T>
  static ColumnPlan of(std::size_t values, std::size_t channels) {
    return {values, channels, fold_to(kLineBytes / sizeof(T), channels)};
  }

  /// For sums alone: in rows whose sums the registers of AVX-512 hold, if channels are few enough. They are read in the
  /// order of memory (measured: backward of 60 and 65 channels 8 to 10 % faster than by wider ones, of 7 and 96 a
  /// quarter). Of floats they need not be whole lines; a part of a vector of halves costs more than that saves.
  template <class T>
  static ColumnPlan for_sums(std::size_t values, std::size_t channels) {
    std::size_t fold = fold_to(kLine, channels);
    if (std::is_same_v<T, float> && fold * channels > kNarrow && channels <= kNarrow) {
      // That whose vectors are the fullest.
      double fullest = 0;
      for (std::size_t f = kNarrow / channels; f * channels > kStrip; --f) {
        const std::size_t columns = f * channels, lines = (columns + kLine - 1) / kLine;
        const double full = static_cast<double>(columns) / static_cast<double>(lines);
        if (full > fullest) fold = f, fullest = full;
      }
    }
    return {values, channels, fold};
  }

  std::size_t rows_of_chunk(std::size_t chunk) const { return std::min(rows - chunk * chunk_rows, chunk_rows); }

  static constexpr std::size_t kLine = 16;          // columns: a cache line of floats
  static constexpr std::size_t kStrip = 4 * kLine;  // what the kernels take side by side
  static constexpr std::size_t kNarrow = kNarrowBytes / sizeof(float);
  static constexpr std::size_t kMaxFoldedWidth = 8192;    // coefficients of a folded row stay in the first caches
  static constexpr std::size_t kChunkFloats = 256 << 10;  // 1 MiB: partial results are small beside it
  static constexpr std::size_t kMaxChunks = 32;
  static constexpr std::size_t kSumRows = 128;  // whose sums the kernels widen at once

  std::size_t fold = 1, width, rows, tail, chunk_rows, chunks;

 private:
  ColumnPlan(std::size_t values, std::size_t channels, std::size_t wanted) {
    if (values >= wanted * kStrip && wanted * channels <= kMaxFoldedWidth) fold = wanted;
    width = fold * channels;
    rows = values / fold;
    tail = values % fold * channels;
    const std::size_t least = std::max({kChunkFloats / width, (rows + kMaxChunks - 1) / kMaxChunks, std::size_t{1}});
    chunk_rows = (least + kSumRows - 1) / kSumRows * kSumRows;
    chunks = (rows + chunk_rows - 1) / chunk_rows;
  }

  /// Of how many rows one is a multiple of `line` columns, and not less than a strip.
  static std::size_t fold_to(std::size_t line, std::size_t channels) {
    std::size_t fold = line / std::gcd(channels, line);
    while (fold * channels < kStrip) fold *= 2;
    return fold;
  }
};

/// From this size on (bytes) an output is written around the caches: it would push out what is still to be read. Alone
/// a norm would be faster so from half this size on, but what reads its output next, and a training step as a whole,
/// slower.
inline constexpr std::size_t kStreamBytes = 8 << 20;

/// The same for dx of planes. Their inputs are read from far away once, not twice, so what it costs to write beside
/// three tensors of this size in the last cache is the larger part (measured: at 6.4 MB a third to a half of the time
/// is saved; and what reads dx next included, it is 6 % more to 27 % less, the less the more others use that cache).
inline constexpr std::size_t kStreamBytesOfPlaneGradients = 6 << 20;

/// Whether elements are so many that they come from memory, or from the far end of the last cache.
template <class T>
bool is_much(std::size_t elements) {
  return elements * sizeof(T) >= 2 * kStreamBytes;
}

/// Whether elements are so few that what one pass has read is in the caches for the next.
template <class T>
bool is_cached(std::size_t elements) {
  return elements * sizeof(T) <= kStreamBytes;
}

/// Whether outputs of `elements` each (nullptr: absent) are to be written so, from `least` bytes on. All begin lines,
/// as do pieces of them, at multiples of `stride`.
template <class T>
bool streams(std::size_t elements, std::initializer_list<const T*> outs, std::size_t stride,
             std::size_t least = kStreamBytes) {
  const auto of_lines = [](const T* out) { return reinterpret_cast<std::uintptr_t>(out) % 64 == 0; };
  return elements * sizeof(T) >= least && stride * sizeof(T) % 64 == 0 && std::ranges::all_of(outs, of_lines);
}

/// Whether the lines of an output are to be fetched before they are written: where it stays in the caches, but beside
/// its input not in the second. Of two bytes arithmetic is the larger part, and of eight it was not measured.
template <class T>
bool claims(std::size_t elements, bool stream) {
  return std::is_same_v<T, float> && !stream && is_cached<T>(elements) && !is_cached<T>(2 * elements);
}

}  // namespace equinorm::kernels
