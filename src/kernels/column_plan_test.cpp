#include "kernels/column_plan.hpp"

#include <gtest/gtest.h>

#include <cstddef>

#include "equinorm/types.hpp"

namespace equinorm::kernels {
namespace {

constexpr std::size_t kMany = 100'003;  // values: enough to fold any of these channels, and a prime

/// Every value is in a row or in what is left over, every row in a chunk.
void expect_whole(const ColumnPlan& p, std::size_t channels) {
  EXPECT_EQ(p.width, p.fold * channels);
  EXPECT_EQ(p.rows * p.width + p.tail, kMany * channels);
  EXPECT_LT(p.tail, p.width);
  std::size_t rows = 0;
  for (std::size_t chunk = 0; chunk < p.chunks; ++chunk) rows += p.rows_of_chunk(chunk);
  EXPECT_EQ(rows, p.rows);
}

std::size_t vectors_of(std::size_t columns) {
  return (columns + 15) / 16;
}

template <class T>
void expect_whole_lines(std::size_t channels) {
  const auto plan = ColumnPlan::of<T>(kMany, channels);
  expect_whole(plan, channels);
  EXPECT_EQ(plan.width * sizeof(T) % 64, 0U) << channels << " channels of " << sizeof(T) << " bytes";
  EXPECT_GE(plan.width, 64U);
}

TEST(ColumnPlan, RowsThatAreWrittenAreWholeLines) {
  for (std::size_t channels = 1; channels <= 200; ++channels) {
    expect_whole_lines<float>(channels);
    expect_whole_lines<double>(channels);
    expect_whole_lines<bfloat16>(channels);
  }
}

TEST(ColumnPlan, RegistersHoldTheSumsOfFewChannels) {
  for (std::size_t channels = 1; channels <= 128; ++channels) {
    const auto plan = ColumnPlan::for_sums<float>(kMany, channels);
    expect_whole(plan, channels);
    EXPECT_GE(plan.width, 64U) << channels;
    EXPECT_LE(plan.width, 128U) << channels;
    // No other row that they hold has fuller vectors: columns / vectors, cross-multiplied.
    for (std::size_t width = channels; width <= 128; width += channels) {
      if (width >= 64) {
        EXPECT_GE(plan.width * vectors_of(width), width * vectors_of(plan.width)) << channels << ", " << width;
      }
    }
  }
}

TEST(ColumnPlan, SumsOfManyChannelsAndOfHalvesAreOfWholeLines) {
  for (const std::size_t channels : {129U, 200U, 300U}) {
    EXPECT_EQ(ColumnPlan::for_sums<float>(kMany, channels).width % 16, 0U) << channels;
  }
  for (const std::size_t channels : {7U, 60U, 65U}) {
    EXPECT_EQ(ColumnPlan::for_sums<bfloat16>(kMany, channels).width % 16, 0U) << channels;
  }
}

TEST(ColumnPlan, FewValuesAreNotFolded) {
  const auto plan = ColumnPlan::of<float>(100, 7);
  EXPECT_EQ(plan.fold, 1U);
  EXPECT_EQ(plan.rows, 100U);
  EXPECT_EQ(plan.tail, 0U);
}

}  // namespace
}  // namespace equinorm::kernels
