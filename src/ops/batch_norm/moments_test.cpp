#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/norm_testing.hpp"
#include "equinorm/batch_moments.hpp"

namespace equinorm {
namespace {

constexpr std::size_t kChannels = 5;

struct Owned {
  std::vector<double> mean = std::vector<double>(kChannels), m2 = mean;
  BatchMoments view{kChannels, 0, mean.data(), m2.data()};
};

/// Rows of normal values, mean 1e4 σ in channel 0.
std::vector<float> rows(std::size_t count) {
  const Philox random(9, 1);
  std::vector<float> x(count * kChannels);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(random.normal(i) + (i % kChannels == 0 ? 1e4 : 0));
  }
  return x;
}

TensorView<const float> part(const std::vector<float>& x, std::size_t begin, std::size_t end) {
  return {x.data() + begin * kChannels, {end - begin, kChannels}, Layout::channels_last};
}

void expect_near(const BatchMoments& a, const BatchMoments& b) {
  ASSERT_EQ(a.count, b.count);
  for (std::size_t c = 0; c < kChannels; ++c) {
    // A difference is rounded to a float once, by either way of cutting; sums are in double.
    EXPECT_NEAR(a.mean[c], b.mean[c], 0x1p-22) << c;
    EXPECT_NEAR(a.m2[c], b.m2[c], 0x1p-21 * b.m2[c]) << c;
  }
}

TEST(BatchMoments, OfUnevenMicroBatchesAreThoseOfTheWhole) {
  const std::vector<float> x = rows(1000);
  Owned whole, pieces, left, right;
  ASSERT_TRUE(batch_moments_accumulate<float>({}, part(x, 0, 1000), whole.view).ok());
  std::size_t begin = 0;
  for (const std::size_t end : {1U, 1U, 8U, 300U, 999U, 1000U}) {  // one row, none, few, many
    ASSERT_TRUE(batch_moments_accumulate<float>({}, part(x, begin, end), pieces.view).ok());
    begin = end;
  }
  expect_near(pieces.view, whole.view);
  ASSERT_TRUE(batch_moments_accumulate<float>({}, part(x, 0, 400), left.view).ok());
  ASSERT_TRUE(batch_moments_accumulate<float>({}, part(x, 400, 1000), right.view).ok());
  ASSERT_TRUE(batch_moments_merge(right.view, left.view).ok());
  expect_near(left.view, whole.view);
  Owned nothing;
  ASSERT_TRUE(batch_moments_merge(nothing.view, left.view).ok());
  expect_near(left.view, whole.view);
}

TEST(BatchMoments, OfOneBatchAreForwardsBitForBit) {
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const std::vector<float> x = rows(400);
    const Shape shape = layout == Layout::channels_last ? Shape{8, 50, kChannels} : Shape{8, kChannels, 50};
    const TensorView<const float> view{x.data(), shape, layout};
    std::vector<float> y(x.size());
    std::vector<double> mean(kChannels), variance(kChannels), our_mean(kChannels), our_variance(kChannels);
    ASSERT_TRUE(
        batch_norm_forward<float>({}, view, {}, {}, {y.data(), shape, layout}, {mean.data(), variance.data()}, nullptr)
            .ok());
    Owned moments;
    ASSERT_TRUE(batch_moments_accumulate<float>({}, view, moments.view, {3}).ok());
    ASSERT_TRUE(batch_moments_statistics(moments.view, {our_mean.data(), our_variance.data()}).ok());
    EXPECT_EQ(our_mean, mean);
    for (std::size_t c = 0; c < kChannels; ++c) EXPECT_DOUBLE_EQ(our_variance[c], variance[c]);  // ·m and /m
  }
}

TEST(BatchMoments, LeavePaddingOut) {
  const std::vector<float> dense = rows(13);
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const testing_tools::Padding padding{{3, 10}, layout, kChannels, 11};
    const std::vector<float> x = padding.scatter(dense);
    BatchNormOptions options;
    options.lengths = padding.lengths.data();
    Owned padded, valid;
    ASSERT_TRUE(batch_moments_accumulate<float>(options, {x.data(), padding.shape(), layout}, padded.view).ok());
    ASSERT_TRUE(batch_moments_accumulate<float>({}, part(dense, 0, 13), valid.view).ok());
    expect_near(padded.view, valid.view);
  }
}

TEST(BatchMoments, CommitOnceAsOneLargeBatch) {
  const std::vector<float> x = rows(90);
  std::vector<float> y(x.size()), mean(kChannels), variance(kChannels, 1.0F), our_mean = mean, our_variance = variance;
  std::vector<double> saved(kChannels), saved_variance(kChannels);
  RunningStatistics<float> whole{mean.data(), variance.data(), 0, 0, RunningOptions::torch()};
  RunningStatistics<float> micro{our_mean.data(), our_variance.data(), 0, 0, RunningOptions::torch()};
  ASSERT_TRUE(batch_norm_forward<float>({}, part(x, 0, 90), {}, {}, {y.data(), {90, kChannels}, Layout::channels_last},
                                        {saved.data(), saved_variance.data()}, &whole)
                  .ok());
  Owned moments;
  for (const std::size_t begin : {0U, 30U, 60U}) {
    ASSERT_TRUE(batch_moments_accumulate<float>({}, part(x, begin, begin + 30), moments.view).ok());
  }
  ASSERT_TRUE(batch_moments_commit<float>({}, moments.view, micro).ok());
  EXPECT_EQ(micro.batches, 1U);
  for (std::size_t c = 0; c < kChannels; ++c) {
    EXPECT_NEAR(our_mean[c], mean[c], 0x1p-22 * (1 + std::abs(mean[c])));
    EXPECT_NEAR(our_variance[c], variance[c], 0x1p-21) << "unbiased over 90 values, not over three times 30";
  }

  moments.mean[1] = std::numeric_limits<double>::infinity();
  const std::vector<float> before = our_mean;
  EXPECT_EQ(batch_moments_commit<float>({}, moments.view, micro).code(), StatusCode::non_finite);
  BatchNormOptions skip;
  skip.non_finite = NonFinitePolicy::skip;
  EXPECT_TRUE(batch_moments_commit<float>(skip, moments.view, micro).ok());
  EXPECT_EQ(our_mean, before);
  EXPECT_EQ(micro.skipped, 1U);
}

TEST(BatchMoments, PooledRunningStatisticsAreThoseOfTheMixture) {
  // Two models: N(0, 1) and N(4, 9). Half and half: mean 2, variance (1 + 9)/2 + 4; three to one: mean 1, 3 + 3.
  float means[2][1] = {{0}, {4}}, variances[2][1] = {{1}, {9}}, mean[1], variance[1];
  const std::vector<RunningStatistics<float>> models = {{means[0], variances[0], 10, 0, {}},
                                                        {means[1], variances[1], 5, 0, {}}};
  RunningStatistics<float> pooled{mean, variance, 0, 0, {}};
  ASSERT_TRUE(pool_running_statistics<float>(models, {}, 1, pooled).ok());
  EXPECT_EQ(mean[0], 2);
  EXPECT_EQ(variance[0], 9);
  EXPECT_EQ(pooled.batches, 15U);
  const std::vector<double> weights = {3, 1}, wrong = {1}, negative = {1, -1};
  ASSERT_TRUE(pool_running_statistics<float>(models, weights, 1, pooled).ok());
  EXPECT_EQ(mean[0], 1);
  EXPECT_EQ(variance[0], 6);
  EXPECT_NE(
      pool_running_statistics<float>(models, wrong, 1, pooled).message().find("weights has 1 elements; expected 2"),
      std::string::npos);
  EXPECT_NE(pool_running_statistics<float>(models, negative, 1, pooled).message().find("weights[1] is -1"),
            std::string::npos);
  EXPECT_FALSE(pool_running_statistics<float>({}, {}, 1, pooled).ok());
}

TEST(BatchMoments, BadArgumentsAreNamed) {
  const std::vector<float> x = rows(4);
  Owned moments;
  moments.view.channels = 3;
  EXPECT_NE(
      batch_moments_accumulate<float>({}, part(x, 0, 4), moments.view).message().find("has 3 channels; expected 5"),
      std::string::npos);
  moments.view.channels = kChannels;
  moments.view.mean = nullptr;
  EXPECT_NE(batch_moments_accumulate<float>({}, part(x, 0, 4), moments.view).message().find("moments.mean is null"),
            std::string::npos);
  Owned none;
  std::vector<float> mean(kChannels), variance(kChannels);
  RunningStatistics<float> running{mean.data(), variance.data(), 0, 0, {}};
  EXPECT_EQ(batch_moments_commit<float>({}, none.view, running).code(), StatusCode::too_few_values);
}

}  // namespace
}  // namespace equinorm
