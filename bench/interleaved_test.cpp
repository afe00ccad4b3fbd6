#include "interleaved.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
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

TEST(Interleaved, RunsEachBehindEachAlike) {
  constexpr std::size_t kContenders = 3;
  std::size_t last = 0;
  std::array<std::array<int, kContenders>, kContenders> behind{};  // [who][behind whom]; repeats are of who ran last
  std::vector<Contender> contenders;
  for (std::size_t i = 0; i < kContenders; ++i) {
    contenders.push_back({"", [&behind, &last, i] {
                            behind[i][last] += last == i ? 0 : 1;
                            last = i;
                          }});
  }
  const auto rounds = static_cast<double>(interleaved(contenders, 0.2)[0].rounds.size());
  ASSERT_GE(rounds, 1000);
  for (std::size_t i = 0; i < kContenders; ++i) {
    for (std::size_t k = 0; k < kContenders; ++k) {
      // Within a round i comes right behind k in 2 of 6 orders, and from one round to the next in 1 of 9.
      if (i == k) continue;
      EXPECT_NEAR(behind[i][k] / rounds, 1.0 / 3 + 1.0 / 9, 0.1) << i << " behind " << k;
    }
  }
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
