// equinorm bench accuracy: errors of ours, oneDNN and PyTorch on the same inputs, as a table (accuracy.md).
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "accuracy.hpp"
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

/// PyTorch's results of every case; empty if the script says that there is no PyTorch. The script finds cases.json and
/// raw floats, <case>.x and so on, and writes <case>.y and so on beside them.
std::vector<StepResults<float>> run_torch(const std::vector<AccuracyCase>& cases, const std::string& script) {
  const TemporaryDirectory directory;
  const auto path = [&](std::size_t i, const char* name) { return directory.path() / fmt::format("{}.{}", i, name); };
  nlohmann::json list;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const AccuracyCase& c = cases[i];
    const bench::Problem& p = c.problem;
    const auto write = [&](const char* name, const std::vector<float>& values) {
      AtomicFile file(path(i, name));
      file.write(std::as_bytes(std::span(values)));
      file.commit();
    };
    write("x", c.x);
    write("dy", c.dy);
    write("gamma", c.gamma);
    write("beta", c.beta);
    list.push_back({{"op", bench::name_of(bench::kOps, p.op)},
                    {"shape", p.by_rows() ? std::vector{p.n, p.c} : std::vector{p.n, p.c, p.h, p.w}},
                    {"layout", bench::name_of(bench::kLayouts, p.layout)},
                    {"groups", p.groups},
                    {"epsilon", bench::kEpsilon}});
  }
  write_file_atomically(directory.path() / "cases.json", list.dump());
  const int status = run_script(script, directory.path());
  if (status == kSkipped) return {};
  if (status != 0) throw Error(fmt::format("--torch {} ended with status {}; expected 0", script, status));

  std::vector<StepResults<float>> results(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    for (std::size_t k = 0; k < bench::kResultNames.size(); ++k) {
      const std::size_t count = k < 2 ? cases[i].x.size() : cases[i].gamma.size();
      const auto bytes = read_file(path(i, bench::kResultNames[k]), count * sizeof(float));
      if (bytes.size() != count * sizeof(float)) {
        throw Error(fmt::format("--torch {} wrote {} bytes of {}; expected {}", script, bytes.size(),
                                bench::kResultNames[k], count * sizeof(float)));
      }
      results[i][k].resize(count);
      std::memcpy(results[i][k].data(), bytes.data(), bytes.size());
    }
  }
  return results;
}

/// Errors of a case: of ours and, where they have it, of the peers.
struct Row {
  std::array<bench::MaxError, 4> ours;
  std::optional<std::array<bench::MaxError, 4>> onednn, torch;
};

std::string ulp_text(const bench::MaxError& error) {
  if (std::isinf(error.ulp)) return std::isinf(error.absolute) ? "not finite" : "not 0";
  return error.ulp < 100 ? fmt::format("{:.1f}", error.ulp) : fmt::format("{:.0e}", error.ulp);
}

std::string absolute_text(const bench::MaxError& error) {
  return std::isinf(error.absolute) ? "not finite" : error.absolute == 0 ? "0" : fmt::format("{:.0e}", error.absolute);
}

template <class Text>
std::string table(const char* unit, const std::vector<AccuracyCase>& cases, const std::vector<Row>& rows,
                  std::size_t first, std::size_t last, const Text& text) {
  std::string out = fmt::format("\n| {} |", unit);
  for (const char* name : {"y", "dx", "dγ", "dβ"}) out += fmt::format(" {} equinorm | oneDNN | torch |", name);
  out += "\n|---|";
  for (int column = 0; column < 12; ++column) out += "---|";
  out += "\n";
  for (std::size_t i = first; i < last; ++i) {
    out += "| " + cases[i].input + " |";
    for (std::size_t k = 0; k < 4; ++k) {
      out += " **" + text(rows[i].ours[k]) + "** |";
      for (const auto* peer : {&rows[i].onednn, &rows[i].torch}) {
        out += " " + (*peer ? text((**peer)[k]) : std::string("–")) + " |";
      }
    }
    out += "\n";
  }
  return out;
}

struct AccuracyOptions {
  std::string out = "bench_out", torch;
};

void run(const AccuracyOptions& options) {
  std::error_code error;
  fs::create_directories(options.out, error);
  if (error) throw Error("--out " + options.out + ": " + error.message());
  const auto cases = bench::accuracy_cases();
  const auto torch = options.torch.empty() ? std::vector<StepResults<float>>{} : run_torch(cases, options.torch);
  std::vector<Row> rows;
  Progress progress;
  double largest = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    progress.update(i, cases.size(), bench::name_of(bench::kOps, cases[i].problem.op));
    const auto expected = bench::run_reference(cases[i]);
    Row row{bench::errors(cases[i], bench::run_ours(cases[i]), expected), {}, {}};
    if (const auto found = bench::run_onednn(cases[i])) row.onednn = bench::errors(cases[i], *found, expected);
    if (!torch.empty()) row.torch = bench::errors(cases[i], torch[i], expected);
    for (const auto& e : row.ours) largest = std::max(largest, e.ulp);
    rows.push_back(row);
  }
  progress.clear();

  std::string text = fmt::format(
      "<!-- Generated by `equinorm bench accuracy --torch bench/torch_accuracy.py --out docs`: not to be edited. -->\n"
      "# Accuracy\n\nThe largest errors of one training step (forward and backward, f32) against scalar references in "
      "double, on inputs of which most are hostile:\nours, oneDNN's (batch and layer norm alone) and PyTorch's on the "
      "same numbers. An ulp is the distance of floats at the largest value expected in the same channel, row or "
      "group;\n"
      "of dγ and dβ, in the vector. \"not 0\": 0 was expected and something else came. **Ours: at most {:.1f} ulp in "
      "the whole table.**\n",
      largest);
  if (torch.empty()) text += "\nPyTorch was skipped: it was not asked for or is not installed.\n";
  for (std::size_t first = 0; first < cases.size();) {
    const auto& p = cases[first].problem;
    std::size_t last = first;
    while (last < cases.size() && cases[last].problem.op == p.op && cases[last].problem.layout == p.layout) ++last;
    text += fmt::format("\n## {}{}, {}{}\n", bench::name_of(bench::kOps, p.op),
                        p.by_rows() ? std::string() : fmt::format(" {}", bench::name_of(bench::kLayouts, p.layout)),
                        p.by_rows() ? fmt::format("{},{}", p.n, p.c) : fmt::format("{},{},{},{}", p.n, p.c, p.h, p.w),
                        p.op == bench::Op::group_norm ? fmt::format(", {} groups", p.groups) : "");
    text += table("ulp", cases, rows, first, last, ulp_text);
    text += table("absolute", cases, rows, first, last, absolute_text);
    first = last;
  }
  text += fmt::format("\n{}.\n", machine_text());
  const fs::path file = fs::path(options.out) / "accuracy.md";
  write_file_atomically(file, text);
  fmt::print("{} cases, ours at most {:.1f} ulp{}: {}\n", cases.size(), largest, torch.empty() ? ", torch skipped" : "",
             file.string());
}

}  // namespace

void add_bench_accuracy(CLI::App& bench_command) {
  auto options = std::make_shared<AccuracyOptions>();
  CLI::App* command = bench_command.add_subcommand(
      "accuracy", "Errors of a training step on hostile inputs, beside oneDNN's and PyTorch's: accuracy.md");
  command->add_option("--out", options->out, "Directory for the table")->capture_default_str();
  command->add_option("--torch", options->torch, "bench/torch_accuracy.py, to have PyTorch in the table")
      ->check(CLI::ExistingFile);
  command->callback([options] { run(*options); });
}

}  // namespace equinorm::app
