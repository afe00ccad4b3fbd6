#include "progress.hpp"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace equinorm::app {
namespace {

std::size_t columns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = std::lround(std::max(seconds, 0.0));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

Progress::Progress() : terminal_(isatty(STDOUT_FILENO) != 0) {}

void Progress::update(std::uint64_t done, std::uint64_t total, std::string_view text) {
  const auto now = Clock::now();
  if (!terminal_ || now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  const double share = static_cast<double>(done) / static_cast<double>(std::max<std::uint64_t>(total, 1));
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left = share > 0 ? elapsed / share - elapsed : 0;
  constexpr std::size_t width = 24, eighths_in_a_cell = 8;
  constexpr std::string_view cells[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
  std::string bar;
  auto eighths = static_cast<std::size_t>(share * static_cast<double>(width * eighths_in_a_cell));
  for (std::size_t i = 0; i < width; ++i) {
    const std::size_t fill = std::min(eighths, eighths_in_a_cell);
    bar += cells[fill];
    eighths -= fill;
  }
  // What does not fit the terminal would wrap and could not be drawn over.
  std::string tail = fmt::format(" {:3.0f} %  {}  {} left", 100 * share, text, duration_text(left));
  const std::size_t room = columns() > width + 3 ? columns() - width - 3 : 0;
  if (tail.size() > room) tail.resize(room);
  fmt::print("\r▕{}▏{}\x1b[K", bar, tail);
  std::fflush(stdout);
  drawn_ = true;
}

void Progress::clear() {
  if (drawn_) fmt::print("\r\x1b[K");
  drawn_ = false;
  std::fflush(stdout);
}

}  // namespace equinorm::app
