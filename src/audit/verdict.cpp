#include "audit/verdict.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

using namespace std::string_view_literals;

constexpr std::array kVerdicts{std::pair{Verdict::supported, "supported"sv},
                               std::pair{Verdict::conditional, "conditional"sv},
                               std::pair{Verdict::refuted, "refuted"sv}, std::pair{Verdict::not_shown, "not shown"sv}};
constexpr std::array kAnswers{std::pair{Answer::holds, "holds"sv}, std::pair{Answer::fails, "fails"sv},
                              std::pair{Answer::open, "open"sv}};
constexpr std::array kRoles{std::pair{Role::stated, "stated"sv}, std::pair{Role::core, "core"sv},
                            std::pair{Role::condition, "condition"sv}, std::pair{Role::context, "context"sv}};

template <class Table, class Value>
std::string_view name_in(const Table& table, Value value) {
  return std::find_if(table.begin(), table.end(), [&](const auto& row) { return row.first == value; })->second;
}

template <class Table>
auto value_in(const Table& table, std::string_view name, std::string_view what) {
  const auto* const row = std::find_if(table.begin(), table.end(), [&](const auto& r) { return r.second == name; });
  if (row != table.end()) return row->first;
  std::string known;
  for (const auto& r : table) known += (known.empty() ? "" : ", ") + std::string(r.second);
  throw Error("unknown " + std::string(what) + " '" + std::string(name) + "'; expected one of: " + known);
}

}  // namespace

std::string_view name(Verdict verdict) {
  return name_in(kVerdicts, verdict);
}
Verdict verdict_named(std::string_view name) {
  return value_in(kVerdicts, name, "verdict");
}
std::string_view name(Answer answer) {
  return name_in(kAnswers, answer);
}
Answer answer_named(std::string_view name) {
  return value_in(kAnswers, name, "answer");
}
std::string_view name(Role role) {
  return name_in(kRoles, role);
}
Role role_named(std::string_view name) {
  return value_in(kRoles, name, "role");
}

Answer judge(const Interval& interval, Direction direction, double threshold) {
  if (std::isnan(interval.lo) || std::isnan(interval.hi) || std::isnan(threshold)) return Answer::fails;
  if (interval.lo <= threshold && threshold <= interval.hi) return Answer::open;
  return (interval.hi < threshold) == (direction == Direction::below) ? Answer::holds : Answer::fails;
}

Answer judge_worst(double worst, Direction direction, double threshold) {
  return (direction == Direction::below ? worst <= threshold : worst >= threshold) ? Answer::holds : Answer::fails;
}

Verdict decide(std::span<const Judged> findings) {
  // What the findings of two roles say together.
  const auto any = [&](Role one, Role other, Answer answer) {
    return std::any_of(findings.begin(), findings.end(),
                       [&](const Judged& f) { return (f.role == one || f.role == other) && f.answer == answer; });
  };
  const auto all_hold = [&](Role one, Role other) {
    return any(one, other, Answer::holds) && !any(one, other, Answer::fails) && !any(one, other, Answer::open);
  };
  if (all_hold(Role::stated, Role::core)) return Verdict::supported;
  if (all_hold(Role::condition, Role::core)) return Verdict::conditional;
  return any(Role::stated, Role::core, Answer::fails) ? Verdict::refuted : Verdict::not_shown;
}

std::string_view rule_in_words() {
  return "A finding holds when its whole interval lies on the claimed side of its threshold, fails when the whole "
         "interval lies on the other side, and is open when the interval contains the threshold; for an exact "
         "statement "
         "the worst case alone decides. The claim is supported when every finding that it states holds. It is "
         "conditional when not all of them hold, but everything measured under the named condition does. Otherwise it "
         "is refuted when a stated finding fails, and not shown when none fails but one is open.";
}

}  // namespace equinorm::audit
