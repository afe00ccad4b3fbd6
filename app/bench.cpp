// equinorm bench: one subcommand a benchmark.
#include "commands.hpp"

namespace equinorm::app {

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure the kernels and the training step beside their peers");
  bench->require_subcommand(1);
  add_bench_ops(*bench);
  add_bench_all(*bench);
  add_bench_accuracy(*bench);
  add_bench_step(*bench);
}

}  // namespace equinorm::app
