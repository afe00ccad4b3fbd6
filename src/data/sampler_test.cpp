// Order of rows: permutations, reproducible, uniform; batches and subsets.
#include "data/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <vector>

#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

using Rows = std::vector<std::uint32_t>;

Rows shuffled(std::size_t count, std::uint64_t seed, std::uint64_t epoch) {
  Rows rows = all_rows(count);
  shuffle(rows, seed, epoch);
  return rows;
}

TEST(Shuffle, IsAPermutation) {
  for (const std::size_t count : {0U, 1U, 2U, 1000U}) {
    Rows rows = shuffled(count, 1, 0);
    std::sort(rows.begin(), rows.end());
    EXPECT_EQ(rows, all_rows(count));
  }
}

TEST(Shuffle, DependsOnSeedAndEpochAlone) {
  EXPECT_EQ(shuffled(100, 7, 3), shuffled(100, 7, 3));
  EXPECT_NE(shuffled(100, 7, 3), shuffled(100, 7, 4));
  EXPECT_NE(shuffled(100, 7, 3), shuffled(100, 8, 3));
}

// χ² over the 24 permutations of 4 rows: 23 degrees of freedom, and 49.7 is exceeded once in 1000 draws of seeds; the
// seeds are fixed, so the test does not flicker.
TEST(Shuffle, IsUniform) {
  constexpr int kEpochs = 24'000;
  std::map<Rows, int> counts;
  for (int epoch = 0; epoch < kEpochs; ++epoch) ++counts[shuffled(4, 1, static_cast<std::uint64_t>(epoch))];
  EXPECT_EQ(counts.size(), 24U);
  double chi_squared = 0;
  for (const auto& [permutation, count] : counts) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 49.7);
}

TEST(Batches, TrainingDropsTheRestAndEvaluationKeepsIt) {
  const Batches drop(all_rows(10), 4, LastBatch::drop);
  EXPECT_EQ(drop.size(), 2U);
  const Batches keep(all_rows(10), 4, LastBatch::keep);
  ASSERT_EQ(keep.size(), 3U);
  EXPECT_EQ(Rows(keep[2].begin(), keep[2].end()), (Rows{8, 9}));
  EXPECT_EQ(Batches(all_rows(8), 4, LastBatch::keep).size(), 2U);
}

TEST(Batches, AnEpochDoesNotDependOnTheOneBefore) {
  Batches a(all_rows(10), 5, LastBatch::drop);
  Batches b(all_rows(10), 5, LastBatch::drop);
  a.shuffle(1, 0);
  a.shuffle(1, 1);
  b.shuffle(1, 1);
  EXPECT_TRUE(std::ranges::equal(a[0], b[0]));
  EXPECT_TRUE(std::ranges::equal(a[1], b[1]));
}

TEST(Batches, ImpossibleSizesAreErrors) {
  EXPECT_THROW(Batches(all_rows(10), 0, LastBatch::keep), Error);
  EXPECT_THROW(Batches(all_rows(10), 11, LastBatch::drop), Error);
  EXPECT_THROW(Batches(all_rows(0), 1, LastBatch::keep), Error);
  EXPECT_EQ(Batches(all_rows(10), 11, LastBatch::keep).size(), 1U);
}

// 600 rows: class 0 has 300, class 1 200, class 2 100.
Dataset unbalanced() {
  Dataset dataset;
  dataset.count = 600;
  dataset.classes = 3;
  for (std::size_t row = 0; row < 600; ++row) {
    dataset.labels.push_back(static_cast<std::uint8_t>(row % 6 < 3 ? 0 : row % 6 < 5 ? 1 : 2));
  }
  return dataset;
}

TEST(Subset, HasNoRowTwiceAndGrows) {
  const Dataset dataset = unbalanced();
  for (const Strata strata : {Strata::none, Strata::classes}) {
    const Rows large = subset(dataset, 600, 3, strata);
    const Rows small = subset(dataset, 60, 3, strata);
    EXPECT_TRUE(std::equal(small.begin(), small.end(), large.begin()));
    EXPECT_NE(small, subset(dataset, 60, 4, strata));
    Rows sorted = large;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, all_rows(600));
  }
  EXPECT_THROW(subset(dataset, 601, 3, Strata::none), Error);
}

TEST(Subset, StrataKeepTheShares) {
  const Dataset dataset = unbalanced();
  for (const std::size_t size : {6U, 7U, 60U, 100U, 333U}) {
    std::array<double, 3> counts{};
    for (const std::uint32_t row : subset(dataset, size, 3, Strata::classes)) ++counts[dataset.labels[row]];
    const auto n = static_cast<double>(size);
    EXPECT_LE(std::abs(counts[0] - n / 2), 1) << size;
    EXPECT_LE(std::abs(counts[1] - n / 3), 1) << size;
    EXPECT_LE(std::abs(counts[2] - n / 6), 1) << size;
  }
}

}  // namespace
}  // namespace equinorm::data
