#include "audit/results.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "audit/report/report.hpp"
#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

/// Results with a little of everything.
Results sample() {
  Outcome outcome;
  const double holding[] = {0.5, 1.25}, failing[] = {1, 2, 4};
  outcome.findings = {at_most(Role::stated, "an error", holding, 4, "ulp"),
                      trend(Role::stated, "a difference", failing, Direction::above, 3, ""),
                      aside("something else", failing, "s")};
  outcome.charts = {
      {"over x", "x", "y", true, false, {}, {{"a", {{1, {2, {1.5, 2.5}}}, {10, {3, {1, 5}}}}}}, 4.0},
      {"over names", "input", "y", false, true, {"p", "q"}, {{"b", {{0, {1, {1, 1}}}, {1, {2, {1, 3}}}}}}}};
  outcome.notes = {"a note"};
  return {{"a processor", "AVX2", "a compiler", 2, 2},
          Mode::quick,
          {{"forward",
            "Title",
            "2.1",
            "exact",
            "statement",
            "quote",
            "method",
            "rule",
            "./run",
            {1, 2, 3},
            1.5,
            std::move(outcome)}}};
}

TEST(Results, SurviveTheTripThroughJson) {
  const std::string text = to_json(sample());
  EXPECT_EQ(to_json(from_json(text, "test")), text);
}

TEST(Results, CarryWhatTheIssuePromises) {
  const std::string text = to_json(sample());
  for (const char* key : {"\"version\"", "\"machine\"", "\"mode\"", "\"claims\"", "\"id\"", "\"section\"", "\"kind\"",
                          "\"verdict\"", "\"effect\"", "\"unit\"", "\"interval\"", "\"threshold\"", "\"seeds\"",
                          "\"seconds\"", "\"rerun\"", "\"series\""}) {
    EXPECT_NE(text.find(key), std::string::npos) << key;
  }
}

TEST(Results, KeepNaNWhichFails) {
  Results results = sample();
  const double values[] = {1, std::nan("")};
  results.claims[0].outcome.findings[0] = at_most(Role::stated, "an error", values, 4, "ulp");
  const Results read = from_json(to_json(results), "test");
  EXPECT_TRUE(std::isnan(read.claims[0].outcome.findings[0].estimate.value));
  EXPECT_EQ(read.claims[0].outcome.verdict(), Verdict::refuted);
}

TEST(Results, LiesAndDamageAreErrorsThatNameThePlace) {
  const std::string text = to_json(sample());
  struct Row {
    const char *from, *to, *message;
  };
  for (const Row& row : {
           Row{R"("verdict": "not shown")", R"("verdict": "supported")", "its own findings say 'not shown'"},
           Row{R"("answer": "open")", R"("answer": "holds")", "its own numbers say 'open'"},
           Row{R"("verdict": "not shown")", R"("verdict": "true")", "unknown verdict 'true'"},
           Row{R"("version": 1)", R"("version": 7)", "results.version is 7; expected 1"},
           Row{R"("version": 1)", R"("version": -1)", "results.version is not a whole number"},
           Row{R"("mode": "quick")", R"("mode": "slow")", "'slow'; expected 'quick' or 'full'"},
           Row{"\"seconds\": 1.5,\n   \"rerun\"", "\"seconds\": \"soon\",\n   \"rerun\"",
               "results.claims[0].seconds is not a number"},
           Row{R"("findings")", R"("finding")", "results.claims[0] has no 'findings'"},
           Row{R"("machine": {)", R"("machine": 3, "other": {)", "results.machine has no 'processor'"},
           Row{R"("id": "forward")", R"("id": [1])", "results.claims[0].id is not a text"},
           Row{"{", "", "not JSON"},
       }) {
    std::string changed = text;
    const std::size_t at = changed.find(row.from);
    ASSERT_NE(at, std::string::npos) << row.from;
    changed.replace(at, std::string(row.from).size(), row.to);
    try {
      from_json(changed, "some.json");
      ADD_FAILURE() << "accepted: " << row.to;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with("some.json: ")) << message;
      EXPECT_NE(message.find(row.message), std::string::npos) << message;
    }
  }
}

TEST(Results, EveryTruncationIsAnError) {
  const std::string text = to_json(sample());
  for (std::size_t length = 0; length + 2 < text.size(); length += 7) {
    EXPECT_THROW(from_json(text.substr(0, length), "cut"), Error) << "at " << length;
  }
}

TEST(Report, EscapesEverything) {
  const std::string hostile = "</script><script>alert('\"&\")</script>";
  Results results = sample();
  results.machine.processor = results.machine.compiler = hostile;
  Result& r = results.claims[0];
  for (std::string* text : {&r.id, &r.title, &r.section, &r.kind, &r.statement, &r.quote, &r.method, &r.rule, &r.rerun})
    *text = hostile;
  for (Finding& finding : r.outcome.findings) finding.text = finding.unit = hostile;
  for (Chart& chart : r.outcome.charts) {
    chart.title = chart.x_title = chart.y_title = chart.lines[0].name = hostile;
    for (std::string& label : chart.labels) label = hostile;
  }
  r.outcome.notes = {hostile};
  const std::string html = report_html(results);
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
}

TEST(Report, SaysAllOfAClaim) {
  const std::string html = report_html(sample());
  for (const char* text : {"not shown", "statement", "quote", "method", "rule", "./run", "a note", "an error", "over x",
                           "over names", "≤ 4 ulp"}) {
    EXPECT_NE(html.find(text), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace equinorm::audit
