// What is asked of every norm's JVP, for each element type. An op's test names itself by a class with: kName;
// kResidual, whether a residual comes behind the norm; kCentered, whether the norm takes a mean; Options; cases();
// sets(case) and set_of(case, element), what statistics are taken over; options(case); forward, backward and jvp on a
// Call; and z, the reference's forward before the activation.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core/activation.hpp"
#include "core/elements.hpp"
#include "core/norm_testing.hpp"
#include "parallel/executors.hpp"

namespace equinorm::jvp_test {

using namespace testing_tools;

struct Case {
  Shape shape;
  Layout layout = Layout::channels_last;
  std::size_t groups = 1;  ///< of group norm
};

/// A point, a direction, the gradient dy that backward starts from, and what the three passes give.
template <class Op, class T>
struct Call : Tensors<T> {
  using P = Parameter<T>;
  using Base = Tensors<T>;

  explicit Call(const Case& c, Activation activation = Activation::none, bool add_residual = false)
      : Base(c.shape, c.layout, Op::sets(c), 0.5, 1, 17), of(c), options(Op::options(c)), add(add_residual) {
    options.activation = activation;
    x_tangent = normals<T>(this->x.size(), 0.25, 1, 17, 6);
    residual_tangent = normals<T>(this->x.size(), 0, 1, 17, 7);
    gamma_tangent = normals<P>(this->channels, 0, 1, 17, 8);
    beta_tangent = normals<P>(this->channels, 0, 1, 17, 9);
    y_tangent = std::vector<T>(this->x.size(), to_element<T>(-7));
  }

  TensorView<const T> added() const { return add ? this->in(this->residual) : TensorView<const T>{}; }
  TensorView<T> dadded() { return add ? this->view(this->dresidual.data()) : TensorView<T>{}; }
  /// Forward's y, which only a gradient by the residual needs.
  TensorView<const T> output() const { return add ? this->in(this->y) : TensorView<const T>{}; }
  Tangents<T> tangents() const {
    return {this->in(x_tangent),
            add ? this->in(residual_tangent) : TensorView<const T>{},
            {gamma_tangent.data(), beta_tangent.data()}};
  }
  Status jvp(const Execution& execution = {}) {
    return Op::jvp(*this, tangents(), this->view(y_tangent.data()), execution);
  }
  bool kinked() const { return options.activation == Activation::relu || options.activation == Activation::leaky_relu; }
  bool curved() const { return options.activation == Activation::silu || options.activation == Activation::gelu; }

  Case of;
  typename Op::Options options;
  bool add;
  std::vector<T> x_tangent, residual_tangent, y_tangent;
  std::vector<P> gamma_tangent, beta_tangent;
};

/// The magnitudes of what is summed, from which errors are bounded. u: one rounding in the type of computing.
template <class Op, class T>
struct Magnitudes {
  static constexpr double u = kUnit<Parameter<T>>;

  /// call: after forward.
  explicit Magnitudes(const Call<Op, T>& call)
      : x(widen(call.x)), gamma(widen(call.gamma)), beta(widen(call.beta)), residual(widen(call.residual)) {
    if (!call.add) residual.clear();
    z = Op::z(call.of, x, gamma, beta, residual, call.options.epsilon);
    const std::size_t sets = call.variance.size();
    const auto x_tangent = widen(call.x_tangent), residual_tangent = widen(call.residual_tangent);
    std::vector<double> mean_tangent(sets), weighted(sets);
    std::vector<double> size(sets);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t s = Op::set_of(call.of, i);
      const double mean = Op::kCentered ? call.mean[s] : 0;
      inverse.push_back(1 / std::sqrt(call.variance[s] + call.options.epsilon));
      x_hat.push_back((x[i] - mean) * inverse[i]);
      // What an error of a rounding means for x̂: of itself, of the statistics, and of a mean that is a double too.
      reach.push_back(std::abs(x_hat[i]) + 1 + std::abs(mean) * inverse[i]);
      mean_tangent[s] += std::abs(x_tangent[i]);
      weighted[s] += std::abs(x_tangent[i]) * reach[i];
      ++size[s];
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t s = Op::set_of(call.of, i), c = call.channel_of(i);
      tangent.push_back(std::abs(gamma[c]) * inverse[i] *
                            (std::abs(x_tangent[i]) + mean_tangent[s] / size[s] + reach[i] * weighted[s] / size[s]) +
                        std::abs(to_double(call.gamma_tangent[c])) * reach[i] +
                        std::abs(to_double(call.beta_tangent[c])) + (call.add ? std::abs(residual_tangent[i]) : 0));
      z_error.push_back(
          u * (8 * std::abs(gamma[c]) * reach[i] + 3 * std::abs(beta[c]) + 2 * (call.add ? std::abs(residual[i]) : 0)));
    }
    const double parameters = static_cast<double>(x.size()) / static_cast<double>(call.channels);
    roundings = 12 * roundings_of_sum<T>(std::max(parameters, *std::max_element(size.begin(), size.end())));
  }

  /// The error of ẏᵢ·v or of its like in backward, relative to |v|: sums of parts with `roundings` each, of which the
  /// activation's slope (at most 1.13) has up to 30 itself (activation_test.cpp) and changes by at most 0.8 per z.
  double error(std::size_t i, bool curved) const {
    return tangent[i] * (1.13 * roundings * u + (curved ? 30 * u + 0.8 * z_error[i] : u));
  }
  /// Whether it cannot be told on which side of 0 forward saw z.
  bool in_doubt(std::size_t i) const { return std::abs(z[i]) <= z_error[i] + kTiny<T>; }

  std::vector<double> x, gamma, beta, residual;  // as double
  std::vector<double> z, inverse, x_hat, reach;  // 1/√(σ² + ε); |x̂| and more
  std::vector<double> tangent, z_error;          // of ż, all parts taken as positive; of forward's z
  double roundings = 0;                          // of a sum over a set or over a parameter's elements
};

inline std::string describe(const Case& c, Activation activation, bool add) {
  return testing_tools::describe(c.shape, c.layout) + ", groups " + std::to_string(c.groups) + ", activation " +
         std::to_string(static_cast<int>(activation)) + (add ? ", add" : "");
}

/// Calls body(case, activation, add) for all that Op can do with at most this many elements.
template <class Op, class Body>
void for_each_case(std::size_t elements, const Body& body) {
  for (const Case& c : Op::cases()) {
    if (c.shape.elements() > elements) continue;
    for (const Activation activation :
         {Activation::none, Activation::relu, Activation::leaky_relu, Activation::silu, Activation::gelu}) {
      for (const bool add : {false, true}) {
        if (add && !Op::kResidual) continue;
        body(c, activation, add);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

template <class Op_, class T_>
struct OpOf {
  using Op = Op_;
  using T = T_;
};
template <class Op>
using EveryType = testing::Types<OpOf<Op, float>, OpOf<Op, double>, OpOf<Op, bfloat16>, OpOf<Op, float16>>;

template <class Pair>
class Jvp : public testing::Test {};
TYPED_TEST_SUITE_P(Jvp);

#define EQUINORM_JVP_TYPES           \
  using Op = typename TypeParam::Op; \
  using T = typename TypeParam::T;   \
  using C = Call<Op, T>

/// ⟨ẏ, dy⟩ = ⟨ẋ, dx⟩ + ⟨γ̇, dγ⟩ + ⟨β̇, dβ⟩ + ⟨ṙ, dr⟩: both sides are sums of the same products in another order.
TYPED_TEST_P(Jvp, IsTheTransposeOfBackward) {
  EQUINORM_JVP_TYPES;
  for_each_case<Op>(6'000, [](const Case& c, Activation activation, bool add) {
    C call(c, activation, add);
    const std::string what = describe(c, activation, add);
    const Status forward = Op::forward(call);
    ASSERT_TRUE(forward.ok()) << what << ": " << forward.message();
    const Magnitudes<Op, T> sizes(call);
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      if (call.kinked() && sizes.in_doubt(i)) call.dy[i] = T{};
    }
    const Status backward = Op::backward(call), jvp = call.jvp();
    ASSERT_TRUE(backward.ok()) << what << ": " << backward.message();
    ASSERT_TRUE(jvp.ok()) << what << ": " << jvp.message();

    long double direct = 0, transposed = 0;
    double bound = 0;
    const auto add_product = [](long double& sum, auto a, auto b) {
      sum += static_cast<long double>(to_double(a)) * static_cast<long double>(to_double(b));
    };
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      add_product(direct, call.y_tangent[i], call.dy[i]);
      add_product(transposed, call.x_tangent[i], call.dx[i]);
      if (add) add_product(transposed, call.residual_tangent[i], call.dresidual[i]);
      // Beside the sums, one rounding to T on either side.
      const double dy = std::abs(to_double(call.dy[i]));
      bound += dy * (sizes.error(i, call.curved()) + 2 * 1.13 * kUnit<T> * sizes.tangent[i]) +
               kTiny<T> * (dy + std::abs(to_double(call.x_tangent[i])) + std::abs(to_double(call.residual_tangent[i])));
    }
    for (std::size_t k = 0; k < call.channels; ++k) {
      add_product(transposed, call.gamma_tangent[k], call.dgamma[k]);
      add_product(transposed, call.beta_tangent[k], call.dbeta[k]);
    }
    ASSERT_LE(std::abs(static_cast<double>(direct - transposed)), bound)
        << what << ": " << static_cast<double>(direct) << " not " << static_cast<double>(transposed);
  });
}

TYPED_TEST_P(Jvp, GivesTheSameBitsOnAnyNumberOfThreads) {
  EQUINORM_JVP_TYPES;
  SeenBits seen;
  for (const Case& c : Op::cases()) {
    C call(c, Activation::leaky_relu, Op::kResidual);
    ASSERT_TRUE(Op::forward(call).ok());
    ASSERT_TRUE(call.jvp().ok());
    const std::uint64_t inputs =
        hash_of(call.x, call.residual, call.gamma, call.beta, call.x_tangent, call.gamma_tangent);
    const std::uint64_t first = seen.add(inputs, hash_of(call.y_tangent));
    if (call.x.size() < 70'000) continue;  // small ones run on one
    BackwardsExecutor executor;
    for (const Execution& execution : {Execution{2}, Execution{3}, Execution{8}, Execution{3, nullptr, 0, &executor}}) {
      call.y_tangent.assign(call.x.size(), to_element<T>(-7));
      ASSERT_TRUE(call.jvp(execution).ok());
      ASSERT_EQ(hash_of(call.y_tangent), first) << describe(c, Activation::leaky_relu, Op::kResidual);
    }
    EXPECT_GT(executor.tasks_run + (Op::sets(c) == 1 ? 1 : 0), 0U);
  }
}

TYPED_TEST_P(Jvp, InPlaceGivesTheSameBits) {
  EQUINORM_JVP_TYPES;
  for_each_case<Op>(1'000, [](const Case& c, Activation activation, bool add) {
    C apart(c, activation, add);
    ASSERT_TRUE(Op::forward(apart).ok());
    ASSERT_TRUE(apart.jvp().ok());
    for (std::vector<T> C::*place : {&C::x_tangent, &C::residual_tangent}) {
      C call = apart;
      ASSERT_TRUE(Op::jvp(call, call.tangents(), call.view((call.*place).data()), {}).ok());
      ASSERT_EQ(call.*place, apart.y_tangent) << describe(c, activation, add);
    }
    for (std::vector<T> Tensors<T>::*place : {&C::Base::x, &C::Base::residual}) {
      C call = apart;
      ASSERT_TRUE(Op::jvp(call, call.tangents(), call.view((call.*place).data()), {}).ok());
      ASSERT_EQ(call.*place, apart.y_tangent) << describe(c, activation, add);
    }
  });
}

TYPED_TEST_P(Jvp, TakesWhatIsAbsentAsZero) {
  EQUINORM_JVP_TYPES;
  for (const bool without_x : {false, true}) {
    for (const bool without_gamma : {false, true}) {
      for (const bool without_beta : {false, true}) {
        C call(Op::cases()[1], Activation::leaky_relu, Op::kResidual);
        ASSERT_TRUE(Op::forward(call).ok());
        Tangents<T> some = call.tangents();
        const auto leave_out = [](bool out, auto& view, auto& values) {
          if (!out) return;
          view = {};
          std::fill(values.begin(), values.end(), typename std::decay_t<decltype(values)>::value_type{});
        };
        leave_out(without_x, some.x, call.x_tangent);
        leave_out(without_x, some.residual, call.residual_tangent);
        leave_out(without_gamma, some.affine.gamma, call.gamma_tangent);
        leave_out(without_beta, some.affine.beta, call.beta_tangent);
        std::vector<T> y_tangent(call.x.size());
        ASSERT_TRUE(Op::jvp(call, some, call.view(y_tangent.data()), {}).ok());
        ASSERT_TRUE(call.jvp().ok());
        EXPECT_EQ(widen(y_tangent), widen(call.y_tangent));
        const bool nothing = without_x && without_gamma && without_beta;
        EXPECT_EQ(widen(y_tangent) == std::vector<double>(y_tangent.size()), nothing);
      }
    }
  }
}

TYPED_TEST_P(Jvp, BadArgumentsAreNamedAndNothingIsWritten) {
  EQUINORM_JVP_TYPES;
  const auto fails = [](const char* part, const auto& spoil) {
    C call(Op::cases()[2], Activation::relu, Op::kResidual);
    ASSERT_TRUE(Op::forward(call).ok());
    Tangents<T> tangents = call.tangents();
    TensorView<T> y_tangent = call.view(call.y_tangent.data());
    spoil(call, tangents, y_tangent);
    const Status status = Op::jvp(call, tangents, y_tangent, {});
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << part;
    EXPECT_NE(status.message().find("[" + std::string(Op::kName) + "_jvp]"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(call.y_tangent, std::vector<T>(call.x.size(), to_element<T>(-7))) << part;
  };
  fails("epsilon is 0", [](auto& call, auto&, auto&) { call.options.epsilon = 0; });
  fails("x has rank 6", [](auto& call, auto&, auto&) { call.shape = Shape{1, 1, 1, 1, 4, 3}; });
  fails("tangents.x has shape [7]", [](auto&, auto& tangents, auto&) { tangents.x.shape = Shape{7}; });
  fails("y_tangent has shape [7]", [](auto&, auto&, auto& y_tangent) { y_tangent.shape = Shape{7}; });
  fails("y_tangent is null", [](auto&, auto&, auto& y_tangent) { y_tangent.data = nullptr; });
  fails("is null; expected [", [](auto& call, auto&, auto&) { call.variance = std::vector<double>(); });
  if (Op::kResidual) {
    fails("residual has", [](auto&, auto& tangents, auto&) { tangents.residual.shape = Shape{7}; });
    fails("tangents.residual is given without a residual", [](auto& call, auto&, auto&) { call.add = false; });
  } else {
    fails("tangents.residual is given",
          [](auto& call, auto& tangents, auto&) { tangents.residual = call.in(call.residual_tangent); });
  }
}

REGISTER_TYPED_TEST_SUITE_P(Jvp, IsTheTransposeOfBackward, GivesTheSameBitsOnAnyNumberOfThreads,
                            InPlaceGivesTheSameBits, TakesWhatIsAbsentAsZero, BadArgumentsAreNamedAndNothingIsWritten);

template <class Op>
class JvpInDouble : public testing::Test {};
TYPED_TEST_SUITE_P(JvpInDouble);

/// Central differences of fourth order of the reference's own forward along the direction, act(z(t)), with a bound on
/// their error that needs no other derivative (Cauchy's estimate of the coefficients of a power series).
TYPED_TEST_P(JvpInDouble, AgreesWithFiniteDifferences) {
  using Op = TypeParam;
  for_each_case<Op>(6'000, [](const Case& c, Activation activation, bool add) {
    Call<Op, double> call(c, activation, add);
    ASSERT_TRUE(Op::forward(call).ok());
    ASSERT_TRUE(call.jvp().ok());
    const Magnitudes<Op, double> sizes(call);
    const std::size_t count = call.x.size(), sets = call.variance.size();
    std::vector<double> mean_tangent(sets), square(sets), size(sets), mean_reach(sets);
    for (std::size_t i = 0; i < count; ++i) {
      ++size[Op::set_of(c, i)];
      if (Op::kCentered) mean_tangent[Op::set_of(c, i)] += call.x_tangent[i];
    }
    const auto moved = [&](std::size_t i) {
      const std::size_t s = Op::set_of(c, i);
      return call.x_tangent[i] - mean_tangent[s] / size[s];
    };
    for (std::size_t i = 0; i < count; ++i) {
      square[Op::set_of(c, i)] += moved(i) * moved(i) / size[Op::set_of(c, i)];
      mean_reach[Op::set_of(c, i)] += sizes.reach[i] / size[Op::set_of(c, i)];
    }
    // σ²(t) + ε = (σ² + ε) + 2bt + σ̇²t² with b² ≤ σ²σ̇² (Cauchy–Schwarz): both its zeros are complex, at |t| = R =
    // √((σ² + ε)/σ̇²). Within radius = R/2 it is at least (σ² + ε)/4, and |z(t)| at most `most`. By Schwarz's lemma
    // |z(t) − z| ≤ 1 within the radius/(2·most), and there |act(z(t))| ≤ 1.7(|z| + 1): no pole of silu is as near as π.
    std::vector<double> radius(count), most(count), small(count);
    double h = 1;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t k = call.channel_of(i);
      radius[i] = std::min(1.0, 1 / (2 * sizes.inverse[i] * std::sqrt(square[Op::set_of(c, i)])));
      const double x_hat = 2 * (std::abs(sizes.x_hat[i]) + radius[i] * std::abs(moved(i)) * sizes.inverse[i]);
      most[i] = (std::abs(call.gamma[k]) + radius[i] * std::abs(call.gamma_tangent[k])) * x_hat +
                std::abs(call.beta[k]) + radius[i] * std::abs(call.beta_tangent[k]);
      if (add) most[i] += std::abs(call.residual[i]) + radius[i] * std::abs(call.residual_tangent[i]);
      small[i] = radius[i] / std::max(2 * most[i], 1.0);
      h = std::min(h, 0x1p-11 * small[i]);
    }
    const auto y_at = [&](double t) {
      const auto along = [t](std::vector<double> values, const std::vector<double>& tangent) {
        for (std::size_t i = 0; i < values.size(); ++i) values[i] += t * tangent[i];
        return values;
      };
      std::vector<double> y = Op::z(c, along(call.x, call.x_tangent), along(call.gamma, call.gamma_tangent),
                                    along(call.beta, call.beta_tangent), along(sizes.residual, call.residual_tangent),
                                    call.options.epsilon);
      for (double& value : y) value = activate(activation, value);
      return y;
    };
    const std::vector<double> up = y_at(h), down = y_at(-h), far_up = y_at(2 * h), far_down = y_at(-2 * h);
    const double largest = std::abs(
        *std::max_element(call.x.begin(), call.x.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }));
    for (std::size_t i = 0; i < count; ++i) {
      // Within ±2h z moves by at most 4·most·h/radius: a kink beyond is not seen.
      if (call.kinked() && std::abs(sizes.z[i]) <= 4 * most[i] * h / radius[i] + sizes.z_error[i]) continue;
      const double difference = (8 * (up[i] - down[i]) - (far_up[i] - far_down[i])) / (12 * h);
      // |f − Σ| ≤ 4·h⁴ of the fifth coefficient, itself at most 1.7(|z| + 1)/small⁵; and a little for those after it.
      const double truncation = 4.1 * std::pow(h / small[i], 4) * 1.7 * (std::abs(sizes.z[i]) + 1) / small[i];
      // Each f is rounded on its way from x + tẋ, whose own roundings go through the statistics too.
      const double f =
          1.13 * (sizes.z_error[i] + 0x1p-53 * std::abs(call.gamma[call.channel_of(i)]) * sizes.inverse[i] * largest *
                                         (2 + sizes.reach[i] * mean_reach[Op::set_of(c, i)])) +
          0x1p-50 * (std::abs(sizes.z[i]) + 1);
      const double bound = truncation + 1.5 * f / h + sizes.error(i, call.curved());
      ASSERT_NEAR(call.y_tangent[i], difference, bound) << describe(c, activation, add) << " element " << i;
      // Of no use if a wrong term could hide in it.
      ASSERT_LE(bound, 1e-6 * sizes.tangent[i] / small[i]) << describe(c, activation, add) << " element " << i;
    }
  });
}

/// dx is linear in dy: its derivative along dy is backward again, of another gradient, and what double backward asks
/// for, the gradient of ⟨dx, ẋ⟩ by dy, is the JVP along ẋ.
TYPED_TEST_P(JvpInDouble, IsTheGradientOfBackwardByItsGradient) {
  using Op = TypeParam;
  for_each_case<Op>(130, [](const Case& c, Activation activation, bool add) {
    Call<Op, double> call(c, activation, add);
    ASSERT_TRUE(Op::forward(call).ok());
    ASSERT_TRUE(Op::jvp(call, {call.in(call.x_tangent), {}, {}}, call.view(call.y_tangent.data()), {}).ok());
    const Magnitudes<Op, double> sizes(call);
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      if (call.kinked() && sizes.in_doubt(i)) continue;
      call.dy.assign(call.x.size(), 0);
      call.dy[i] = 1;  // of a linear function, the whole difference is the derivative
      ASSERT_TRUE(Op::backward(call).ok());
      double product = 0;
      for (std::size_t k = 0; k < call.x.size(); ++k) product += call.x_tangent[k] * call.dx[k];
      ASSERT_NEAR(call.y_tangent[i], product, sizes.error(i, call.curved()) + kTiny<double>)
          << describe(c, activation, add) << " element " << i;
    }
  });
}

REGISTER_TYPED_TEST_SUITE_P(JvpInDouble, AgreesWithFiniteDifferences, IsTheGradientOfBackwardByItsGradient);

}  // namespace equinorm::jvp_test
