// The commands of the equinorm program: the options of each with their defaults, and what runs it. How the options are
// written and what they mean is said in command_line.cpp, alone: the parser is slow to compile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model_options.hpp"
#include "problem.hpp"

namespace equinorm::app {

struct AuditOptions {
  bool quick = false, full = false, resume = false, list = false;
  std::vector<std::string> claims;
  std::size_t seeds = 0;
  int threads = 0;
  std::string out = "report";
};
/// Whether it came to its end: not if Ctrl-C stopped it, which it has told by then.
bool run(const AuditOptions& options);

struct TrainOptions : ModelOptions {
  std::string data = "mnist", schedule = "cosine", init = "he", save;
  std::size_t epochs = 3;
  std::uint64_t warmup = 0, seed = 1;
  std::optional<double> lr;
  double momentum = 0.9, weight_decay = 0, norm_lr = 1, init_scale = 1, dropout = 0;
  bool decoupled = false;
};
void run(const TrainOptions& options);

struct EvalOptions {
  std::string file, data = "mnist", split = "test", logits;
  ModelOptions machine;  // its threads
};
void run(const EvalOptions& options);

// --- Under bench ----------------------------------------------------------------------------------------------------

struct OpOptions {
  explicit OpOptions(bench::Op op) : problem{.op = op} {}
  bench::Problem problem;
  std::string shape = problem.by_rows() ? "8192,1024" : "32,64,56,56";
  std::string layout = "nhwc", pass = "train", type = "f32", activation = "none", simd;
  bool json = false;
  double seconds = 1;
};
void run(const OpOptions& options);

struct AllOptions {
  bool quick = false;
  std::string out = "bench_out";
  int visits = 0;
  double seconds = 0;
};
void run(const AllOptions& options);

struct AccuracyOptions {
  std::string out = "bench_out", torch;
  bool quick = false;
};
void run(const AccuracyOptions& options);

struct StepOptions : ModelOptions {
  StepOptions() { batch = 128, threads = 1; }
  std::size_t steps = 100, warmup = 20;
  bool json = false;
};
void run(const StepOptions& options);

}  // namespace equinorm::app
