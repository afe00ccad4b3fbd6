// The subcommands of the equinorm program: each adds itself, with its options and what it runs, to the parser.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace equinorm::app {

/// For options that CLI11 reads into unsigned or floating numbers: it would print the whole range of a double.
inline const CLI::Validator kNotNegative(
    [](const std::string& text) {
      return text.starts_with('-') ? "found " + text + "; expected a number of at least 0" : std::string();
    },
    "NUMBER");

void add_audit(CLI::App& app);
void add_bench(CLI::App& app);
void add_eval(CLI::App& app);
void add_train(CLI::App& app);

// Under bench.
void add_bench_accuracy(CLI::App& bench);
void add_bench_all(CLI::App& bench);
void add_bench_ops(CLI::App& bench);
void add_bench_step(CLI::App& bench);

}  // namespace equinorm::app
