// equinorm bench accuracy: errors of ours, oneDNN and PyTorch on the same inputs, as a table (accuracy.md).
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

#include "accuracy.hpp"
#include "bench_json.hpp"
#include "bench_machine.hpp"
#include "commands.hpp"
#include "core/file.hpp"
#include "progress.hpp"

namespace equinorm::app {
namespace {

using bench::AccuracyCase;
using bench::StepResults;
namespace fs = std::filesystem;

constexpr int kSkipped = 77;

/// A directory of its own, gone at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string path = (fs::temp_directory_path() / "equinorm-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) throw Error("cannot make a directory " + path + ": " + std::strerror(errno));
    path_ = path;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Runs `script directory` and gives its exit status.
int run_script(const std::string& script, const fs::path& directory) {
  std::string program = script, argument = directory.string();
  char* const arguments[] = {program.data(), argument.data(), nullptr};
  pid_t child = 0;
  if (const int error = posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environ); error != 0) {
    throw Error("--torch " + script + ": " + std::strerror(error));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw Error("--torch " + script + ": " + std::strerror(errno));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

using Found = std::optional<StepResults<double>>;

/// PyTorch's results, of the cases that it takes; empty if the script says that there is no PyTorch. The script finds
/// cases.json and raw doubles, <case>.x and so on, and writes <case>.y and so on beside them.
std::vector<Found> run_torch(const std::vector<AccuracyCase>& cases, const std::string& script) {
  const TemporaryDirectory directory;
  const auto path = [&](std::size_t i, const char* name) { return directory.path() / fmt::format("{}.{}", i, name); };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const AccuracyCase& c = cases[i];
    const auto write = [&](const char* name, const std::vector<double>& values) {
      AtomicFile file(path(i, name));
      file.write(std::as_bytes(std::span(values)));
      file.commit();
    };
    write("x", c.x);
    write("dy", c.dy);
    write("gamma", c.gamma);
    write("beta", c.beta);
  }
  write_file_atomically(directory.path() / "cases.json", json_text(cases));
  const int status = run_script(script, directory.path());
  if (status == kSkipped) return {};
  if (status != 0) throw Error(fmt::format("--torch {} ended with status {}; expected 0", script, status));

  std::vector<Found> results(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (!fs::exists(path(i, "y"))) continue;  // refused
    results[i].emplace();
    for (std::size_t k = 0; k < bench::kResultNames.size(); ++k) {
      const std::size_t count = k < 2 ? cases[i].x.size() : cases[i].gamma.size();
      const auto bytes = read_file(path(i, bench::kResultNames[k]), count * sizeof(double));
      if (bytes.size() != count * sizeof(double)) {
        throw Error(fmt::format("--torch {} wrote {} bytes of {}; expected {}", script, bytes.size(),
                                bench::kResultNames[k], count * sizeof(double)));
      }
      (*results[i])[k].resize(count);
      std::memcpy((*results[i])[k].data(), bytes.data(), bytes.size());
    }
  }
  return results;
}

using Errors = std::array<bench::MaxError, 4>;

/// Errors of a case: of ours and, where they have it, of the peers.
struct Row {
  Errors ours;
  std::optional<Errors> onednn, torch;
};

/// All of one type.
struct TypeTable {
  bench::Type type;
  std::vector<AccuracyCase> cases;
  std::vector<Row> rows;
  Errors largest{};  ///< of ours, quantity by quantity

  std::string_view name() const { return bench::name_of(bench::kTypes, type); }
};

std::string ulp_text(const bench::MaxError& error) {
  if (std::isinf(error.ulp)) return std::isinf(error.absolute) ? "not finite" : "not 0";
  return error.ulp < 100 ? fmt::format("{:.1f}", error.ulp) : fmt::format("{:.0e}", error.ulp);
}

std::string absolute_text(const bench::MaxError& error) {
  return std::isinf(error.absolute) ? "not finite" : error.absolute == 0 ? "0" : fmt::format("{:.0e}", error.absolute);
}

template <class Text>
std::string table(const char* unit, const TypeTable& all, std::size_t first, std::size_t last, const Text& text) {
  std::string out = fmt::format("\n| {} |", unit);
  for (const char* name : {"y", "dx", "dγ", "dβ"}) out += fmt::format(" {} equinorm | oneDNN | torch |", name);
  out += "\n|---|";
  for (int column = 0; column < 12; ++column) out += "---|";
  out += "\n";
  for (std::size_t i = first; i < last; ++i) {
    out += "| " + all.cases[i].input + " |";
    for (std::size_t k = 0; k < 4; ++k) {
      out += " **" + text(all.rows[i].ours[k]) + "** |";
      for (const auto* peer : {&all.rows[i].onednn, &all.rows[i].torch}) {
        out += " " + (*peer ? text((**peer)[k]) : std::string("–")) + " |";
      }
    }
    out += "\n";
  }
  return out;
}

std::string title(const bench::Problem& p) {
  return fmt::format("{} {}{}, {}{}", bench::name_of(bench::kOps, p.op), bench::name_of(bench::kTypes, p.type),
                     p.by_rows() ? std::string() : fmt::format(" {}", bench::name_of(bench::kLayouts, p.layout)),
                     p.by_rows() ? fmt::format("{},{}", p.n, p.c) : fmt::format("{},{},{},{}", p.n, p.c, p.h, p.w),
                     p.op == bench::Op::group_norm ? fmt::format(", {} groups", p.groups) : "");
}

/// Calls body(first, last) for the cases of every operation and layout.
template <class Body>
void for_each_problem(const std::vector<AccuracyCase>& cases, const Body& body) {
  for (std::size_t first = 0, last = 0; first < cases.size(); first = last) {
    const bench::Problem& p = cases[first].problem;
    while (last < cases.size() && cases[last].problem.op == p.op && cases[last].problem.layout == p.layout) ++last;
    body(first, last);
  }
}

std::string summary(const std::vector<TypeTable>& tables) {
  std::string text =
      "\n| at most | y | dx | dγ | dβ | of the bounds: y | dx | dγ | dβ |\n"
      "|---|---|---|---|---|---|---|---|---|\n";
  for (const TypeTable& table : tables) {
    text += fmt::format("| {} |", table.name());
    for (const auto& error : table.largest) text += fmt::format(" {} ulp |", ulp_text(error));
    for (const auto& error : table.largest) text += fmt::format(" {:.0f} % |", std::ceil(100 * error.of_bound));
    text += "\n";
  }
  return text;
}

/// What a NaN and an infinity in x do to others.
std::string poison_table(const std::vector<TypeTable>& tables) {
  std::string text =
      "\n## One NaN, one infinity\n\nHow many elements of y and dx change that share no statistics with an x that "
      "becomes "
      "NaN, or infinite; 0 must.\n\n|  |";
  for (const TypeTable& table : tables) text += fmt::format(" {0} NaN | {0} ∞ |", table.name());
  text += "\n|---|";
  for (std::size_t column = 0; column < 2 * tables.size(); ++column) text += "---|";
  text += "\n";
  for_each_problem(tables[0].cases, [&](std::size_t first, std::size_t) {
    const bench::Problem& p = tables[0].cases[first].problem;
    text += fmt::format("| {}{} |", bench::name_of(bench::kOps, p.op),
                        p.by_rows() ? "" : fmt::format(" {}", bench::name_of(bench::kLayouts, p.layout)));
    for (const TypeTable& table : tables) {
      AccuracyCase input = tables[0].cases[first];  // what training sees, in this type
      for (const AccuracyCase& c : table.cases) {
        if (c.problem.op == p.op && c.problem.layout == p.layout && c.input == input.input) input = c;
      }
      for (const double poison : {std::nan(""), HUGE_VAL}) text += fmt::format(" {} |", changed_beyond(input, poison));
    }
    text += "\n";
  });
  return text;
}

}  // namespace

void run(const AccuracyOptions& options) {
  std::error_code error;
  fs::create_directories(options.out, error);
  if (error) throw Error("--out " + options.out + ": " + error.message());
  std::vector<TypeTable> tables;
  std::size_t count = 0;
  bool with_torch = !options.torch.empty();
  Progress progress;
  for (const auto& [name, type] : bench::kTypes) {
    TypeTable& table = tables.emplace_back(TypeTable{type, bench::accuracy_cases(type, options.quick), {}});
    std::vector<Found> torch;
    if (with_torch) torch = run_torch(table.cases, options.torch);
    with_torch = !torch.empty();
    for (std::size_t i = 0; i < table.cases.size(); ++i, ++count) {
      const AccuracyCase& input = table.cases[i];
      progress.update(i, table.cases.size(), title(input.problem));
      const auto expected = bench::run_reference(input);
      Row row{bench::errors(input, bench::run_ours(input), expected), {}, {}};
      if (const auto found = bench::run_onednn(input)) row.onednn = bench::errors(input, *found, expected);
      if (with_torch && torch[i]) row.torch = bench::errors(input, *torch[i], expected);
      for (std::size_t k = 0; k < 4; ++k) {
        const bool cancels = input.problem.statistics() == input.problem.elements();  // dx of one element: 0, or nearly
        if (!cancels) table.largest[k].ulp = std::max(table.largest[k].ulp, row.ours[k].ulp);
        table.largest[k].of_bound = std::max(table.largest[k].of_bound, row.ours[k].of_bound);
      }
      table.rows.push_back(row);
    }
  }
  progress.clear();

  std::string text = fmt::format(
      R"(<!-- Generated by `equinorm bench accuracy {}--torch bench/torch_accuracy.py --out docs`: not to be edited. -->
# Accuracy

The largest errors of one training step (forward and backward) against scalar references in long double, on inputs of which most are hostile:
ours, oneDNN's (batch and layer norm alone) and PyTorch's on the same numbers (–: it does not take them). An ulp is the distance of the type's
numbers at the largest value expected in the same channel, row or group; of dγ and dβ, in the vector, and for bf16 and f16 that of f32, which
ours are (PyTorch's are bf16, but those of batch norm). "not 0": 0 was expected and something else came. "one element": each has statistics of
its own, and dx, what is left of parts that cancel, is 0 or nearly. "huge σ": 1e36, of f16 1e3, of f64 1e150, whose square the statistics can
hold. The means of doubles are doubles: y is off by their rounding.

Ours, and as a share of what each element may be off by the bounds of [batch norm](../src/ops/batch_norm/README.md), for norms of channels, and
[layer norm](../src/ops/layer_norm/README.md), for norms of rows; ulp without "one element":
)",
      options.quick ? "--quick " : "");
  text += summary(tables);
  if (!with_torch) text += "\nPyTorch was skipped: it was not asked for or is not installed.\n";
  if (options.quick) text += "\nA quick run, of a quarter of the batches.\n";
  text += poison_table(tables);
  for (const TypeTable& all : tables) {
    for_each_problem(all.cases, [&](std::size_t first, std::size_t last) {
      text += fmt::format("\n## {}\n", title(all.cases[first].problem));
      text += table("ulp", all, first, last, ulp_text);
      if (all.type == bench::Type::f32) text += table("absolute", all, first, last, absolute_text);
    });
  }
  text += fmt::format("\n{}.\n", machine_text());
  const fs::path file = fs::path(options.out) / "accuracy.md";
  write_file_atomically(file, text);
  fmt::print("{} cases{}: {}\n{}", count, with_torch ? "" : ", torch skipped", file.string(), summary(tables));
}

}  // namespace equinorm::app
