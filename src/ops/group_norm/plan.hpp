// How a tensor is cut for group norm, from its shape alone, and where the pieces of the workspace lie.
#pragma once

#include <algorithm>
#include <cstddef>

#include "core/workspace.hpp"
#include "equinorm/group_norm.hpp"
#include "kernels/channel.hpp"
#include "kernels/column_plan.hpp"
#include "reduce/moments.hpp"

namespace equinorm::group_norm {

/// `samples` times [positions, channels] (channels-last) or [channels, positions].
struct Geometry {
  Geometry(const GroupNormOptions& options, const Shape& shape, Layout tensor_layout)
      : layout(tensor_layout), lengths(options.lengths), groups(options.groups) {
    const std::size_t axis = layout == Layout::channels_last ? shape.rank() - 1 : 1;
    samples = shape[0];
    channels = shape[axis];
    group_channels = channels / groups;
    positions = 1;
    for (std::size_t i = 1; i < shape.rank(); ++i) positions *= i == axis ? 1 : shape[i];
    // Planes of one position make a matrix too, unless padding may stand behind it: that must change no bit.
    columns = layout == Layout::channels_last || (positions == 1 && lengths == nullptr);
  }
  std::size_t sample_elements() const { return channels * positions; }
  std::size_t group_elements() const { return group_channels * positions; }
  std::size_t longest() const {
    return lengths == nullptr || samples == 0 ? positions : *std::max_element(lengths, lengths + samples);
  }

  Layout layout;
  const std::size_t* lengths;  ///< [samples] valid positions; nullptr: all
  std::size_t samples, channels, groups, group_channels, positions;
  bool columns;  ///< a sample is a matrix [positions, channels]
};

/// A unit is what shares nothing with others: all groups of a sample (columns), or some of them, side by side (planes).
/// Statistics of a large one are taken in parts: of the rows, or of the channels of a group. The cut comes from the
/// shape of a sample alone, so that its bits do not depend on how many there are. Parts of few units are a task each;
/// else whole units are dealt to tasks. With lengths a unit is a whole sample in one part: no bit may depend on its
/// padding.
struct Plan {
  Plan(const Geometry& geometry, const kernels::ColumnPlan& of_longest) : g(geometry), columns(of_longest) {
    if (!g.columns && g.lengths == nullptr) {
      together = std::clamp<std::size_t>(kUnitElements / g.group_elements(), 1, std::min(g.groups, kMaxPlaneChannels));
    } else {
      together = g.groups;
    }
    units_of_sample = (g.groups + together - 1) / together;
    at_once = std::clamp<std::size_t>(kGroupsAtOnce / together, 1, units_of_sample);
    units = g.samples * units_of_sample;
    const std::size_t wanted = std::min(g.sample_elements() / units_of_sample / kPartElements, kMaxParts);
    const std::size_t most = g.columns ? columns.rows / kRowsOfPart : together > 1 ? 1 : g.group_channels;
    parts = g.lengths != nullptr ? 1 : std::clamp<std::size_t>(wanted, 1, std::max<std::size_t>(most, 1));
    split = parts > 1 && units * parts <= kMaxParts * kMaxParts;
    tasks = split ? units * parts : std::min(units, kTasks);
  }

  static constexpr std::size_t kTasks = 32;
  static constexpr std::size_t kUnitElements = 2 << 10;  ///< in and out, with the next, they fit the first cache
  static constexpr std::size_t kGroupsAtOnce = 16;       ///< whose numbers are one or two lines of the cache each
  static constexpr std::size_t kPartElements = 64 << 10;
  static constexpr std::size_t kMaxParts = 8;
  static constexpr std::size_t kRowsOfPart = 8;        ///< columns: parts are of so many rows, or of a multiple
  static constexpr std::size_t kPieceElements = 8192;  ///< moments are taken of: a block of the first caches

  const Geometry& g;
  kernels::ColumnPlan columns;  ///< of one sample, the longest
  std::size_t together, units_of_sample, units, parts, tasks;
  std::size_t at_once;  ///< units of a sample that share a scratch at a time
  bool split;           ///< parts are a task each
};

/// What one task keeps in the workspace. Sums of gradients are its own; the rest serves all tasks of a worker, one
/// after another, and in it lie the units of a sample that are taken at once: in few lines, for the tensors go by
/// beside them and push out of the caches what is not in use.
template <class T>
struct Scratch {
  /// out: what is written with the coefficients, if anything.
  Scratch(const Plan& p, Workspace& workspace, const T* out = nullptr) {
    const std::size_t groups = std::min(p.at_once * p.together, p.g.groups);
    const std::size_t width = p.g.columns ? p.columns.width : groups * p.g.group_channels;
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDelete): as large as the same walk counted, never empty
    first = workspace.take<double>(width);
    second = workspace.take<double>(width);
    sum = workspace.take<double>(width);
    dot = workspace.take<double>(width);
    dgamma = workspace.take<double>(p.g.channels);
    dbeta = workspace.take<double>(p.g.channels);
    mean = workspace.take<double>(groups);
    inverse = workspace.take<double>(groups);
    care = workspace.take<unsigned char>(groups);
    coefficients = kernels::CoefficientArrays<T>(workspace, width, out);
  }

  double *sum, *dot;       ///< [columns or channels], of a unit: means and M2, then Σg and Σ g·(x − mean)
  double *first, *second;  ///< the same of a part but the first
  double *dgamma, *dbeta;  ///< [all channels]: sums over the units of this task
  double *mean, *inverse;  ///< [groups], and 1/√(variance + ε)
  unsigned char* care;     ///< [groups]: what floats are too narrow for
  kernels::CoefficientArrays<T> coefficients;
};

}  // namespace equinorm::group_norm
