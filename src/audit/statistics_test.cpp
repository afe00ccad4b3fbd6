#include "audit/statistics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Printed tables of Student's distribution (Abramowitz & Stegun, table 26.10), three decimals.
TEST(StudentT, AgreesWithPrintedTables) {
  struct Row {
    int dof;
    double p, t;
  };
  for (const Row& row : {Row{1, 0.975, 12.706}, Row{2, 0.975, 4.303}, Row{3, 0.975, 3.182}, Row{4, 0.975, 2.776},
                         Row{5, 0.975, 2.571}, Row{9, 0.975, 2.262}, Row{30, 0.975, 2.042}, Row{120, 0.975, 1.980},
                         Row{1, 0.75, 1.000}, Row{2, 0.90, 1.886}, Row{4, 0.995, 4.604}, Row{60, 0.9995, 3.460}}) {
    EXPECT_NEAR(student_t_quantile(row.p, row.dof), row.t, 5e-4) << row.dof << " degrees, p = " << row.p;
    EXPECT_NEAR(student_t_quantile(1 - row.p, row.dof), -row.t, 5e-4) << row.dof << " degrees, p = " << 1 - row.p;
  }
  EXPECT_NEAR(student_t_quantile(0.5, 7), 0, 1e-12);
  EXPECT_NEAR(student_t_quantile(0.975, 2), std::sqrt(2 / (0.05 * 1.95) - 2), 1e-12);  // the closed form for 2
}

TEST(StudentT, RefusesNonsense) {
  EXPECT_THROW(student_t_quantile(0.0, 3), Error);
  EXPECT_THROW(student_t_quantile(1.0, 3), Error);
  EXPECT_THROW(student_t_quantile(0.9, 0), Error);
}

TEST(Interval, OfTheMean) {
  const double values[] = {1, 2, 3};  // mean 2, deviation 1: 2 ± 4.3027/√3
  const Estimate estimate = mean_with_interval(values);
  EXPECT_DOUBLE_EQ(estimate.value, 2);
  EXPECT_NEAR(estimate.interval.lo, 2 - 4.302652729749464 / std::sqrt(3.0), 1e-9);
  EXPECT_NEAR(estimate.interval.hi, 2 + 4.302652729749464 / std::sqrt(3.0), 1e-9);
}

TEST(Interval, OfOneValueIsTheWholeLine) {
  const double values[] = {5};
  EXPECT_EQ(mean_with_interval(values).interval.lo, -kInfinity);
  EXPECT_EQ(mean_with_interval(values).interval.hi, kInfinity);
}

TEST(Interval, OfPairsIgnoresWhatPairsShare) {
  const double a[] = {101, 202, 303}, b[] = {100, 200, 300};
  const double differences[] = {1, 2, 3};
  EXPECT_DOUBLE_EQ(paired_difference(a, b).interval.lo, mean_with_interval(differences).interval.lo);
  const double shorter[] = {1, 2};
  EXPECT_THROW(paired_difference(a, shorter), Error);
}

TEST(Worst, IsTheLargestAndNaNIsWorse) {
  const double values[] = {0.5, 3, 1};
  EXPECT_EQ(worst_with_range(values).value, 3);
  EXPECT_EQ(worst_with_range(values).interval.lo, 0.5);
  const double poisoned[] = {0.5, std::nan(""), 1};
  EXPECT_TRUE(std::isnan(worst_with_range(poisoned).value));
  EXPECT_TRUE(std::isnan(worse(std::nan(""), 1)));
  EXPECT_TRUE(std::isnan(worse(1, std::nan(""))));
  EXPECT_EQ(worse(1, 2), 2);
  EXPECT_THROW(worst_with_range({}), Error);
}

TEST(Median, OfOddAndEvenCounts) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_THROW(median({}), Error);
}

}  // namespace
}  // namespace equinorm::audit
