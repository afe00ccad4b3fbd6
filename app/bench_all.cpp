// equinorm bench all: every operation, pass, type and layout on the peers' shapes, beside the targets, as a table
// (speed.md), a chart (speed.svg) and numbers (speed.json).
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bench_json.hpp"
#include "bench_machine.hpp"
#include "bench_results.hpp"
#include "commands.hpp"
#include "core/file.hpp"
#include "measure.hpp"
#include "progress.hpp"

namespace equinorm::app {
namespace {

using bench::Measurement;
using bench::Op;
using bench::Pass;
using bench::Problem;
using bench::Type;
constexpr Layout kLast = Layout::channels_last, kFirst = Layout::channels_first;

// --- The targets ----------------------------------------------------------------------------------------------------

/// What a time is held against.
enum class Against { copy, row_before, one_microsecond, one_thread };

struct Case {
  Problem problem;
  Against against = Against::copy;
};

constexpr double kOddMargin = 1.5;     // odd channel counts against their even neighbours
constexpr double kNarrowMargin = 1.5;  // bf16 and f16, against a copy of their own type
constexpr double kExtraRead = 0.5;     // a copy is a read and a write: the fused add may cost this much more
constexpr double kMegabyte = 1024 * 1024;

/// The target in multiples of the copy, fixed before anything was measured; one thread, f32.
double copy_target(const Problem& p) {
  const auto pick = [&](double train, double backward) { return p.pass == Pass::backward ? backward : train; };
  switch (p.op) {
    case Op::layer_norm:
      return pick(1.3, 2.2);
    case Op::rms_norm:
      return pick(1.25, 2.0);
    case Op::group_norm:
    case Op::instance_norm:
      return pick(1.6, 2.5);
    case Op::batch_norm:
      break;
  }
  if (p.pass == Pass::infer) return 1.1;
  const double megabytes = static_cast<double>(p.elements() * sizeof(float)) / kMegabyte;
  if (p.layout == kLast) return pick(megabytes <= 32 ? 1.5 : 1.8, 2.3);
  if (p.h * p.w <= 49) return pick(2.5, 3.2);
  const bool channel_fits_l2 = megabytes / static_cast<double>(p.c) <= 1;
  return pick(channel_fits_l2 ? 1.6 : 2.0, 2.2);
}

Target target(const Case& row, const Measurement& measured, const Measurement* before) {
  const Problem& p = row.problem;
  switch (row.against) {
    case Against::one_microsecond:
      return {1e-3 / measured.copy().median_ms, "1 µs"};
    case Against::one_thread:
      return {measured.of_copy(*measured.find("one_thread")).median, "1 thread"};
    case Against::row_before: {
      const double ratio = kOddMargin * before->of_copy(before->equinorm()).median;
      return {ratio, fmt::format("{:.2f}", ratio)};
    }
    case Against::copy:
      break;
  }
  double ratio = copy_target(p);
  if (p.add) ratio += kExtraRead;
  if (p.type == Type::bf16 || p.type == Type::f16) ratio *= kNarrowMargin;
  return {ratio, fmt::format("{:.2f}", ratio)};
}

// --- What is measured -----------------------------------------------------------------------------------------------

struct Section {
  std::string title;
  std::vector<Case> cases;
};

struct Extents {
  std::size_t n, c, h, w;
};
constexpr Extents kImages[] = {{32, 64, 112, 112}, {32, 64, 56, 56}, {32, 256, 56, 56}, {32, 512, 28, 28},
                               {32, 2048, 7, 7},   {64, 32, 32, 32}, {8, 64, 56, 56}};
constexpr Extents kGroupImages[] = {{32, 64, 56, 56}, {32, 256, 56, 56}, {32, 512, 28, 28}, {8, 64, 56, 56}};
constexpr Extents kMatrix = {4096, 512, 1, 1};
constexpr Extents kRows[] = {{8192, 1024, 1, 1}, {4096, 512, 1, 1}, {512, 768, 1, 1}};
constexpr Extents kOneRow = {1, 4096, 1, 1};
/// An even count of channels and the odd one beside it, and how many rows make a tensor of about 6 MB.
constexpr std::size_t kNeighbours[][2] = {{2, 1}, {4, 3}, {8, 7}, {64, 60}, {64, 65}};
constexpr std::size_t kNeighbourElements = 1605632;

Problem problem(Op op, const Extents& e, Layout layout, Pass pass, Type type = Type::f32) {
  Problem p;
  p.op = op;
  p.n = e.n, p.c = e.c, p.h = e.h, p.w = e.w;
  p.layout = layout;
  p.pass = pass;
  p.type = type;
  return p;
}

std::vector<Section> sections() {
  std::vector<Section> all;
  const auto add = [&](const Problem& p, Against against = Against::copy) { all.back().cases.push_back({p, against}); };

  all.push_back({"Batch norm", {}});
  for (const Layout layout : {kLast, kFirst}) {
    for (const Pass pass : {Pass::train, Pass::backward, Pass::infer}) {
      for (const Extents& e : kImages) add(problem(Op::batch_norm, e, layout, pass));
      if (layout == kLast) add(problem(Op::batch_norm, kMatrix, layout, pass));
    }
  }

  all.push_back({"Batch norm with a fused ReLU, and with a residual add before it", {}});
  for (const Layout layout : {kLast, kFirst}) {
    for (const Pass pass : {Pass::train, Pass::backward}) {
      for (const bool residual : {false, true}) {
        for (const Extents& e : {kImages[1], kImages[2]}) {
          Problem p = problem(Op::batch_norm, e, layout, pass);
          p.activation = Activation::relu;
          p.add = residual;
          add(p);
        }
      }
    }
  }

  all.push_back({"Layer norm and RMS norm", {}});
  for (const Op op : {Op::layer_norm, Op::rms_norm}) {
    for (const Pass pass : {Pass::train, Pass::backward, Pass::infer}) {
      for (const Extents& e : kRows) add(problem(op, e, kLast, pass));
    }
    Problem residual = problem(op, kRows[0], kLast, Pass::train);
    residual.add = true;
    add(residual);
    add(problem(op, kOneRow, kLast, Pass::infer), Against::one_microsecond);
  }
  for (const Extents& e : {kOneRow, Extents{64, 768, 1, 1}, kRows[2]}) {
    for (const Pass pass : {Pass::train, Pass::backward}) {
      Problem two = problem(Op::layer_norm, e, kLast, pass);
      two.threads = 2;
      add(two, Against::one_thread);
    }
  }

  for (const Op op : {Op::group_norm, Op::instance_norm}) {
    all.push_back({op == Op::group_norm ? "Group norm, 32 groups" : "Instance norm", {}});
    for (const Layout layout : {kLast, kFirst}) {
      for (const Pass pass : {Pass::train, Pass::backward}) {
        for (const Extents& e : kGroupImages) add(problem(op, e, layout, pass));
      }
    }
  }

  all.push_back({"bf16 and f16, beside a copy of theirs", {}});
  for (const Type type : {Type::bf16, Type::f16}) {
    for (const Pass pass : {Pass::train, Pass::backward}) {
      for (const Layout layout : {kLast, kFirst}) {
        for (const Op op : {Op::batch_norm, Op::group_norm}) add(problem(op, kImages[2], layout, pass, type));
      }
      for (const Op op : {Op::layer_norm, Op::rms_norm}) add(problem(op, kRows[0], kLast, pass, type));
    }
  }

  all.push_back({"Odd numbers of channels, each below its even neighbour", {}});
  for (const auto& pair : kNeighbours) {
    for (const Pass pass : {Pass::train, Pass::backward}) {
      for (const std::size_t c : pair) {
        add(problem(Op::batch_norm, {kNeighbourElements / c, c, 1, 1}, kLast, pass),
            c == pair[0] ? Against::copy : Against::row_before);
      }
    }
  }
  return all;
}

// --- The files ------------------------------------------------------------------------------------------------------

std::string shape_text(const Problem& p) {
  return p.matrix() ? fmt::format("{},{}", p.n, p.c) : fmt::format("{},{},{},{}", p.n, p.c, p.h, p.w);
}

/// "layer_norm bf16 nhwc train + relu, 2 threads".
std::string what_text(const Problem& p) {
  return fmt::format("{} {}{} {}{}{}", bench::name_of(bench::kOps, p.op),
                     p.type == Type::f32 ? "" : fmt::format("{} ", bench::name_of(bench::kTypes, p.type)),
                     p.matrix() ? "rows" : bench::name_of(bench::kLayouts, p.layout),
                     bench::name_of(bench::kPasses, p.pass), bench::fused_text(p),
                     p.threads > 1 ? fmt::format(", {} threads", p.threads) : "");
}

std::string command_text(bool quick) {
  return quick ? "equinorm bench all --quick --out docs" : "equinorm bench all --out docs";
}

/// What is known of `rows` rows, the logarithms of ours over plain adding up to log_of_cost; of those `slower` where
/// plain is no bound to ours, as nothing.
std::string cost_text(double log_of_cost, std::size_t rows, std::size_t slower) {
  if (rows == 0) return "";  // plain needs fused multiply-adds
  return fmt::format(
      " Accuracy and the same bits everywhere cost\n**{:.0f} %** of plain's time (geometric mean of {} rows; the {} "
      "where plain is slower than ours count as no cost).",
      100 * (std::exp(log_of_cost / static_cast<double>(rows)) - 1), rows, slower);
}

std::string markdown(const Results& results) {
  std::string text =
      fmt::format("<!-- Generated by `{}`: not to be edited. -->\n# Speed\n\n", command_text(results.quick));
  std::size_t rows = 0, behind = 0, with_plain = 0, slower = 0;
  std::map<Result::Miss, std::size_t> missed;
  double log_of_cost = 0;
  for (const auto& [title, list] : results.sections) {
    for (const Result& r : list) {
      ++rows, ++missed[r.miss()], behind += r.behind_peer() ? 1U : 0U;
      if (const auto* plain = r.measured.find("plain")) {
        const double cost = r.ours() / r.of_copy(*plain);
        ++with_plain, slower += cost < 1 ? 1U : 0U;
        log_of_cost += std::log(std::max(cost, 1.0));
      }
    }
  }
  text += fmt::format(
      R"(Times as multiples of a copy of the same tensor of the same type, with oneDNN (2.6.3 in Debian 12) in the same program where it has the operation; one
thread and f32 unless a row says otherwise. All run in turn, in rounds; figures are medians over the rounds, 95 % is the interval of ours. The whole
table is gone through {} times, each time in fresh memory: where tensors lie and what else the machine does is worth more than one visit tells.
Rows are shapes `N,C,H,W` or `rows,channels`; RMS norm has no β, as in its paper; the target is what our figure may be. Two things that do less are measured
too, in one order of visits each, with nothing fetched by hand, in three ways like ours, and in two more where ours claims what it writes, of each visit the fastest. The floor is passes
over memory like ours without arithmetic: the input read for the statistics, then read again and the output written. Plain is the same formula without what Equinorm promises, as fast as we
know to write it: sums of floats, no care for large means, other bits on other processors. They are guides, not proofs: one counts
if the 95 % interval of its own ratio lies above the target, and that of its time over ours, round by round, not above 1.{}
Of {} rows **{} miss their target** (`target`): {} whose target is below the floor or missed by plain too, {} in doubt, as their interval holds it, {} that plain meets, so
that they can be had without what Equinorm promises, and {} of which none of this can be said. In **{} oneDNN is more than {} times as fast** (`peer`). Differences
under 1.3 can be noise on a shared machine. Two threads miss their target, one, if the 95 % interval of their ratio, round by round, lies above 1, and
above that of one thread measured a second time.

![Chart of this table](speed.svg)
)",
      results.visits, cost_text(log_of_cost, with_plain, slower), rows, rows - missed[Result::Miss::none],
      missed[Result::Miss::below_floor] + missed[Result::Miss::plain_too], missed[Result::Miss::in_doubt],
      missed[Result::Miss::plain_meets], missed[Result::Miss::open], behind, kPeerMargin);
  if (results.quick) text += "\nA quick run: batches are a 16th of those of a full run, which the targets are for.\n";
  for (const auto& [title, list] : results.sections) {
    text += fmt::format(
        "\n## {}\n\n| what | shape | copy, µs | equinorm | oneDNN | floor | plain | target | 95 % | misses |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n",
        title);
    for (const Result& r : list) {
      const auto* peer = r.measured.find("onednn");
      const auto *floor = r.measured.find("floor"), *plain = r.measured.find("plain");
      const auto ratio = r.of_one_thread();
      const bench::Ratio ours = r.measured.of_copy(r.measured.equinorm());
      text += fmt::format(
          "| {} | {} | {:.{}f} | **{:.2f}**{} | {} | {} | {} | {} | {:.2f} to {:.2f} | {} |\n",
          what_text(r.measured.problem), shape_text(r.measured.problem), 1e3 * r.measured.copy().median_ms,
          r.measured.copy().median_ms < 0.1 ? 2 : 0, ours.median,
          r.target.text == "1 µs" ? fmt::format(" ({:.2f} µs)", 1e3 * r.measured.equinorm().median_ms) : "",
          peer ? fmt::format("{:.2f}", r.of_copy(*peer)) : "–", floor ? fmt::format("{:.2f}", r.of_copy(*floor)) : "–",
          plain ? fmt::format("{:.2f}", r.of_copy(*plain)) : "–",
          ratio ? fmt::format("1 thread, of which {:.3f} to {:.3f} (again {:.3f} to {:.3f})", ratio->low, ratio->high,
                              r.of_one_thread("one_thread_again")->low, r.of_one_thread("one_thread_again")->high)
                : r.target.text,
          ours.low, ours.high, r.mark());
    }
  }
  text += fmt::format("\n{}. Load of the machine before {:.1f}, after {:.1f} (this run makes 1).\n", results.machine,
                      results.load_before, results.load_after);
  return text;
}

/// Two bars a row, ours and oneDNN's, and a mark at the target. Bars that leave the scale end in their number.
std::string chart(const Results& results) {
  constexpr double kScale = 8, kLeft = 390, kUnit = 60, kRow = 15, kHead = 34;
  double height = 40;
  for (const auto& [title, list] : results.sections) height += kHead + kRow * static_cast<double>(list.size());
  const double width = kLeft + kScale * kUnit + 60;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"10\">"
      "<desc>Generated by `{}`: not to be edited.</desc>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"10\" y=\"20\" font-size=\"13\">Multiples of a copy: <tspan fill=\"#1f6feb\">equinorm</tspan>, "
      "<tspan fill=\"#8a8f98\">oneDNN</tspan>, <tspan fill=\"#d1242f\">| target</tspan></text>\n",
      width, height, command_text(results.quick));
  double y = 34;
  const auto bar = [&](double top, double ratio, const char* color) {
    svg += fmt::format("<rect x=\"{}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"5\" fill=\"{}\"/>\n", kLeft, top,
                       kUnit * std::min(ratio, kScale), color);
    if (ratio > kScale) {
      svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" fill=\"{}\" font-size=\"8\">{:.1f}</text>\n",
                         kLeft + kUnit * kScale + 4, top + 6, color, ratio);
    }
  };
  for (const auto& [title, list] : results.sections) {
    const double bottom = y + kHead + kRow * static_cast<double>(list.size());
    svg += fmt::format("<text x=\"10\" y=\"{}\" font-size=\"12\" font-weight=\"bold\">{}</text>\n", y + 22, title);
    for (int line = 0; line <= static_cast<int>(kScale); ++line) {
      const double x = kLeft + kUnit * line;
      svg += fmt::format(
          "<line x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#dddddd\"/>\n"
          "<text x=\"{0}\" y=\"{3}\" text-anchor=\"middle\" fill=\"#666666\">{4}</text>\n",
          x, y + kHead - 6, bottom - 2, y + kHead - 8, line);
    }
    y += kHead;
    for (const Result& r : list) {
      svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{} · {}</text>\n", kLeft - 6, y + 8,
                         what_text(r.measured.problem), shape_text(r.measured.problem));
      bar(y, r.ours(), "#1f6feb");
      if (const auto* peer = r.measured.find("onednn")) bar(y + 5, r.of_copy(*peer), "#8a8f98");
      const double target = kLeft + kUnit * r.target.ratio;
      if (target <= kLeft + kUnit * kScale) {
        svg += fmt::format(
            "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"#d1242f\" "
            "stroke-width=\"2\"/>\n",
            target, y - 1, y + 11);
      }
      y += kRow;
    }
  }
  return svg + "</svg>\n";
}

}  // namespace

void run(const AllOptions& options) {
  const std::filesystem::path out = options.out;
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) throw Error("--out " + options.out + ": " + error.message());
  const double seconds = options.seconds > 0 ? options.seconds : options.quick ? 0.05 : 0.5;
  const int visits = options.visits > 0 ? options.visits : options.quick ? 1 : 3;

  auto all = sections();
  std::vector<Case*> cases;
  for (auto& section : all) {
    for (Case& row : section.cases) {
      if (options.quick && row.problem.n > 16) row.problem.n /= 16;
      cases.push_back(&row);
    }
  }
  Results results{{}, machine_text(), load_average(), 0, options.quick, visits};
  std::vector<Measurement> measured;
  Progress progress;
  std::size_t done = 0;
  for (int visit = 0; visit < visits; ++visit) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const Problem& problem = cases[i]->problem;
      progress.update(done++, static_cast<std::size_t>(visits) * cases.size(),
                      what_text(problem) + " " + shape_text(problem));
      Measurement found = bench::measure(problem, seconds);
      if (visit == 0) {
        measured.push_back(std::move(found));
      } else {
        measured[i].add(found);
      }
    }
  }
  std::size_t next = 0;
  for (const auto& section : all) {
    auto& list = results.sections.emplace_back(section.title, std::vector<Result>{}).second;
    for (const Case& row : section.cases) {
      Measurement& found = measured[next++];
      Target limit = target(row, found, list.empty() ? nullptr : &list.back().measured);
      list.push_back({std::move(found), std::move(limit)});
    }
  }
  progress.clear();
  results.load_after = load_average();
  write_file_atomically(out / "speed.md", markdown(results));
  write_file_atomically(out / "speed.svg", chart(results));
  write_file_atomically(out / "speed.json", json_text(results) + "\n");
  fmt::print("{} rows: {}\n", cases.size(), (out / "speed.md").string());
}

}  // namespace equinorm::app
