// equinorm bench OP: a copy of the tensor, ours and oneDNN's, interleaved in one run.
#include <fmt/core.h>

#include <charconv>
#include <sstream>

#include "bench_json.hpp"
#include "commands.hpp"
#include "equinorm/execution.hpp"
#include "measure.hpp"

namespace equinorm::app {
namespace {

using bench::Op;

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

}  // namespace

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
    fmt::print("{}\n", json_text(measured));
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

}  // namespace equinorm::app
