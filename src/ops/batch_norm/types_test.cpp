// Batch norm on every element type and activation; batch_norm_test.cpp holds what is special to none.
#include <gtest/gtest.h>

#include <optional>
#include <string>

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
      for (const Activation activation :
           {Activation::none, Activation::relu, Activation::leaky_relu, Activation::silu, Activation::gelu}) {
        for (const bool add : {false, true}) {
          if (add && (activation == Activation::silu || activation == Activation::gelu)) continue;  // refused
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
    for (const Activation activation : {Activation::relu, Activation::silu, Activation::gelu}) {
      const bool large = shape.shape.elements() > 20'000;
      if (large && activation != Activation::silu) continue;
      std::optional<std::uint64_t> first;
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        for (const int threads : {1, 3}) {
          if (threads > 1 && !large) continue;
          Call<TypeParam> call(shape.shape, shape.layout, 0);
          call.options.activation = activation;
          ASSERT_TRUE(call.run({threads}).ok());
          if (!first) first = seen.add(call.fingerprint_of_inputs(), call.fingerprint());
          ASSERT_EQ(call.fingerprint(), *first) << describe(shape) << " " << target << " " << threads;
        }
      }
    }
  }
}

}  // namespace
}  // namespace equinorm
