// How a tensor is cut for group norm, from its shape alone.
#pragma once

#include <algorithm>
#include <cstddef>

#include "equinorm/group_norm.hpp"
#include "kernels/column_plan.hpp"
#include "reduce/blocks.hpp"

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

/// A unit is what shares nothing with others: a sample (columns), or some groups of one, side by side (planes).
/// Statistics of a large one are taken in parts: of the rows, or of the channels of a group. The cut comes from the
/// shape of a sample alone, so that its bits do not depend on how many there are. Parts of few units are a task each;
/// else whole units are dealt to tasks. With lengths a unit is taken in one part: no bit may depend on its padding.
struct Plan {
  Plan(const Geometry& geometry, const kernels::ColumnPlan& of_longest) : g(geometry), columns(of_longest) {
    if (g.columns) {
      together = g.groups;
    } else {
      const std::size_t most = std::min({kRunChannels / g.group_channels, kMaxPlaneChannels, g.groups});
      together = std::clamp<std::size_t>(kUnitElements / g.group_elements(), 1, std::max<std::size_t>(most, 1));
    }
    units_of_sample = (g.groups + together - 1) / together;
    units = g.samples * units_of_sample;
    const std::size_t wanted = std::min(g.sample_elements() / units_of_sample / kPartElements, kMaxParts);
    const std::size_t most = g.columns ? columns.rows / kRowsOfPart : together > 1 ? 1 : g.group_channels;
    parts = g.lengths != nullptr ? 1 : std::clamp<std::size_t>(wanted, 1, std::max<std::size_t>(most, 1));
    split = parts > 1 && units * parts <= kMaxParts * kMaxParts;
    tasks = !split ? std::min(units, kTasks) : g.columns ? units * parts : parts;
  }

  static constexpr std::size_t kTasks = 32;
  static constexpr std::size_t kUnitElements = 2 << 10;  ///< in and out, with the next, they fit the first cache
  static constexpr std::size_t kRunChannels = 128;       ///< planes: whose coefficients are written at once
  static constexpr std::size_t kPartElements = 64 << 10;
  static constexpr std::size_t kMaxParts = 8;
  static constexpr std::size_t kRowsOfPart = 8;        ///< columns: parts are of so many rows, or of a multiple
  static constexpr std::size_t kPieceElements = 8192;  ///< moments are taken of: a block of the first caches

  const Geometry& g;
  kernels::ColumnPlan columns;  ///< of one sample, the longest
  std::size_t together;         ///< groups of a unit; several have no more than kRunChannels channels
  std::size_t units_of_sample, units, parts, tasks;
  bool split;  ///< parts are a task each: of every unit (columns), or unit by unit
};

}  // namespace equinorm::group_norm
