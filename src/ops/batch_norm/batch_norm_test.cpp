// What is special to batch norm: running statistics, policies, arguments. types_test.cpp holds what every element type
// must keep, promises_test.cpp what every norm.
#include "equinorm/batch_norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "ops/batch_norm/call_testing.hpp"
#include "ops/batch_norm/cases.hpp"
#include "reduce/moments.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;
using Call = testing_tools::Call<float>;

using cases::kNormal;

Status infer(Call& call, const std::vector<float>& mean, const std::vector<float>& variance,
             const Execution& execution = {}) {
  return batch_norm_inference<float>(call.options, call.in(call.x), call.affine(), mean.data(), variance.data(), {},
                                     call.view(call.y.data()), execution);
}

// Σd² is at most kMostShifted times M2, or is taken again (is_misled).
TEST(BatchNorm, AMeanThatJumpsCostsNoDigits) {
  constexpr std::size_t channels = 300, rows = 700, first = 64;
  for (const std::size_t jump :
       {std::size_t{1}, std::size_t{8}, first - 1, first, first + 1, 2 * first + 5, rows - 1}) {
    Call call({rows, channels}, Layout::channels_last, kNormal, 12);
    for (std::size_t i = jump * channels; i < call.x.size(); ++i) call.x[i] += i % 2 == 0 ? 1e6F : -3e4F;
    ASSERT_TRUE(call.run().ok());
    expect_right(call, "jump behind row " + std::to_string(jump), kMostShifted);
    if (HasFatalFailure()) return;
  }
}

/// Holds the statistics, of values that are constant but for what is in the sample, to their bounds. So roundings have
/// one sign, and errors add up.
void expect_not_misled(const Shape& shape, Layout layout, const std::function<bool(std::size_t value)>& sampled) {
  Call call(shape, layout, kNormal, 12);
  std::vector<std::size_t> seen(call.channels);
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const auto channel = static_cast<float>(c);
    call.x[i] = 1 / (channel + 3) + (sampled(seen[c]++) ? 1.1e3F + 0.37F * channel : 0);
  }
  ASSERT_TRUE(call.run().ok());
  const auto roundings = StatisticsRoundings::of<float>(static_cast<double>(seen[0]), kMostShifted);
  const auto want = reference::batch_norm_forward(widen(call.x), call.shape, call.layout, widen(call.gamma),
                                                  widen(call.beta), {}, false, call.options.epsilon);
  for (std::size_t c = 0; c < call.channels; ++c) {
    const double variance = want.variance[c], sigma = std::sqrt(variance);
    ASSERT_NEAR(call.mean[c], want.mean[c], roundings.mean * kUnit<float> * sigma) << "channel " << c;
    ASSERT_NEAR(call.variance[c], variance, roundings.variance * kUnit<float> * variance) << "channel " << c;
  }
}

TEST(BatchNorm, ASampleThatMisleadsCostsNoDigits) {
  constexpr std::size_t rows = 700, inner = 2048;
  for (const std::size_t step : {rows / 8, rows}) {  // all rows that are sampled, and the first alone
    SCOPED_TRACE(step);
    expect_not_misled({rows, 320}, Layout::channels_last, [&](std::size_t row) { return row % step == 0; });
  }
  for (const std::size_t count : {std::size_t{32}, std::size_t{1}}) {  // of a plane all that is sampled, or one
    SCOPED_TRACE(count);
    expect_not_misled({3, 50, inner}, Layout::channels_first, [&](std::size_t i) { return i % inner < count; });
  }
}

TEST(BatchNorm, GradientsOfAConstantLossVanish) {
  // dy the same everywhere in a channel: the norm's output cannot move along it, so dx = 0 up to 8 roundings of its
  // parts: g, its mean, and |x̂| + 1 times the means of |g·x̂|, at most |g|, and of |g|.
  Call call({400, 19}, Layout::channels_last, kNormal);
  constexpr double g = 1e6;
  std::fill(call.dy.begin(), call.dy.end(), static_cast<float>(g));
  ASSERT_TRUE(call.run().ok());
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double inverse = 1 / std::sqrt(call.variance[c] + call.options.epsilon);
    const double x_hat = std::abs(to_double(call.x[i]) - call.mean[c]) * inverse;
    const double parts = std::abs(to_double(call.gamma[c])) * inverse * g * (2 + 2 * (x_hat + 1));
    ASSERT_NEAR(to_double(call.dx[i]), 0, 8 * kUnit<float> * parts) << i;
  }
}

TEST(BatchNorm, ASlopeThatFloatsCannotHoldIsKeptInDouble) {
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    Call call(layout == Layout::channels_last ? Shape{40, 6} : Shape{8, 6, 5}, layout, 0);
    make_steep(call, 3);
    ASSERT_TRUE(call.run().ok());
    expect_steep(call, 3);
    expect_right(call, layout == Layout::channels_last ? "channels-last" : "channels-first");
  }
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
  EXPECT_TRUE(infer(empty, {0, 0}, {1, 1}).ok());
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
  const Status status = infer(call, {0, 0, 0}, {1, -2, 1});
  EXPECT_NE(status.message().find("variance[1] is -2"), std::string::npos) << status.message();
  alignas(64) static std::byte memory[64];
  const Status small = infer(call, {0, 0, 0}, {1, 2, 1}, {1, memory, 64});
  EXPECT_NE(small.message().find("workspace has 64 bytes"), std::string::npos) << small.message();
}

TEST(BatchNorm, ACallersWorkspaceChangesNothing) {
  for (const auto& shape : cases::shapes()) {
    Call own(shape.shape, shape.layout, kNormal);
    ASSERT_TRUE(own.run().ok());
    Call given = own;
    const std::size_t bytes = batch_norm_workspace_bytes<float>(shape.shape, shape.layout);
    const GuardedMemory workspace(bytes);
    ASSERT_TRUE(given.run({1, workspace.data(), bytes}).ok());
    EXPECT_EQ(given.fingerprint(), own.fingerprint()) << describe(shape.shape, shape.layout);
  }
}

}  // namespace
}  // namespace equinorm
