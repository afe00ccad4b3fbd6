#include "audit/report/report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <regex>
#include <utility>

#include "audit/format.hpp"
#include "audit/report/assets.hpp"

namespace equinorm::audit {
namespace {

/// How a verdict looks: its class in report.css, and a shape of its own, for eyes that see no colours.
struct Look {
  Verdict verdict;
  const char* style;
  const char* path;  ///< of an icon in a box of 24
};

constexpr std::array kLooks{
    Look{Verdict::supported, "supported",
         "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm-1.6 14.6-4.3-4.3 1.7-1.7 2.6 2.6 5.8-5.8 1.7 1.7z"},
    Look{Verdict::conditional, "conditional",
         "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm0 2.6v14.8a7.4 7.4 0 0 1 0-14.8z"},
    Look{Verdict::refuted, "refuted",
         "M7.9 2 2 7.9v8.2L7.9 22h8.2l5.9-5.9V7.9L16.1 2zm8.6 12.8-1.7 1.7L12 13.7l-2.8 2.8-1.7-1.7 2.8-2.8-2.8-2.8 "
         "1.7-1.7 2.8 2.8 2.8-2.8 1.7 1.7-2.8 2.8z"},
    Look{Verdict::not_shown, "not-shown",
         "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm0 2.6a7.4 7.4 0 1 1 0 14.8 7.4 7.4 0 0 1 0-14.8zM7.5 "
         "10.8v2.4h9v-2.4z"},
};

const Look& look_of(Verdict verdict) {
  return *std::find_if(kLooks.begin(), kLooks.end(), [&](const Look& look) { return look.verdict == verdict; });
}

std::string icon(const Look& look) {
  return fmt::format(
      R"(<svg class="icon" viewBox="0 0 24 24" fill="currentColor" aria-hidden="true"><path d="{}"/></svg>)",
      look.path);
}

/// Text with its powers of ten written as such: "1.2e-07" becomes 1.2·10⁻⁷.
std::string typeset(std::string_view text) {
  static const std::regex power("e([+-])0*([0-9]+)");
  std::string html = std::regex_replace(escape_html(text), power, "·10<sup>$1$2</sup>");
  for (const auto& [from, to] : {std::pair{"<sup>+", "<sup>"}, std::pair{"-", "−"}}) {
    for (std::size_t at = 0; (at = html.find(from, at)) != std::string::npos;) html.replace(at, std::strlen(from), to);
  }
  return html;
}

std::string interval_of(const Interval& interval) {
  return typeset(format_number(interval.lo) + " … " + format_number(interval.hi));
}

std::string value_of(const Finding& f) {
  return typeset(format_value(f));
}

std::string threshold_of(const Finding& f) {
  return f.role == Role::context ? "–" : typeset(format_threshold(f));
}

std::string summary(const Results& results) {
  double seconds = 0;
  for (const Result& r : results.claims) seconds += r.seconds;
  std::string html = fmt::format(
      R"(<header><p class="eyebrow">Equinorm audit</p><h1>Batch normalization, measured</h1><p class="lead">{} claims about batch normalization, each put to the test on real handwritten digits by a rule that was fixed before this run began.</p><ul class="counts">)",
      results.claims.size());
  for (const Look& look : kLooks) {
    const auto count = std::count_if(results.claims.begin(), results.claims.end(),
                                     [&](const Result& r) { return r.outcome.verdict() == look.verdict; });
    html += fmt::format(R"(<li class="{}">{}<span><b>{}</b> {}</span></li>)", look.style, icon(look), count,
                        name(look.verdict));
  }
  html += R"(</ul></header><nav aria-label="Verdicts"><ul class="tiles">)";
  for (const Result& r : results.claims) {
    const Look& look = look_of(r.outcome.verdict());
    html += fmt::format(
        R"(<li><a class="{}" href="#{}">{}<strong>{}</strong><span class="word">{}</span><span class="number">§ {} · {} · {} seeds</span></a></li>)",
        look.style, escape_html(r.id), icon(look), escape_html(r.title), name(look.verdict), escape_html(r.section),
        escape_html(r.kind), r.seeds.size());
  }
  html += fmt::format(
      R"(</ul></nav><p class="meta">{} mode{} · {} of work · {} · {} cores, {} threads · {} · {}</p><details><summary>How a verdict comes about</summary><p>{}</p><p>Trained claims use the same initial weights and the same order of the digits in both arms, tune the learning rate for each arm over the same grid on seeds that are not measured, and count a run that diverges as the worst value. Intervals are 95&nbsp;% t-intervals over the seeds, of paired differences where arms are compared; for exact claims they are the range over all inputs and seeds.</p></details>)",
      name(results.mode), results.mode == Mode::quick ? " (fewer digits and steps, not fewer seeds than 3)" : "",
      format_seconds(seconds), escape_html(results.machine.processor), results.machine.cores, results.machine.threads,
      escape_html(results.machine.simd), escape_html(results.machine.compiler), escape_html(rule_in_words()));
  return html;
}

std::string_view role_in_words(Role role) {
  switch (role) {
    case Role::stated:
      return "the claim as stated";
    case Role::core:
      return "the claim as stated, and its condition";
    case Role::condition:
      return "the condition";
    case Role::context:
      break;
  }
  return "context, decides nothing";
}

std::string findings_table(const Outcome& outcome) {
  std::string html =
      R"(<table class="findings"><thead><tr><th>What was measured</th><th class="num">Value</th><th class="num">Interval</th><th class="num">Wanted</th><th>Answer</th></tr></thead><tbody>)";
  for (const Finding& f : outcome.findings) {
    const bool judged = f.role != Role::context;
    const Answer answer = f.answer();
    const char* sign = answer == Answer::holds ? "✓" : answer == Answer::fails ? "✕" : "○";
    html += fmt::format(
        R"(<tr><td>{}<span class="role">{}</span></td><td class="num" data-label="Value">{}</td><td class="num" data-label="{}">{}</td><td class="num" data-label="Wanted">{}</td><td class="answer {}">{}</td></tr>)",
        escape_html(f.text), role_in_words(f.role), value_of(f), f.exact ? "Range" : "95 % interval",
        interval_of(f.estimate.interval), threshold_of(f), judged ? name(answer) : "open",
        judged ? fmt::format("{} {}", sign, name(answer)) : "–");
  }
  return html + "</tbody></table>";
}

std::string figure(const Chart& chart, std::size_t index) {
  std::string rows;
  for (const Line& line : chart.lines) {
    for (const Point& p : line.points) {
      const auto label = static_cast<std::size_t>(p.x);
      const std::string x = chart.labels.empty()          ? typeset(format_number(p.x))
                            : label < chart.labels.size() ? escape_html(chart.labels[label])
                                                          : "?";
      rows += fmt::format(R"(<tr><td>{}</td><td>{}</td><td class="num">{}</td><td class="num">{}</td></tr>)",
                          escape_html(line.name), x, typeset(format_number(p.y.value)), interval_of(p.y.interval));
    }
  }
  return fmt::format(
      R"(<figure><figcaption>{0}</figcaption><div class="canvas{1}"><canvas id="chart-{2}" role="img" aria-label="{0}: {3} over {4}; the numbers are in the table below"></canvas></div><details><summary>Numbers</summary><div class="scroll"><table><thead><tr><th>Line</th><th>{4}</th><th class="num">{3}</th><th class="num">Interval</th></tr></thead><tbody>{5}</tbody></table></div></details></figure>)",
      escape_html(chart.title), chart.labels.size() > 6 ? " tall" : "", index, escape_html(chart.y_title),
      escape_html(chart.x_title), rows);
}

std::string article(const Result& r, std::size_t first_chart) {
  const Look& look = look_of(r.outcome.verdict());
  const Finding& f = r.outcome.headline();
  std::string html = fmt::format(
      R"(<article id="{0}" class="{1}"><p class="eyebrow">§ {2} · {3} claim · {0}</p><div class="head"><h2>{4}</h2><span class="badge">{5}{6}</span></div><p class="lead">{7}</p><blockquote lang="zh">{8}</blockquote>)",
      escape_html(r.id), look.style, escape_html(r.section), escape_html(r.kind), escape_html(r.title), icon(look),
      name(look.verdict), escape_html(r.statement), escape_html(r.quote));
  html += fmt::format(
      R"(<div class="headline"><p>{}</p><dl><div><dt>Measured</dt><dd>{}</dd></div><div><dt>{}</dt><dd>{}</dd></div><div><dt>Wanted</dt><dd>{}</dd></div><div><dt>Seeds, time</dt><dd>{}, {}</dd></div></dl></div>)",
      escape_html(f.text), value_of(f), f.exact ? "Range over all inputs" : "95 % interval",
      interval_of(f.estimate.interval), threshold_of(f), r.seeds.size(), format_seconds(r.seconds));
  html += R"(<h3>Findings</h3>)" + findings_table(r.outcome) + R"(<h3>Charts</h3><div class="charts">)";
  for (std::size_t i = 0; i < r.outcome.charts.size(); ++i) html += figure(r.outcome.charts[i], first_chart + i);
  html += "</div>";
  if (!r.outcome.notes.empty()) {
    html += "<h3>Notes</h3>";
    for (const std::string& note : r.outcome.notes) html += "<p>" + escape_html(note) + "</p>";
  }
  html += fmt::format(R"(<h3>The rule that decided</h3><p>{}</p><h3>How it was measured</h3><p>{}</p>)",
                      escape_html(r.rule), escape_html(r.method));
  html += fmt::format(
      R"(<h3>Run it again</h3><div class="rerun"><code>{}</code><button type="button" data-copy>Copy</button></div></article>)",
      escape_html(r.rerun));
  return html;
}

/// The numbers of all charts, as JSON that cannot end the script element it stands in.
std::string series_json(const Results& results) {
  nlohmann::json all = nlohmann::json::array();
  for (const Result& r : results.claims) {
    for (const Chart& chart : r.outcome.charts) {
      nlohmann::json lines = nlohmann::json::array();
      for (const Line& line : chart.lines) {
        nlohmann::json points = nlohmann::json::array();
        for (const Point& p : line.points) points.push_back({p.x, p.y.value, p.y.interval.lo, p.y.interval.hi});
        lines.push_back({{"name", line.name}, {"points", points}});
      }
      all.push_back({{"x_title", chart.x_title},
                     {"y_title", chart.y_title},
                     {"x_log", chart.x_log},
                     {"y_log", chart.y_log},
                     {"labels", chart.labels},
                     {"threshold", chart.threshold ? nlohmann::json(*chart.threshold) : nlohmann::json()},
                     {"lines", lines}});
    }
  }
  std::string text = all.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos;) text.replace(at, 1, "\\u003c");
  return text;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string report_html(const Results& results) {
  std::string body = summary(results) + "<main>";
  std::size_t charts = 0;
  for (const Result& r : results.claims) {
    body += article(r, charts);
    charts += r.outcome.charts.size();
  }
  body +=
      R"(</main><footer><p>Made by equinorm from results.json. Charts by Chart.js (MIT licence). Digits: MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0). This page fetches nothing.</p></footer>)";
  std::string page =
      R"(<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"><link rel="icon" href="data:,"><title>Equinorm audit: batch normalization, measured</title><style>)";
  page += assets::kStyle;
  page += "</style></head><body>" + body + R"(<script type="application/json" id="series">)" + series_json(results) +
          "</script><script>";
  page += assets::kChartLibrary;
  page += "</script><script>";
  page += assets::kScript;
  return page + "</script></body></html>\n";
}

}  // namespace equinorm::audit
