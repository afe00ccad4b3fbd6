// What is asked of every norm of rows, for each element type. An op's test names itself by a class with: kName,
// kCentered, Options; forward and backward as the public functions, with Statistics; workspace_bytes; and reference,
// which gives back y, mean, variance, dx, dgamma and dbeta (Expected).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/elements.hpp"
#include "core/fingerprint.hpp"
#include "core/norm_testing.hpp"
#include "core/value_cases.hpp"
#include "equinorm/execution.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/tensor.hpp"
#include "ops/rows/cases.hpp"
#include "parallel/executors.hpp"

namespace equinorm::rows_test {

using Real = long double;
using Reals = std::vector<Real>;

struct Expected {
  Reals y, mean, variance, dx, dgamma, dbeta;
};

using testing_tools::GuardedMemory;
using testing_tools::kUnit;
using testing_tools::StatisticsRoundings;
/// The step of denormals.
template <class T>
constexpr Real kStep = testing_tools::kTiny<T>;
template <class T>
constexpr Real kLargest = std::numeric_limits<T>::max();
template <>
inline constexpr Real kLargest<bfloat16> = 0x1.FEp127L;
template <>
inline constexpr Real kLargest<float16> = 65504;

template <class T>
Reals widen(const std::vector<T>& v) {
  Reals wide;
  for (const T x : v) wide.push_back(static_cast<Real>(to_double(x)));
  return wide;
}

inline std::size_t count_of(const cases::RowShape& shape) {
  return shape.rows * shape.features;
}

/// All that a call of forward and backward takes and gives; tensors are dense matrices, unless `shape` is set
/// otherwise.
template <class Op, class T>
struct Call {
  using P = Parameter<T>;

  Call(std::size_t rows_, std::size_t features_, std::vector<T> values)
      : rows(rows_), features(features_), shape{rows_, features_}, x(std::move(values)) {
    constexpr std::uint64_t kSeed = 7;
    gamma = cases::make<P>(cases::kNormal, features, kSeed, 1);
    beta = cases::make<P>(cases::kNormal, features, kSeed, 2);
    residual = cases::make<T>(cases::kNormal, x.size(), kSeed, 3);
    dy = cases::make<T>(cases::kNormal, x.size(), kSeed, 4);
    dsum = cases::make<T>(cases::kNormal, x.size(), kSeed, 5);
    for (std::vector<T>* v : {&sum, &y, &dx}) v->assign(x.size(), to_element<T>(-7));
    for (std::vector<double>* v : {&mean, &variance}) v->assign(rows, -7);
    for (std::vector<P>* v : {&dgamma, &dbeta}) v->assign(features, -7);
  }
  Call(const cases::RowShape& of, const cases::ValueCase& value, std::uint64_t seed = 3)
      : Call(of.rows, of.features, cases::make<T>(value, count_of(of), seed)) {}

  template <class E>
  TensorView<E> view(E* data) const {
    return {data, shape};
  }
  template <class E>
  TensorView<const E> in(const std::vector<E>& v) const {
    return {v.data(), shape};
  }
  Statistics statistics() { return {mean.data(), variance.data()}; }
  const std::vector<T>& normalized() const { return add ? sum : x; }

  Status forward(const Execution& execution = {}) {
    return Op::template forward<T>(options, in(x), affine(), add ? in(residual) : TensorView<const T>{},
                                   add ? view(sum.data()) : TensorView<T>{}, view(y.data()), statistics(), execution);
  }
  Status backward(const Execution& execution = {}) {
    return Op::template backward<T>(options, in(normalized()), in(dy), affine(), statistics(),
                                    add ? in(dsum) : TensorView<const T>{}, view(dx.data()),
                                    {dgamma.data(), wants_dbeta ? dbeta.data() : nullptr}, execution);
  }
  bool has_shift() const { return has_affine && has_beta; }
  Affine<T> affine() const {
    return has_affine ? Affine<T>{gamma.data(), has_beta ? beta.data() : nullptr} : Affine<T>{};
  }
  /// What rows usually are, for which forward has runs of its own: bare, with γ and β, or of RMS norm γ alone.
  void make_usual() {
    options.activation = Activation::none;
    add = false;
    has_beta = Op::kCentered;
  }
  Expected expected() const {
    return Op::reference(widen(normalized()), features, has_affine ? widen(gamma) : Reals{},
                         has_shift() ? widen(beta) : Reals{}, options.activation, static_cast<Real>(options.epsilon),
                         widen(dy), add ? widen(dsum) : Reals{});
  }

  std::size_t rows, features;
  Shape shape;
  typename Op::Options options{};
  bool add = false, has_affine = true, has_beta = true, wants_dbeta = true;
  std::vector<T> x, residual, dy, dsum, sum, y, dx;
  std::vector<P> gamma, beta, dgamma, dbeta;
  std::vector<double> mean, variance;
};

/// Of all outputs, and of all inputs.
template <class C>
std::uint64_t fingerprint(const C& c) {
  return testing_tools::hash_of(c.sum, c.y, c.dx, c.dgamma, c.dbeta, c.mean, c.variance);
}
template <class C>
std::uint64_t fingerprint_of_inputs(const C& c) {
  return testing_tools::hash_of(c.x, c.residual, c.dy, c.dsum, c.gamma, c.beta);
}

/// Bounds of error, from the roundings on the way of each result. u: one rounding in the type of computing; t: one in
/// T; acc: what a double accumulates over a row's 32 lanes. What they multiply is the magnitude of the parts.
template <class Op, class T>
struct Bounds {
  explicit Bounds(const Call<Op, T>& call_) : call(call_), want(call_.expected()), x(widen(call_.normalized())) {
    const auto n = static_cast<Real>(call.features);
    acc = (n / 32 + 8) * 0x1p-53L;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t r = i / call.features, c = i % call.features;
      inverse.push_back(1 / std::sqrt(want.variance[r] + static_cast<Real>(call.options.epsilon)));
      x_hat.push_back((x[i] - want.mean[r]) * inverse[i]);
      gamma.push_back(call.has_affine ? static_cast<Real>(call.gamma[c]) : 1);
      const Real shift = call.has_shift() ? static_cast<Real>(call.beta[c]) : 0;
      z.push_back(gamma[i] * x_hat[i] + shift);
      // x − mean, its product with the inverse, that itself, what the mean lacks, γ and β: six roundings. The
      // statistics' own (StatisticsRoundings) average out to less than the two more.
      // The saved mean is a double: exact beside floats, but itself rounded beside doubles.
      const Real mean_error = std::is_same_v<T, double> ? std::abs(want.mean[r]) * inverse[i] : 0;
      reach.push_back(std::abs(x_hat[i]) + 1 + mean_error);
      z_error.push_back((8 * u + 4 * acc) * std::abs(gamma[i]) * reach[i] + 2 * u * std::abs(shift));
    }
  }

  /// Slopes of the activations are at most 1.13, and their own errors up to 16 roundings (activation_test.cpp).
  Real y_bound(std::size_t i) const {
    const bool curved = call.options.activation == Activation::silu || call.options.activation == Activation::gelu;
    return 1.13L * z_error[i] + (curved ? 16 * u : u) * std::abs(want.y[i]) + t * std::abs(want.y[i]) + kStep<T>;
  }

  /// |g| and its error: the activation's slope has 19 roundings of parts up to 1.5, and changes by at most 0.8 per z.
  std::pair<Real, Real> gradient(std::size_t i) const {
    const Real dy = std::abs(static_cast<Real>(to_double(call.dy[i])));
    switch (call.options.activation) {
      case Activation::none:
        return {dy, 0};
      case Activation::relu:
      case Activation::leaky_relu:
        return {dy, u * dy};
      default:
        return {1.5L * dy, dy * (30 * u + 0.8L * z_error[i])};
    }
  }

  void check_forward(const std::string& what, double excess = 2) const {
    const auto roundings =
        StatisticsRoundings::of<T>(static_cast<double>(call.features) / 32 + 8, excess, StatisticsRoundings::kOfFour);
    const auto of_mean = static_cast<Real>(roundings.mean), of_variance = static_cast<Real>(roundings.variance);
    for (std::size_t r = 0; r < call.rows; ++r) {
      const Real sigma = std::sqrt(want.variance[r]);
      if constexpr (Op::kCentered) {
        ASSERT_LE(std::abs(call.mean[r] - want.mean[r]),
                  of_mean * u * sigma + 0x1p-52L * std::abs(want.mean[r]) + kStep<P>)
            << what;
      }
      ASSERT_LE(std::abs(call.variance[r] - want.variance[r]), of_variance * u * want.variance[r] + kStep<P> * kStep<P>)
          << what << " row " << r << ": " << call.variance[r] << " not " << want.variance[r];
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::abs(want.y[i]) >= kLargest<T>) continue;
      ASSERT_LE(std::abs(static_cast<Real>(to_double(call.y[i])) - want.y[i]), y_bound(i))
          << what << " element " << i << ": " << to_double(call.y[i]) << " not " << want.y[i];
    }
  }

  void check_backward(const std::string& what) const {
    const auto n = static_cast<Real>(call.features);
    Reals h(x.size()), h_error(x.size());
    std::vector<Reals> sums(4, Reals(call.rows));  // means of |h|, |h·x̂|, and of their errors
    std::vector<Reals> columns(4, Reals(call.features));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t r = i / call.features, c = i % call.features;
      const auto [g, g_error] = gradient(i);
      h[i] = std::abs(gamma[i]) * g;
      h_error[i] = std::abs(gamma[i]) * g_error + u * h[i];
      sums[0][r] += h[i] / n;
      sums[1][r] += h[i] * reach[i] / n;
      sums[2][r] += h_error[i] / n;
      sums[3][r] += h_error[i] * reach[i] / n;
      columns[0][c] += g;
      columns[1][c] += g * reach[i];
      columns[2][c] += g_error;
      columns[3][c] += g_error * reach[i];
    }
    // Both means: the roundings of sums of eight, which average out to two, one of the mean itself; of h·x̂ three more
    // in x̂ and the product. dx: h − mean, x̂·mean, x̂ itself (8), their difference, the inverse and its product, dsum.
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t r = i / call.features;
      const Real parts = h[i] + sums[0][r] + reach[i] * sums[1][r];
      const Real errors = h_error[i] + sums[2][r] + reach[i] * sums[3][r];
      const Real added = call.add ? std::abs(static_cast<Real>(to_double(call.dsum[i]))) : 0;
      const Real bound = inverse[i] * ((12 * u + 4 * acc) * parts + errors) + (u + t) * (added + std::abs(want.dx[i])) +
                         u * std::abs(want.dx[i]) + kStep<T>;
      if (std::abs(want.dx[i]) >= kLargest<T>) continue;
      ASSERT_LE(std::abs(static_cast<Real>(to_double(call.dx[i])) - want.dx[i]), bound)
          << what << " element " << i << ": " << to_double(call.dx[i]) << " not " << want.dx[i];
    }
    // Of the parameters' sums eight terms are added as they are computed (7 roundings), and four such sums (3), the
    // rest in double: these, the errors of g and x̂ and of their product, and one rounding of the sum.
    const Real sum_error = static_cast<Real>(call.rows) * 0x1p-53L;
    for (std::size_t c = 0; c < call.features; ++c) {
      ASSERT_LE(std::abs(static_cast<Real>(call.dbeta[c]) - want.dbeta[c]),
                u * std::abs(want.dbeta[c]) + columns[2][c] + (10 * u + sum_error) * columns[0][c] + kStep<P>)
          << what << " feature " << c;
      ASSERT_LE(
          std::abs(static_cast<Real>(call.dgamma[c]) - want.dgamma[c]),
          u * std::abs(want.dgamma[c]) + columns[3][c] + (19 * u + 4 * acc + sum_error) * columns[1][c] + kStep<P>)
          << what << " feature " << c;
    }
  }

  using P = Parameter<T>;
  static constexpr Real u = kUnit<P>, t = kUnit<T>;
  const Call<Op, T>& call;
  Expected want;
  Reals x, inverse, x_hat, reach, gamma, z, z_error;
  Real acc;
};

template <class Pair>
class RowNorm : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
template <class Op_, class T_>
struct OpOf {
  using Op = Op_;
  using T = T_;
};
TYPED_TEST_SUITE_P(RowNorm);

#define EQUINORM_ROW_TYPES           \
  using Op = typename TypeParam::Op; \
  using T = typename TypeParam::T;   \
  using C = Call<Op, T>;             \
  [[maybe_unused]] constexpr auto is_name = Op::kName

TYPED_TEST_P(RowNorm, MatchesTheReferenceOnEveryShapeAndValue) {
  EQUINORM_ROW_TYPES;
  for (const auto& shape : cases::row_shapes()) {
    const bool small = count_of(shape) < 5'000;
    for (const auto& value : cases::values()) {
      const std::string name = value.name;
      if (!small && name != "normal" && name != "mean_1e6") continue;
      for (const Activation activation :
           {Activation::none, Activation::relu, Activation::gelu, Activation::silu, Activation::leaky_relu}) {
        if (!small && activation != (name == "normal" ? Activation::gelu : Activation::none)) continue;
        C call(shape, value);
        call.options.activation = activation;
        call.add = activation == Activation::gelu || activation == Activation::leaky_relu;
        call.has_affine = activation != Activation::silu;
        if (activation == Activation::none) call.make_usual();
        const std::string what = std::to_string(shape.rows) + "×" + std::to_string(shape.features) + " (" + shape.why +
                                 "), " + name + ", activation " + std::to_string(static_cast<int>(activation));
        const Status forward = call.forward();
        ASSERT_TRUE(forward.ok()) << what << ": " << forward.message();
        if (call.add) {
          for (std::size_t i = 0; i < call.x.size(); ++i) {
            const auto exact = static_cast<Parameter<T>>(to_double(call.x[i])) +
                               static_cast<Parameter<T>>(to_double(call.residual[i]));
            ASSERT_EQ(to_double(call.sum[i]), to_double(to_element<T>(static_cast<double>(exact)))) << what;
          }
        }
        std::optional<Bounds<Op, T>> bounds(call);
        bounds->check_forward(what);
        if (activation == Activation::relu || activation == Activation::leaky_relu) {
          // Where the sign of z is in doubt, so is which side the gradient takes: no gradient there.
          for (std::size_t i = 0; i < call.x.size(); ++i) {
            if (std::abs(bounds->z[i]) <= bounds->z_error[i]) call.dy[i] = to_element<T>(0);
          }
          bounds.emplace(call);
        }
        const Status backward = call.backward();
        ASSERT_TRUE(backward.ok()) << what << ": " << backward.message();
        bounds->check_backward(what);
        if (this->HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST_P(RowNorm, GivesTheSameBitsOnEveryTargetAndNumberOfThreads) {
  EQUINORM_ROW_TYPES;
  testing_tools::SeenBits seen;
  std::vector<std::pair<cases::ValueCase, bool>> calls;
  for (const auto& value : cases::values()) {
    for (const bool usual : {false, true}) calls.emplace_back(value, usual);
  }
  for (const auto& shape : cases::row_shapes()) {
    const bool small = count_of(shape) < 32'768;
    for (const auto& [value, usual] : calls) {
      if (!small && std::string(value.name) != "mean_1e3") continue;
      std::optional<std::uint64_t> first;
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        for (int threads = 1; threads <= (small ? 1 : 8); ++threads) {
          C call(shape, value, 5);
          call.options.activation = small ? Activation::gelu : Activation::none;
          call.add = true;
          if (usual) call.make_usual();
          ASSERT_TRUE(call.forward({threads}).ok());
          ASSERT_TRUE(call.backward({threads}).ok());
          if (!first) first = seen.add(fingerprint_of_inputs(call), fingerprint(call));
          ASSERT_EQ(fingerprint(call), *first) << shape.why << ", " << value.name << ", " << target << " " << threads;
        }
      }
    }
  }
}

/// Rows of up to a page of what is computed in, which backward goes through one by one where there are registers enough
/// (of RMS norm if dβ is not wanted), else by blocks, and longer ones; and rows among them that overflow, which it goes
/// through element by element.
TYPED_TEST_P(RowNorm, GivesTheSameBitsHoweverBackwardGoesThroughRows) {
  EQUINORM_ROW_TYPES;
  testing_tools::SeenBits seen;
  const auto same = [](const auto& a, const auto& b) {
    return std::ranges::equal(a, b, [](auto p, auto q) {
      const double x = to_double(p), y = to_double(q);
      return (x == y && std::signbit(x) == std::signbit(y)) || (std::isnan(x) && std::isnan(y));
    });
  };
  const std::vector<std::size_t> eight_and_one = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  for (const std::size_t features : {32U, 512U, 544U, 1024U, 1056U}) {
    for (const std::size_t rows : {1U, 8U, 9U, 33U, 100U}) {
      C clean({rows, features, ""}, cases::values()[0], 13);
      clean.add = features == 32;
      ASSERT_TRUE(clean.forward().ok());
      for (const std::vector<std::size_t>& overflowing :
           std::initializer_list<std::vector<std::size_t>>{{}, {0}, {7}, {8, 9}, {rows - 1}, eight_and_one}) {
        C spoiled = clean;
        for (const std::size_t r : overflowing) {
          if (r < rows) spoiled.dy[r * features + features / 3] = to_element<T>(HUGE_VAL);
        }
        std::optional<C> first;
        for (const std::string& target : simd_targets()) {
          ASSERT_TRUE(set_simd_target(target).ok());
          for (const bool wants_dbeta : {true, false}) {
            C call = spoiled;
            call.wants_dbeta = wants_dbeta;
            ASSERT_TRUE(call.backward().ok());
            if (!first) first = call;
            const std::string what = std::to_string(rows) + "×" + std::to_string(features) + ", of which " +
                                     std::to_string(overflowing.size()) + " overflow, " + target;
            ASSERT_TRUE(same(call.dx, first->dx)) << what;
            ASSERT_TRUE(same(call.dgamma, first->dgamma)) << what;
            ASSERT_TRUE(same(call.dbeta, wants_dbeta ? first->dbeta : clean.dbeta)) << what;
          }
        }
        if (!overflowing.empty()) continue;
        Bounds<Op, T>(*first).check_backward(std::to_string(rows) + "×" + std::to_string(features));
        seen.add(fingerprint_of_inputs(*first), fingerprint(*first));
      }
    }
  }
}

/// Any width, bare (dβ not wanted either) and with all that is fused. Those of two are so many that the output goes
/// around the caches.
TYPED_TEST_P(RowNorm, OfARowDoesNotDependOnItsNeighbours) {
  EQUINORM_ROW_TYPES;
  for (const std::size_t features : {1U, 3U, 33U, 64U, 263U, 512U, 1024U, 1100U, 4500U}) {
    const std::size_t rows =
        features == 512 || features == 1024 ? (std::size_t{8} << 20) / sizeof(T) / features + 1 : 71;
    for (const bool fused : {false, true}) {
      C all({rows, features, ""}, cases::values()[1], 9);
      all.add = fused;
      if (fused) all.options.activation = Activation::silu;
      if (!fused) all.make_usual();
      testing_tools::Room<T> y(all.x.size(), true), dx(all.x.size(), true);
      ASSERT_TRUE(Op::template forward<T>(
                      all.options, all.in(all.x), all.affine(), fused ? all.in(all.residual) : TensorView<const T>{},
                      fused ? all.view(all.sum.data()) : TensorView<T>{}, all.view(y.data()), all.statistics(), {2})
                      .ok());
      ASSERT_TRUE(Op::template backward<T>(all.options, all.in(all.normalized()), all.in(all.dy), all.affine(),
                                           all.statistics(), fused ? all.in(all.dsum) : TensorView<const T>{},
                                           all.view(dx.data()), {all.dgamma.data(), fused ? all.dbeta.data() : nullptr},
                                           {2})
                      .ok());
      all.y = y.copy();
      all.dx = dx.copy();
      for (std::size_t r = 0; r < rows; r += rows < 100 || r < 2 || r + 2 >= rows ? 1 : (rows - r - 1) / 2) {
        const auto row = [&](const std::vector<T>& v) {
          const auto* begin = v.data() + r * features;
          return std::vector<T>(begin, begin + features);
        };
        C one(1, features, row(all.x));
        one.options = all.options;
        one.add = all.add;
        one.has_beta = all.has_beta;
        one.residual = row(all.residual);
        one.dy = row(all.dy);
        one.dsum = row(all.dsum);
        ASSERT_TRUE(one.forward().ok());
        ASSERT_TRUE(one.backward().ok());
        ASSERT_EQ(one.sum, row(all.sum)) << features << " " << r;
        ASSERT_EQ(one.y, row(all.y)) << features << " " << r;
        ASSERT_EQ(one.dx, row(all.dx)) << features << " " << r;
        ASSERT_EQ(one.mean[0], all.mean[r]) << features << " " << r;
        ASSERT_EQ(one.variance[0], all.variance[r]) << features << " " << r;
      }
    }
  }
}

TYPED_TEST_P(RowNorm, OfAPoisonedRowIsNanAndOfOthersIsNot) {
  EQUINORM_ROW_TYPES;
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    C clean({6, 70, ""}, cases::values()[0]);
    C call = clean;
    call.x[2 * 70 + 5] = to_element<T>(bad);
    for (C* c : {&clean, &call}) {
      ASSERT_TRUE(c->forward().ok());
      ASSERT_TRUE(c->backward().ok());
    }
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      if (i / 70 == 2) continue;
      ASSERT_EQ(call.y[i], clean.y[i]);
      ASSERT_EQ(call.dx[i], clean.dx[i]);
    }
    EXPECT_TRUE(std::isnan(to_double(call.y[2 * 70 + 5])));
    EXPECT_TRUE(std::isnan(to_double(call.dx[2 * 70 + 5])));
    EXPECT_TRUE(std::isnan(call.dgamma[5]));
  }
}

TYPED_TEST_P(RowNorm, AnOutlierCostsTheOthersNoDigits) {
  EQUINORM_ROW_TYPES;
  const cases::RowShape shape{3, 700, ""};
  for (const std::size_t at : {std::size_t{0}, std::size_t{100}, std::size_t{699}}) {  // within the sample, and not
    C call(shape, cases::values()[0]);
    call.x[at] = to_element<T>(std::min(1e8L, kLargest<T> / 2));
    ASSERT_TRUE(call.forward().ok());
    ASSERT_TRUE(call.backward().ok());
    const Bounds<Op, T> bounds(call);
    bounds.check_forward("outlier", 9);  // K: of one value in nine at least
    bounds.check_backward("outlier");
  }
}

/// Gradients near the largest float: the sum of a row's overflows, its mean does not.
TYPED_TEST_P(RowNorm, HugeGradientsDoNotOverflowOnTheirWay) {
  EQUINORM_ROW_TYPES;
  C call({5, 700, ""}, cases::values()[0]);
  const auto largest = static_cast<double>(std::min(kLargest<T>, Real{3e38L}));
  for (std::size_t i = 0; i < call.dy.size(); ++i) {
    call.gamma[i % call.features] = static_cast<Parameter<T>>(1);
    call.dy[i] = to_element<T>(largest * (0.1 + 0.1 * static_cast<double>(i % 7) / 7));
  }
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  const Expected want = call.expected();
  const Real scale = 1 / std::sqrt(want.variance[0]) * static_cast<Real>(largest);
  for (std::size_t i = 0; i < call.dx.size(); ++i) {
    // 12 roundings of parts, of which none is larger than 4 times the largest gradient; one of T.
    const Real bound = scale * (48 * kUnit<Parameter<T>> + 4 * kUnit<T>);
    ASSERT_LE(std::abs(static_cast<Real>(to_double(call.dx[i])) - want.dx[i]), bound) << "element " << i;
  }
}

/// Tensors at any address, with gaps between their rows: the same bits, and what lies between is left alone.
TYPED_TEST_P(RowNorm, NeitherReadsNorWritesBeyondItsRows) {
  EQUINORM_ROW_TYPES;
  const T sentinel = to_element<T>(12345);
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    for (const auto& shape : cases::row_shapes()) {
      if (count_of(shape) > 5'000) continue;
      C dense(shape, cases::values()[0]);
      dense.add = true;
      ASSERT_TRUE(dense.forward().ok());
      ASSERT_TRUE(dense.backward().ok());
      for (const std::size_t offset : {1U, 3U}) {
        // Each tensor has a stride of its own, and ends where its allocation ends: AddressSanitizer sees more.
        std::vector<std::unique_ptr<T[]>> memory;
        struct Strided {
          T* data;
          std::size_t stride, size;
        };
        const auto make = [&](const std::vector<T>* values) {
          const std::size_t stride = shape.features + memory.size();
          const std::size_t size = offset + (shape.rows - 1) * stride + shape.features;
          memory.emplace_back(new T[size]);
          std::fill_n(memory.back().get(), size, sentinel);
          T* data = memory.back().get() + offset;
          for (std::size_t i = 0; values != nullptr && i < values->size(); ++i) {
            data[i / shape.features * stride + i % shape.features] = (*values)[i];
          }
          return Strided{data, stride, size - offset};
        };
        const auto view = [&](const Strided& s) {
          return TensorView<T>{s.data, {shape.rows, shape.features}, Layout::channels_last, s.stride};
        };
        const auto in = [&](const Strided& s) {
          return TensorView<const T>{s.data, {shape.rows, shape.features}, Layout::channels_last, s.stride};
        };
        const Strided x = make(&dense.x), residual = make(&dense.residual), dy = make(&dense.dy),
                      dsum = make(&dense.dsum), sum = make(nullptr), y = make(nullptr), dx = make(nullptr);
        C call = dense;
        ASSERT_TRUE(Op::template forward<T>(call.options, in(x), call.affine(), in(residual), view(sum), view(y),
                                            call.statistics(), {})
                        .ok());
        ASSERT_TRUE(Op::template backward<T>(call.options, in(sum), in(dy), call.affine(), call.statistics(), in(dsum),
                                             view(dx), {call.dgamma.data(), call.dbeta.data()}, {})
                        .ok());
        const auto expect = [&](const Strided& s, const std::vector<T>& want) {
          for (std::size_t i = 0; i < s.size; ++i) {
            const std::size_t r = i / s.stride, c = i % s.stride;
            ASSERT_EQ(s.data[i], c < shape.features ? want[r * shape.features + c] : sentinel) << shape.why;
          }
        };
        expect(sum, dense.sum);
        expect(y, dense.y);
        expect(dx, dense.dx);
        ASSERT_EQ(call.dgamma, dense.dgamma);
        ASSERT_EQ(call.variance, dense.variance);
        if (this->HasFatalFailure()) return;
      }
    }
  }
}

/// With every activation, whose z backward computes again from what dx is written over; with a residual and without.
TYPED_TEST_P(RowNorm, InPlaceGivesTheSameBits) {
  EQUINORM_ROW_TYPES;
  using Tensor = std::vector<T> C::*;
  for (const auto& shape : cases::row_shapes()) {
    for (const Activation activation : testing_tools::kActivations) {
      if (count_of(shape) > 5'000 && activation != Activation::none && activation != Activation::gelu) continue;
      for (const bool add : {false, true}) {
        const std::string what = std::string(shape.why) + ", activation " +
                                 std::to_string(static_cast<int>(activation)) + (add ? ", add" : "");
        C apart(shape, cases::values()[0]);
        apart.options.activation = activation;
        apart.add = add;
        ASSERT_TRUE(apart.forward().ok());
        ASSERT_TRUE(apart.backward().ok());

        // y over x or the residual; sum over the other, or not wanted.
        std::vector<std::pair<Tensor, Tensor>> places = {{&C::x, nullptr}};
        if (add) places = {{&C::x, &C::residual}, {&C::residual, &C::x}, {&C::x, nullptr}, {&C::residual, nullptr}};
        for (const auto& [y, sum] : places) {
          C call = apart;
          ASSERT_TRUE(Op::template forward<T>(call.options, call.in(call.x), call.affine(),
                                              add ? call.in(call.residual) : TensorView<const T>{},
                                              sum == nullptr ? TensorView<T>{} : call.view((call.*sum).data()),
                                              call.view((call.*y).data()), call.statistics(), {})
                          .ok());
          ASSERT_EQ(call.*y, apart.y) << what;
          if (sum != nullptr) {
            ASSERT_EQ(call.*sum, apart.sum) << what;
          }
        }

        std::vector<Tensor> of_dx = {add ? &C::sum : &C::x, &C::dy};
        if (add) of_dx.push_back(&C::dsum);
        for (const Tensor dx : of_dx) {
          C call = apart;
          ASSERT_TRUE(
              Op::template backward<T>(call.options, call.in(call.normalized()), call.in(call.dy), call.affine(),
                                       call.statistics(), add ? call.in(call.dsum) : TensorView<const T>{},
                                       call.view((call.*dx).data()), {call.dgamma.data(), call.dbeta.data()}, {})
                  .ok());
          ASSERT_EQ(call.*dx, apart.dx) << what;
          ASSERT_EQ(call.dgamma, apart.dgamma) << what;
          ASSERT_EQ(call.dbeta, apart.dbeta) << what;
        }
      }
    }
  }
}

/// Rows of every kind of values, so many of them that what is written goes around the caches, sums too: those are given
/// a place, or none, or the residual's or x's, and y the other's.
TYPED_TEST_P(RowNorm, SumsOfManyRowsAreThoseOfEachAlone) {
  EQUINORM_ROW_TYPES;
  enum class Place { own, none, in_place, crossed };
  constexpr std::size_t kLine = 64 / sizeof(T);
  for (const std::size_t features : {std::size_t{1000}, (std::size_t{16} << 10) / sizeof(T)}) {
    std::vector<C> alone;
    for (const auto& value : cases::values()) {
      C& row = alone.emplace_back(cases::RowShape{1, features, ""}, value, 11);
      row.add = true;
      row.options.activation = features == 1000 ? Activation::none : Activation::relu;
      ASSERT_TRUE(row.forward().ok());
    }
    const std::size_t rows = (8 << 20) / sizeof(T) / features + 1, stride = (features + kLine - 1) / kLine * kLine;
    const auto of = [&](std::size_t r) -> const C& { return alone[r % alone.size()]; };
    for (const std::string& target : simd_targets()) {
      ASSERT_TRUE(set_simd_target(target).ok());
      for (const Place place : {Place::own, Place::none, Place::in_place, Place::crossed}) {
        testing_tools::Room<T> x(rows * stride, true), residual(rows * stride, true), own_sum(rows * stride, true),
            own_y(rows * stride, true);
        for (std::size_t r = 0; r < rows; ++r) {
          std::ranges::copy(of(r).x, x.data() + r * stride);
          std::ranges::copy(of(r).residual, residual.data() + r * stride);
        }
        T *y = own_y.data(), *sum = place == Place::own ? own_sum.data() : nullptr;
        if (place == Place::in_place) y = x.data(), sum = residual.data();
        if (place == Place::crossed) y = residual.data(), sum = x.data();
        std::vector<double> mean(rows), variance(rows);
        const auto view = [&](T* data) { return TensorView<T>{data, {rows, features}, Layout::channels_last, stride}; };
        const auto in = [&](const T* data) {
          return TensorView<const T>{data, {rows, features}, Layout::channels_last, stride};
        };
        ASSERT_TRUE(Op::template forward<T>(of(0).options, in(x.data()), of(0).affine(), in(residual.data()),
                                            sum == nullptr ? TensorView<T>{} : view(sum), view(y),
                                            {mean.data(), variance.data()}, {2})
                        .ok());
        for (std::size_t r = 0; r < rows; ++r) {
          const std::string what = target + ", row " + std::to_string(r) + " of " + std::to_string(features);
          const std::size_t bytes = features * sizeof(T);
          ASSERT_EQ(std::memcmp(y + r * stride, of(r).y.data(), bytes), 0) << what;
          if (sum != nullptr) {
            ASSERT_EQ(std::memcmp(sum + r * stride, of(r).sum.data(), bytes), 0) << what;
          }
          if (Op::kCentered) {
            ASSERT_EQ(mean[r], of(r).mean[0]) << what;
          }
          ASSERT_EQ(variance[r], of(r).variance[0]) << what;
        }
      }
    }
  }
}

TYPED_TEST_P(RowNorm, RunsOnTheCallersThreadsAndWorkspace) {
  EQUINORM_ROW_TYPES;
  for (const auto& shape : cases::row_shapes()) {
    C own(shape, cases::values()[0], 6);
    ASSERT_TRUE(own.forward().ok());
    ASSERT_TRUE(own.backward().ok());
    const std::size_t bytes = Op::template workspace_bytes<T>(own.options, Shape{shape.rows, shape.features});
    BackwardsExecutor backwards;
    ThreadsExecutor threads;
    for (CountingExecutor* executor : std::initializer_list<CountingExecutor*>{&backwards, &threads}) {
      for (const int most : {2, 3, 8}) {
        C given = own;
        for (std::vector<T>* v : {&given.y, &given.dx}) v->assign(v->size(), to_element<T>(-7));
        const GuardedMemory workspace(bytes);
        const Execution execution{most, workspace.data(), bytes, executor};
        ASSERT_TRUE(given.forward(execution).ok());
        ASSERT_TRUE(given.backward(execution).ok());
        EXPECT_EQ(fingerprint(given), fingerprint(own)) << shape.why;
      }
      if (count_of(shape) > 70'000) {  // less runs on one thread
        EXPECT_GT(executor->tasks_run, 0U);
      }
    }
  }
}

TYPED_TEST_P(RowNorm, TakesAnyLastAxesForARow) {
  EQUINORM_ROW_TYPES;
  C flat({6, 20, ""}, cases::values()[0]);
  ASSERT_TRUE(flat.forward().ok());
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    C call = flat;
    const Shape shape{2, 3, 5, 4};
    call.options.normalized_axes = 2;
    call.y.assign(call.y.size(), to_element<T>(-7));
    ASSERT_TRUE(Op::template forward<T>(call.options, {call.x.data(), shape, layout}, call.affine(), {}, {},
                                        {call.y.data(), shape, layout}, {}, {})
                    .ok());
    EXPECT_EQ(call.y, flat.y);
  }
  C whole({1, 120, ""}, cases::values()[0]);
  ASSERT_TRUE(whole.forward().ok());
  C call = whole;
  call.options.normalized_axes = 1;
  ASSERT_TRUE(Op::template forward<T>(call.options, {call.x.data(), Shape{120}}, call.affine(), {}, {},
                                      {call.y.data(), Shape{120}}, {}, {})
                  .ok());
  EXPECT_EQ(call.y, whole.y);
}

TYPED_TEST_P(RowNorm, OfNoRowsIsNothingAndItsGradientsAreZero) {
  EQUINORM_ROW_TYPES;
  C call(0, 3, {});
  EXPECT_TRUE(call.forward().ok());
  EXPECT_TRUE(call.backward().ok());
  EXPECT_EQ(call.dgamma, (std::vector<Parameter<T>>{0, 0, 0}));
  EXPECT_EQ(call.dbeta, (std::vector<Parameter<T>>{0, 0, 0}));
}

/// Central differences of the reference's own forward: the closed form of the gradient is checked, not just copied.
TYPED_TEST_P(RowNorm, GradientsAgreeWithFiniteDifferences) {
  EQUINORM_ROW_TYPES;
  for (const Activation activation : {Activation::none, Activation::silu, Activation::gelu}) {
    C call({3, 5, ""}, cases::values()[0], 21);
    call.options.activation = activation;
    ASSERT_TRUE(call.forward().ok());
    ASSERT_TRUE(call.backward().ok());
    const auto loss = [&](const std::array<Reals, 3>& a) {
      const Expected out =
          Op::reference(a[0], 5, a[1], a[2], activation, static_cast<Real>(call.options.epsilon), {}, {});
      Real sum = 0;
      for (std::size_t i = 0; i < out.y.size(); ++i) sum += out.y[i] * static_cast<Real>(to_double(call.dy[i]));
      return sum;
    };
    const Real h = 1e-6L;  // truncation h², rounding 1e-19/h: both far under what is compared
    const auto derivative = [&](std::size_t which, std::size_t i) {
      std::array<Reals, 3> up = {widen(call.x), widen(call.gamma), widen(call.beta)}, down = up;
      up[which][i] += h;
      down[which][i] -= h;
      return (loss(up) - loss(down)) / (2 * h);
    };
    // Gradients of about 1 whose parts are at most 16: 64 roundings of those in T or in what T is computed in.
    const auto bound = static_cast<double>(64 * 16 * kUnit<Parameter<T>> + 16 * kUnit<T> + 1e-10L);
    for (std::size_t i = 0; i < 15; ++i) {
      EXPECT_NEAR(static_cast<double>(to_double(call.dx[i])), static_cast<double>(derivative(0, i)), bound);
    }
    for (std::size_t c = 0; c < 5; ++c) {
      EXPECT_NEAR(static_cast<double>(call.dgamma[c]), static_cast<double>(derivative(1, c)), bound);
      EXPECT_NEAR(static_cast<double>(call.dbeta[c]), static_cast<double>(derivative(2, c)), bound);
    }
  }
}

TYPED_TEST_P(RowNorm, BadArgumentsAreNamedAndNothingIsWritten) {
  EQUINORM_ROW_TYPES;
  struct Arguments {
    typename Op::Options options;
    TensorView<const T> x, residual;
    TensorView<T> sum, y;
    Execution execution;
  };
  const auto fails = [](const char* part, const auto& spoil) {
    C call({4, 3, ""}, cases::values()[0]);
    Arguments a{{}, call.in(call.x), {}, {}, call.view(call.y.data()), {}};
    spoil(a, call);
    const Status status =
        Op::template forward<T>(a.options, a.x, call.affine(), a.residual, a.sum, a.y, call.statistics(), a.execution);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << part;
    EXPECT_NE(status.message().find("[" + std::string(Op::kName) + "_forward]"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(call.y, std::vector<T>(12, to_element<T>(-7))) << part;
    EXPECT_EQ(call.variance, std::vector<double>(4, -7.0)) << part;
  };
  fails("epsilon is 0", [](auto& a, auto&) { a.options.epsilon = 0; });
  fails("epsilon is nan", [](auto& a, auto&) { a.options.epsilon = std::nan(""); });
  fails("x has rank 0", [](auto& a, auto&) { a.x.shape = {}; });
  fails("x has rank 6", [](auto& a, auto&) { a.x.shape = Shape{1, 1, 1, 1, 4, 3}; });
  fails("normalized_axes is 0", [](auto& a, auto&) { a.options.normalized_axes = 0; });
  fails("normalized_axes is 3; expected 1 to 2", [](auto& a, auto&) { a.options.normalized_axes = 3; });
  fails("at least one element", [](auto& a, auto&) { a.x.shape = {4, 0}; });
  // More elements than size_t counts; more bytes than memory has.
  for (const std::size_t extent : {std::size_t{1} << 40, std::size_t{1} << 31}) {
    fails("fewer elements than memory", [extent](auto& a, auto&) { a.x.shape = {extent, extent}; });
  }
  fails("x is null", [](auto& a, auto&) { a.x.data = nullptr; });
  fails("x has a row stride of 2", [](auto& a, auto&) { a.x.row_stride = 2; });
  fails("y is null", [](auto& a, auto&) { a.y.data = nullptr; });
  fails("y has shape [3, 4]; expected [4, 3]", [](auto& a, auto&) { a.y.shape = {3, 4}; });
  fails("residual has shape", [](auto& a, auto& call) { a.residual = {call.residual.data(), Shape{12}}; });
  fails("sum is given without a residual", [](auto& a, auto& call) { a.sum = call.view(call.sum.data()); });

  C call({4, 3, ""}, cases::values()[0]);
  ASSERT_TRUE(call.forward().ok());
  const auto backward = [&](const Statistics& statistics, const Execution& execution) {
    return Op::template backward<T>(call.options, call.in(call.x), call.in(call.dy), call.affine(), statistics, {},
                                    call.view(call.dx.data()), {call.dgamma.data(), nullptr}, execution)
        .message();
  };
  alignas(64) static std::byte memory[128];
  const std::string name = "[" + std::string(Op::kName) + "_backward]";
  EXPECT_EQ(backward({call.mean.data(), nullptr}, {}).substr(0, name.size()), name);
  EXPECT_NE(backward(call.statistics(), {1, memory + 4, 64}).find("workspace is misaligned"), std::string::npos);
  EXPECT_NE(backward(call.statistics(), {1, memory, 8}).find("workspace has 8 bytes"), std::string::npos);
  EXPECT_EQ(call.dx, std::vector<T>(12, to_element<T>(-7)));
}

REGISTER_TYPED_TEST_SUITE_P(RowNorm, MatchesTheReferenceOnEveryShapeAndValue,
                            GivesTheSameBitsOnEveryTargetAndNumberOfThreads,
                            GivesTheSameBitsHoweverBackwardGoesThroughRows, OfARowDoesNotDependOnItsNeighbours,
                            OfAPoisonedRowIsNanAndOfOthersIsNot, AnOutlierCostsTheOthersNoDigits,
                            HugeGradientsDoNotOverflowOnTheirWay, NeitherReadsNorWritesBeyondItsRows,
                            InPlaceGivesTheSameBits, SumsOfManyRowsAreThoseOfEachAlone,
                            RunsOnTheCallersThreadsAndWorkspace, TakesAnyLastAxesForARow,
                            OfNoRowsIsNothingAndItsGradientsAreZero, GradientsAgreeWithFiniteDifferences,
                            BadArgumentsAreNamedAndNothingIsWritten);

template <class Op>
using EveryType = testing::Types<OpOf<Op, float>, OpOf<Op, double>, OpOf<Op, bfloat16>, OpOf<Op, float16>>;

}  // namespace equinorm::rows_test
