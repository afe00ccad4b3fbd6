// How a tensor is cut for batch norm, from its shape alone, and where the pieces of the workspace lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "equinorm/tensor.hpp"
#include "ops/batch_norm/kernels.hpp"

namespace equinorm::batch_norm {

/// The tensor as batch norm sees it: `samples` times (channels-first) [channels, inner], or [values, channels].
struct Geometry {
  Geometry(const Shape& shape, Layout layout) {
    const std::size_t axis = layout == Layout::channels_last ? shape.rank() - 1 : 1;
    channels = shape[axis];
    inner = 1;
    for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    elements = shape.elements();
    values = channels == 0 ? 0 : elements / channels;
    samples = inner == 0 ? 0 : values / inner;
  }

  bool columns() const { return inner == 1; }
  /// Where value i of channel c lies.
  std::size_t at(std::size_t c, std::size_t i) const { return ((i / inner) * channels + c) * inner + i % inner; }

  std::size_t channels, samples, inner, values, elements;
};

/// The cut of [values, channels]. `fold` consecutive rows are read as one of `width` = fold · channels columns, so that
/// odd channel counts fill whole vectors and cache lines too; what is left over is a last row that is not full.
struct ColumnPlan {
  explicit ColumnPlan(const Geometry& g) {
    const std::size_t to_whole_lines = kStrip / std::gcd(g.channels, kStrip);
    if (g.values >= to_whole_lines * kStrip && to_whole_lines * g.channels <= kMaxFoldedWidth) fold = to_whole_lines;
    width = fold * g.channels;
    rows = g.values / fold;
    tail = g.values % fold * g.channels;
    block_rows = std::clamp<std::size_t>(kBlockFloats / width, 32, 512);
    blocks = (rows + block_rows - 1) / block_rows;
    const std::size_t blocks_of_a_chunk = std::max(kChunkFloats / (block_rows * width), blocks / kMaxChunks) + 1;
    chunk_rows = blocks_of_a_chunk * block_rows;
    chunks = (rows + chunk_rows - 1) / chunk_rows;
  }
  std::size_t rows_of_chunk(std::size_t chunk) const { return std::min(rows - chunk * chunk_rows, chunk_rows); }

  static constexpr std::size_t kStrip = 64;               // columns: four cache lines
  static constexpr std::size_t kMaxFoldedWidth = 8192;    // coefficients of a folded row stay in the first caches
  static constexpr std::size_t kBlockFloats = 8192;       // 32 KiB: the second pass finds a block in L1
  static constexpr std::size_t kChunkFloats = 256 << 10;  // 1 MiB: partial results are small beside it
  static constexpr std::size_t kMaxChunks = 32;

  std::size_t fold = 1, width, rows, tail, block_rows, blocks, chunk_rows, chunks;
};

/// The cut of the segments of a channel: pieces of about one block, each of whole segments or within one.
struct SegmentPlan {
  explicit SegmentPlan(const Geometry& geometry) : g(geometry) {
    if (g.inner <= kBlockFloats) {
      segments = std::max<std::size_t>(kBlockFloats / g.inner, 1);
      length = g.inner;
    } else {
      segments = 1;
      length = kBlockFloats;
    }
    pieces_of_a_segment = (g.inner + length - 1) / length;
    pieces = (g.samples + segments - 1) / segments * pieces_of_a_segment;
    // Few channels would leave threads idle: then a channel is cut too.
    const std::size_t wanted = g.channels >= kUnits ? 1 : (kUnits + g.channels - 1) / g.channels;
    parts = std::clamp<std::size_t>(std::min(wanted, g.values / kPartFloats), 1, pieces);
    group = g.inner >= kGroupFloats ? 1 : std::min(kGroupFloats / g.inner, g.channels);
    groups = (g.channels + group - 1) / group;
  }

  struct Piece {
    std::size_t offset, segments, length;
  };
  /// Piece i of channel c, in floats from the start of the tensor.
  Piece piece(std::size_t c, std::size_t i) const {
    const std::size_t sample = i / pieces_of_a_segment * segments, begin = i % pieces_of_a_segment * length;
    return {(sample * g.channels + c) * g.inner + begin, std::min(segments, g.samples - sample),
            std::min(length, g.inner - begin)};
  }
  std::size_t stride() const { return g.channels * g.inner; }

  static constexpr std::size_t kBlockFloats = 8192;
  static constexpr std::size_t kPartFloats = 64 << 10;
  static constexpr std::size_t kUnits = 32;
  static constexpr std::size_t kGroupFloats = 1024;  // one page

  const Geometry& g;
  std::size_t segments, length, pieces_of_a_segment, pieces, parts;
  std::size_t group, groups;  ///< channels whose small planes are fetched together, a page a sample
};

/// Hands out aligned pieces of a workspace; with no workspace it only counts.
class Workspace {
 public:
  explicit Workspace(void* base = nullptr) : base_(static_cast<std::byte*>(base)) {}

  template <class T>
  T* take(std::size_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

/// Everything that a call keeps in its workspace.
struct Scratch {
  Scratch(const Geometry& g, Workspace& workspace) {
    const bool columns = g.columns();
    const std::size_t width = columns ? ColumnPlan(g).width : g.channels;
    const std::size_t partials = columns ? ColumnPlan(g).chunks + 1 : SegmentPlan(g).parts;
    first = workspace.take<double>(partials * width);
    second = workspace.take<double>(partials * width);
    for (float** array : {&mean_hi, &mean_lo, &scale, &shift, &g_hi, &g_lo, &slope}) {
      *array = workspace.take<float>(width);
    }
  }

  Coefficients coefficients() const { return {mean_hi, mean_lo, scale, shift, g_hi, g_lo, slope}; }

  double *first, *second;  ///< [partials, width]: means and M2, or the two sums of backward
  float *mean_hi, *mean_lo, *scale, *shift, *g_hi, *g_lo, *slope;  ///< [width]
};

/// From this size on (bytes) an output is written around the caches: it would push out what is still to be read.
inline constexpr std::size_t kStreamBytes = 8 << 20;

inline bool streams(const Geometry& g, const float* out, std::size_t stride) {
  return g.elements * sizeof(float) >= kStreamBytes && stride % 16 == 0 &&
         reinterpret_cast<std::uintptr_t>(out) % 64 == 0;
}

}  // namespace equinorm::batch_norm
