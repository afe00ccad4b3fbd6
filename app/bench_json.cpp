// All JSON of the program, in one file: it is slow to compile.
#include "bench_json.hpp"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "equinorm/execution.hpp"

namespace equinorm::app {
namespace {

using bench::Op;
using Json = nlohmann::ordered_json;

Json json_of(const bench::Measurement& measured) {
  const bench::Problem& p = measured.problem;
  Json json{{"op", bench::name_of(bench::kOps, p.op)},
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

}  // namespace

std::string json_text(const bench::Measurement& measured) {
  return json_of(measured).dump();
}

std::string json_text(const StepOptions& options, const StepTime& time) {
  const Json line{{"bench", "step"},
                  {"engine", "equinorm"},
                  {"layout", "nhwc"},
                  {"model", options.model},
                  {"norm", options.norm},
                  {"batch", options.batch},
                  {"threads", time.threads},
                  {"optimizer", options.optimizer},
                  {"median_ms", time.median_ms},
                  {"spread", time.spread},
                  {"images_per_s", time.images_per_s}};
  return line.dump();
}

std::string json_text(const Results& results) {
  Json rows;
  for (const auto& [title, list] : results.sections) {
    for (const Result& r : list) {
      auto row = json_of(r.measured);
      row["section"] = title;
      row["target_of_copy"] = r.target.ratio;
      if (const auto ratio = r.of_one_thread()) {
        const auto again = r.of_one_thread("one_thread_again");
        row["of_one_thread"] = {ratio->low, ratio->high};
        row["one_thread_again"] = {again->low, again->high};
      }
      for (const char* name : {"floor", "plain"}) {
        if (const auto* other = r.measured.find(name)) {
          const bench::Ratio ratio(*other, r.measured.equinorm());
          row[fmt::format("{}_of_equinorm", name)] = {ratio.low, ratio.high};
        }
      }
      row["misses_target"] = r.misses();
      row["behind_peer"] = r.behind_peer();
      rows.push_back(std::move(row));
    }
  }
  const Json json{{"machine", results.machine},
                  {"quick", results.quick},
                  {"visits", results.visits},
                  {"load", {results.load_before, results.load_after}},
                  {"rows", std::move(rows)}};
  return json.dump(1);
}

std::string json_text(const std::vector<bench::AccuracyCase>& cases) {
  Json list;
  for (const bench::AccuracyCase& c : cases) {
    const bench::Problem& p = c.problem;
    list.push_back({{"op", bench::name_of(bench::kOps, p.op)},
                    {"shape", p.by_rows() ? std::vector{p.n, p.c} : std::vector{p.n, p.c, p.h, p.w}},
                    {"layout", bench::name_of(bench::kLayouts, p.layout)},
                    {"type", bench::name_of(bench::kTypes, p.type)},
                    {"groups", p.groups},
                    {"epsilon", bench::kEpsilon}});
  }
  return list.dump();
}

}  // namespace equinorm::app
