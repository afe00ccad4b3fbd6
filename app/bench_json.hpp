// What benchmarks write for programs to read, as JSON.
#pragma once

#include <string>
#include <vector>

#include "accuracy.hpp"
#include "bench_results.hpp"
#include "commands.hpp"
#include "measure.hpp"

namespace equinorm::app {

/// One line: what `equinorm bench OP --json` prints.
std::string json_text(const bench::Measurement& measured);

struct StepTime {
  int threads;
  double median_ms, spread, images_per_s;
};
/// One line: what `equinorm bench step --json` prints.
std::string json_text(const StepOptions& options, const StepTime& time);

/// speed.json.
std::string json_text(const Results& results);

/// cases.json, for bench/torch_accuracy.py.
std::string json_text(const std::vector<bench::AccuracyCase>& cases);

}  // namespace equinorm::app
