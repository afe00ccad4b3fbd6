// Batch norm on every element type and activation; batch_norm_test.cpp holds what is special to none.
#include <gtest/gtest.h>

#include <initializer_list>
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

TYPED_TEST(BatchNormTypes, MatchTheReferenceWithEveryActivation) {
  for (const auto& shape : cases::shapes()) {
    if (shape.shape.elements() > 20'000) continue;
    for (const double mean : {0.0, 1e3}) {
      for (const Activation activation : kActivations) {
        for (const bool add : {false, true}) {
          Call<TypeParam> call(shape.shape, shape.layout, mean);
          call.options.activation = activation;
          call.add = add;
          const std::string what = describe(shape) + ", mean " + std::to_string(mean) + ", activation " +
                                   std::to_string(static_cast<int>(activation)) + (add ? ", add" : "");
          const Status status = call.run();
          ASSERT_TRUE(status.ok()) << what << ": " << status.message();
          expect_right(call, what);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(BatchNormTypes, GiveTheSameBitsOnEveryTargetAndNumberOfThreads) {
  SeenBits seen;
  for (const auto& shape : cases::shapes()) {
    for (const auto& [activation, add] : std::initializer_list<std::pair<Activation, bool>>{{Activation::relu, false},
                                                                                            {Activation::silu, false},
                                                                                            {Activation::gelu, false},
                                                                                            {Activation::relu, true},
                                                                                            {Activation::silu, true}}) {
      const bool large = shape.shape.elements() > 20'000;
      if (large && !(activation == Activation::silu && add)) continue;
      std::optional<std::uint64_t> first;
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        for (const int threads : {1, 3}) {
          if (threads > 1 && !large) continue;
          Call<TypeParam> call(shape.shape, shape.layout, 0);
          call.options.activation = activation;
          call.add = add;
          call.gives_y = false;
          ASSERT_TRUE(call.run({threads}).ok());
          if (!first) first = seen.add(call.fingerprint_of_inputs(), call.fingerprint());
          ASSERT_EQ(call.fingerprint(), *first) << describe(shape) << " " << target << " " << threads;
        }
      }
    }
  }
}

TYPED_TEST(BatchNormTypes, OutputsAroundTheCachesHaveTheSameBits) {
  constexpr std::size_t all = (std::size_t{8} << 20) / sizeof(TypeParam);
  constexpr Layout last = Layout::channels_last, first = Layout::channels_first;
  const std::vector<cases::ShapeCase> shapes = {
      {{all / 64 + 1, 64}, last, "a strip"},
      {{all / 65 + 1, 65}, last, "folded, with a tail"},
      {{all / 2048 + 1, 2048}, last, "wide rows"},
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
