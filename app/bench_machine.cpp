#include "bench_machine.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "equinorm/execution.hpp"

namespace equinorm::app {
namespace {

/// In UTC. Neither fmt's dates nor the library's streams: both are slow to compile.
std::string today() {
  using std::chrono::floor, std::chrono::days, std::chrono::system_clock;
  const std::chrono::year_month_day day(floor<days>(system_clock::now()));
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(day.year()), static_cast<unsigned>(day.month()),
                     static_cast<unsigned>(day.day()));
}

}  // namespace

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

std::string machine_text() {
  std::string line, model = "unknown processor";
  for (std::ifstream file("/proc/cpuinfo"); std::getline(file, line);) {
    if (line.starts_with("model name")) {
      model = line.substr(std::min(line.find(':') + 2, line.size()));
      break;
    }
  }
#ifdef __clang__
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "GCC " __VERSION__;
#endif
  return fmt::format("{} × {}, {}, {}, {}", std::thread::hardware_concurrency(), model, simd_target(), compiler,
                     today());
}

}  // namespace equinorm::app
