// Group norm over samples of unequal length.
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/length_cases.hpp"
#include "equinorm/instance_norm.hpp"
#include "ops/group_norm/call_testing.hpp"
#include "parallel/executors.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

/// The valid values alone, [values, channels]: what a padded call is made of.
template <class T>
Call<T> dense_call(const cases::LengthCase& c, std::size_t groups, const cases::ValueCase& values) {
  const Padding padding{c.lengths, Layout::channels_last, c.channels, c.longest};
  Call<T> call({{padding.values(), c.channels}, Layout::channels_last, groups, c.why}, values);
  call.mean = call.variance = std::vector<double>(c.lengths.size() * groups, -7);
  call.add = true;
  call.options.activation = Activation::relu;
  return call;
}

/// What x is; the last goes the careful way.
template <class T>
std::vector<cases::ValueCase> values() {
  std::vector<cases::ValueCase> table = {kNormal, {"mean_1e3", 1e3, 1, ""}};
  if (std::is_same_v<T, float>) table.push_back({"huge", 3e20, 1e20, ""});
  return table;
}

constexpr Layout kLayouts[] = {Layout::channels_last, Layout::channels_first};

/// Calls body(case, groups, layout, description) for one group, groups of two channels, and one for every channel.
template <class Body>
void for_each_case(const Body& body) {
  for (const auto& c : cases::lengths()) {
    for (const std::size_t groups : std::set{std::size_t{1}, (c.channels + 1) / 2, c.channels}) {
      for (const Layout layout : kLayouts) {
        body(c, groups, layout,
             (layout == Layout::channels_last ? "channels-last, " : "channels-first, ") + std::to_string(groups) +
                 " groups, " + c.why);
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

template <class T>
class GroupNormLengths : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE(GroupNormLengths, ElementTypes, ElementNames);

TYPED_TEST(GroupNormLengths, MatchTheReferenceOnTheValidValuesAlone) {
  using T = TypeParam;
  for_each_case([](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    for (const cases::ValueCase& value : values<T>()) {
      for (const Activation activation : kActivations) {
        if (c.longest > 1000 && activation != Activation::relu) continue;  // for the time it takes
        const Padding padding{c.lengths, layout, c.channels, c.longest + 2};
        Call<T> dense = dense_call<T>(c, groups, value);
        dense.options.activation = activation;
        dense.add = activation != Activation::none;
        Call<T> call = pad(dense, padding);
        const Status status = call.run({2});
        ASSERT_TRUE(status.ok()) << status.message();
        expect_right(call, what + ", " + value.name);
      }
    }
  });
}

TYPED_TEST(GroupNormLengths, TheAmountOfPaddingChangesNoBitOnAnyTargetOrThread) {
  SeenBits seen;
  using T = TypeParam;
  for_each_case([&](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    for (const cases::ValueCase& value : values<T>()) {
      if (c.longest > 1000 && value.mean > 0) continue;
      Call<T> dense = dense_call<T>(c, groups, value);
      if (value.mean > 0) dense.options.activation = Activation::silu;
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
            ASSERT_EQ(bits, *first) << what << " " << more << " " << target << " " << threads;
          }
        }
      }
    }
  });
}

/// With so much padding that all of them are cut into tasks.
constexpr std::size_t kPaddingForThreads = 60;

TYPED_TEST(GroupNormLengths, EveryNumberOfThreadsAndTheCallersGiveTheSameBits) {
  SeenBits seen;
  using T = TypeParam;
  for_each_case([&](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    const Padding padding{c.lengths, layout, c.channels, c.longest + kPaddingForThreads};
    Call<T> own = pad(dense_call<T>(c, groups, kNormal), padding);
    expect_the_same_bits(own, {1, 2, 3, 4, 5, 6, 7, 8}, seen, what);
    ASSERT_TRUE(own.run().ok());
    for_each_executor([&](CountingExecutor& executor) {
      Call<T> call = own;
      ASSERT_TRUE(call.run({.threads = 3, .executor = &executor}).ok());
      EXPECT_EQ(call.fingerprint(), own.fingerprint()) << what;
      if (call.x.size() > kSmall) {
        EXPECT_GT(executor.tasks_run, 0U) << what;
      }
    });
  });
}

TYPED_TEST(GroupNormLengths, OutputsOverInputsAndAtAnyAddressHaveTheSameBits) {
  using T = TypeParam;
  for_each_case([](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    for (const bool add : {false, true}) {
      const Padding padding{c.lengths, layout, c.channels, c.longest + 1};
      Call<T> call = pad(dense_call<T>(c, groups, kNormal), padding);
      call.add = add;
      expect_the_same_in_place(call, what);
      expect_nothing_beyond(call, what);
    }
  });
}

TYPED_TEST(GroupNormLengths, ASampleDoesNotDependOnItsNeighbours) {
  using T = TypeParam;
  for_each_case([](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    const Padding padding{c.lengths, layout, c.channels, c.longest};
    Call<T> batch = pad(dense_call<T>(c, groups, kNormal), padding);
    ASSERT_TRUE(batch.run().ok());
    const auto size = static_cast<std::ptrdiff_t>(c.channels * c.longest);
    for (std::size_t n = 0; n < c.lengths.size(); n += 3) {
      Call<T> one = batch;
      one.shape[0] = 1;
      one.options.lengths += n;
      const auto offset = static_cast<std::ptrdiff_t>(n) * size;
      for (const auto tensor : {&Call<T>::x, &Call<T>::residual, &Call<T>::dy, &Call<T>::y, &Call<T>::dx}) {
        (one.*tensor).assign((batch.*tensor).begin() + offset, (batch.*tensor).begin() + offset + size);
      }
      const std::vector<T> y = one.y, dx = one.dx;
      ASSERT_TRUE(one.run().ok());
      ASSERT_TRUE(one.y == y && one.dx == dx) << what << " " << n;
    }
  });
}

TYPED_TEST(GroupNormLengths, ACallersWorkspaceChangesNothing) {
  using T = TypeParam;
  for_each_case([](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    const Padding padding{c.lengths, layout, c.channels, c.longest + 1};
    Call<T> own = pad(dense_call<T>(c, groups, kNormal), padding), given = own;
    ASSERT_TRUE(own.run().ok());
    const std::size_t bytes = group_norm_workspace_bytes<T>(own.options, own.shape, layout);
    const GuardedMemory workspace(bytes);
    ASSERT_TRUE(given.run({1, workspace.data(), bytes}).ok());
    ASSERT_EQ(given.fingerprint(), own.fingerprint()) << what;
  });
}

TYPED_TEST(GroupNormLengths, BackwardOverAResidualIsTheSameHoweverItIsAsked) {
  using T = TypeParam;
  for_each_case([](const cases::LengthCase& c, std::size_t groups, Layout layout, const std::string& what) {
    for (const cases::ValueCase& value : values<T>()) {
      if (c.longest > 1000 && value.mean > 0) continue;
      const Padding padding{c.lengths, layout, c.channels, c.longest + 2};
      expect_backward_is_the_same_however_asked(pad(dense_call<T>(c, groups, value), padding), what);
    }
  });
}

const cases::LengthCase kShort = {{5, 0, 9, 1, 7, 9, 3}, 4, 9, ""};

TEST(GroupNormLengthsArguments, AreNamed) {
  for (const Layout layout : kLayouts) {
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    const std::vector<std::size_t> long_lengths = {5, 0, 12, 1, 7, 13, 3};
    Call<float> call = pad(dense_call<float>(kShort, 2, kNormal), padding);
    call.options.lengths = long_lengths.data();
    const Status status = call.run();
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(status.message().find("lengths[2] is 12; expected at most the 11 positions"), std::string::npos)
        << status.message();
    EXPECT_EQ(call.y, std::vector<float>(call.y.size(), -7.0F)) << "nothing is written";
  }
}

TEST(GroupNormLengthsArguments, ASampleOfPaddingAloneHasZerosForStatisticsAndNoGradient) {
  for (const Layout layout : kLayouts) {
    const std::vector<std::size_t> none(kShort.lengths.size(), 0);
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    Call<float> call = pad(dense_call<float>(kShort, 2, kNormal), padding);
    call.options.lengths = none.data();
    ASSERT_TRUE(call.run().ok());
    EXPECT_EQ(call.mean, std::vector<double>(call.mean.size(), 0.0));
    EXPECT_EQ(call.variance, call.mean);
    EXPECT_EQ(call.y, std::vector<float>(call.y.size(), 0.0F));
    EXPECT_EQ(call.dx, call.y);
    EXPECT_EQ(call.dresidual, call.y);
    EXPECT_EQ(call.dgamma, std::vector<float>(4, 0.0F));
    EXPECT_EQ(call.dbeta, call.dgamma);
    ASSERT_TRUE(group_norm_forward<float>(call.options, call.in(call.x), {}, {}, call.view(call.dx.data())).ok())
        << "without statistics";
  }
}

TEST(GroupNormLengthsArguments, InstanceNormHasThem) {
  for (const Layout layout : kLayouts) {
    const Padding padding{kShort.lengths, layout, kShort.channels, 11};
    Call<float> group = pad(dense_call<float>(kShort, kShort.channels, kNormal), padding), instance = group;
    ASSERT_TRUE(group.run().ok());
    InstanceNormOptions options;
    options.activation = Activation::relu;
    options.lengths = padding.lengths.data();
    EXPECT_EQ(instance_norm_workspace_bytes<float>(options, group.shape, layout),
              group_norm_workspace_bytes<float>(group.options, group.shape, layout));
    ASSERT_TRUE(instance_norm_forward<float>(options, instance.in(instance.x), instance.affine(),
                                             instance.in(instance.residual), instance.view(instance.y.data()),
                                             instance.statistics())
                    .ok());
    ASSERT_TRUE(instance_norm_backward<float>(options, instance.in(instance.x), instance.in(instance.y), {},
                                              instance.in(instance.dy), instance.affine(), instance.statistics(),
                                              instance.view(instance.dx.data()),
                                              instance.view(instance.dresidual.data()), instance.gradients())
                    .ok());
    EXPECT_EQ(instance.fingerprint(), group.fingerprint());
  }
}

}  // namespace
}  // namespace equinorm
