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
  return {"", std::move(rounds)};
}

TEST(Timing, IsTheMedianAndTheMiddleHalf) {
  const Timing five = timing({5, 1, 4, 2, 3});
  EXPECT_EQ(five.median_ms, 3);
  EXPECT_EQ(five.best_ms, 1);
  EXPECT_EQ(five.spread, 2.0 / 3);
  EXPECT_EQ(five.rounds, (std::vector<double>{5, 1, 4, 2, 3}));
}

TEST(Ratio, IsTheMedianOfTheRounds) {
  // Of 100 ratios 1.01, 1.02, …, 2.00 the ranks are 49.5 ± 9.8.
  std::vector<double> a, b;
  for (int i = 1; i <= 100; ++i) {
    b.push_back(10.0 * i);  // rounds differ: pairs count, not their order
    a.push_back(b.back() * (1 + 0.01 * i));
  }
  const Ratio ratio(timing(a), timing(b));
  EXPECT_NEAR(ratio.low, 1.40, 1e-12);
  EXPECT_NEAR(ratio.median, 1.50, 1e-12);
  EXPECT_NEAR(ratio.high, 1.61, 1e-12);
}

TEST(Ratio, IsWithinAllThereIsOfAFewRounds) {
  const Ratio ratio(timing({2, 6, 4}), timing({1, 2, 4}));
  EXPECT_EQ(ratio.low, 1);
  EXPECT_EQ(ratio.median, 2);
  EXPECT_EQ(ratio.high, 3);
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
