// From numbers to verdicts. The rules are pure functions, written before anything is measured; the report prints them
// in words, and nothing else in the audit decides.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "audit/statistics.hpp"

namespace equinorm::audit {

enum class Verdict { supported, conditional, refuted, not_shown };

/// "supported", "conditional", "refuted", "not shown".
std::string_view name(Verdict verdict);
/// The verdict of that name; an unknown one is an Error.
Verdict verdict_named(std::string_view name);

/// On which side of its threshold a quantity must lie.
enum class Direction { below, above };

/// What one measured quantity says of its part of the claim.
enum class Answer {
  holds,  ///< the whole interval lies on the claimed side
  fails,  ///< the whole interval lies on the other side, or a number is NaN
  open,   ///< the interval contains the threshold
};

std::string_view name(Answer answer);
Answer answer_named(std::string_view name);

/// For a mean with a 95 % interval.
Answer judge(const Interval& interval, Direction direction, double threshold);

/// For an exact statement: the worst case alone decides, one counter-example is enough. A bound that is met is met;
/// NaN fails.
Answer judge_worst(double worst, Direction direction, double threshold);

/// What a finding is to its claim.
enum class Role {
  stated,     ///< the claim as the note states it needs this
  core,       ///< so does it, and so does what is left of it under its condition
  condition,  ///< only what is left of the claim under its condition needs this
  context,    ///< worth knowing; decides nothing
};

std::string_view name(Role role);
Role role_named(std::string_view name);

struct Judged {
  Role role;
  Answer answer;
};

/// The verdict over all findings of a claim, the first that applies:
///   all stated and core findings hold                       → supported
///   there are core and condition findings, and all hold     → conditional: shown so far, and not beyond
///   a stated or core finding fails                          → refuted
///   else (one is open)                                      → not shown
Verdict decide(std::span<const Judged> findings);

/// The rule above, in words, for the report.
std::string_view rule_in_words();

}  // namespace equinorm::audit
