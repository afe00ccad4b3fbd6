// Batch norm on every element type and activation; batch_norm_test.cpp holds what is special to none.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>

#include "core/activation.hpp"
#include "core/norm_testing.hpp"
#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/cases.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm {
namespace {

using namespace testing_tools;

template <class T>
struct Call : Tensors<T> {
  using Tensors<T>::in, Tensors<T>::view;

  Call(const cases::ShapeCase& c, double mean_of_x)
      : Tensors<T>(c.shape, c.layout, c.shape[c.layout == Layout::channels_last ? c.shape.rank() - 1 : 1], mean_of_x, 1,
                   11) {}

  Status run(const Execution& execution = {}) {
    Status status =
        batch_norm_forward<T>(options, in(this->x), this->affine(), add ? in(this->residual) : TensorView<const T>{},
                              view(this->y.data()), this->statistics(), nullptr, execution);
    if (!status.ok()) return status;
    return batch_norm_backward<T>(options, in(this->x), add ? in(this->y) : TensorView<const T>{}, in(this->dy),
                                  this->affine(), this->statistics(), view(this->dx.data()),
                                  add ? view(this->dresidual.data()) : TensorView<T>{}, this->gradients(), execution);
  }

  BatchNormOptions options{};
  bool add = false;
};

/// The bounds of batch_norm_test.cpp, in roundings of the type of computing, and one of T. An activation adds 8 of its
/// own (simd/activation-inl.hpp) and multiplies the error of z by its slope, at most 1.13; its own slope differs by as
/// much as z's error times 0.8, the largest second derivative.
template <class T>
void expect_right(const Call<T>& call, const std::string& what) {
  constexpr double u = kUnit<Parameter<T>>;
  const Activation activation = call.options.activation;
  const auto add = call.add ? widen(call.residual) : std::vector<double>{};
  const double epsilon = call.options.epsilon;
  const auto z = reference::batch_norm_forward(widen(call.x), call.shape, call.layout, widen(call.gamma),
                                               widen(call.beta), add, false, epsilon);
  const auto x_hat =
      reference::batch_norm_forward(widen(call.x), call.shape, call.layout, {}, {}, {}, false, epsilon).y;
  const std::vector<double> y = widen(call.y), dy = widen(call.dy), dx = widen(call.dx);
  const auto m = static_cast<double>(y.size()) / static_cast<double>(call.channels);
  const double sums = roundings_of_sum<T>(m);
  std::vector<double> g(y.size()), g_error(y.size()), sum(call.channels), dot(call.channels), error(call.channels);
  const auto conditioned = [&](std::size_t i) {  // |x̂| + 1, and what one rounding of the mean costs
    const std::size_t c = call.channel_of(i);
    const double cost = std::is_same_v<T, double> ? std::abs(z.mean[c]) / std::sqrt(z.variance[c] + epsilon) : 0;
    return std::abs(x_hat[i]) + 1 + 4 * cost;
  };
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double gamma = std::abs(to_double(call.gamma[c])), beta = std::abs(to_double(call.beta[c]));
    const double z_error =
        sums * u * (6 * gamma * conditioned(i) + 3 * beta + 2 * (add.empty() ? 0 : std::abs(add[i])));
    const double expected = activate(activation, z.y[i]);
    ASSERT_NEAR(y[i], expected, 1.13 * z_error + 8 * u * std::abs(expected) + kUnit<T> * std::abs(expected) + kTiny<T>)
        << what << " element " << i;
    const bool kinked = activation == Activation::relu || activation == Activation::leaky_relu;
    g[i] = dy[i] * activation_slope(activation, kinked ? y[i] : z.y[i]);
    g_error[i] =
        activation == Activation::none ? 0 : 8 * u * std::abs(dy[i]) + (kinked ? 0 : z_error * std::abs(dy[i]));
    sum[c] += std::abs(g[i]);
    dot[c] += std::abs(g[i]) * conditioned(i);
    error[c] += g_error[i] * conditioned(i);
  }
  std::vector<double> dgamma(call.channels), dbeta(call.channels);
  for (std::size_t i = 0; i < y.size(); ++i) {
    dbeta[call.channel_of(i)] += g[i];
    dgamma[call.channel_of(i)] += g[i] * x_hat[i];
  }
  for (std::size_t c = 0; c < call.channels; ++c) {
    const double slack = 1e-13 * dot[c] + error[c];
    ASSERT_NEAR(to_double(call.dbeta[c]), dbeta[c], u * (2 * std::abs(dbeta[c]) + sums * sum[c]) + slack) << what;
    ASSERT_NEAR(to_double(call.dgamma[c]), dgamma[c], u * (2 * std::abs(dgamma[c]) + 5 * sums * dot[c]) + slack)
        << what;
  }
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double scale = std::abs(to_double(call.gamma[c])) / std::sqrt(z.variance[c] + epsilon);
    const double want =
        scale * std::copysign(1, to_double(call.gamma[c])) * (g[i] - dbeta[c] / m - x_hat[i] * dgamma[c] / m);
    const double parts = std::abs(g[i]) + sum[c] / m + conditioned(i) * dot[c] / m;
    const double slack = scale * (g_error[i] + 2 * conditioned(i) * error[c] / m);
    ASSERT_NEAR(dx[i], want, 8 * sums * u * scale * parts + slack + kUnit<T> * std::abs(want) + kTiny<T>)
        << what << " element " << i;
    if (call.add) {
      ASSERT_NEAR(to_double(call.dresidual[i]), g[i], g_error[i] + kUnit<T> * std::abs(g[i]) + kTiny<T>) << what;
    }
  }
}

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
          Call<TypeParam> call(shape, mean);
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
          Call<TypeParam> call(shape, 0);
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
