#include "interleaved.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace equinorm::bench {
namespace {

Timing timing(std::vector<double> rounds) {
  Timing result;
  result.rounds = std::move(rounds);
  return result;
}

TEST(RatioInterval, HoldsTheMedianOfTheRounds) {
  // Of 100 ratios 1.01, 1.02, …, 2.00 the ranks are 49.5 ± 9.8.
  std::vector<double> a, b;
  for (int i = 1; i <= 100; ++i) {
    b.push_back(10.0 * i);  // rounds differ: pairs count, not their order
    a.push_back(b.back() * (1 + 0.01 * i));
  }
  const RatioInterval interval(timing(a), timing(b));
  EXPECT_NEAR(interval.low, 1.40, 1e-12);
  EXPECT_NEAR(interval.high, 1.61, 1e-12);
}

TEST(RatioInterval, IsAllThereIsOfAFewRounds) {
  const RatioInterval interval(timing({2, 6, 4}), timing({1, 2, 4}));
  EXPECT_EQ(interval.low, 1);
  EXPECT_EQ(interval.high, 3);
}

TEST(Interleaved, TurnsRoundEveryOtherRound) {
  std::string order;
  interleaved({{"a", [&] { order += order.ends_with('a') ? "" : "a"; }},
               {"b", [&] { order += order.ends_with('b') ? "" : "b"; }},
               {"c", [&] { order += order.ends_with('c') ? "" : "c"; }}},
              0);
  EXPECT_EQ(order, "abcabcbabcbabc");  // a warm-up, then five rounds: abc cba abc cba abc
}

TEST(Interleaved, KeepsEveryRoundInOrder) {
  int runs = 0;
  const auto timings = interleaved({{"a", [&] { ++runs; }}, {"b", [] {}}}, 0.01);
  ASSERT_EQ(timings.size(), 2U);
  EXPECT_GE(timings[0].rounds.size(), 5U);
  EXPECT_EQ(timings[0].rounds.size(), timings[1].rounds.size());
  EXPECT_GE(runs, 7);
  const auto [least, most] = std::minmax_element(timings[0].rounds.begin(), timings[0].rounds.end());
  EXPECT_EQ(timings[0].best_ms, *least);
  EXPECT_LE(timings[0].median_ms, *most);
}

}  // namespace
}  // namespace equinorm::bench
