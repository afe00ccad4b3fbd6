// How a tensor is cut for batch norm, from its shape alone, and where the pieces of the workspace lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "core/workspace.hpp"
#include "equinorm/tensor.hpp"
#include "kernels/careful.hpp"
#include "kernels/channel.hpp"
#include "kernels/column_plan.hpp"
#include "kernels/kernels.hpp"

namespace equinorm::batch_norm {

/// The tensor as batch norm sees it: `samples` times (channels-first) [channels, inner], or [values, channels]; with
/// lengths, `samples` times [channels, positions] or [positions, channels].
struct Geometry {
  /// sample_lengths: valid positions of each sample, or nullptr: all (BatchNormOptions::lengths).
  Geometry(const Shape& shape, Layout tensor_layout, const std::size_t* sample_lengths = nullptr)
      : layout(tensor_layout), lengths(sample_lengths) {
    const std::size_t axis = layout == Layout::channels_last ? shape.rank() - 1 : 1;
    channels = shape[axis];
    inner = 1;
    for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    elements = shape.elements();
    values = channels == 0 ? 0 : elements / channels;
    samples = inner == 0 ? 0 : values / inner;
    if (lengths != nullptr) {
      samples = shape[0];
      positions = samples == 0 ? 0 : values / samples;
      values = std::accumulate(lengths, lengths + samples, std::size_t{0});
    }
  }

  /// Planes of one value make a matrix too, unless padding may stand behind it: that must change no bit.
  bool columns() const { return inner == 1 && (lengths == nullptr || layout == Layout::channels_last); }
  /// Calls body(run) for the elements of channel c.
  template <class Body>
  void for_each_run(std::size_t c, const Body& body) const {
    if (lengths != nullptr) {
      for (std::size_t n = 0; n < samples; ++n) {
        const std::size_t sample = n * positions * channels;
        body(columns() ? kernels::Run{sample + c, channels, lengths[n]}
                       : kernels::Run{sample + c * positions, 1, lengths[n]});
      }
      return;
    }
    if (columns()) return body(kernels::Run{c, channels, values});
    for (std::size_t n = 0; n < samples; ++n) body(kernels::Run{(n * channels + c) * inner, 1, inner});
  }

  Layout layout;
  const std::size_t* lengths;
  std::size_t channels, samples, inner, values, elements;
  std::size_t positions = 0;  ///< of a sample, padding included, where there are lengths
};

/// The cut of [samples, channels, inner]. Small planes are taken in groups of channels, side by side in memory: those
/// of one channel alone lie a power of two apart often enough to fall into the same few sets of a cache. A channel (or
/// group) is cut into pieces of about one block, each of whole planes or within one.
struct SegmentPlan {
  explicit SegmentPlan(const Geometry& geometry) : g(geometry) {
    flat = g.inner <= kFlatInner && g.samples >= kFlatSamples;
    group = flat ? std::min(kFlatGroup, g.channels)
                 : std::clamp<std::size_t>(kGroupFloats / g.inner, 1, std::min(g.channels, kMaxPlaneChannels));
    groups = (g.channels + group - 1) / group;
    length = std::min(g.inner, kBlockFloats);
    samples = std::max<std::size_t>(kBlockFloats / (group * length), 1);
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

  static constexpr std::size_t kGroupFloats = 4096;   // a page
  static constexpr std::size_t kBlockFloats = 32768;  // 128 KiB: within L2, and few blocks to merge
  static constexpr std::size_t kPartFloats = 64 << 10;
  static constexpr std::size_t kUnits = 32;
  // Of planes that are taken as columns (flat.hpp):
  static constexpr std::size_t kFlatInner = 64;   // longer ones are whole vectors for the most part
  static constexpr std::size_t kFlatSamples = 8;  // fewer do not pay for what is done once a column
  static constexpr std::size_t kFlatGroup = 16;   // rows of a block are whole cache lines of floats

  const Geometry& g;
  bool flat;                    ///< planes are taken as columns
  std::size_t group, groups;    ///< channels taken together
  std::size_t samples, length;  ///< of a piece
  std::size_t pieces_of_a_plane, pieces, parts;
};

/// Into how many tasks the samples of unequal length are dealt.
inline std::size_t ragged_tasks(const Geometry& g) {
  return std::clamp<std::size_t>(g.samples, 1, 32);
}

/// Everything that a call keeps in its workspace.
template <class T>
struct Scratch {
  /// out: what is written with the coefficients, if anything.
  Scratch(const Geometry& g, Workspace& workspace, const T* out = nullptr) {
    const bool ragged = g.lengths != nullptr, columns = g.columns() && !ragged;
    std::size_t partials = (ragged ? ragged_tasks(g) : SegmentPlan(g).parts) * g.channels, width = g.channels;
    if (columns) {
      partials = 0;
      for (const auto& plan :
           {kernels::ColumnPlan::for_sums<T>(g.values, g.channels), kernels::ColumnPlan::of<T>(g.values, g.channels)}) {
        partials = std::max(partials, std::max<std::size_t>(plan.chunks, 1) * plan.width);
        width = std::max(width, plan.width);
      }
    }
    first = workspace.take<double>(partials);
    second = workspace.take<double>(partials);
    for (double** array : {&inverse_deviation, &sum, &dot}) *array = workspace.take<double>(g.channels);
    coefficients = kernels::CoefficientArrays<T>(workspace, width, out);
  }

  double *first = nullptr, *second = nullptr;  ///< [parts, their width]: means and M2, or the two sums of backward
  double* inverse_deviation = nullptr;         ///< [channels]: 1/√(σ² + ε)
  double *sum = nullptr, *dot = nullptr;       ///< [channels]: Σg and Σ g·(x − μ) over all values
  kernels::CoefficientArrays<T> coefficients;  ///< [the widest]
};

}  // namespace equinorm::batch_norm
