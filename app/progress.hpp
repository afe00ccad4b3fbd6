// A line that keeps up with a long run: redrawn in place on a terminal, absent elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace equinorm::app {

class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  Progress();
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// A bar of done/total with the time left at the pace so far, then `text`. Draws at most ten times a second.
  void update(std::uint64_t done, std::uint64_t total, std::string_view text);

  /// Takes the line away, so that something can be printed.
  void clear();

  bool on_terminal() const { return terminal_; }

 private:
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now(), last_{};
};

/// "42 s", "3 min 05 s", "2 h 07 min".
std::string duration_text(double seconds);

}  // namespace equinorm::app
