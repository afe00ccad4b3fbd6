// equinorm bench OP: a copy of the tensor, ours and oneDNN's, interleaved in one run.
#include <fmt/core.h>

#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench_json.hpp"
#include "commands.hpp"
#include "equinorm/execution.hpp"
#include "measure.hpp"

namespace equinorm::app {
namespace {

using bench::Op;

struct OpOptions {
  std::string shape, layout = "nhwc", pass = "train", type = "f32", activation = "none", simd;
  bench::Problem problem;
  bool json = false;
  double seconds = 1;
};

struct OpRow {
  Op op;
  const char* shape;  ///< the default
  const char* help;
};
constexpr OpRow kRows[] = {
    {Op::batch_norm, "32,64,56,56", "Batch norm beside a copy of its tensor and oneDNN, interleaved in one run"},
    {Op::layer_norm, "8192,1024", "Layer norm beside a copy of its tensor and oneDNN"},
    {Op::rms_norm, "8192,1024", "RMS norm beside a copy of its tensor"},
    {Op::group_norm, "32,64,56,56", "Group norm beside a copy of its tensor"},
    {Op::instance_norm, "32,64,56,56", "Instance norm beside a copy of its tensor"},
};

void parse_shape(const std::string& text, bench::Problem& problem) {
  const std::string expected =
      problem.by_rows() ? "; expected ROWS,FEATURES" : "; expected N,C,H,W or N,C, each at least 1";
  std::size_t* const extents[] = {&problem.n, &problem.c, &problem.h, &problem.w};
  std::istringstream stream(text);
  std::string part;
  std::size_t count = 0, elements = 1;
  while (std::getline(stream, part, ',')) {
    std::size_t extent = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), extent);
    if (error != std::errc() || end != part.data() + part.size() || extent == 0 || extent > (1U << 30) || count == 4) {
      throw Error(fmt::format("--shape is '{}'{}", text, expected));
    }
    *extents[count++] = extent;
    elements *= extent;
    if (elements > (std::size_t{1} << 31)) {
      throw Error("--shape " + text + " is too large; expected at most 2^31 elements");
    }
  }
  if (count != 2 && (count != 4 || problem.by_rows())) throw Error("--shape is '" + text + "'" + expected);
}

void run(const OpOptions& o) {
  throw_if_error(set_simd_target(o.simd));
  bench::Problem problem = o.problem;
  parse_shape(o.shape, problem);
  problem.layout = *bench::value_of(bench::kLayouts, o.layout);
  problem.pass = *bench::value_of(bench::kPasses, o.pass);
  problem.type = *bench::value_of(bench::kTypes, o.type);
  problem.activation = *bench::value_of(bench::kActivations, o.activation);
  if (problem.by_rows() && problem.layout == Layout::channels_first) {
    throw Error("--layout is nchw; expected nhwc: rows have no other layout");
  }
  if (problem.op == Op::group_norm && (problem.groups == 0 || problem.c % problem.groups != 0)) {
    throw Error(fmt::format("--groups is {}; expected a divisor of the {} channels", problem.groups, problem.c));
  }
  const auto measured = bench::measure(problem, o.seconds);
  if (o.json) {
    fmt::print("{}\n", bench_json(measured).dump());
    return;
  }
  fmt::print("{} {} {} {} {}{}, {} thread{}, {}\n", bench::name_of(bench::kOps, problem.op), o.pass, o.shape,
             problem.by_rows() ? "" : o.layout, o.type, bench::fused_text(problem), problem.threads,
             problem.threads == 1 ? "" : "s", simd_target());
  for (const auto& t : measured.timings) {
    const bench::Ratio ratio = measured.of_copy(t);
    fmt::print("  {:<16} {:10.5f} ms  {:6.2f} × copy  ({:.2f} to {:.2f}, spread {:.0f} %)\n", t.name, t.median_ms,
               ratio.median, ratio.low, ratio.high, t.spread * 100);
  }
}

template <class Table>
CLI::Validator one_of(const Table& table) {
  std::vector<std::string> names;
  names.reserve(table.size());
  for (const auto& row : table) names.emplace_back(row.name);
  return CLI::IsMember(names);
}

}  // namespace

nlohmann::ordered_json bench_json(const bench::Measurement& measured) {
  const bench::Problem& p = measured.problem;
  nlohmann::ordered_json json{{"op", bench::name_of(bench::kOps, p.op)},
                              {"shape", p.by_rows() ? std::vector{p.n, p.c} : std::vector{p.n, p.c, p.h, p.w}},
                              {"layout", bench::name_of(bench::kLayouts, p.layout)},
                              {"pass", bench::name_of(bench::kPasses, p.pass)},
                              {"type", bench::name_of(bench::kTypes, p.type)},
                              {"activation", bench::name_of(bench::kActivations, p.activation)},
                              {"add", p.add},
                              {"threads", p.threads},
                              {"simd", simd_target()}};
  if (p.op == Op::group_norm) json["groups"] = p.groups;
  for (const auto& t : measured.timings) {
    const bench::Ratio ratio = measured.of_copy(t);
    json["results"].push_back({{"name", t.name},
                               {"median_ms", t.median_ms},
                               {"best_ms", t.best_ms},
                               {"spread", t.spread},
                               {"of_copy", ratio.median},
                               {"of_copy_95", {ratio.low, ratio.high}}});
  }
  return json;
}

void add_bench_ops(CLI::App& bench_command) {
  for (const OpRow& row : kRows) {
    auto options = std::make_shared<OpOptions>();
    options->problem.op = row.op;
    options->shape = row.shape;
    CLI::App* command = bench_command.add_subcommand(std::string(bench::name_of(bench::kOps, row.op)), row.help);
    const bool by_rows = options->problem.by_rows();
    command->add_option("--shape", options->shape, by_rows ? "ROWS,FEATURES" : "N,C,H,W (or N,C), whatever the layout")
        ->capture_default_str();
    command->add_option("--layout", options->layout)->check(one_of(bench::kLayouts))->capture_default_str();
    command->add_option("--pass", options->pass)->check(one_of(bench::kPasses))->capture_default_str();
    command->add_option("--type", options->type)->check(one_of(bench::kTypes))->capture_default_str();
    CLI::Option* activation = command->add_option("--activation", options->activation, "Fused behind the norm")
                                  ->check(one_of(bench::kActivations))
                                  ->capture_default_str();
    command
        ->add_flag_callback(
            "--relu", [options] { options->activation = "relu"; }, "The same as --activation relu")
        ->excludes(activation);
    command->add_flag("--add", options->problem.add,
                      by_rows ? "Fuse a residual add before the norm" : "Fuse a residual add before the activation");
    if (row.op == Op::group_norm) command->add_option("--groups", options->problem.groups)->capture_default_str();
    command->add_option("--threads", options->problem.threads)->check(CLI::Range(1, 1024))->capture_default_str();
    command->add_option("--simd", options->simd, "Force an instruction set (an unknown name lists them)");
    command->add_option("--seconds", options->seconds, "How long to measure")
        ->check(CLI::Range(0.01, 600.0))
        ->capture_default_str();
    command->add_flag("--json", options->json, "Print one line of JSON");
    command->callback([options] { run(*options); });
  }
}

}  // namespace equinorm::app
