#include "equinorm/group_norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "equinorm/instance_norm.hpp"
#include "ops/group_norm/call_testing.hpp"
#include "ops/group_norm/cases.hpp"
#include "ops/group_norm/reference.hpp"
#include "parallel/executors.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

std::string describe(const cases::GroupCase& c) {
  return testing_tools::describe(c.shape, c.layout) + ", groups " + std::to_string(c.groups) + " (" + c.why + ")";
}

template <class T>
class GroupNorm : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE(GroupNorm, ElementTypes, ElementNames);

TYPED_TEST(GroupNorm, MatchesTheReferenceOnEveryShapeAndValue) {
  using T = TypeParam;
  for (const auto& shape : cases::group_shapes()) {
    for (const auto& value : cases::hostile_values<T>()) {
      std::optional<Call<T>> start;
      for (const Activation activation : kActivations) {
        for (const bool add : {false, true}) {
          if (!is_tried<T>(value, shape.shape.elements(), activation, add)) continue;
          if (!start) start.emplace(shape, value);
          Call<T> call = *start;
          call.options.activation = activation;
          call.add = add;
          const std::string what = describe(shape) + ", " + value.name + (add ? ", add" : "") + ", activation " +
                                   std::to_string(static_cast<int>(activation));
          const Status status = call.run();
          ASSERT_TRUE(status.ok()) << what << ": " << status.message();
          expect_right(call, what, StatisticsRoundings::excess(value));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(GroupNorm, OfNothingIsNothingAndItsGradientsAreZero) {
  using T = TypeParam;
  for (const cases::GroupCase& shape : {cases::GroupCase{{0, 2, 6}, Layout::channels_last, 3, ""},
                                        cases::GroupCase{{4, 0, 6}, Layout::channels_last, 6, ""},
                                        cases::GroupCase{{0, 6, 2}, Layout::channels_first, 3, ""},
                                        cases::GroupCase{{4, 6, 0}, Layout::channels_first, 1, ""}}) {
    Call<T> call(shape, kNormal);
    EXPECT_TRUE(call.run().ok()) << describe(shape);
    EXPECT_EQ(call.dgamma, std::vector<Parameter<T>>(6, 0)) << "sums over nothing";
    EXPECT_EQ(call.dbeta, call.dgamma);
  }
}

TYPED_TEST(GroupNorm, GivesTheSameBitsOnEveryTargetAndNumberOfThreads) {
  SeenBits seen;
  for (const auto& shape : cases::group_shapes()) {
    const bool large = shape.shape.elements() > kSmall;
    for (const auto& value : cases::hostile_values<TypeParam>()) {
      const std::string name = value.name;
      if (large && name != "mean_1e3") continue;
      Call<TypeParam> call(shape, value, 5);
      const std::string what = describe(shape) + ", " + name;
      call.options.activation = Activation::relu;
      if (large) {
        expect_the_same_bits(call, {1, 2, 3, 4, 5, 6, 7, 8}, seen, what);
      } else {
        expect_the_same_bits(call, {1}, seen, what);
      }
      for (const Activation activation : {Activation::relu, Activation::silu}) {
        if (large ? activation == Activation::relu : name != "normal") continue;
        call.add = true;
        call.options.activation = activation;
        expect_the_same_bits(call, {large ? 3 : 1}, seen, what + ", add");
      }
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(GroupNorm, ASampleDoesNotDependOnItsNeighbours) {
  using T = TypeParam;
  for (const auto& shape : cases::group_shapes()) {
    Call<T> batch(shape, kNormal);
    ASSERT_TRUE(batch.forward().ok());
    ASSERT_TRUE(batch.backward().ok());
    cases::GroupCase alone = shape;
    alone.shape[0] = 1;
    const auto size = static_cast<std::ptrdiff_t>(alone.shape.elements());
    for (std::ptrdiff_t n = 0; n < static_cast<std::ptrdiff_t>(shape.shape[0]); n += 3) {
      Call<T> one(alone, kNormal);
      one.gamma = batch.gamma;
      one.beta = batch.beta;
      one.x.assign(batch.x.begin() + n * size, batch.x.begin() + (n + 1) * size);
      one.dy.assign(batch.dy.begin() + n * size, batch.dy.begin() + (n + 1) * size);
      ASSERT_TRUE(one.forward().ok());
      ASSERT_TRUE(one.backward().ok());
      ASSERT_TRUE(std::equal(one.y.begin(), one.y.end(), batch.y.begin() + n * size)) << describe(shape) << " " << n;
      ASSERT_TRUE(std::equal(one.dx.begin(), one.dx.end(), batch.dx.begin() + n * size)) << describe(shape) << " " << n;
    }
  }
}

/// Large samples are cut into parts, whether these are dealt to threads (one sample) or whole samples are (many).
TEST(GroupNormLargeSamples, DoNotDependOnTheirNumber) {
  for (const cases::GroupCase& shape : {cases::GroupCase{{33, 256, 256, 2}, Layout::channels_last, 1, "columns"},
                                        cases::GroupCase{{33, 2, 256, 256}, Layout::channels_first, 1, "planes"}}) {
    Call<double> batch(shape, {"mean_3", 3, 1, ""});
    cases::GroupCase alone = shape;
    alone.shape[0] = 1;
    Call<double> one(alone, {"mean_3", 3, 1, ""});
    one.gamma = batch.gamma;
    one.beta = batch.beta;
    const auto size = static_cast<std::ptrdiff_t>(alone.shape.elements());
    for (const auto tensor : {&Call<double>::x, &Call<double>::dy}) {
      (one.*tensor).assign((batch.*tensor).end() - size, (batch.*tensor).end());
    }
    for (Call<double>* call : {&batch, &one}) {
      ASSERT_TRUE(call->forward({2}).ok());
      ASSERT_TRUE(call->backward({2}).ok());
    }
    EXPECT_EQ(one.mean.back(), batch.mean.back()) << describe(shape);
    EXPECT_EQ(one.variance.back(), batch.variance.back()) << describe(shape);
    EXPECT_TRUE(std::equal(one.y.begin(), one.y.end(), batch.y.end() - size)) << describe(shape);
    EXPECT_TRUE(std::equal(one.dx.begin(), one.dx.end(), batch.dx.end() - size)) << describe(shape);
  }
}

TYPED_TEST(GroupNorm, OutputsOverInputsHaveTheSameBits) {
  for (const auto& shape : cases::group_shapes()) {
    for (const Activation activation : kActivations) {
      for (const bool add : {false, true}) {
        if (shape.shape.elements() > kSmall && (activation != Activation::relu || !add)) continue;
        Call<TypeParam> call(shape, kNormal);
        call.add = add;
        call.options.activation = activation;
        expect_the_same_in_place(call, describe(shape));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
  for (const cases::GroupCase& shape : {cases::GroupCase{{3, 20, 12}, Layout::channels_last, 3, "the careful path"},
                                        cases::GroupCase{{3, 12, 20}, Layout::channels_first, 12, "careful, too"}}) {
    for (const bool add : {false, true}) {
      Call<TypeParam> call(shape, {"huge", 0, 1e36, ""});
      call.add = add;
      call.options.activation = Activation::gelu;
      expect_the_same_in_place(call, describe(shape));
    }
  }
}

TYPED_TEST(GroupNorm, NothingIsReadOrWrittenBeyondTheTensorsWhateverTheirAlignment) {
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    for (const auto& shape : cases::group_shapes()) {
      if (shape.shape.elements() > (target == simd_targets().front() ? kLarge : kSmall)) continue;
      for (const bool add : {false, true}) {
        Call<TypeParam> call(shape, kNormal);
        call.add = add;
        call.options.activation = add ? Activation::relu : Activation::silu;
        expect_nothing_beyond(call, describe(shape) + ", " + target);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(GroupNorm, TheCallersThreadsGiveTheSameBits) {
  for (const auto& shape : cases::group_shapes()) {
    Call<TypeParam> own(shape, kNormal);
    own.add = true;
    ASSERT_TRUE(own.run({3}).ok());
    for_each_executor([&](CountingExecutor& executor) {
      Call<TypeParam> call = own;
      ASSERT_TRUE(call.run({.threads = 3, .executor = &executor}).ok());
      EXPECT_EQ(call.fingerprint(), own.fingerprint()) << describe(shape);
      if (shape.shape.elements() > kLarge) {
        EXPECT_GT(executor.tasks_run, 0U) << describe(shape);
      }
    });
  }
}

TYPED_TEST(GroupNorm, ACallersWorkspaceChangesNothing) {
  using T = TypeParam;
  for (cases::GroupCase shape : cases::group_shapes()) {
    for (const std::size_t samples : {shape.shape[0], std::size_t{1}}) {  // one task uses the end of the workspace, too
      shape.shape[0] = samples;
      Call<T> own(shape, kNormal);
      ASSERT_TRUE(own.run().ok());
      Call<T> given = own;
      const std::size_t bytes = group_norm_workspace_bytes<T>(given.options, given.shape, given.layout);
      const GuardedMemory workspace(bytes);
      ASSERT_TRUE(given.run({1, workspace.data(), bytes}).ok());
      EXPECT_EQ(given.fingerprint(), own.fingerprint()) << describe(shape);
    }
  }
}

TYPED_TEST(GroupNorm, AValueThatIsNotFiniteStaysInItsGroup) {
  for (const auto& shape : cases::group_shapes()) {
    for (const Activation activation : {Activation::none, Activation::relu, Activation::silu}) {
      if (shape.shape.elements() > kLarge && activation != Activation::none) continue;
      Call<TypeParam> call(shape, kNormal);
      call.add = activation == Activation::relu;
      call.options.activation = activation;
      expect_poison_to_stay(call, describe(shape) + ", activation " + std::to_string(static_cast<int>(activation)));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(GroupNorm, GradientsHaveNeitherMeanNorProductWithTheNormalized) {
  for (const auto& shape : cases::group_shapes()) {
    if (shape.shape.elements() > kLarge) continue;
    Call<TypeParam> call(shape, {"mean_3", 3, 1, ""});
    for (TypeParam& dy : call.dy) dy = to_element<TypeParam>(to_double(dy) + 0.5);  // a mean, to be taken out
    ASSERT_TRUE(call.run().ok());
    expect_gradient_to_be_orthogonal(call, describe(shape));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(InstanceNorm, IsAGroupForEveryChannel) {
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const cases::GroupCase shape{layout == Layout::channels_last ? Shape{3, 5, 6, 8} : Shape{3, 8, 5, 6}, layout, 8,
                                 ""};
    Call<float> group(shape, kNormal), instance(shape, kNormal);
    ASSERT_TRUE(group.forward().ok());
    ASSERT_TRUE(group.backward().ok());
    ASSERT_TRUE(instance_norm_forward<float>({}, instance.in(instance.x), instance.affine(), {},
                                             instance.view(instance.y.data()), instance.statistics())
                    .ok());
    ASSERT_TRUE(instance_norm_backward<float>({}, instance.in(instance.x), {}, {}, instance.in(instance.dy),
                                              instance.affine(), instance.statistics(),
                                              instance.view(instance.dx.data()), {}, instance.gradients())
                    .ok());
    EXPECT_EQ(instance.fingerprint(), group.fingerprint());
  }
  const float x[2] = {1, 2};
  float y[2];
  EXPECT_FALSE(instance_norm_forward<float>({}, {x, Shape{2}}, {}, {}, {y, Shape{2}}).ok()) << "rank 1";
}

TEST(GroupNormGradients, AgreeWithFiniteDifferences) {
  for (const cases::GroupCase& shape : {cases::GroupCase{{2, 3, 4}, Layout::channels_last, 2, ""},
                                        cases::GroupCase{{2, 4, 3}, Layout::channels_first, 2, ""},
                                        cases::GroupCase{{2, 4, 3}, Layout::channels_first, 4, "instance norm"}}) {
    for (const std::vector<std::size_t>& lengths : {std::vector<std::size_t>{}, {3, 2}, {0, 3}}) {
      for (const Activation activation : kActivations) {
        for (const bool add : {false, true}) {
          Call<double> call(shape, kNormal);
          call.add = add;
          call.options.activation = activation;
          call.options.lengths = lengths.empty() ? nullptr : lengths.data();
          expect_finite_differences_to_agree(
              call,
              [&](const auto& x, const auto& gamma, const auto& beta, const auto& residual) {
                return reference::group_norm_forward(x, shape.shape, shape.layout, shape.groups, gamma, beta,
                                                     add ? residual : std::vector<double>{}, call.options.epsilon,
                                                     lengths)
                    .z;
              },
              describe(shape) + ", activation " + std::to_string(static_cast<int>(activation)) + (add ? ", add" : ""));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(GroupNormArguments, AreNamedAndNothingIsWritten) {
  const auto fails = [](const char* part, const auto& spoil) {
    Call<float> call({{4, 2, 6}, Layout::channels_last, 3, ""}, kNormal);
    TensorView<const float> x = call.in(call.x);
    TensorView<float> y = call.view(call.y.data());
    Statistics statistics{call.mean.data(), call.variance.data()};
    spoil(call.options, x, y, statistics);
    const Status status = group_norm_forward<float>(call.options, x, {}, {}, y, statistics);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << part;
    EXPECT_NE(status.message().find("[group_norm_forward]"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(call.y, std::vector<float>(48, -7.0F)) << part;
  };
  fails("groups is 4; expected a divisor of the 6 channels", [](auto& options, auto&...) { options.groups = 4; });
  fails("groups is 0", [](auto& options, auto&...) { options.groups = 0; });
  fails("epsilon is 0", [](auto& options, auto&...) { options.epsilon = 0; });
  fails("x has rank 1", [](auto&, auto& x, auto&...) { x.shape = {48}; });
  fails("y has shape [4, 6, 2]", [](auto&, auto&, auto& y, auto&) { y.shape = {4, 6, 2}; });
  fails("statistics.mean and variance", [](auto&, auto&, auto&, auto& statistics) { statistics.mean = nullptr; });
}

TYPED_TEST(GroupNorm, OutputsAroundTheCachesHaveTheSameBits) {
  constexpr std::size_t samples = (std::size_t{8} << 20) / sizeof(TypeParam) / (std::size_t{32} * 16 * 16) + 1;
  const std::vector<cases::GroupCase> shapes = {
      {{samples, 16, 16, 32}, Layout::channels_last, 8, "samples one behind the other"},
      {{samples, 32, 16, 16}, Layout::channels_first, 32, "many groups to a unit"},
      {{samples / 60 + 1, 4, 256, 512}, Layout::channels_first, 2, "units cut into parts"},
  };
  for (const auto& shape : shapes) {
    expect_the_same_around_the_caches(Call<TypeParam>(shape, kNormal), describe(shape));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(GroupNorm, BackwardOverAResidualIsTheSameHoweverItIsAsked) {
  for (const auto& shape : cases::group_shapes()) {
    expect_backward_is_the_same_however_asked(Call<TypeParam>(shape, kNormal), describe(shape));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(GroupNorm, BackwardAsksForYOrTheResidual) {
  expect_backward_asks_for_y_or_residual(Call<TypeParam>({{4, 2, 6}, Layout::channels_last, 3, ""}, kNormal),
                                         "group_norm_backward");
}

/// A slope beyond floats, of values that are not: dx fits again.
TEST(GroupNormPrecision, ASlopeThatFloatsCannotHoldIsKeptInDouble) {
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const Shape shape{1, 2, 4, 2};  // 16 values, one group
    std::vector<float> x(16), dy(16), y(16), dx(16);
    for (std::size_t i = 0; i < 16; ++i) {
      x[i] = (i % 3 == 0 ? 2e-3F : -1e-3F);
      dy[i] = (i % 3 == 0 ? 2e35F : -1e35F);
    }
    double mean = 0, variance = 0;
    GroupNormOptions options;
    options.groups = 1;
    const auto in = [&](const std::vector<float>& v) { return TensorView<const float>{v.data(), shape, layout}; };
    throw_if_error(
        group_norm_forward<float>(options, in(x), {}, {}, {y.data(), shape, layout}, {&mean, &variance}, {}));
    throw_if_error(group_norm_backward<float>(options, in(x), {}, {}, in(dy), {}, {&mean, &variance},
                                              {dx.data(), shape, layout}, {}, {}, {}));
    const double inverse = 1 / std::sqrt(variance + options.epsilon);
    double sum = 0, dot = 0;
    for (std::size_t i = 0; i < 16; ++i) sum += dy[i] / 16.0, dot += dy[i] * (x[i] - mean) * inverse / 16;
    ASSERT_GT(dot * inverse * inverse, std::numeric_limits<float>::max()) << "or this tests nothing";
    for (std::size_t i = 0; i < 16; ++i) {
      const double expected = (dy[i] - sum - (x[i] - mean) * inverse * dot) * inverse;
      EXPECT_NEAR(dx[i], expected, std::abs(expected) * 1e-5) << i;
    }
  }
}

}  // namespace
}  // namespace equinorm
