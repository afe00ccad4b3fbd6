// What `equinorm bench all` found: the rows of speed.md, speed.svg and speed.json.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "measure.hpp"

namespace equinorm::app {

inline constexpr double kPeerMargin = 1.1;  // no peer may be faster than ours by more than this

struct Target {
  double ratio;  ///< what equinorm's time may be, of the copy's
  std::string text;
};

struct Result {
  bench::Measurement measured;
  Target target;

  double of_copy(const bench::Timing& timing) const { return measured.of_copy(timing).median; }
  double ours() const { return of_copy(measured.equinorm()); }
  /// The time of `name` over that of one thread, where that is the target: equal code is above it in half of all runs.
  std::optional<bench::Ratio> of_one_thread(std::string_view name = "equinorm") const {
    const auto* alone = measured.find("one_thread");
    return alone == nullptr ? std::nullopt : std::optional(bench::Ratio(*measured.find(name), *alone));
  }
  bool misses() const {
    const auto ratio = of_one_thread(), again = of_one_thread("one_thread_again");
    return ratio ? ratio->low > std::max(1.0, again->high) : ours() > target.ratio;
  }
  bool behind_peer() const {
    const auto* peer = measured.find("onednn");
    return peer != nullptr && ours() > kPeerMargin * of_copy(*peer);
  }
  /// Whether what does less misses the target, too, beyond doubt, and is not beyond doubt slower than ours: then it
  /// says nothing. Doubt is the 95 % interval.
  bool is_bound(std::string_view name) const {
    const auto* other = measured.find(name);
    return other != nullptr && measured.of_copy(*other).low > target.ratio &&
           bench::Ratio(*other, measured.equinorm()).low <= 1;
  }
  /// What is to be said of a target that is missed, the first that holds.
  enum class Miss {
    none,
    below_floor,  ///< a bound: see is_bound
    plain_too,
    in_doubt,     ///< the 95 % interval holds the target
    plain_meets,  ///< so it can be had without what Equinorm promises
    open,
  };
  Miss miss() const {
    if (!misses()) return Miss::none;
    if (is_bound("floor")) return Miss::below_floor;
    if (is_bound("plain")) return Miss::plain_too;
    if (!of_one_thread() && measured.of_copy(measured.equinorm()).low <= target.ratio) return Miss::in_doubt;
    const auto* plain = measured.find("plain");
    return plain != nullptr && of_copy(*plain) <= target.ratio ? Miss::plain_meets : Miss::open;
  }
  std::string mark() const {
    static constexpr const char* kTexts[] = {
        // in the order of Miss
        "", "target (below the floor)", "target (plain too)", "target (in doubt)", "target (plain meets it)", "target"};
    const std::string text = kTexts[static_cast<std::size_t>(miss())];
    return behind_peer() ? text + (text.empty() ? "peer" : ", peer") : text;
  }
};

struct Results {
  std::vector<std::pair<std::string, std::vector<Result>>> sections;
  std::string machine;
  double load_before = 0, load_after = 0;
  bool quick = false;
  int visits = 1;
};

}  // namespace equinorm::app
