// The subcommands of the equinorm program: each adds itself, with its options and what it runs, to the parser.
#pragma once

#include <CLI/CLI.hpp>

namespace equinorm::app {

void add_audit(CLI::App& app);
void add_bench(CLI::App& app);
void add_eval(CLI::App& app);
void add_train(CLI::App& app);

// Under bench.
void add_bench_batch_norm(CLI::App& bench);
void add_bench_step(CLI::App& bench);

}  // namespace equinorm::app
