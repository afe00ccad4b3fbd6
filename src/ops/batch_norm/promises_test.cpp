// What every norm promises, of batch norm on every element type: memory, places, threads, poison, gradients.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ops/batch_norm/call_testing.hpp"
#include "ops/batch_norm/cases.hpp"
#include "parallel/executors.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

template <class T>
class BatchNormPromises : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE(BatchNormPromises, ElementTypes, ElementNames);

std::string describe(const cases::ShapeCase& c) {
  return testing_tools::describe(c.shape, c.layout) + " (" + c.why + ")";
}

TYPED_TEST(BatchNormPromises, NothingIsReadOrWrittenBeyondTheTensorsWhateverTheirAlignment) {
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    for (const auto& shape : cases::shapes()) {
      if (shape.shape.elements() > (target == simd_targets().front() ? kLarge : kSmall)) continue;
      for (const bool add : {false, true}) {
        Call<TypeParam> call(shape.shape, shape.layout, 0);
        call.add = add;
        call.options.activation = add ? Activation::relu : Activation::silu;
        expect_nothing_beyond(call, describe(shape) + ", " + target);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(BatchNormPromises, OutputsOverInputsHaveTheSameBits) {
  for (const auto& shape : cases::shapes()) {
    for (const Activation activation : kActivations) {
      for (const bool add : {false, true}) {
        if (shape.shape.elements() > kSmall && (activation != Activation::relu || !add)) continue;
        Call<TypeParam> call(shape.shape, shape.layout, 0);
        call.add = add;
        call.options.activation = activation;
        expect_the_same_in_place(call, describe(shape));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
  for (const auto& shape : {cases::ShapeCase{{60, 70}, Layout::channels_last, "the careful path"},
                            cases::ShapeCase{{9, 5, 70}, Layout::channels_first, "the careful path"}}) {
    for (const bool add : {false, true}) {
      Call<TypeParam> call(shape.shape, shape.layout, {"huge", 0, 1e36, ""});
      call.add = add;
      call.options.activation = Activation::gelu;
      expect_the_same_in_place(call, describe(shape));
    }
  }
}

TYPED_TEST(BatchNormPromises, AValueThatIsNotFiniteStaysInItsChannel) {
  for (const auto& shape : cases::shapes()) {
    for (const Activation activation : {Activation::none, Activation::relu, Activation::silu}) {
      if (shape.shape.elements() > kLarge && activation != Activation::none) continue;
      Call<TypeParam> call(shape.shape, shape.layout, 0);
      call.add = activation == Activation::relu;
      call.options.activation = activation;
      call.options.non_finite = NonFinitePolicy::propagate;
      expect_poison_to_stay(call, describe(shape) + ", activation " + std::to_string(static_cast<int>(activation)));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(BatchNormPromises, TheCallersThreadsGiveTheSameBits) {
  for (const auto& shape : cases::shapes()) {
    Call<TypeParam> own(shape.shape, shape.layout, 0);
    own.add = true;
    Call<TypeParam> inferred = own;
    ASSERT_TRUE(own.run({3}).ok());
    ASSERT_TRUE(inferred.infer_to(inferred.y.data(), {3}).ok());
    for_each_executor([&](CountingExecutor& executor) {
      Call<TypeParam> call = own;
      const Execution execution{.threads = 3, .executor = &executor};
      ASSERT_TRUE(call.run(execution).ok());
      EXPECT_EQ(call.fingerprint(), own.fingerprint()) << describe(shape);
      ASSERT_TRUE(call.infer_to(call.y.data(), execution).ok());
      EXPECT_TRUE(call.y == inferred.y) << describe(shape) << ", inference";
      if (shape.shape.elements() > 1'000'000) {
        EXPECT_GT(executor.tasks_run, 0U);
      }
    });
  }
}

TYPED_TEST(BatchNormPromises, GradientsHaveNeitherMeanNorProductWithTheNormalized) {
  for (const auto& shape : cases::shapes()) {
    if (shape.shape.elements() > kLarge) continue;
    Call<TypeParam> call(shape.shape, shape.layout, 3);
    for (TypeParam& dy : call.dy) dy = to_element<TypeParam>(to_double(dy) + 0.5);  // a mean, to be taken out
    ASSERT_TRUE(call.run().ok());
    expect_gradient_to_be_orthogonal(call, describe(shape));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(BatchNormGradients, AgreeWithFiniteDifferences) {
  for (const auto& shape :
       {cases::ShapeCase{{5, 3}, Layout::channels_last, ""}, cases::ShapeCase{{2, 3, 4}, Layout::channels_first, ""}}) {
    for (const Activation activation : kActivations) {
      for (const bool add : {false, true}) {
        Call<double> call(shape.shape, shape.layout, 0.5);
        call.add = add;
        call.options.activation = activation;
        expect_finite_differences_to_agree(
            call,
            [&](const auto& x, const auto& gamma, const auto& beta, const auto& residual) {
              return reference::batch_norm_forward(x, shape.shape, shape.layout, gamma, beta,
                                                   add ? residual : std::vector<double>{}, false, call.options.epsilon)
                  .y;
            },
            describe(shape) + ", activation " + std::to_string(static_cast<int>(activation)) + (add ? ", add" : ""));
      }
    }
  }
}

}  // namespace
}  // namespace equinorm
