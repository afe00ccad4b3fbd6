// Batch norm on every element type: against the reference, and to the same bits however it runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/batch_norm/call_testing.hpp"
#include "ops/batch_norm/cases.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

template <class T>
class BatchNormTypes : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE(BatchNormTypes, ElementTypes, ElementNames);

std::string describe(const cases::ShapeCase& c) {
  return testing_tools::describe(c.shape, c.layout) + " (" + c.why + ")";
}

TYPED_TEST(BatchNormTypes, MatchTheReferenceOnEveryShapeAndValue) {
  for (const auto& shape : cases::shapes()) {
    for (const auto& value : cases::hostile_values<TypeParam>()) {
      std::optional<Call<TypeParam>> start;
      for (const Activation activation : kActivations) {
        for (const bool add : {false, true}) {
          if (!is_tried<TypeParam>(value, shape.shape.elements(), activation, add)) continue;
          if (!start) start.emplace(shape.shape, shape.layout, value);
          Call<TypeParam> call = *start;
          call.options.activation = activation;
          call.add = add;
          const std::string what = describe(shape) + ", " + value.name + ", activation " +
                                   std::to_string(static_cast<int>(activation)) + (add ? ", add" : "");
          const Status status = call.run();
          ASSERT_TRUE(status.ok()) << what << ": " << status.message();
          expect_right(call, what, StatisticsRoundings::excess(value));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(BatchNormTypes, OfOneValueAChannelIsShiftAndResidual) {
  using T = TypeParam;
  for (const auto& [shape, layout] :
       {std::pair{Shape{1, 37}, Layout::channels_last}, std::pair{Shape{1, 1, 3}, Layout::channels_last},
        std::pair{Shape{1, 37, 1}, Layout::channels_first}}) {
    for (const auto& value : cases::hostile_values<T>()) {
      Call<T> call(shape, layout, value);
      call.add = true;
      call.options.activation = Activation::relu;
      EXPECT_EQ(call.run().code(), StatusCode::too_few_values);
      call.options.single_value = SingleValuePolicy::allow;
      ASSERT_TRUE(call.run().ok());
      expect_right(call, testing_tools::describe(shape, layout) + ", " + value.name);
      for (std::size_t c = 0; c < call.channels; ++c) {
        EXPECT_EQ(call.mean[c], to_double(call.x[c]));
        EXPECT_EQ(call.variance[c], 0);
      }
    }
  }
}

TYPED_TEST(BatchNormTypes, OfNothingIsAnErrorInTrainingAlone) {
  using T = TypeParam;
  for (const auto& [shape, layout] :
       {std::pair{Shape{0, 3}, Layout::channels_last}, std::pair{Shape{2, 0, 3}, Layout::channels_last},
        std::pair{Shape{0, 3, 4}, Layout::channels_first}, std::pair{Shape{2, 3, 0}, Layout::channels_first}}) {
    Call<T> call(shape, layout, 0);
    call.options.single_value = SingleValuePolicy::allow;
    EXPECT_EQ(call.forward().code(), StatusCode::too_few_values);
    EXPECT_TRUE(call.infer_to(call.y.data()).ok());
    EXPECT_TRUE(call.backward().ok());
    EXPECT_EQ(call.dgamma, std::vector<Parameter<T>>(3, 0)) << "sums over nothing";
    EXPECT_EQ(call.dbeta, call.dgamma);
  }
}

TYPED_TEST(BatchNormTypes, GiveTheSameBitsOnEveryTargetAndNumberOfThreads) {
  SeenBits seen;
  for (const auto& shape : cases::shapes()) {
    const bool large = shape.shape.elements() > kSmall;
    for (const auto& value : cases::hostile_values<TypeParam>()) {
      const std::string name = value.name;
      if (large && name != "mean_1e3") continue;
      Call<TypeParam> call(shape.shape, shape.layout, value);
      const std::string what = describe(shape) + ", " + name;
      call.options.activation = Activation::relu;
      if (large) {
        expect_the_same_bits(call, {1, 2, 3, 4, 5, 6, 7, 8}, seen, what);
      } else {
        expect_the_same_bits(call, {1}, seen, what);
      }
      if (large || name == "normal") {
        call.add = true;
        call.gives_y = false;
        call.options.activation = Activation::silu;
        expect_the_same_bits(call, {large ? 3 : 1}, seen, what + ", silu, add");
      }
      for (const auto& [activation, add] : {std::pair{Activation::silu, false}, std::pair{Activation::gelu, false},
                                            std::pair{Activation::relu, true}}) {
        if (name != "normal") continue;
        call.add = add;
        call.options.activation = activation;
        expect_the_same_bits(call, {1}, seen, what);
      }
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(BatchNormTypes, OutputsAroundTheCachesHaveTheSameBits) {
  constexpr std::size_t all = (std::size_t{8} << 20) / sizeof(TypeParam);
  constexpr Layout last = Layout::channels_last, first = Layout::channels_first;
  const std::vector<cases::ShapeCase> shapes = {
      {{all / 64 + 1, 64}, last, "a strip"},
      {{all / 65 + 1, 65}, last, "folded, with a tail"},
      {{all / 256 + 1, 256}, last, "rows of some strips"},
      {{2 * all / 640 + 1, 640}, last, "the same, more of them than the caches hold"},
      {{2 * all / 2048 + 1, 2048}, last, "rows of two panels, more of them than the caches hold"},
      {{all / 6 / 32 / 32 + 1, 6, 32, 32}, first, "planes"},
      {{all / 48 / 7 / 7 + 1, 48, 7, 7}, first, "planes taken as columns"},
  };
  for (const auto& shape : shapes) {
    expect_the_same_around_the_caches(Call<TypeParam>(shape.shape, shape.layout, 0), describe(shape));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(BatchNormTypes, InferenceMatchesTheReferenceOnEveryShape) {
  for (const auto& shape : cases::shapes()) {
    for (const bool add : {false, true}) {
      for (const int threads : {1, 3}) {
        Call<TypeParam> call(shape.shape, shape.layout, 0);
        call.add = add;
        ASSERT_TRUE(call.infer_to(call.y.data(), {threads}).ok()) << describe(shape);
        expect_inference_right(call, describe(shape) + (add ? ", add, " : ", ") + std::to_string(threads));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(BatchNormTypes, InferenceAroundTheCachesMatchesTheReference) {
  constexpr std::size_t all = (std::size_t{8} << 20) / sizeof(TypeParam);
  for (const Shape& shape : {Shape{all / 6 / 32 / 32 + 1, 6, 32, 32}, Shape{all / 2 / 128 / 128 + 1, 2, 128, 128},
                             Shape{all / 48 / 7 / 7 + 1, 48, 7, 7}}) {
    Call<TypeParam> call(shape, Layout::channels_first, 0);
    Room<TypeParam> y(call.x.size(), true);
    ASSERT_TRUE(call.infer_to(y.data()).ok());
    call.y = y.copy();
    expect_inference_right(call, testing_tools::describe(shape, Layout::channels_first));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(BatchNormOfFloats, ClaimedOutputsMatchTheReference) {
  constexpr std::size_t all = (std::size_t{5} << 20) / sizeof(float);
  for (const std::size_t columns : {std::size_t{64}, std::size_t{256}}) {
    Call<float> call({all / columns + 1, columns}, Layout::channels_last, 0);
    for (const bool add : {false, true}) {
      call.add = add;
      ASSERT_TRUE(call.run().ok());
      expect_right(call, std::to_string(columns) + (add ? " columns, add" : " columns"));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(BatchNormTypes, InferenceOfASampleDoesNotDependOnTheBatch) {
  using T = TypeParam;
  for (const auto& shape : cases::shapes()) {
    Call<T> batch(shape.shape, shape.layout, 0);
    batch.add = true;
    batch.options.activation = Activation::silu;
    ASSERT_TRUE(batch.infer_to(batch.y.data()).ok());
    Call<T> one = batch;
    one.shape[0] = 1;
    const std::size_t samples = shape.shape[0], size = one.shape.elements();
    std::vector<T> y(size);
    for (std::size_t n = 0; n < samples; n += samples < 100 || n + 1 == samples ? 1 : samples / 9) {
      Places<T> alone = one.places();
      alone.x += n * size;
      alone.residual += n * size;
      alone.y = y.data();
      ASSERT_TRUE(one.inference_at(alone, {}).ok());
      ASSERT_TRUE(std::equal(y.begin(), y.end(), batch.y.data() + n * size)) << describe(shape) << ", sample " << n;
    }
  }
}

TYPED_TEST(BatchNormTypes, BackwardOverAResidualIsTheSameHoweverItIsAsked) {
  for (const auto& shape : cases::shapes()) {
    expect_backward_is_the_same_however_asked(Call<TypeParam>(shape.shape, shape.layout, 0), describe(shape));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(BatchNormTypes, BackwardAsksForYOrTheResidual) {
  expect_backward_asks_for_y_or_residual(Call<TypeParam>({4, 3}, Layout::channels_last, 0), "batch_norm_backward");
}

}  // namespace
}  // namespace equinorm
