#include "audit/verdict.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

using enum Answer;
using enum Verdict;

TEST(Judge, ByWhereTheIntervalLies) {
  struct Row {
    Interval interval;
    Direction direction;
    double threshold;
    Answer answer;
  };
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  for (const Row& row : {
           Row{{1, 2}, Direction::above, 0, holds},
           Row{{1, 2}, Direction::below, 0, fails},
           Row{{-2, -1}, Direction::above, 0, fails},
           Row{{-2, -1}, Direction::below, 0, holds},
           Row{{-1, 2}, Direction::above, 0, open},
           Row{{-1, 2}, Direction::below, 0, open},
           Row{{0, 0}, Direction::above, 0, open},  // no difference at all is no difference shown
           Row{{0, 2}, Direction::above, 0, open},
           Row{{-infinity, infinity}, Direction::above, 0, open},
           Row{{nan, 2}, Direction::above, 0, fails},
           Row{{1, nan}, Direction::below, 0, fails},
       }) {
    EXPECT_EQ(judge(row.interval, row.direction, row.threshold), row.answer)
        << "[" << row.interval.lo << ", " << row.interval.hi << "]";
  }
}

TEST(Judge, ByTheWorstCaseOfAnExactStatement) {
  EXPECT_EQ(judge_worst(4, Direction::below, 4), holds);
  EXPECT_EQ(judge_worst(4.001, Direction::below, 4), fails);
  EXPECT_EQ(judge_worst(4, Direction::above, 4), holds);
  EXPECT_EQ(judge_worst(3.9, Direction::above, 4), fails);
  EXPECT_EQ(judge_worst(std::nan(""), Direction::below, 4), fails);
  EXPECT_EQ(judge_worst(std::nan(""), Direction::above, 4), fails);
}

TEST(Decide, EveryVerdictCanComeOut) {
  constexpr Role kStated = Role::stated, kCore = Role::core, kCondition = Role::condition, kContext = Role::context;
  struct Row {
    std::vector<Judged> findings;
    Verdict verdict;
  };
  for (const Row& row : {
           Row{{{kStated, holds}}, supported},
           Row{{{kStated, holds}, {kStated, holds}, {kCondition, fails}}, supported},
           Row{{{kStated, fails}}, refuted},
           Row{{{kStated, holds}, {kStated, fails}}, refuted},
           Row{{{kStated, fails}, {kCondition, holds}}, conditional},
           Row{{{kStated, fails}, {kStated, open}, {kCondition, holds}}, conditional},
           Row{{{kStated, fails}, {kCondition, holds}, {kCondition, open}}, refuted},
           Row{{{kStated, fails}, {kCondition, holds}, {kCondition, fails}}, refuted},
           Row{{{kStated, open}}, not_shown},
           Row{{{kStated, holds}, {kStated, open}}, not_shown},
           Row{{{kStated, open}, {kCondition, holds}}, conditional},
           Row{{{kStated, open}, {kCondition, holds}, {kCondition, open}}, not_shown},
           Row{{{kStated, fails}, {kContext, holds}}, refuted},  // context decides nothing
           Row{{{kStated, holds}, {kContext, fails}}, supported},
           Row{{{kStated, holds}, {kCore, holds}}, supported},
           Row{{{kStated, fails}, {kCore, holds}}, conditional},
           Row{{{kStated, open}, {kCore, holds}, {kCondition, holds}}, conditional},
           Row{{{kStated, open}, {kCore, holds}, {kCondition, fails}}, not_shown},
           Row{{{kStated, holds}, {kCore, fails}}, refuted},
           Row{{{kStated, holds}, {kCore, open}, {kCondition, holds}}, not_shown},
           Row{{{kContext, holds}}, not_shown},
           Row{{}, not_shown},
       }) {
    EXPECT_EQ(decide(row.findings), row.verdict)
        << "row of " << row.findings.size() << " findings, expected " << name(row.verdict);
  }
}

TEST(Names, GoBothWays) {
  for (const Verdict verdict : {supported, conditional, refuted, not_shown})
    EXPECT_EQ(verdict_named(name(verdict)), verdict);
  for (const Answer answer : {holds, fails, open}) EXPECT_EQ(answer_named(name(answer)), answer);
  for (const Role role : {Role::stated, Role::core, Role::condition, Role::context})
    EXPECT_EQ(role_named(name(role)), role);
  EXPECT_THROW(verdict_named("true"), Error);
}

}  // namespace
}  // namespace equinorm::audit
