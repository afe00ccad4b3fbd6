// The time of a problem beside a copy of its tensor and the best peer, interleaved in one run.
#pragma once

#include <vector>

#include "interleaved.hpp"
#include "problem.hpp"

namespace equinorm::bench {

struct Measurement {
  Problem problem;
  /// copy, equinorm; onednn where it has the problem; floor of one thread; one_thread and one_thread_again beside more.
  std::vector<Timing> timings;

  /// nullptr: not measured.
  const Timing* find(std::string_view name) const;
  const Timing& copy() const { return timings[0]; }
  const Timing& equinorm() const { return timings[1]; }
  Ratio of_copy(const Timing& timing) const { return {timing, copy()}; }

  /// Adds the rounds of another visit to the same problem, of what is measured in several ways the fastest of each.
  void add(const Measurement& visit);
};

/// Measures for about `seconds`, in memory of its own. Wrong problems (groups that do not divide the channels) are an
/// Error.
Measurement measure(const Problem& problem, double seconds);

}  // namespace equinorm::bench
