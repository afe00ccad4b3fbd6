#include "audit/results.hpp"

#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "core/file.hpp"
#include "equinorm/execution.hpp"
#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

std::string_view name(Direction direction) {
  return direction == Direction::below ? "below" : "above";
}
std::string_view name(Kind kind) {
  return kind == Kind::exact ? "exact" : "trained";
}

Json json_of(const Interval& interval) {
  return {interval.lo, interval.hi};
}

Json json_of(const Finding& f) {
  return {{"text", f.text},
          {"role", name(f.role)},
          {"answer", name(f.answer())},
          {"effect", f.estimate.value},
          {"interval", json_of(f.estimate.interval)},
          {"threshold", f.threshold},
          {"direction", name(f.direction)},
          {"exact", f.exact},
          {"unit", f.unit}};
}

Json json_of(const Chart& chart) {
  Json lines = Json::array();
  for (const Line& line : chart.lines) {
    Json points = Json::array();
    for (const Point& p : line.points) points.push_back({p.x, p.y.value, p.y.interval.lo, p.y.interval.hi});
    lines.push_back({{"name", line.name}, {"points", std::move(points)}});
  }
  return {{"title", chart.title},
          {"x_title", chart.x_title},
          {"y_title", chart.y_title},
          {"x_log", chart.x_log},
          {"y_log", chart.y_log},
          {"labels", chart.labels},
          {"threshold", chart.threshold ? Json(*chart.threshold) : Json()},
          {"lines", std::move(lines)}};
}

Json json_of(const Result& r);

template <class Items>
Json list_of(const Items& items) {
  Json list = Json::array();
  for (const auto& item : items) list.push_back(json_of(item));
  return list;
}

Json json_of(const Result& r) {
  const Finding& headline = r.outcome.headline();
  return {{"id", r.id},
          {"title", r.title},
          {"section", r.section},
          {"kind", r.kind},
          {"verdict", name(r.outcome.verdict())},
          {"effect", headline.estimate.value},
          {"unit", headline.unit},
          {"interval", json_of(headline.estimate.interval)},
          {"threshold", headline.threshold},
          {"seeds", r.seeds},
          {"seconds", r.seconds},
          {"rerun", r.rerun},
          {"statement", r.statement},
          {"quote", r.quote},
          {"method", r.method},
          {"rule", r.rule},
          {"findings", list_of(r.outcome.findings)},
          {"series", list_of(r.outcome.charts)},
          {"notes", r.outcome.notes}};
}

// Reading. Every accessor names the place where the text is not what it should be.

class Reader {
 public:
  Reader(const Json& json, std::string place) : json_(json), place_(std::move(place)) {}

  Reader operator[](const char* key) const {
    if (!json_.is_object() || !json_.contains(key)) fail("has no '" + std::string(key) + "'");
    return {json_[key], place_ + "." + key};
  }

  std::string text() const {
    if (!json_.is_string()) fail("is not a text");
    return json_.get<std::string>();
  }
  bool boolean() const {
    if (!json_.is_boolean()) fail("is neither true nor false");
    return json_.get<bool>();
  }
  /// NaN is written as null.
  double number() const {
    if (json_.is_null()) return std::numeric_limits<double>::quiet_NaN();
    if (!json_.is_number()) fail("is not a number");
    return json_.get<double>();
  }
  std::uint64_t count(std::uint64_t most) const {
    if (!json_.is_number_unsigned() || json_.get<std::uint64_t>() > most) {
      fail("is not a whole number from 0 to " + std::to_string(most));
    }
    return json_.get<std::uint64_t>();
  }
  template <class Read>
  auto list(const Read& read) const {
    if (!json_.is_array()) fail("is not a list");
    std::vector<decltype(read(*this))> items;
    for (std::size_t i = 0; i < json_.size(); ++i) {
      items.push_back(read(Reader(json_[i], place_ + "[" + std::to_string(i) + "]")));
    }
    return items;
  }
  Interval interval() const {
    const auto pair = list([](const Reader& r) { return r.number(); });
    if (pair.size() != 2 || pair[0] > pair[1]) fail("is not an interval [lo, hi]");
    return {pair[0], pair[1]};
  }
  std::vector<std::string> texts() const {
    return list([](const Reader& r) { return r.text(); });
  }

  [[noreturn]] void fail(const std::string& what) const { throw Error(place_ + " " + what); }

 private:
  const Json& json_;
  std::string place_;
};

Finding read_finding(const Reader& r) {
  const std::string direction = r["direction"].text();
  if (direction != "below" && direction != "above") r["direction"].fail("is neither 'below' nor 'above'");
  Finding finding{r["text"].text(),
                  role_named(r["role"].text()),
                  direction == "below" ? Direction::below : Direction::above,
                  r["exact"].boolean(),
                  {r["effect"].number(), r["interval"].interval()},
                  r["threshold"].number(),
                  r["unit"].text()};
  if (answer_named(r["answer"].text()) != finding.answer()) {
    r["answer"].fail("is '" + r["answer"].text() + "', but its own numbers say '" +
                     std::string(name(finding.answer())) + "'");
  }
  return finding;
}

Chart read_chart(const Reader& r) {
  Chart chart{r["title"].text(),
              r["x_title"].text(),
              r["y_title"].text(),
              r["x_log"].boolean(),
              r["y_log"].boolean(),
              r["labels"].texts(),
              {}};
  chart.lines = r["lines"].list([](const Reader& line) {
    return Line{line["name"].text(), line["points"].list([](const Reader& point) {
                  const auto p = point.list([](const Reader& n) { return n.number(); });
                  if (p.size() != 4) point.fail("is not a point [x, y, lo, hi]");
                  return Point{p[0], {p[1], {p[2], p[3]}}};
                })};
  });
  if (const double threshold = r["threshold"].number(); !std::isnan(threshold)) chart.threshold = threshold;
  return chart;
}

Result read_result(const Reader& r) {
  Result result{
      r["id"].text(),
      r["title"].text(),
      r["section"].text(),
      r["kind"].text(),
      r["statement"].text(),
      r["quote"].text(),
      r["method"].text(),
      r["rule"].text(),
      r["rerun"].text(),
      r["seeds"].list([](const Reader& seed) { return seed.count(std::numeric_limits<std::uint64_t>::max()); }),
      r["seconds"].number(),
      {}};
  result.outcome.findings = r["findings"].list(read_finding);
  result.outcome.charts = r["series"].list(read_chart);
  result.outcome.notes = r["notes"].texts();
  if (result.outcome.findings.empty()) r["findings"].fail("is empty; expected at least one");
  if (verdict_named(r["verdict"].text()) != result.outcome.verdict()) {
    r["verdict"].fail("is '" + r["verdict"].text() + "', but its own findings say '" +
                      std::string(name(result.outcome.verdict())) + "'");
  }
  return result;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::string compiler_name() {
#if defined(__clang__)
  return "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__);
#else
  return "g++ " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__);
#endif
}

}  // namespace

Machine this_machine(int threads) {
  return {processor_name(), simd_target(), compiler_name(), static_cast<int>(std::thread::hardware_concurrency()),
          threads};
}

Result result_of(const Claim& claim, const Context& context, double seconds, Outcome outcome) {
  const std::string id(claim.id), mode(name(context.mode));
  return {id,
          std::string(claim.title),
          std::string(claim.section),
          std::string(name(claim.kind)),
          std::string(claim.statement),
          std::string(claim.quote),
          std::string(claim.method),
          std::string(claim.rule),
          "./run --" + mode + " --claims " + id + " --seeds " + std::to_string(context.seeds.size()) +
              " --out report/" + id,
          context.seeds,
          seconds,
          std::move(outcome)};
}

std::string to_json(const Results& results) {
  double seconds = 0;
  for (const Result& result : results.claims) seconds += result.seconds;
  const Machine& machine = results.machine;
  const Json json{{"version", kVersion},
                  {"machine",
                   {{"processor", machine.processor},
                    {"cores", machine.cores},
                    {"threads", machine.threads},
                    {"simd", machine.simd},
                    {"compiler", machine.compiler}}},
                  {"mode", name(results.mode)},
                  {"seconds", seconds},
                  {"claims", list_of(results.claims)}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Results from_json(std::string_view text, std::string_view source) {
  try {
    const Json json = Json::parse(text);
    const Reader root(json, "results");
    if (const auto version = root["version"].count(1000000); version != kVersion) {
      root["version"].fail("is " + std::to_string(version) + "; expected " + std::to_string(kVersion));
    }
    const Reader machine = root["machine"];
    Results results;
    results.machine = {machine["processor"].text(), machine["simd"].text(), machine["compiler"].text(),
                       static_cast<int>(machine["cores"].count(100000)),
                       static_cast<int>(machine["threads"].count(100000))};
    const std::string mode = root["mode"].text();
    if (mode != "quick" && mode != "full") root["mode"].fail("is '" + mode + "'; expected 'quick' or 'full'");
    results.mode = mode == "quick" ? Mode::quick : Mode::full;
    results.claims = root["claims"].list(read_result);
    return results;
  } catch (const nlohmann::json::exception& error) {
    throw Error(std::string(source) + ": not JSON as the audit writes it: " + error.what());
  } catch (const Error& error) {
    throw Error(std::string(source) + ": " + error.what());
  }
}

Results read_results(const std::filesystem::path& path) {
  const auto bytes = read_file(path, kMaxBytes);
  return from_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace equinorm::audit
