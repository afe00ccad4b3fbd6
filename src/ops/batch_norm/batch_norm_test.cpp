#include "equinorm/batch_norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "ops/batch_norm/cases.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm {
namespace {

constexpr double kUnit = 0x1p-24;  // half an ulp of 1, the relative error of one rounding to float

/// All that a call of forward and backward takes and gives.
struct Call {
  Call(const Shape& tensor_shape, Layout tensor_layout, std::vector<float> values)
      : shape(tensor_shape), layout(tensor_layout), x(std::move(values)) {
    channels = layout == Layout::channels_last ? shape[shape.rank() - 1] : shape[1];
    const Philox random(7, 2);
    const auto normal = [&](std::size_t count, std::uint64_t from) {
      std::vector<float> v(count);
      for (std::size_t i = 0; i < count; ++i) v[i] = static_cast<float>(random.normal(from + i));
      return v;
    };
    gamma = normal(channels, 0);
    beta = normal(channels, channels);
    residual = normal(x.size(), 1'000'000);
    dy = normal(x.size(), 2'000'000);
    y.assign(x.size(), -7);
    dx.assign(x.size(), -7);
    dresidual.assign(x.size(), -7);
    mean.assign(channels, -7);
    variance.assign(channels, -7);
    dgamma.assign(channels, -7);
    dbeta.assign(channels, -7);
  }

  template <class T>
  TensorView<T> view(T* data) const {
    return {data, shape, layout};
  }

  Status forward(const Execution& execution = {}) {
    return batch_norm_forward(options, view<const float>(x.data()), {gamma.data(), beta.data()},
                              view<const float>(add ? residual.data() : nullptr), view(y.data()),
                              {mean.data(), variance.data()}, nullptr, execution);
  }
  Status backward(const Execution& execution = {}) {
    return batch_norm_backward(options, view<const float>(x.data()), view<const float>(add ? y.data() : nullptr),
                               view<const float>(dy.data()), {gamma.data(), beta.data()},
                               {mean.data(), variance.data()}, view(dx.data()), view(add ? dresidual.data() : nullptr),
                               {dgamma.data(), dbeta.data()}, execution);
  }
  Status inference(const std::vector<float>& m, const std::vector<float>& v, const Execution& execution = {}) {
    return batch_norm_inference(options, view<const float>(x.data()), {gamma.data(), beta.data()}, m.data(), v.data(),
                                view<const float>(add ? residual.data() : nullptr), view(y.data()), execution);
  }

  std::size_t channel_of(std::size_t i) const {
    std::size_t inner = 1;
    for (std::size_t a = 2; layout == Layout::channels_first && a < shape.rank(); ++a) inner *= shape[a];
    return i / inner % channels;
  }

  Shape shape;
  Layout layout;
  std::size_t channels;
  BatchNormOptions options{};
  bool add = false;
  std::vector<float> x, gamma, beta, residual, dy, y, dx, dresidual, dgamma, dbeta;
  std::vector<double> mean, variance;
};

std::vector<double> widen(const std::vector<float>& v) {
  return {v.begin(), v.end()};
}

std::string describe(const Shape& shape, Layout layout) {
  std::string text = layout == Layout::channels_last ? "channels-last" : "channels-first";
  for (std::size_t i = 0; i < shape.rank(); ++i) text += " " + std::to_string(shape[i]);
  return text;
}

/// The forward error bound of one element, in roundings: x − hi and − lo round relative to |d| (2), the scale once, the
/// product, + β, + r and the final result once each. Statistics add the rounding of one difference per value (pass 2,
/// ≤ 1 of |d| ≤ a few σ each) to the mean and twice that, relatively, to σ; all in units of the terms' magnitudes.
double forward_bound(double x_hat, double gamma, double beta, double residual) {
  const double scaled = std::abs(gamma) * (std::abs(x_hat) + 1);
  return kUnit * (6 * scaled + 2 * std::abs(beta) + 2 * std::abs(residual)) + 0x1p-149;
}

void expect_forward(const Call& call, const std::string& what) {
  const bool relu = call.options.activation == Activation::relu;
  const auto want = reference::batch_norm_forward(
      widen(call.x), call.shape, call.layout, widen(call.gamma), widen(call.beta),
      call.add ? widen(call.residual) : std::vector<double>{}, relu, call.options.epsilon);
  for (std::size_t c = 0; c < call.channels; ++c) {
    const double sigma = std::sqrt(want.variance[c]);
    ASSERT_NEAR(call.mean[c], want.mean[c], kUnit * sigma + 1e-15 * std::abs(want.mean[c]) + 1e-300) << what;
    ASSERT_NEAR(call.variance[c], want.variance[c], 4 * kUnit * want.variance[c] + 1e-300) << what << " channel " << c;
  }
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double x_hat =
        (static_cast<double>(call.x[i]) - want.mean[c]) / std::sqrt(want.variance[c] + call.options.epsilon);
    const double bound = forward_bound(x_hat, static_cast<double>(call.gamma[c]), static_cast<double>(call.beta[c]),
                                       call.add ? static_cast<double>(call.residual[i]) : 0.0);
    ASSERT_NEAR(static_cast<double>(call.y[i]), want.y[i], bound) << what << " element " << i;
  }
}

void expect_backward(const Call& call, const std::string& what) {
  std::vector<bool> passed;
  if (call.options.activation == Activation::relu) {
    for (const float y : call.y) passed.push_back(y > 0);
  }
  const auto want = reference::batch_norm_backward(widen(call.x), widen(call.dy), call.shape, call.layout,
                                                   widen(call.gamma), passed, call.options.epsilon);
  const double m = static_cast<double>(call.x.size()) / static_cast<double>(call.channels);
  std::vector<double> sum_g(call.channels), sum_gx(call.channels), largest(call.channels);
  const auto stats =
      reference::batch_norm_forward(widen(call.x), call.shape, call.layout, {}, {}, {}, false, call.options.epsilon);
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    sum_g[c] += std::abs(want.dresidual[i]);
    sum_gx[c] += std::abs(want.dresidual[i] * stats.y[i]);
    largest[c] = std::max(largest[c], std::abs(want.dresidual[i]));
  }
  for (std::size_t c = 0; c < call.channels; ++c) {
    // Each term of the sums is exact but for d (3 roundings and the mean's), then one rounding to float.
    ASSERT_NEAR(static_cast<double>(call.dbeta[c]), want.dbeta[c], kUnit * std::abs(want.dbeta[c]) + 1e-14 * sum_g[c])
        << what;
    ASSERT_NEAR(static_cast<double>(call.dgamma[c]), want.dgamma[c],
                kUnit * (2 * std::abs(want.dgamma[c]) + 4 * sum_gx[c] + sum_g[c]) + 1e-300)
        << what << " channel " << c;
  }
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double scale =
        std::abs(static_cast<double>(call.gamma[c])) / std::sqrt(stats.variance[c] + call.options.epsilon);
    // The parts of dx, each rounded a few times on its way.
    const double parts =
        std::abs(want.dresidual[i]) + sum_g[c] / m + (std::abs(stats.y[i]) + 1) * (sum_gx[c] + sum_g[c]) / m;
    ASSERT_NEAR(static_cast<double>(call.dx[i]), want.dx[i], 8 * kUnit * scale * parts + 0x1p-149)
        << what << " element " << i;
    if (call.add) {
      ASSERT_EQ(static_cast<double>(call.dresidual[i]), want.dresidual[i]) << what;
    }
  }
}

TEST(BatchNorm, MatchesTheReferenceOnEveryShapeAndValue) {
  for (const auto& shape : cases::shapes()) {
    for (const auto& value : cases::values()) {
      const bool small = shape.shape.elements() < 20'000;
      if (!small && std::string(value.name) != "normal" && std::string(value.name) != "mean_1e6") continue;
      for (int variant = 0; variant < 4; ++variant) {
        Call call(shape.shape, shape.layout, cases::make(value, shape.shape.elements(), 3));
        call.options.activation = variant % 2 == 1 ? Activation::relu : Activation::none;
        call.add = variant >= 2;
        const std::string what = describe(shape.shape, shape.layout) + " (" + shape.why + "), " + value.name +
                                 ", variant " + std::to_string(variant);
        const Status forward = call.forward();
        ASSERT_TRUE(forward.ok()) << what << ": " << forward.message();
        expect_forward(call, what);
        const Status backward = call.backward();
        ASSERT_TRUE(backward.ok()) << what << ": " << backward.message();
        expect_backward(call, what);
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace equinorm
