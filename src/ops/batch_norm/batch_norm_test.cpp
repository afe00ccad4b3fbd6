#include "equinorm/batch_norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/fingerprint.hpp"
#include "core/norm_testing.hpp"
#include "ops/batch_norm/cases.hpp"
#include "ops/batch_norm/reference.hpp"
#include "parallel/executors.hpp"

namespace equinorm {
namespace {

constexpr double kUnit = 0x1p-24;  // half an ulp of 1, the relative error of one rounding to float

/// All that a call of forward and backward takes and gives.
struct Call {
  Call(const Shape& tensor_shape, Layout tensor_layout, std::vector<float> values)
      : shape(tensor_shape), layout(tensor_layout), x(std::move(values)) {
    channels = layout == Layout::channels_last ? shape[shape.rank() - 1] : shape[1];
    const Philox random(7, 2);
    const auto normal = [&](std::size_t count, std::uint64_t from) {
      std::vector<float> v(count);
      for (std::size_t i = 0; i < count; ++i) v[i] = static_cast<float>(random.normal(from + i));
      return v;
    };
    gamma = normal(channels, 0);
    beta = normal(channels, channels);
    residual = normal(x.size(), 1'000'000);
    dy = normal(x.size(), 2'000'000);
    y.assign(x.size(), -7);
    dx.assign(x.size(), -7);
    dresidual.assign(x.size(), -7);
    mean.assign(channels, -7);
    variance.assign(channels, -7);
    dgamma.assign(channels, -7);
    dbeta.assign(channels, -7);
  }

  template <class T>
  TensorView<T> view(T* data) const {
    return {data, shape, layout};
  }

  Status forward(const Execution& execution = {}) {
    return batch_norm_forward(options, view<const float>(x.data()), {gamma.data(), beta.data()},
                              view<const float>(add ? residual.data() : nullptr), view(y.data()),
                              {mean.data(), variance.data()}, nullptr, execution);
  }
  Status backward(const Execution& execution = {}) {
    return batch_norm_backward(options, view<const float>(x.data()), view<const float>(add ? y.data() : nullptr), {},
                               view<const float>(dy.data()), {gamma.data(), beta.data()},
                               {mean.data(), variance.data()}, view(dx.data()), view(add ? dresidual.data() : nullptr),
                               {dgamma.data(), dbeta.data()}, execution);
  }
  Status inference(const std::vector<float>& m, const std::vector<float>& v, const Execution& execution = {}) {
    return batch_norm_inference(options, view<const float>(x.data()), {gamma.data(), beta.data()}, m.data(), v.data(),
                                view<const float>(add ? residual.data() : nullptr), view(y.data()), execution);
  }

  std::size_t channel_of(std::size_t i) const {
    std::size_t inner = 1;
    for (std::size_t a = 2; layout == Layout::channels_first && a < shape.rank(); ++a) inner *= shape[a];
    return i / inner % channels;
  }

  Shape shape;
  Layout layout;
  std::size_t channels;
  BatchNormOptions options{};
  bool add = false;
  std::vector<float> x, gamma, beta, residual, dy, y, dx, dresidual, dgamma, dbeta;
  std::vector<double> mean, variance;
};

std::vector<double> widen(const std::vector<float>& v) {
  return {v.begin(), v.end()};
}

std::string describe(const Shape& shape, Layout layout) {
  std::string text = layout == Layout::channels_last ? "channels-last" : "channels-first";
  for (std::size_t i = 0; i < shape.rank(); ++i) text += " " + std::to_string(shape[i]);
  return text;
}

/// The forward error bound of one element, in roundings. Of |γ|(|x̂| + 1): x − mean, the scale, their product, z and y
/// once each, and the part of the shift that holds the mean's rest; the statistics' own are counted apart, and average
/// out to less than one here. Of |β|: the shift, z and y. Of |r|: y, and one for the reference.
double forward_bound(double x_hat, double gamma, double beta, double residual) {
  const double scaled = std::abs(gamma) * (std::abs(x_hat) + 1);
  return kUnit * (6 * scaled + 3 * std::abs(beta) + 2 * std::abs(residual)) + 0x1p-149;
}

void expect_forward(const Call& call, const std::string& what, double rarity = 2) {
  const bool relu = call.options.activation == Activation::relu;
  const auto want = reference::batch_norm_forward(
      widen(call.x), call.shape, call.layout, widen(call.gamma), widen(call.beta),
      call.add ? widen(call.residual) : std::vector<double>{}, relu, call.options.epsilon);
  const auto m = static_cast<double>(call.x.size()) / static_cast<double>(call.channels);
  const auto roundings = testing_tools::StatisticsRoundings::of<float>(m, rarity);
  for (std::size_t c = 0; c < call.channels; ++c) {
    const double sigma = std::sqrt(want.variance[c]);
    ASSERT_NEAR(call.mean[c], want.mean[c], roundings.mean * kUnit * sigma + 1e-15 * std::abs(want.mean[c]) + 1e-300)
        << what;
    ASSERT_NEAR(call.variance[c], want.variance[c], roundings.variance * kUnit * want.variance[c] + 1e-300)
        << what << " channel " << c;
  }
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double x_hat =
        (static_cast<double>(call.x[i]) - want.mean[c]) / std::sqrt(want.variance[c] + call.options.epsilon);
    const double bound = forward_bound(x_hat, static_cast<double>(call.gamma[c]), static_cast<double>(call.beta[c]),
                                       call.add ? static_cast<double>(call.residual[i]) : 0.0);
    ASSERT_NEAR(static_cast<double>(call.y[i]), want.y[i], bound) << what << " element " << i;
  }
}

void expect_backward(const Call& call, const std::string& what, double rarity = 2) {
  std::vector<bool> passed;
  if (call.options.activation == Activation::relu) {
    for (const float y : call.y) passed.push_back(y > 0);
  }
  const auto want = reference::batch_norm_backward(widen(call.x), widen(call.dy), call.shape, call.layout,
                                                   widen(call.gamma), passed, call.options.epsilon);
  const double m = static_cast<double>(call.x.size()) / static_cast<double>(call.channels);
  const auto roundings = testing_tools::StatisticsRoundings::of<float>(m, rarity);
  std::vector<double> sum_g(call.channels), sum_gx(call.channels);
  const auto stats =
      reference::batch_norm_forward(widen(call.x), call.shape, call.layout, {}, {}, {}, false, call.options.epsilon);
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    sum_g[c] += std::abs(want.dresidual[i]);
    sum_gx[c] += std::abs(want.dresidual[i] * stats.y[i]);
  }
  for (std::size_t c = 0; c < call.channels; ++c) {
    // Eight terms are added as floats (7 roundings), the rest in double, and the sum is rounded to float. Of dγ's terms
    // d and its product with g have one each; 1/√(σ² + ε) and the mean bring the statistics' own, and what the mean
    // lacks as a float, times an error of Σg, is at most one of Σ|g|.
    ASSERT_NEAR(static_cast<double>(call.dbeta[c]), want.dbeta[c],
                kUnit * (std::abs(want.dbeta[c]) + 7 * sum_g[c]) + 1e-300)
        << what;
    ASSERT_NEAR(static_cast<double>(call.dgamma[c]), want.dgamma[c],
                kUnit * ((1 + roundings.variance / 2) * std::abs(want.dgamma[c]) + 9 * sum_gx[c] +
                         roundings.mean * std::abs(want.dbeta[c]) + sum_g[c]) +
                    1e-300)
        << what << " channel " << c;
  }
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double scale =
        std::abs(static_cast<double>(call.gamma[c])) / std::sqrt(stats.variance[c] + call.options.epsilon);
    // The parts of dx, each rounded a few times on its way.
    const double parts =
        std::abs(want.dresidual[i]) + sum_g[c] / m + (std::abs(stats.y[i]) + 1) * (sum_gx[c] + sum_g[c]) / m;
    ASSERT_NEAR(static_cast<double>(call.dx[i]), want.dx[i], 8 * kUnit * scale * parts + 0x1p-149)
        << what << " element " << i;
    if (call.add) {
      ASSERT_EQ(static_cast<double>(call.dresidual[i]), want.dresidual[i]) << what;
    }
  }
}

TEST(BatchNorm, MatchesTheReferenceOnEveryShapeAndValue) {
  for (const auto& shape : cases::shapes()) {
    for (const auto& value : cases::values()) {
      const bool small = shape.shape.elements() < 20'000;
      if (!small && std::string(value.name) != "normal" && std::string(value.name) != "mean_1e6") continue;
      for (int variant = 0; variant < 4; ++variant) {
        if (!small && variant % 3 != 0) continue;
        Call call(shape.shape, shape.layout, cases::make(value, shape.shape.elements(), 3));
        call.options.activation = variant % 2 == 1 ? Activation::relu : Activation::none;
        call.add = variant >= 2;
        const std::string what = describe(shape.shape, shape.layout) + " (" + shape.why + "), " + value.name +
                                 ", variant " + std::to_string(variant);
        const Status forward = call.forward();
        ASSERT_TRUE(forward.ok()) << what << ": " << forward.message();
        expect_forward(call, what);
        const Status backward = call.backward();
        ASSERT_TRUE(backward.ok()) << what << ": " << backward.message();
        expect_backward(call, what);
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// Of all outputs, and of all inputs.
std::uint64_t fingerprint(const Call& c) {
  return testing_tools::hash_of(c.y, c.dx, c.dresidual, c.dgamma, c.dbeta, c.mean, c.variance);
}
std::uint64_t fingerprint_of_inputs(const Call& c) {
  return testing_tools::hash_of(c.x, c.residual, c.dy, c.gamma, c.beta);
}

class EveryTarget : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};

TEST_F(EveryTarget, AndEveryNumberOfThreadsGivesTheSameBits) {
  testing_tools::SeenBits seen;
  for (const auto& shape : cases::shapes()) {
    for (const auto& value : cases::values()) {
      const bool small = shape.shape.elements() < 20'000;
      if (!small && std::string(value.name) != "mean_1e3") continue;
      std::optional<std::uint64_t> first;
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        for (const int threads : {1, 2, 3, 8}) {
          if (threads > 1 && small) continue;
          Call call(shape.shape, shape.layout, cases::make(value, shape.shape.elements(), 5));
          call.options.activation = Activation::relu;
          ASSERT_TRUE(call.forward({threads}).ok());
          ASSERT_TRUE(call.backward({threads}).ok());
          if (!first) first = seen.add(fingerprint_of_inputs(call), fingerprint(call));
          ASSERT_EQ(fingerprint(call), *first)
              << describe(shape.shape, shape.layout) << " " << value.name << " " << target << " " << threads;
        }
      }
    }
  }
}

TEST_F(EveryTarget, GivesTheSameBitsWithAResidualAndInInference) {
  testing_tools::SeenBits seen;
  for (const auto& shape : cases::shapes()) {
    std::optional<std::uint64_t> first;
    for (const std::string& target : simd_targets()) {
      ASSERT_TRUE(set_simd_target(target).ok());
      for (const int threads : {1, 2, 8}) {
        Call call(shape.shape, shape.layout, cases::make(cases::values().front(), shape.shape.elements(), 5));
        call.add = true;
        ASSERT_TRUE(call.forward({threads}).ok());
        ASSERT_TRUE(call.backward({threads}).ok());
        const std::vector<float> mean(call.channels, 0.25F), variance(call.channels, 1.5F);
        ASSERT_TRUE(call.inference(mean, variance, {threads}).ok());
        if (!first) first = seen.add(fingerprint_of_inputs(call), fingerprint(call));
        ASSERT_EQ(fingerprint(call), *first) << describe(shape.shape, shape.layout) << " " << target << " " << threads;
      }
    }
  }
}

TEST(BatchNorm, GivesTheSameBitsOnTheCallersThreads) {
  for (const auto& shape : cases::shapes()) {
    const auto run = [&](Executor* executor) {
      Call call(shape.shape, shape.layout, cases::make(cases::values().front(), shape.shape.elements(), 5));
      call.add = true;
      const Execution execution{.threads = 3, .executor = executor};
      EXPECT_TRUE(call.forward(execution).ok());
      EXPECT_TRUE(call.backward(execution).ok());
      return fingerprint(call);
    };
    const std::uint64_t want = run(nullptr);
    BackwardsExecutor backwards;
    ThreadsExecutor threads;
    for (CountingExecutor* executor : std::initializer_list<CountingExecutor*>{&backwards, &threads}) {
      EXPECT_EQ(run(executor), want) << describe(shape.shape, shape.layout);
      if (shape.shape.elements() > 1'000'000) {
        EXPECT_GT(executor->tasks_run, 0U);
      }
    }
  }
}

TEST_F(EveryTarget, NeitherReadsNorWritesBeyondTheTensorWhateverItsAlignment) {
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    for (const auto& shape : cases::shapes()) {
      const std::size_t count = shape.shape.elements();
      if (count > 20'000) continue;
      Call aligned(shape.shape, shape.layout, cases::make(cases::values().front(), count, 5));
      ASSERT_TRUE(aligned.forward().ok());
      for (const std::size_t offset : {1U, 3U, 15U}) {
        constexpr float kSentinel = 12345;
        std::vector<float> y(count + 32, kSentinel);
        // x lies at the very end of its allocation: AddressSanitizer sees a read beyond it.
        std::vector<float> x(offset);
        x.insert(x.end(), aligned.x.begin(), aligned.x.end());
        x.shrink_to_fit();
        Call call = aligned;
        ASSERT_TRUE(batch_norm_forward(call.options, call.view<const float>(x.data() + offset),
                                       {call.gamma.data(), call.beta.data()}, {}, call.view(y.data() + offset),
                                       {call.mean.data(), call.variance.data()}, nullptr)
                        .ok());
        for (std::size_t i = 0; i < y.size(); ++i) {
          const bool inside = i >= offset && i < offset + count;
          ASSERT_EQ(y[i], inside ? aligned.y[i - offset] : kSentinel)
              << describe(shape.shape, shape.layout) << " " << i;
        }
      }
    }
  }
}

TEST(BatchNorm, InPlaceGivesTheSameBits) {
  for (const auto& shape : cases::shapes()) {
    Call apart(shape.shape, shape.layout, cases::make(cases::values().front(), shape.shape.elements(), 5));
    apart.add = true;
    apart.options.activation = Activation::relu;
    ASSERT_TRUE(apart.forward().ok());
    ASSERT_TRUE(apart.backward().ok());
    Call inside = apart;
    ASSERT_TRUE(batch_norm_forward(inside.options, inside.view<const float>(inside.x.data()),
                                   {inside.gamma.data(), inside.beta.data()},
                                   inside.view<const float>(inside.residual.data()), inside.view(inside.x.data()),
                                   {inside.mean.data(), inside.variance.data()}, nullptr)
                    .ok());
    ASSERT_EQ(inside.x, apart.y);
    inside.x = apart.x;
    ASSERT_TRUE(
        batch_norm_backward(inside.options, inside.view<const float>(inside.x.data()),
                            inside.view<const float>(inside.y.data()), {}, inside.view<const float>(inside.dy.data()),
                            {inside.gamma.data(), inside.beta.data()}, {inside.mean.data(), inside.variance.data()},
                            inside.view(inside.dy.data()), inside.view(inside.dresidual.data()), {})
            .ok());
    ASSERT_EQ(inside.dy, apart.dx);
    ASSERT_EQ(inside.dresidual, apart.dresidual);

    // The other pairs that may share memory: y with the residual, dx with x, dresidual with dy.
    inside = apart;
    ASSERT_TRUE(
        batch_norm_forward(inside.options, inside.view<const float>(inside.x.data()),
                           {inside.gamma.data(), inside.beta.data()}, inside.view<const float>(inside.residual.data()),
                           inside.view(inside.residual.data()), {inside.mean.data(), inside.variance.data()}, nullptr)
            .ok());
    ASSERT_EQ(inside.residual, apart.y);
    ASSERT_TRUE(
        batch_norm_backward(inside.options, inside.view<const float>(inside.x.data()),
                            inside.view<const float>(inside.y.data()), {}, inside.view<const float>(inside.dy.data()),
                            {inside.gamma.data(), inside.beta.data()}, {inside.mean.data(), inside.variance.data()},
                            inside.view(inside.x.data()), inside.view(inside.dy.data()), {})
            .ok());
    ASSERT_EQ(inside.x, apart.dx);
    ASSERT_EQ(inside.dy, apart.dresidual);

    const std::vector<float> mean(apart.channels, 0.3F), variance(apart.channels, 2.0F);
    ASSERT_TRUE(apart.inference(mean, variance).ok());
    for (std::vector<float> Call::*place : {&Call::x, &Call::residual}) {
      inside = apart;
      ASSERT_TRUE(batch_norm_inference(inside.options, inside.view<const float>(inside.x.data()),
                                       {inside.gamma.data(), inside.beta.data()}, mean.data(), variance.data(),
                                       inside.view<const float>(inside.residual.data()),
                                       inside.view((inside.*place).data()))
                      .ok());
      ASSERT_EQ(inside.*place, apart.y);
    }
  }
}

TEST(BatchNorm, InferenceOfARowDoesNotDependOnTheBatch) {
  const std::size_t rows = 70, channels = 37;
  Call batch({rows, channels}, Layout::channels_last, cases::make(cases::values().front(), rows * channels, 9));
  const std::vector<float> mean(channels, 0.3F), variance(channels, 2.0F);
  ASSERT_TRUE(batch.inference(mean, variance).ok());
  for (std::size_t r = 0; r < rows; ++r) {
    Call one({1, channels}, Layout::channels_last, {&batch.x[r * channels], &batch.x[r * channels] + channels});
    ASSERT_TRUE(one.inference(mean, variance).ok());
    for (std::size_t c = 0; c < channels; ++c) ASSERT_EQ(one.y[c], batch.y[r * channels + c]);
  }
}

TEST(BatchNorm, AnOutlierOf1e8DoesNotCostTheOthersTheirDigits) {
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const Shape shape = layout == Layout::channels_last ? Shape{64, 64, 5} : Shape{64, 5, 64};
    std::vector<float> x = cases::make(cases::values().front(), shape.elements(), 11);
    x[0] = 1e8F;
    Call call(shape, layout, x);
    ASSERT_TRUE(call.forward().ok());
    constexpr double kRarity = 16;  // K: of one sample in 8, half of each plane; or of one row in 4
    expect_forward(call, "outlier", kRarity);
    ASSERT_TRUE(call.backward().ok());
    expect_backward(call, "outlier", kRarity);
  }
}

// Wide rows take differences to the mean of the rows before (AccumulateWideMoments): Σd² is at most twice M2, but for
// the first block.
TEST(BatchNorm, AMeanThatJumpsCostsNoDigits) {
  constexpr std::size_t channels = 300, rows = 700, block = 109;  // of 32768 values
  for (const std::size_t jump : {std::size_t{1}, std::size_t{8}, block - 1, block, block + 1, 2 * block + 5, rows - 1}) {
    std::vector<float> x = cases::make(cases::values().front(), channels * rows, 12);
    for (std::size_t i = jump * channels; i < x.size(); ++i) x[i] += i % 2 == 0 ? 1e6F : -3e4F;
    Call call({rows, channels}, Layout::channels_last, x);
    ASSERT_TRUE(call.forward().ok());
    constexpr double kRarity = 16;  // of the first block's K, of one row in 13
    expect_forward(call, "jump behind row " + std::to_string(jump), kRarity);
    ASSERT_TRUE(call.backward().ok());
    expect_backward(call, "jump behind row " + std::to_string(jump), kRarity);
  }
}

TEST(BatchNorm, NanAndInfinityStayInTheirChannel) {
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const Shape shape = layout == Layout::channels_last ? Shape{6, 9, 3} : Shape{6, 3, 9};
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Call call(shape, layout, cases::make(cases::values().front(), shape.elements(), 4));
      call.options.non_finite = NonFinitePolicy::propagate;
      ASSERT_TRUE(call.forward().ok());
      const std::vector<float> clean = call.y;
      call.x[layout == Layout::channels_last ? 1 : 9] = bad;  // channel 1
      ASSERT_TRUE(call.forward().ok());
      for (std::size_t i = 0; i < call.y.size(); ++i) {
        if (call.channel_of(i) == 1) {
          ASSERT_FALSE(std::isfinite(call.y[i])) << i;
        } else {
          ASSERT_EQ(call.y[i], clean[i]) << i;
        }
      }
    }
  }
}

/// Central differences of the reference's own forward: the closed form of the gradient is checked, not just copied.
TEST(BatchNorm, GradientsAgreeWithFiniteDifferences) {
  const Shape shape{5, 3};
  const std::size_t count = 15;
  Call call(shape, Layout::channels_last, cases::make(cases::values().front(), count, 21));
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  const auto loss = [&](const std::vector<double>& x, const std::vector<double>& gamma,
                        const std::vector<double>& beta) {
    const auto y = reference::batch_norm_forward(x, shape, Layout::channels_last, gamma, beta, {}, false, 1e-5).y;
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += y[i] * static_cast<double>(call.dy[i]);
    return sum;
  };
  const double h = 1e-5;  // error h² ≈ 1e-10 of truncation, 1e-16/h ≈ 1e-11 of rounding: far under a float's 1e-7
  const auto derivative = [&](int which, std::size_t i) {
    double sides[2];
    for (const int side : {0, 1}) {
      std::vector<double> arguments[3] = {widen(call.x), widen(call.gamma), widen(call.beta)};
      arguments[which][i] += side == 0 ? -h : h;
      sides[side] = loss(arguments[0], arguments[1], arguments[2]);
    }
    return (sides[1] - sides[0]) / (2 * h);
  };
  for (std::size_t i = 0; i < count; ++i) EXPECT_NEAR(static_cast<double>(call.dx[i]), derivative(0, i), 3e-6);
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(static_cast<double>(call.dgamma[c]), derivative(1, c), 3e-6);
    EXPECT_NEAR(static_cast<double>(call.dbeta[c]), derivative(2, c), 3e-6);
  }
}

TEST(BatchNorm, GradientsOfAConstantLossVanish) {
  // dy the same everywhere in a channel: the norm's output cannot move along it, so dx = 0 up to rounding of dy.
  Call call({400, 19}, Layout::channels_last, cases::make(cases::values().front(), std::size_t{400} * 19, 2));
  std::fill(call.dy.begin(), call.dy.end(), 1e6F);
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  for (const float dx : call.dx) ASSERT_NEAR(static_cast<double>(dx), 0, 1e6 * 8 * kUnit);
}

struct Running {
  explicit Running(const RunningOptions& options) : mean(2, 0.0F), variance(2, 1.0F) {
    statistics = {mean.data(), variance.data(), 0, 0, options};
  }
  std::vector<float> mean, variance;
  RunningStatistics<float> statistics;
};

Status forward_with(Call& call, Running& running) {
  return batch_norm_forward(call.options, call.view<const float>(call.x.data()), {}, {}, call.view(call.y.data()),
                            {call.mean.data(), call.variance.data()}, &running.statistics);
}

TEST(BatchNorm, RunningStatisticsFollowTheirDialect) {
  // Channel 0: 1, 3 (mean 2, biased variance 1, unbiased 2). Channel 1: 10, 20 (15, 25, 50).
  struct Row {
    const char* dialect;
    RunningOptions options;
    double mean0, mean1, variance0, variance1;
  };
  const Row rows[] = {
      {"note", RunningOptions::note(), 0.2, 1.5, 0.9 + 0.1, 0.9 + 2.5},
      {"torch", RunningOptions::torch(), 0.2, 1.5, 0.9 + 0.2, 0.9 + 5.0},
      {"keras", RunningOptions::keras(), 0.02, 0.15, 0.99 + 0.01, 0.99 + 0.25},
      {"onnx", RunningOptions::onnx(), 0.2, 1.5, 0.9 + 0.1, 0.9 + 2.5},
  };
  for (const Row& row : rows) {
    Call call({2, 2}, Layout::channels_last, {1, 10, 3, 20});
    Running running(row.options);
    ASSERT_TRUE(forward_with(call, running).ok());
    EXPECT_NEAR(static_cast<double>(running.mean[0]), row.mean0, 1e-6) << row.dialect;
    EXPECT_NEAR(static_cast<double>(running.mean[1]), row.mean1, 1e-6) << row.dialect;
    EXPECT_NEAR(static_cast<double>(running.variance[0]), row.variance0, 1e-6) << row.dialect;
    EXPECT_NEAR(static_cast<double>(running.variance[1]), row.variance1, 1e-6) << row.dialect;
    EXPECT_EQ(running.statistics.batches, 1U);
  }
}

TEST(BatchNorm, CumulativeRunningStatisticsAreThePlainAverage) {
  Running running({0.1, true, VarianceKind::biased});
  for (const float shift : {0.0F, 3.0F, 9.0F}) {
    Call call({2, 2}, Layout::channels_last, {1 + shift, 1, 3 + shift, 5});
    ASSERT_TRUE(forward_with(call, running).ok());
  }
  EXPECT_NEAR(static_cast<double>(running.mean[0]), 2 + 4, 1e-6);  // shifts 0, 3, 9 average 4
  EXPECT_NEAR(static_cast<double>(running.variance[1]), 4, 1e-6);
}

TEST(BatchNorm, ANonFiniteBatchNeverReachesRunningStatisticsUnlessToldTo) {
  for (const auto policy : {NonFinitePolicy::error, NonFinitePolicy::skip, NonFinitePolicy::propagate}) {
    Call call({2, 2}, Layout::channels_last, {1, 10, std::numeric_limits<float>::quiet_NaN(), 20});
    call.options.non_finite = policy;
    Running running(RunningOptions::torch());
    const Status status = forward_with(call, running);
    const bool propagates = policy == NonFinitePolicy::propagate;
    EXPECT_EQ(status.code(), policy == NonFinitePolicy::error ? StatusCode::non_finite : StatusCode::ok);
    EXPECT_EQ(std::isnan(running.mean[0]), propagates);
    EXPECT_EQ(running.mean[1] != 0, propagates) << "the good channel of a bad batch";
    EXPECT_EQ(running.statistics.batches, propagates ? 1U : 0U);
    EXPECT_EQ(running.statistics.skipped, policy == NonFinitePolicy::skip ? 1U : 0U);
  }
}

TEST(BatchNorm, OneValuePerChannelIsAnErrorUnlessAllowed) {
  Call call({1, 2}, Layout::channels_last, {3, 4});
  Running running(RunningOptions::torch());
  const Status refused = forward_with(call, running);
  EXPECT_EQ(refused.code(), StatusCode::too_few_values);
  EXPECT_NE(refused.message().find("[1, 2]"), std::string::npos) << refused.message();
  call.options.single_value = SingleValuePolicy::allow;
  ASSERT_TRUE(forward_with(call, running).ok());
  EXPECT_EQ(call.y, (std::vector<float>{0, 0}));
  EXPECT_NEAR(static_cast<double>(running.mean[0]), 0.3, 1e-6);
  EXPECT_EQ(running.variance[0], 1);  // 0/0 is not taken in
  Call empty({0, 2}, Layout::channels_last, {});
  empty.options.single_value = SingleValuePolicy::allow;
  EXPECT_EQ(empty.forward().code(), StatusCode::too_few_values);
  EXPECT_TRUE(empty.inference({0, 0}, {1, 1}).ok());
  EXPECT_TRUE(empty.backward().ok());
  EXPECT_EQ(empty.dgamma, (std::vector<float>{0, 0}));
}

TEST(BatchNorm, BadArgumentsAreNamedAndNothingIsWritten) {
  const auto fails = [](const char* part, const auto& spoil) {
    Call call({4, 3}, Layout::channels_last, std::vector<float>(12, 1.0F));
    TensorView<const float> x = call.view<const float>(call.x.data());
    TensorView<float> y = call.view(call.y.data());
    Statistics statistics{call.mean.data(), call.variance.data()};
    Running running(RunningOptions::torch());
    Execution execution;
    spoil(call.options, x, y, statistics, running, execution);
    const Status status = batch_norm_forward(call.options, x, {}, {}, y, statistics, &running.statistics, execution);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << part;
    EXPECT_NE(status.message().find("[batch_norm_forward]"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(call.y, std::vector<float>(12, -7.0F)) << part;
    EXPECT_EQ(call.mean, std::vector<double>(3, -7.0)) << part;
  };
  fails("epsilon is 0", [](auto& options, auto&...) { options.epsilon = 0; });
  fails("epsilon is nan", [](auto& options, auto&...) { options.epsilon = std::nan(""); });
  fails("x has rank 1", [](auto&, auto& x, auto&...) { x.shape = {12}; });
  fails("x has rank 6", [](auto&, auto& x, auto&...) { x.shape = Shape{1, 1, 1, 1, 4, 3}; });
  fails("at least one channel", [](auto&, auto& x, auto&...) { x.shape = {4, 0}; });
  fails("fewer elements than memory", [](auto&, auto& x, auto&...) {
    x.shape = {std::size_t{1} << 40, std::size_t{1} << 40};
  });
  fails("x is null", [](auto&, auto& x, auto&...) { x.data = nullptr; });
  fails("y is null", [](auto&, auto&, auto& y, auto&...) { y.data = nullptr; });
  fails("y has shape [3, 4]; expected [4, 3]", [](auto&, auto&, auto& y, auto&...) { y.shape = {3, 4}; });
  fails("y is channels-first", [](auto&, auto&, auto& y, auto&...) { y.layout = Layout::channels_first; });
  fails("statistics.mean is null", [](auto&, auto&, auto&, auto& statistics, auto&...) { statistics.mean = nullptr; });
  fails("running.variance is null",
        [](auto&, auto&, auto&, auto&, auto& running, auto&) { running.statistics.variance = nullptr; });
  fails("running_weight is 1.5",
        [](auto&, auto&, auto&, auto&, auto& running, auto&) { running.statistics.options.running_weight = 1.5; });
  fails("workspace has 64 bytes", [](auto&, auto&, auto&, auto&, auto&, auto& execution) {
    alignas(64) static std::byte memory[64];
    execution.workspace = memory;
    execution.workspace_bytes = 64;
  });
  fails("workspace is misaligned", [](auto&, auto&, auto&, auto&, auto&, auto& execution) {
    alignas(64) static std::byte memory[64];
    execution.workspace = memory + 4;
  });
  Call call({4, 3}, Layout::channels_last, std::vector<float>(12, 1.0F));
  const Status backward =
      batch_norm_backward(call.options, call.view<const float>(call.x.data()), {}, {call.residual.data(), {3, 4}},
                          call.view<const float>(call.dy.data()), {}, {call.mean.data(), call.variance.data()},
                          call.view(call.dx.data()), {}, {});
  EXPECT_NE(backward.message().find("residual has shape [3, 4]; expected [4, 3]"), std::string::npos)
      << backward.message();
  const Status status = call.inference({0, 0, 0}, {1, -2, 1});
  EXPECT_NE(status.message().find("variance[1] is -2"), std::string::npos) << status.message();
  alignas(64) static std::byte memory[64];
  const Status small = call.inference({0, 0, 0}, {1, 2, 1}, {1, memory, 64});
  EXPECT_NE(small.message().find("workspace has 64 bytes"), std::string::npos) << small.message();
}

TEST(BatchNorm, ACallersWorkspaceChangesNothing) {
  for (const auto& shape : cases::shapes()) {
    Call own(shape.shape, shape.layout, cases::make(cases::values().front(), shape.shape.elements(), 6));
    ASSERT_TRUE(own.forward().ok());
    ASSERT_TRUE(own.backward().ok());
    Call given = own;
    const std::size_t bytes = batch_norm_workspace_bytes<float>(shape.shape, shape.layout);
    std::vector<std::byte> memory(bytes + 64 + 1, std::byte{0xAB});
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    std::byte* workspace = memory.data() + (64 - address % 64) % 64;
    ASSERT_TRUE(given.forward({1, workspace, bytes}).ok());
    ASSERT_TRUE(given.backward({1, workspace, bytes}).ok());
    EXPECT_EQ(fingerprint(given), fingerprint(own)) << describe(shape.shape, shape.layout);
    EXPECT_EQ(workspace[bytes], std::byte{0xAB}) << "written beyond the workspace";
  }
}

}  // namespace
}  // namespace equinorm
