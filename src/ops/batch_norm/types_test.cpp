// Batch norm on every element type and activation; batch_norm_test.cpp holds what is special to none.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>

#include "core/activation.hpp"
#include "core/elements.hpp"
#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/cases.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm {
namespace {

/// The error of one rounding to T, relative, and at the bottom of its range.
template <class T>
constexpr double kUnit = std::is_same_v<T, double>     ? 0x1p-53
                         : std::is_same_v<T, float>    ? 0x1p-24
                         : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                       : 0x1p-11;
template <class T>
constexpr double kTiny = std::is_same_v<T, double>     ? 0x1p-1074
                         : std::is_same_v<T, float>    ? 0x1p-149
                         : std::is_same_v<T, bfloat16> ? 0x1p-133
                                                       : 0x1p-24;

template <class T>
struct Call {
  using P = Parameter<T>;

  Call(const cases::ShapeCase& c, double mean_of_x) : shape(c.shape), layout(c.layout) {
    channels = shape[layout == Layout::channels_last ? shape.rank() - 1 : 1];
    const std::size_t count = shape.elements();
    const auto fill = [&]<class V>(std::vector<V>& v, std::size_t size, double mean_value, std::uint64_t stream) {
      const Philox random(11, stream);
      v.resize(size);
      for (std::size_t i = 0; i < size; ++i) v[i] = to_element<V>(mean_value + random.normal(i));
    };
    fill(x, count, mean_of_x, 1);
    fill(residual, count, 0, 2);
    fill(dy, count, 0, 3);
    fill(gamma, channels, 0, 4);
    fill(beta, channels, 0, 5);
    y = dx = dresidual = std::vector<T>(count, to_element<T>(-7));
    dgamma = dbeta = std::vector<P>(channels, -7);
    mean = variance = std::vector<double>(channels, -7);
  }

  template <class U>
  TensorView<U> view(U* data) const {
    return {data, shape, layout};
  }
  TensorView<const T> in(const std::vector<T>& v) const { return view<const T>(v.data()); }

  Status run(const Execution& execution = {}) {
    const Affine<T> affine{gamma.data(), beta.data()};
    const Statistics statistics{mean.data(), variance.data()};
    Status status = batch_norm_forward<T>(options, in(x), affine, add ? in(residual) : TensorView<const T>{},
                                          view(y.data()), statistics, nullptr, execution);
    if (!status.ok()) return status;
    return batch_norm_backward<T>(options, in(x), add ? in(y) : TensorView<const T>{}, in(dy), affine, statistics,
                                  view(dx.data()), add ? view(dresidual.data()) : TensorView<T>{},
                                  {dgamma.data(), dbeta.data()}, execution);
  }

  std::size_t channel_of(std::size_t i) const {
    std::size_t inner = 1;
    for (std::size_t a = 2; layout == Layout::channels_first && a < shape.rank(); ++a) inner *= shape[a];
    return i / inner % channels;
  }

  /// FNV-1a over the bytes of all outputs.
  std::uint64_t fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto mix = [&hash](const auto& v) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(v.data());
      for (std::size_t i = 0; i < v.size() * sizeof v[0]; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
    };
    for (const auto* v : {&y, &dx, &dresidual}) mix(*v);
    for (const auto* v : {&dgamma, &dbeta}) mix(*v);
    for (const auto* v : {&mean, &variance}) mix(*v);
    return hash;
  }

  Shape shape;
  Layout layout;
  std::size_t channels;
  BatchNormOptions options{};
  bool add = false;
  std::vector<T> x, residual, dy, y, dx, dresidual;
  std::vector<P> gamma, beta, dgamma, dbeta;
  std::vector<double> mean, variance;
};

template <class V>
std::vector<double> widen(const std::vector<V>& v) {
  std::vector<double> result;
  for (const V& value : v) result.push_back(to_double(value));
  return result;
}

/// The bounds of batch_norm_test.cpp, in roundings of the type of computing, and one of T. An activation adds 8 of its
/// own (simd/activation-inl.hpp) and multiplies the error of z by its slope, at most 1.13; its own slope differs by as
/// much as z's error times 0.8, the largest second derivative. Sums in double of doubles are rounded too.
template <class T>
void expect_right(const Call<T>& call, const std::string& what) {
  constexpr double u = kUnit<Parameter<T>>, sums = std::is_same_v<T, double> ? 64 : 1;
  const Activation activation = call.options.activation;
  const auto add = call.add ? widen(call.residual) : std::vector<double>{};
  const double epsilon = call.options.epsilon;
  const auto z = reference::batch_norm_forward(widen(call.x), call.shape, call.layout, widen(call.gamma),
                                               widen(call.beta), add, false, epsilon);
  const auto x_hat =
      reference::batch_norm_forward(widen(call.x), call.shape, call.layout, {}, {}, {}, false, epsilon).y;
  const std::vector<double> y = widen(call.y), dy = widen(call.dy), dx = widen(call.dx);
  const auto m = static_cast<double>(y.size()) / static_cast<double>(call.channels);
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
using Types = testing::Types<float, double, bfloat16, float16>;
class TypeNames {
 public:
  template <class T>
  static std::string GetName(int) {
    return std::is_same_v<T, float>      ? "float32"
           : std::is_same_v<T, double>   ? "float64"
           : std::is_same_v<T, bfloat16> ? "bfloat16"
                                         : "float16";
  }
};
TYPED_TEST_SUITE(BatchNormTypes, Types, TypeNames);

std::string describe(const cases::ShapeCase& c) {
  std::string text = c.layout == Layout::channels_last ? "channels-last" : "channels-first";
  for (std::size_t i = 0; i < c.shape.rank(); ++i) text += " " + std::to_string(c.shape[i]);
  return text + " (" + c.why + ")";
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
          if (!first) first = call.fingerprint();
          ASSERT_EQ(call.fingerprint(), *first) << describe(shape) << " " << target << " " << threads;
        }
      }
    }
  }
}

}  // namespace
}  // namespace equinorm
