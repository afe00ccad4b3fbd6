// Batch norm over samples of unequal length.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/length_cases.hpp"
#include "ops/batch_norm/call_testing.hpp"
#include "parallel/executors.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

/// The valid values alone, as a matrix without padding.
template <class T>
Call<T> dense_call(const cases::LengthCase& c, double mean_of_x, double sigma_of_x = 1) {
  const Padding padding{c.lengths, Layout::channels_last, c.channels, c.longest};
  Call<T> call({padding.values(), c.channels}, Layout::channels_last, mean_of_x, sigma_of_x);
  call.add = true;
  call.options.activation = Activation::relu;
  return call;
}

template <class T>
class BatchNormLengths : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE(BatchNormLengths, ElementTypes, ElementNames);

/// Means of x; the last goes the careful way.
template <class T>
std::vector<double> means() {
  return std::is_same_v<T, float> ? std::vector<double>{0, 1e3, 3e20} : std::vector<double>{0, 1e3};
}
double sigma(double mean) {
  return mean > 1e10 ? mean / 3 : 1;
}

constexpr Layout kLayouts[] = {Layout::channels_last, Layout::channels_first};

std::string describe(const cases::LengthCase& c, Layout layout) {
  return (layout == Layout::channels_last ? "channels-last, " : "channels-first, ") + std::string(c.why);
}

TYPED_TEST(BatchNormLengths, MatchTheReferenceOnTheValidValuesAlone) {
  using T = TypeParam;
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      for (const Activation activation : kActivations) {
        for (const double mean : means<T>()) {
          if (c.longest > 1000 && activation != Activation::relu) continue;  // for the time it takes
          const Padding padding{c.lengths, layout, c.channels, c.longest + 2};
          Call<T> dense = dense_call<T>(c, mean, sigma(mean));
          dense.options.activation = activation;
          dense.add = activation != Activation::none;
          Call<T> call = pad(dense, padding);
          const Status status = call.run({2});
          ASSERT_TRUE(status.ok()) << status.message();
          expect_right(without_padding(call, dense, padding), describe(c, layout));
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(BatchNormLengths, TheAmountOfPaddingChangesNoBitOnAnyTargetOrThread) {
  SeenBits seen;
  using T = TypeParam;
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      for (const double mean : means<T>()) {
        if (c.longest > 1000 && mean > 0) continue;
        Call<T> dense = dense_call<T>(c, mean, sigma(mean));
        if (mean > 0) dense.options.activation = Activation::silu;
        std::optional<std::uint64_t> first;
        for (const std::string& target : simd_targets()) {
          ASSERT_TRUE(set_simd_target(target).ok());
          for (const std::size_t more : {0U, 1U, 60U}) {
            for (const int threads : {1, 3}) {
              const Padding padding{c.lengths, layout, c.channels, c.longest + more};
              Call<T> call = pad(dense, padding);
              ASSERT_TRUE(call.run({threads}).ok());
              const std::uint64_t bits = without_padding(call, dense, padding).fingerprint();
              if (!first) first = seen.add(dense.fingerprint_of_inputs(), bits);
              ASSERT_EQ(bits, *first) << describe(c, layout) << " " << more << " " << target << " " << threads;
            }
          }
        }
      }
    }
  }
}

/// With so much padding that all of them are cut into tasks.
constexpr std::size_t kPaddingForThreads = 60;

TYPED_TEST(BatchNormLengths, EveryNumberOfThreadsAndTheCallersGiveTheSameBits) {
  SeenBits seen;
  using T = TypeParam;
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      const Padding padding{c.lengths, layout, c.channels, c.longest + kPaddingForThreads};
      Call<T> own = pad(dense_call<T>(c, 0), padding);
      expect_the_same_bits(own, {1, 2, 3, 4, 5, 6, 7, 8}, seen, describe(c, layout));
      if (testing::Test::HasFatalFailure()) return;
      ASSERT_TRUE(own.run().ok());
      for_each_executor([&](CountingExecutor& executor) {
        Call<T> call = own;
        ASSERT_TRUE(call.run({.threads = 3, .executor = &executor}).ok());
        EXPECT_EQ(call.fingerprint(), own.fingerprint()) << describe(c, layout);
        if (call.x.size() > kSmall) {
          EXPECT_GT(executor.tasks_run, 0U) << describe(c, layout);
        }
      });
    }
  }
}

TYPED_TEST(BatchNormLengths, OutputsOverInputsAndAtAnyAddressHaveTheSameBits) {
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      for (const bool add : {false, true}) {
        const Padding padding{c.lengths, layout, c.channels, c.longest + 1};
        Call<TypeParam> call = pad(dense_call<TypeParam>(c, 0), padding);
        call.add = add;
        expect_the_same_in_place(call, describe(c, layout));
        expect_nothing_beyond(call, describe(c, layout));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(BatchNormLengths, InferenceIsThatOfTheValidValuesBitForBit) {
  using T = TypeParam;
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      const Padding padding{c.lengths, layout, c.channels, c.longest + 3};
      Call<T> dense = dense_call<T>(c, 0), call = pad(dense, padding);
      const std::vector<Parameter<T>> mean(c.channels, Parameter<T>{0.3F}), variance(c.channels, Parameter<T>{2});
      for (Call<T>* of : {&dense, &call}) {
        ASSERT_TRUE(batch_norm_inference<T>(of->options, of->in(of->x), of->affine(), mean.data(), variance.data(),
                                            of->in(of->residual), of->view(of->y.data()))
                        .ok());
      }
      ASSERT_TRUE(padding.gather(call.y) == dense.y) << describe(c, layout);
    }
  }
}

TYPED_TEST(BatchNormLengths, ACallersWorkspaceChangesNothing) {
  using T = TypeParam;
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      const Padding padding{c.lengths, layout, c.channels, c.longest + 1};
      Call<T> own = pad(dense_call<T>(c, 0), padding), given = own;
      ASSERT_TRUE(own.run().ok());
      const std::size_t bytes = batch_norm_workspace_bytes<T>(own.shape, layout, own.options);
      const GuardedMemory workspace(bytes);
      ASSERT_TRUE(given.run({1, workspace.data(), bytes}).ok());
      ASSERT_EQ(given.fingerprint(), own.fingerprint()) << describe(c, layout);
    }
  }
}

TYPED_TEST(BatchNormLengths, BackwardOverAResidualIsTheSameHoweverItIsAsked) {
  using T = TypeParam;
  for (const auto& c : cases::lengths()) {
    for (const Layout layout : kLayouts) {
      for (const double mean : means<T>()) {
        if (c.longest > 1000 && mean > 0) continue;
        const Padding padding{c.lengths, layout, c.channels, c.longest + 2};
        expect_backward_is_the_same_however_asked(pad(dense_call<T>(c, mean, sigma(mean)), padding),
                                                  describe(c, layout));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

const cases::LengthCase kShort = {{5, 0, 9, 1, 7, 9, 3}, 4, 9, ""};

TEST(BatchNormLengthsPrecision, ASlopeThatFloatsCannotHoldIsKeptInDouble) {
  for (const Layout layout : kLayouts) {
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    Call<float> dense = dense_call<float>(kShort, 0);
    dense.options.activation = Activation::none;
    dense.add = false;
    make_steep(dense, 1);
    Call<float> call = pad(dense, padding);
    ASSERT_TRUE(call.run({2}).ok());
    const Call<float> valid = without_padding(call, dense, padding);
    expect_steep(valid, 1);
    expect_right(valid, describe(kShort, layout));
  }
}

TEST(BatchNormLengthsArguments, AreNamed) {
  for (const Layout layout : kLayouts) {
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    const std::vector<std::size_t> long_lengths = {5, 0, 12, 1, 7, 13, 3};
    Call<float> call = pad(dense_call<float>(kShort, 0), padding);
    call.options.lengths = long_lengths.data();
    const Status status = call.run();
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(status.message().find("lengths[2] is 12; expected at most the 11 positions"), std::string::npos)
        << status.message();
    EXPECT_EQ(call.y, std::vector<float>(call.y.size(), -7.0F)) << "nothing is written";
  }
}

TEST(BatchNormLengthsArguments, AllPaddingIsTooFewValuesAndHasNoGradient) {
  for (const Layout layout : kLayouts) {
    const std::vector<std::size_t> none(kShort.lengths.size(), 0);
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    Call<float> call = pad(dense_call<float>(kShort, 0), padding);
    call.options.lengths = none.data();
    call.options.single_value = SingleValuePolicy::allow;
    EXPECT_EQ(call.run().code(), StatusCode::too_few_values);
    ASSERT_TRUE(batch_norm_backward<float>(call.options, call.in(call.x), call.in(call.y), {}, call.in(call.dy), {},
                                           call.statistics(), call.view(call.dx.data()),
                                           call.view(call.dresidual.data()), call.gradients())
                    .ok());
    EXPECT_EQ(call.dx, std::vector<float>(call.dx.size(), 0.0F));
    EXPECT_EQ(call.dresidual, call.dx);
    EXPECT_EQ(call.dgamma, std::vector<float>(4, 0.0F));
    EXPECT_EQ(call.dbeta, call.dgamma);
    const std::vector<float> zeros(4, 0.0F), ones(4, 1.0F);
    ASSERT_TRUE(batch_norm_inference<float>(call.options, call.in(call.x), {}, zeros.data(), ones.data(), {},
                                            call.view(call.y.data()))
                    .ok());
    EXPECT_EQ(call.y, call.dx);
  }
}

TEST(BatchNormLengthsArguments, OneValidValueIsOneValue) {
  for (const Layout layout : kLayouts) {
    const cases::LengthCase one = {{0, 1, 0}, 3, 1, ""};
    const Padding padding{one.lengths, layout, 3, 5};
    const Call<float> dense = dense_call<float>(one, 0);
    Call<float> call = pad(dense, padding);
    EXPECT_EQ(call.run().code(), StatusCode::too_few_values);
    call.options.single_value = SingleValuePolicy::allow;
    ASSERT_TRUE(call.run().ok());
    const std::vector<float> y = padding.gather(call.y);
    for (std::size_t c = 0; c < 3; ++c) {
      EXPECT_EQ(call.mean[c], static_cast<double>(dense.x[c]));
      EXPECT_EQ(call.variance[c], 0);
      EXPECT_EQ(y[c], std::max(dense.beta[c] + dense.residual[c], 0.0F));
    }
    EXPECT_EQ(padding.gather(call.dx), std::vector<float>(3, 0.0F));
  }
}

TEST(BatchNormLengthsArguments, RunningStatisticsCountTheValidValuesAlone) {
  for (const Layout layout : kLayouts) {
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    Call<float> dense = dense_call<float>(kShort, 0), padded = pad(dense, padding);
    std::vector<float> means[2] = {std::vector<float>(4), std::vector<float>(4)}, variances[2] = {means[0], means[0]};
    int which = 0;
    for (Call<float>* call : {&padded, &dense}) {
      RunningStatistics<float> running{means[which].data(), variances[which].data(), 0, 0, RunningOptions::torch(1.0)};
      ASSERT_TRUE(batch_norm_forward<float>(call->options, call->in(call->x), {}, {}, call->view(call->y.data()),
                                            call->statistics(), &running)
                      .ok());
      ++which;
    }
    for (std::size_t c = 0; c < 4; ++c) {
      EXPECT_NEAR(static_cast<double>(means[0][c]), static_cast<double>(means[1][c]), 1e-6);
      EXPECT_NEAR(static_cast<double>(variances[0][c]), static_cast<double>(variances[1][c]), 1e-6)
          << "m/(m−1) of 34 values";
    }
  }
}

}  // namespace
}  // namespace equinorm
