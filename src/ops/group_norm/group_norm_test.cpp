#include "equinorm/group_norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "equinorm/instance_norm.hpp"
#include "ops/group_norm/call_testing.hpp"
#include "ops/group_norm/cases.hpp"
#include "ops/group_norm/reference.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

template <class T>
std::vector<Values> values() {
  std::vector<Values> table = {kNormal,
                               {"mean_1e3", 1e3, 1, "E[x²] − E[x]² in float has lost everything here"},
                               {"small", 1e-3, 1e-6, "σ² beside ε"},
                               {"constant", 3.25, 0, "no variance: x̂ = 0"}};
  if (std::is_same_v<T, float16>) return table;  // whose largest value is 65504
  table.push_back({"mean_1e6", 1e6, 1, "σ is 16 steps of a float"});
  table.push_back({"denormal", 0, 1e-39, "denormal inputs"});
  table.push_back({"large", 1e8, 1e9, "far from one"});
  table.push_back({"huge", 0, 1e36, "differences near the largest float: the careful path"});
  table.push_back({"huge_mean", 1e36, 1e30, "a mean of 2^120"});
  return table;
}

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
    const bool small = shape.shape.elements() < 20'000;
    if (!small && sizeof(T) == 2) continue;  // the bits of all threads and targets are compared below
    for (const auto& value : values<T>()) {
      if (!small && std::string(value.name) != "normal" && std::string(value.name) != "mean_1e3") continue;
      for (const Activation activation : kActivations) {
        for (const bool add : {false, true}) {
          if (!small && (add || (activation != Activation::none && activation != Activation::relu))) continue;
          Call<T> call(shape, value);
          call.options.activation = activation;
          call.add = add;
          const std::string what = describe(shape) + ", " + value.name + (add ? ", add" : "") + ", activation " +
                                   std::to_string(static_cast<int>(activation));
          const Status forward = call.forward();
          ASSERT_TRUE(forward.ok()) << what << ": " << forward.message();
          const Status backward = call.backward();
          ASSERT_TRUE(backward.ok()) << what << ": " << backward.message();
          expect_right(call, what);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(GroupNorm, GivesTheSameBitsOnEveryTargetAndNumberOfThreads) {
  SeenBits seen;
  using T = TypeParam;
  for (const auto& shape : cases::group_shapes()) {
    for (const auto& [activation, add] : std::initializer_list<std::pair<Activation, bool>>{
             {Activation::relu, false}, {Activation::relu, true}, {Activation::silu, true}}) {
      if (shape.shape.elements() > 20'000 && add && activation == Activation::relu) continue;
      std::optional<std::uint64_t> first;
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        for (const int threads : {1, 2, 3, 8}) {
          if (threads > 1 && (shape.shape.elements() < 20'000 || (add && threads != 3))) continue;
          Call<T> call(shape, kNormal, 5);
          call.add = add;
          call.options.activation = activation;
          ASSERT_TRUE(call.run({threads}).ok());
          if (!first) first = seen.add(call.fingerprint_of_inputs(), call.fingerprint());
          ASSERT_EQ(call.fingerprint(), *first) << describe(shape) << " " << target << " " << threads;
        }
      }
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

TYPED_TEST(GroupNorm, InPlaceGivesTheSameBits) {
  using T = TypeParam;
  for (const auto& shape : cases::group_shapes()) {
    Call<T> apart(shape, kNormal);
    apart.add = true;
    apart.options.activation = Activation::relu;
    ASSERT_TRUE(apart.forward().ok());
    ASSERT_TRUE(apart.backward().ok());
    Call<T> inside = apart;
    ASSERT_TRUE(group_norm_forward<T>(inside.options, inside.in(inside.x), inside.affine(), inside.in(inside.residual),
                                      inside.view(inside.x.data()))
                    .ok());
    ASSERT_EQ(inside.x, apart.y) << describe(shape);
    inside.x = apart.x;
    ASSERT_TRUE(group_norm_backward<T>(inside.options, inside.in(inside.x), inside.in(inside.y), {},
                                       inside.in(inside.dy), inside.affine(), inside.statistics(),
                                       inside.view(inside.dy.data()), inside.view(inside.dresidual.data()), {})
                    .ok());
    ASSERT_EQ(inside.dy, apart.dx) << describe(shape);
    ASSERT_EQ(inside.dresidual, apart.dresidual) << describe(shape);

    // The other pairs that may share memory: y with the residual, dx with x, dresidual with dy.
    inside = apart;
    ASSERT_TRUE(group_norm_forward<T>(inside.options, inside.in(inside.x), inside.affine(), inside.in(inside.residual),
                                      inside.view(inside.residual.data()))
                    .ok());
    ASSERT_EQ(inside.residual, apart.y) << describe(shape);
    ASSERT_TRUE(group_norm_backward<T>(inside.options, inside.in(inside.x), inside.in(inside.y), {},
                                       inside.in(inside.dy), inside.affine(), inside.statistics(),
                                       inside.view(inside.x.data()), inside.view(inside.dy.data()), {})
                    .ok());
    ASSERT_EQ(inside.x, apart.dx) << describe(shape);
    ASSERT_EQ(inside.dy, apart.dresidual) << describe(shape);
  }
}

TYPED_TEST(GroupNorm, NeitherReadsNorWritesBeyondTheTensor) {
  using T = TypeParam;
  const T sentinel = to_element<T>(12345);
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    for (const auto& shape : cases::group_shapes()) {
      if (shape.shape.elements() > 20'000) continue;
      Call<T> aligned(shape, kNormal);
      ASSERT_TRUE(aligned.forward().ok());
      for (const std::size_t offset : {1U, 3U, 15U}) {
        std::vector<T> y(aligned.x.size() + 32, sentinel);
        // x lies at the very end of its allocation: AddressSanitizer sees a read beyond it.
        std::vector<T> x(offset);
        x.insert(x.end(), aligned.x.begin(), aligned.x.end());
        x.shrink_to_fit();
        ASSERT_TRUE(group_norm_forward<T>(aligned.options, aligned.template view<const T>(x.data() + offset),
                                          aligned.affine(), {}, aligned.view(y.data() + offset))
                        .ok());
        for (std::size_t i = 0; i < y.size(); ++i) {
          const bool inside = i >= offset && i < offset + aligned.x.size();
          ASSERT_TRUE(y[i] == (inside ? aligned.y[i - offset] : sentinel)) << describe(shape) << " " << i;
        }
      }
    }
  }
}

TYPED_TEST(GroupNorm, ACallersWorkspaceChangesNothing) {
  using T = TypeParam;
  for (const auto& shape : cases::group_shapes()) {
    Call<T> own(shape, kNormal);
    ASSERT_TRUE(own.forward().ok());
    ASSERT_TRUE(own.backward().ok());
    Call<T> given = own;
    const std::size_t bytes = group_norm_workspace_bytes<T>(given.options, given.shape, given.layout);
    std::vector<std::byte> memory(bytes + 64 + 1, std::byte{0xAB});
    std::byte* workspace = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    ASSERT_TRUE(given.forward({1, workspace, bytes}).ok());
    ASSERT_TRUE(given.backward({1, workspace, bytes}).ok());
    EXPECT_EQ(given.fingerprint(), own.fingerprint()) << describe(shape);
    EXPECT_EQ(workspace[bytes], std::byte{0xAB}) << "written beyond the workspace";
  }
}

TYPED_TEST(GroupNorm, NanStaysInItsGroup) {
  using T = TypeParam;
  for (const auto& shape : cases::group_shapes()) {
    Call<T> call(shape, kNormal);
    ASSERT_TRUE(call.forward().ok());
    const std::vector<T> clean = call.y;
    const std::size_t bad = call.x.size() / 2;
    call.x[bad] = to_element<T>(std::numeric_limits<double>::quiet_NaN());
    ASSERT_TRUE(call.forward().ok());
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      if (call.group_of(i) == call.group_of(bad)) {
        ASSERT_FALSE(std::isfinite(to_double(call.y[i]))) << describe(shape) << " " << i;
      } else {
        ASSERT_TRUE(call.y[i] == clean[i]) << describe(shape) << " " << i;
      }
    }
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

/// Central differences of the reference's own forward: the closed form of the gradient is checked, not just copied.
TEST(GroupNormGradient, AgreesWithFiniteDifferences) {
  const cases::GroupCase shape{{2, 3, 4}, Layout::channels_last, 2, ""};
  for (const std::vector<std::size_t>& lengths : {std::vector<std::size_t>{}, {3, 2}, {0, 1}}) {
    Call<double> call(shape, kNormal);
    call.options.lengths = lengths.empty() ? nullptr : lengths.data();
    ASSERT_TRUE(call.forward().ok());
    ASSERT_TRUE(call.backward().ok());
    const auto loss = [&](const std::vector<double>& x, const std::vector<double>& gamma,
                          const std::vector<double>& beta) {
      const auto z = reference::group_norm_forward(x, shape.shape, shape.layout, 2, gamma, beta, {}, 1e-5, lengths).z;
      double sum = 0;
      for (std::size_t i = 0; i < z.size(); ++i) sum += z[i] * call.dy[i];
      return sum;
    };
    const double h = 1e-5;  // h² ≈ 1e-10 of truncation, 1e-16/h ≈ 1e-11 of rounding, times a few third derivatives
    const auto derivative = [&](int which, std::size_t i) {
      double sides[2] = {};
      for (const int side : {0, 1}) {
        std::vector<double> arguments[3] = {call.x, call.gamma, call.beta};
        arguments[which][i] += side == 0 ? -h : h;
        sides[side] = loss(arguments[0], arguments[1], arguments[2]);
      }
      return (sides[1] - sides[0]) / (2 * h);
    };
    for (std::size_t i = 0; i < call.x.size(); ++i) EXPECT_NEAR(call.dx[i], derivative(0, i), 1e-8);
    for (std::size_t c = 0; c < 4; ++c) {
      EXPECT_NEAR(call.dgamma[c], derivative(1, c), 1e-8);
      EXPECT_NEAR(call.dbeta[c], derivative(2, c), 1e-8);
    }
  }
}

TEST(GroupNormGradient, SumsToZeroOverEveryGroup) {
  Call<double> call({{3, 8, 5, 5}, Layout::channels_first, 4, ""}, kNormal);
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  std::vector<double> sum(call.mean.size());
  for (std::size_t i = 0; i < call.dx.size(); ++i) sum[call.group_of(i)] += call.dx[i];
  for (const double s : sum) EXPECT_NEAR(s, 0, 1e-13);
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
  Call<float> call({{0, 2, 6}, Layout::channels_last, 3, ""}, kNormal);
  EXPECT_TRUE(call.forward().ok());
  EXPECT_TRUE(call.backward().ok());
  EXPECT_EQ(call.dgamma, std::vector<float>(6, 0.0F)) << "sums over nothing";
}

TYPED_TEST(GroupNorm, OutputsAroundTheCachesHaveTheSameBits) {
  constexpr std::size_t samples = (std::size_t{8} << 20) / sizeof(TypeParam) / (32 * 16 * 16) + 1;
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

}  // namespace
}  // namespace equinorm
