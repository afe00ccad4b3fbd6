// How a tensor is cut for batch norm, from its shape alone, and where the pieces of the workspace lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "core/workspace.hpp"
#include "equinorm/tensor.hpp"
#include "kernels/kernels.hpp"

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

/// The cut of [samples, channels, inner]. Small planes are taken in groups of channels, side by side in memory: those
/// of one channel alone lie a power of two apart often enough to fall into the same few sets of a cache. A channel (or
/// group) is cut into pieces of about one block, each of whole planes or within one.
struct SegmentPlan {
  explicit SegmentPlan(const Geometry& geometry) : g(geometry) {
    group = std::clamp<std::size_t>(kGroupFloats / g.inner, 1, std::min(g.channels, kMaxPlaneChannels));
    groups = (g.channels + group - 1) / group;
    length = std::min(g.inner, kBlockFloats);
    samples = std::max<std::size_t>((group > 1 ? kGroupBlockFloats : kBlockFloats) / (group * length), 1);
    pieces_of_a_plane = (g.inner + length - 1) / length;
    pieces = (g.samples + samples - 1) / samples * pieces_of_a_plane;
    // Few channels would leave threads idle: then they are cut too.
    const std::size_t wanted = (kUnits + groups - 1) / groups;
    parts = std::clamp<std::size_t>(std::min(wanted, g.values * group / kPartFloats), 1, pieces);
  }

  /// Piece i of the channels begin … end − 1 (one group, or part of it): its block, and where it starts.
  PlaneBlock block(std::size_t begin, std::size_t end, std::size_t i) const {
    const std::size_t first = i / pieces_of_a_plane * samples, offset = i % pieces_of_a_plane * length;
    return {std::min(samples, g.samples - first), g.channels * g.inner, end - begin, g.inner,
            std::min(length, g.inner - offset)};
  }
  std::size_t offset(std::size_t begin, std::size_t i) const {
    const std::size_t first = i / pieces_of_a_plane * samples;
    return (first * g.channels + begin) * g.inner + i % pieces_of_a_plane * length;
  }
  std::size_t first_piece(std::size_t part) const { return part * pieces / parts; }

  static constexpr std::size_t kBlockFloats = 8192;        // 32 KiB
  static constexpr std::size_t kGroupFloats = 4096;        // a page
  static constexpr std::size_t kGroupBlockFloats = 32768;  // 128 KiB: within L2, and few blocks to merge
  static constexpr std::size_t kPartFloats = 64 << 10;
  static constexpr std::size_t kUnits = 32;

  const Geometry& g;
  std::size_t group, groups;    ///< channels taken together
  std::size_t samples, length;  ///< of a piece
  std::size_t pieces_of_a_plane, pieces, parts;
};

/// Everything that a call keeps in its workspace.
template <class T>
struct Scratch {
  Scratch(const Geometry& g, Workspace& workspace) {
    const bool columns = g.columns();
    const std::size_t width = columns ? ColumnPlan(g).width : g.channels;
    const std::size_t partials = columns ? ColumnPlan(g).chunks + 1 : SegmentPlan(g).parts;
    first = workspace.take<double>(partials * width);
    second = workspace.take<double>(partials * width);
    for (Parameter<T>** array : {&mean, &scale, &shift, &offset, &slope}) *array = workspace.take<Parameter<T>>(width);
  }

  kernels::Coefficients<T> coefficients() const { return {mean, scale, shift, offset, slope}; }

  double *first, *second;                              ///< [partials, width]: means and M2, or the two sums of backward
  Parameter<T>*mean, *scale, *shift, *offset, *slope;  ///< [width]
};

/// From this size on (bytes) an output is written around the caches: it would push out what is still to be read.
inline constexpr std::size_t kStreamBytes = 8 << 20;

template <class T>
bool streams(const Geometry& g, const T* out, std::size_t stride) {
  return g.elements * sizeof(T) >= kStreamBytes && stride * sizeof(T) % 64 == 0 &&
         reinterpret_cast<std::uintptr_t>(out) % 64 == 0;
}

}  // namespace equinorm::batch_norm
