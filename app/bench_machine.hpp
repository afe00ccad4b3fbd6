// The machine and the day of a measurement, for the foot of a table.
#pragma once

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <thread>

#include "equinorm/execution.hpp"

namespace equinorm::app {

/// How many processes wanted to run in the last minute.
inline double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

/// "2 × AMD EPYC, AVX3, GCC 12.2.0, 2026-11-23".
inline std::string machine_text() {
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
  return fmt::format("{} × {}, {}, {}, {:%Y-%m-%d}", std::thread::hardware_concurrency(), model, simd_target(),
                     compiler, fmt::gmtime(std::time(nullptr)));
}

}  // namespace equinorm::app
