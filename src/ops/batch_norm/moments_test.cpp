#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "core/norm_testing.hpp"
#include "equinorm/batch_moments.hpp"
#include "parallel/executors.hpp"

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

TEST(BatchMoments, PooledMayBeOneOfTheModels) {
  for (const std::size_t place : {0U, 1U, 2U}) {
    std::vector<float> means[4], variances[4];
    std::vector<RunningStatistics<float>> models;
    for (std::size_t i = 0; i < 4; ++i) {  // the last is apart
      means[i] = testing_tools::normals<float>(kChannels, 2, 3, 5, i % 3);
      variances[i] = testing_tools::normals<float>(kChannels, 9, 1, 6, i % 3);
      models.push_back({means[i].data(), variances[i].data(), i + 1, 0, {}});
    }
    RunningStatistics<float> apart = models[3], pooled = models[place];
    models.pop_back();
    const std::vector<double> weights = {1, 2, 4};
    ASSERT_TRUE(pool_running_statistics<float>(models, weights, kChannels, apart).ok());
    ASSERT_TRUE(pool_running_statistics<float>(models, weights, kChannels, pooled).ok());
    EXPECT_EQ(means[place], means[3]);
    EXPECT_EQ(variances[place], variances[3]);
    EXPECT_EQ(pooled.batches, 1U + 2U + 3U);
    EXPECT_EQ(apart.batches, pooled.batches);
  }
}

TEST(BatchMoments, CommittedWithAWeightOf1Recalibrate) {
  // Whatever the running statistics were, they become those of the data set, to the one rounding of a float.
  const std::vector<float> x = rows(1000);
  for (const VarianceKind kind : {VarianceKind::biased, VarianceKind::unbiased}) {
    std::vector<float> mean(kChannels, 77), variance(kChannels, 1e9F);
    RunningStatistics<float> running{mean.data(), variance.data(), 41, 0, {1.0, false, kind}};
    Owned moments;
    for (const std::size_t begin : {0U, 400U, 800U}) {
      const std::size_t end = std::min<std::size_t>(begin + 400, 1000);
      ASSERT_TRUE(batch_moments_accumulate<float>({}, part(x, begin, end), moments.view).ok());
    }
    ASSERT_TRUE(batch_moments_commit<float>({}, moments.view, running).ok());
    for (std::size_t c = 0; c < kChannels; ++c) {
      EXPECT_EQ(mean[c], static_cast<float>(moments.mean[c]));
      const double values = kind == VarianceKind::biased ? 1000 : 999;
      EXPECT_FLOAT_EQ(variance[c], static_cast<float>(moments.m2[c] / values));
    }
    EXPECT_EQ(running.batches, 42U);
  }
}

TEST(BatchMoments, HaveTheSameBitsOnAnyThreadsAndTheCallers) {
  const std::vector<float> dense = rows(60'000);
  const testing_tools::Padding padding{{9'000, 0, 14'000, 37'000}, Layout::channels_first, kChannels, 37'000};
  const std::vector<float> padded = padding.scatter(dense);
  BatchNormOptions options;
  options.lengths = padding.lengths.data();
  const auto expect_same = [](const BatchNormOptions& how, const TensorView<const float>& x) {
    const auto bits = [&](const Execution& execution) {
      Owned moments;
      EXPECT_TRUE(batch_moments_accumulate<float>(how, x, moments.view, execution).ok());
      return testing_tools::hash_of(moments.mean, moments.m2);
    };
    const std::uint64_t first = bits({});
    for (int threads = 2; threads <= 8; ++threads) EXPECT_EQ(bits({threads}), first) << threads;
    for_each_executor([&](CountingExecutor& executor) {
      EXPECT_EQ(bits({.threads = 3, .executor = &executor}), first);
      EXPECT_GT(executor.tasks_run, 0U);
    });
  };
  expect_same({}, part(dense, 0, 60'000));
  expect_same({}, {dense.data(), {30, kChannels, 2000}, Layout::channels_first});
  expect_same(options, {padded.data(), padding.shape(), padding.layout});
}

/// Ghost batch norm (Hoffer, Hubara & Soudry 2017, arXiv:1705.08741): each sub-batch is normalized by statistics of its
/// own, as a small batch would be, and the running statistics take in all of them as one.
TEST(BatchMoments, OfGhostBatchesMergeIntoThoseOfTheBatch) {
  constexpr std::size_t kSamples = 12, kGhosts = 3, kPositions = 10, kSize = kPositions * kChannels;
  constexpr std::size_t kGhost = kSamples / kGhosts;
  const std::vector<float> dy = testing_tools::normals<float>(kSamples * kSize, 0.5, 1, 8, 2);
  const std::vector<float> gamma = testing_tools::normals<float>(kChannels, 1, 0.25, 8, 3);
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const auto shape = [&](std::size_t samples) {
      return layout == Layout::channels_last ? Shape{samples, kPositions, kChannels}
                                             : Shape{samples, kChannels, kPositions};
    };
    const auto channel_of = [&](std::size_t i) {
      return layout == Layout::channels_last ? i % kChannels : i / kPositions % kChannels;
    };
    std::vector<float> values = testing_tools::normals<float>(dy.size(), 0, 1, 8, 1);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += channel_of(i) == 0 ? 1e4F : 0;
    const std::vector<float>& x = values;
    // Samples lie one behind the other: a sub-batch is a view.
    const auto ghost = [&](auto* data, std::size_t g) {
      return TensorView<std::remove_pointer_t<decltype(data)>>{data + g * kGhost * kSize, shape(kGhost), layout};
    };
    std::vector<float> y(x.size()), dx(x.size()), dgamma(kChannels), running_mean(kChannels),
        running_variance(kChannels, 1.0F);
    std::vector<double> means[kGhosts], variances[kGhosts];
    RunningStatistics<float> running{running_mean.data(), running_variance.data(), 0, 0, RunningOptions::torch()};

    Owned all;
    for (std::size_t g = 0; g < kGhosts; ++g) {
      means[g] = variances[g] = std::vector<double>(kChannels);
      ASSERT_TRUE(batch_norm_forward<float>({}, ghost(x.data(), g), {gamma.data(), nullptr}, {}, ghost(y.data(), g),
                                            {means[g].data(), variances[g].data()}, nullptr)
                      .ok());
      // Forward's statistics are the sub-batch's moments: nothing is read twice.
      std::vector<double> m2 = variances[g];
      for (double& v : m2) v *= kGhost * kPositions;
      const BatchMoments own{kChannels, kGhost * kPositions, means[g].data(), m2.data()};
      ASSERT_TRUE(batch_moments_merge(own, all.view).ok());
    }
    ASSERT_TRUE(batch_moments_commit<float>({}, all.view, running).ok());
    for (std::size_t g = 0; g < kGhosts; ++g) {
      std::vector<float> of_ghost(kChannels);
      ASSERT_TRUE(batch_norm_backward<float>({}, ghost(x.data(), g), {}, {}, ghost(dy.data(), g),
                                             {gamma.data(), nullptr}, {means[g].data(), variances[g].data()},
                                             ghost(dx.data(), g), {}, {of_ghost.data(), nullptr})
                      .ok());
      for (std::size_t c = 0; c < kChannels; ++c) dgamma[c] += of_ghost[c];
    }

    // Running statistics: those of the whole batch, taken in once.
    Owned whole;
    ASSERT_TRUE(batch_moments_accumulate<float>({}, {x.data(), shape(kSamples), layout}, whole.view).ok());
    expect_near(all.view, whole.view);
    EXPECT_EQ(running.batches, 1U);
    for (std::size_t c = 0; c < kChannels; ++c) {
      // As near as expect_near asks of the moments, and one rounding to a float.
      const double mean = 0.1 * whole.mean[c], own = 0.1 * whole.m2[c] / (kSamples * kPositions - 1.0);
      EXPECT_NEAR(static_cast<double>(running_mean[c]), mean, 0x1p-22 + 0x1p-24 * std::abs(mean));
      EXPECT_NEAR(static_cast<double>(running_variance[c]), 0.9 + own, 0x1p-21 * own + 0x1p-24 * (0.9 + own));
    }
    // Each sub-batch: normalized for itself, forward and backward. Of n terms of up to |γ/σ·dy| and |y|, by a few
    // roundings each.
    constexpr double kBound = kGhost * kPositions * 64 * 0x1p-24;
    for (std::size_t g = 0; g < kGhosts; ++g) {
      std::vector<double> sum(kChannels), squares(kChannels), dx_sum(kChannels);
      for (std::size_t i = g * kGhost * kSize; i < (g + 1) * kGhost * kSize; ++i) {
        const double normalized = static_cast<double>(y[i]) / static_cast<double>(gamma[channel_of(i)]);
        sum[channel_of(i)] += normalized;
        squares[channel_of(i)] += normalized * normalized;
        dx_sum[channel_of(i)] += static_cast<double>(dx[i]);
      }
      for (std::size_t c = 0; c < kChannels; ++c) {
        const double variance = variances[g][c] / (variances[g][c] + 1e-5);
        EXPECT_NEAR(sum[c], 0, kBound);
        EXPECT_NEAR(squares[c], kGhost * kPositions * variance, kBound);
        EXPECT_NEAR(dx_sum[c], 0, kBound);
        EXPECT_NE(means[g][c], whole.mean[c]);
      }
    }
    std::vector<double> want(kChannels), magnitude(kChannels);  // dγ = Σ dy·x̂ over all sub-batches
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double term =
          static_cast<double>(dy[i]) * static_cast<double>(y[i]) / static_cast<double>(gamma[channel_of(i)]);
      want[channel_of(i)] += term;
      magnitude[channel_of(i)] += std::abs(term);
    }
    for (std::size_t c = 0; c < kChannels; ++c) {
      EXPECT_NEAR(static_cast<double>(dgamma[c]), want[c], 64 * 0x1p-24 * magnitude[c]) << c;
    }
  }
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
