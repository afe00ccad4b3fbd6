// Batch norm over samples of unequal length.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "core/norm_testing.hpp"
#include "equinorm/batch_norm.hpp"

namespace equinorm {
namespace {

const std::vector<std::size_t> kLengths = {5, 0, 9, 1, 7, 9, 3};

/// A padded batch [N, positions, channels], NaN wherever padding lies; or, with positions = 0, its valid rows alone.
template <class T>
struct Batch {
  Batch(std::size_t position_count, std::size_t channel_count, double scale)
      : positions(position_count), channels(channel_count) {
    const bool padded = positions > 0;
    const Philox random(3, 1);
    std::size_t next = 0;
    for (const std::size_t length : kLengths) {
      for (std::size_t p = 0; p < (padded ? positions : length); ++p) {
        for (std::size_t c = 0; c < channels; ++c) {
          const bool valid = p < length;
          const auto value = [&](double v) {
            return to_element<T>(valid ? v : std::numeric_limits<double>::quiet_NaN());
          };
          const double noise = random.normal(next);
          x.push_back(value(scale * (noise + 3)));
          residual.push_back(value(random.normal(next + 100'000)));
          dy.push_back(value(random.normal(next + 200'000)));
          is_valid.push_back(valid);
          next += valid ? 1 : 0;
        }
      }
    }
    shape = padded ? Shape{kLengths.size(), positions, channels}
                   : Shape{std::reduce(kLengths.begin(), kLengths.end()), channels};
    if (padded) options.lengths = kLengths.data();
    options.activation = Activation::relu;
    y = dx = dresidual = std::vector<T>(x.size(), to_element<T>(-7));
    mean = variance = std::vector<double>(channels, -7);
    dgamma = dbeta = std::vector<Parameter<T>>(channels, -7);
  }

  template <class U>
  TensorView<U> view(U* data) const {
    return {data, shape, Layout::channels_last};
  }
  Status run(const Execution& execution = {}) {
    const Statistics statistics{mean.data(), variance.data()};
    const TensorView<const T> in = view<const T>(x.data());
    Status status = batch_norm_forward<T>(options, in, {}, view<const T>(residual.data()), view(y.data()), statistics,
                                          nullptr, execution);
    if (!status.ok()) return status;
    return batch_norm_backward<T>(options, in, view<const T>(y.data()), view<const T>(dy.data()), {}, statistics,
                                  view(dx.data()), view(dresidual.data()), {dgamma.data(), dbeta.data()}, execution);
  }

  /// The valid elements of v; those of padding must be 0.
  std::vector<T> valid(const std::vector<T>& v) const {
    std::vector<T> result;
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (is_valid[i]) {
        result.push_back(v[i]);
      } else {
        EXPECT_TRUE(v[i] == T{}) << "padding " << i;
      }
    }
    return result;
  }

  std::size_t positions, channels;
  Shape shape;
  BatchNormOptions options{};
  std::vector<bool> is_valid;
  std::vector<T> x, residual, dy, y, dx, dresidual;
  std::vector<double> mean, variance;
  std::vector<Parameter<T>> dgamma, dbeta;
};

template <class T>
class BatchNormLengths : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE(BatchNormLengths, testing_tools::ElementTypes, testing_tools::ElementNames);

/// Scales: what nets see, and values that go the careful way.
template <class T>
std::vector<double> scales() {
  return std::is_same_v<T, float> ? std::vector<double>{1, 1e20} : std::vector<double>{1};
}

TYPED_TEST(BatchNormLengths, AgreeWithTheValidRowsAlone) {
  using T = TypeParam;
  // One rounding of T, and some of the type of computing (the blocks of the sums differ), at values of a few σ.
  constexpr double unit = std::is_same_v<T, double>     ? 0x1p-47
                          : std::is_same_v<T, float>    ? 0x1p-20
                          : std::is_same_v<T, bfloat16> ? 0x1p-7
                                                        : 0x1p-10;
  for (const std::size_t channels : {1U, 3U, 16U, 37U, 130U}) {
    for (const double scale : scales<T>()) {
      Batch<T> padded(11, channels, scale), dense(0, channels, scale);
      ASSERT_TRUE(padded.run().ok());
      ASSERT_TRUE(dense.run().ok());
      const auto near = [&](const std::vector<T>& a, const std::vector<T>& b, double size) {
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) {
          ASSERT_NEAR(to_double(a[i]), to_double(b[i]), 8 * unit * size) << channels << " channels, element " << i;
        }
      };
      near(padded.valid(padded.y), dense.y, 4);
      near(padded.valid(padded.dx), dense.dx, 4 / scale);
      near(padded.valid(padded.dresidual), dense.dresidual, 0);
      for (std::size_t c = 0; c < channels; ++c) {
        ASSERT_NEAR(padded.mean[c], dense.mean[c], 0x1p-22 * scale);
        ASSERT_NEAR(padded.variance[c], dense.variance[c], 0x1p-20 * scale * scale);
        ASSERT_NEAR(to_double(padded.dgamma[c]), to_double(dense.dgamma[c]), 1e-4);
        ASSERT_NEAR(to_double(padded.dbeta[c]), to_double(dense.dbeta[c]), 1e-4);
      }
    }
  }
}

TYPED_TEST(BatchNormLengths, TheAmountOfPaddingChangesNoBitOnAnyTargetOrThread) {
  testing_tools::SeenBits seen;
  using T = TypeParam;
  for (const std::size_t channels : {1U, 3U, 37U, 130U}) {
    for (const double scale : scales<T>()) {
      std::optional<Batch<T>> first;
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        for (const std::size_t positions : {9U, 10U, 200U}) {
          for (const int threads : {1, 3}) {
            Batch<T> batch(positions, channels, scale);
            ASSERT_TRUE(batch.run({threads}).ok());
            if (!first) {
              first = batch;
              seen.add(testing_tools::hash_of(batch.x, batch.residual, batch.dy),
                       testing_tools::hash_of(batch.y, batch.dx, batch.dresidual, batch.mean, batch.variance,
                                              batch.dgamma, batch.dbeta));
            }
            ASSERT_TRUE(batch.valid(batch.y) == first->valid(first->y)) << positions << " " << target;
            ASSERT_TRUE(batch.valid(batch.dx) == first->valid(first->dx)) << positions << " " << target;
            ASSERT_TRUE(batch.valid(batch.dresidual) == first->valid(first->dresidual));
            ASSERT_EQ(batch.mean, first->mean);
            ASSERT_EQ(batch.variance, first->variance);
            ASSERT_EQ(batch.dgamma, first->dgamma);
            ASSERT_EQ(batch.dbeta, first->dbeta);
          }
        }
      }
    }
  }
}

TEST(BatchNormLengthsArguments, AreNamed) {
  Batch<float> short_batch(8, 4, 1);
  EXPECT_NE(short_batch.run().message().find("lengths[2] is 9; expected at most the 8 positions"), std::string::npos);
  Batch<float> first(11, 4, 1);
  const TensorView<const float> x{first.x.data(), {7, 4, 11}, Layout::channels_first};
  const Status status = batch_norm_forward<float>(first.options, x, {}, {}, {first.y.data(), x.shape, x.layout},
                                                  {first.mean.data(), first.variance.data()}, nullptr);
  EXPECT_NE(status.message().find("expected channels-last"), std::string::npos) << status.message();
}

TEST(BatchNormLengthsArguments, AllPaddingIsTooFewValuesAndHasNoGradient) {
  const std::vector<std::size_t> none(kLengths.size(), 0);
  Batch<float> batch(11, 4, 1);
  batch.options.lengths = none.data();
  EXPECT_EQ(batch.run().code(), StatusCode::too_few_values);
  const Statistics statistics{batch.mean.data(), batch.variance.data()};
  ASSERT_TRUE(batch_norm_backward<float>(batch.options, batch.view<const float>(batch.x.data()),
                                         batch.view<const float>(batch.y.data()),
                                         batch.view<const float>(batch.dy.data()), {}, statistics,
                                         batch.view(batch.dx.data()), {}, {batch.dgamma.data(), batch.dbeta.data()})
                  .ok());
  EXPECT_EQ(batch.dx, std::vector<float>(batch.dx.size(), 0.0F));
  EXPECT_EQ(batch.dgamma, std::vector<float>(4, 0.0F));
}

TEST(BatchNormLengthsArguments, RunningStatisticsCountTheValidRowsAlone) {
  Batch<float> padded(11, 5, 1), dense(0, 5, 1);
  std::vector<float> means[2] = {std::vector<float>(5), std::vector<float>(5)}, variances[2] = {means[0], means[0]};
  int which = 0;
  for (Batch<float>* batch : {&padded, &dense}) {
    RunningStatistics<float> running{means[which].data(), variances[which].data(), 0, 0, RunningOptions::torch(1.0)};
    ASSERT_TRUE(batch_norm_forward<float>(batch->options, batch->view<const float>(batch->x.data()), {}, {},
                                          batch->view(batch->y.data()), {batch->mean.data(), batch->variance.data()},
                                          &running)
                    .ok());
    ++which;
  }
  for (std::size_t c = 0; c < 5; ++c) {
    EXPECT_NEAR(static_cast<double>(means[0][c]), static_cast<double>(means[1][c]), 1e-6);
    EXPECT_NEAR(static_cast<double>(variances[0][c]), static_cast<double>(variances[1][c]), 1e-6)
        << "m/(m−1) of 34 rows";
  }
}

}  // namespace
}  // namespace equinorm
