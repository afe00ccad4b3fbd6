// A call of batch norm on elements of any type, and the bounds that its results must keep. For tests alone.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/activation.hpp"
#include "core/norm_testing.hpp"
#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::testing_tools {

template <class T>
struct Call : CallOverResidual<Call<T>, T> {
  using Tensors<T>::in, Tensors<T>::view;

  Call(const Shape& of_shape, Layout of_layout, double mean_of_x, double sigma_of_x = 1)
      : CallOverResidual<Call<T>, T>(of_shape, of_layout,
                                     of_shape[of_layout == Layout::channels_last ? of_shape.rank() - 1 : 1], mean_of_x,
                                     sigma_of_x, 11) {}

  Status forward_to(T* for_y, const Execution& execution = {}) {
    return batch_norm_forward<T>(options, in(this->x), this->affine(), this->added(), view(for_y), this->statistics(),
                                 nullptr, execution);
  }
  Status backward_to(T* for_dx, T* for_dresidual, const Execution& execution = {}) {
    return batch_norm_backward<T>(options, in(this->x), this->y_for_backward(), this->residual_for_backward(),
                                  in(this->dy), this->affine(), this->statistics(), view(for_dx),
                                  this->wanted(for_dresidual), this->gradients(), execution);
  }

  /// With the running statistics of each channel c: mean (c mod 7)/8 − 1/4, and variance (c mod 5 + 2)/4.
  Status infer_to(T* for_y, const Execution& execution = {}) const {
    std::vector<Parameter<T>> means, variances;
    for (std::size_t c = 0; c < this->channels; ++c) {
      means.push_back(to_element<Parameter<T>>(running_mean(c)));
      variances.push_back(to_element<Parameter<T>>(running_variance(c)));
    }
    return batch_norm_inference<T>(options, in(this->x), this->affine(), means.data(), variances.data(), this->added(),
                                   view(for_y), execution);
  }
  static double running_mean(std::size_t c) { return static_cast<double>(c % 7) / 8 - 0.25; }
  static double running_variance(std::size_t c) { return static_cast<double>(c % 5 + 2) / 4; }

  BatchNormOptions options{};
};

/// y of infer_to, without an activation. The bound is forward's (below): the statistics are given, and err in nothing.
template <class T>
void expect_inference_right(const Call<T>& call, const std::string& what) {
  constexpr double u = kUnit<Parameter<T>>;
  std::vector<double> mean, variance;
  for (std::size_t c = 0; c < call.channels; ++c) {
    mean.push_back(call.running_mean(c));
    variance.push_back(call.running_variance(c));
  }
  const auto add = call.add ? widen(call.residual) : std::vector<double>{};
  const auto want = reference::batch_norm_inference(widen(call.x), call.shape, call.layout, widen(call.gamma),
                                                    widen(call.beta), mean, variance, add, false, call.options.epsilon);
  for (std::size_t i = 0; i < want.size(); ++i) {
    const std::size_t c = call.channel_of(i);
    const double gamma = std::abs(to_double(call.gamma[c])), beta = std::abs(to_double(call.beta[c]));
    const double x_hat = std::abs(to_double(call.x[i]) - mean[c]) / std::sqrt(variance[c]);
    const double z_error = u * (6 * gamma * (x_hat + 1) + 3 * beta + 2 * (add.empty() ? 0 : std::abs(add[i])));
    ASSERT_NEAR(to_double(call.y[i]), want[i], z_error + kUnit<T> * std::abs(want[i]) + kTiny<T>)
        << what << " element " << i;
  }
}

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

}  // namespace equinorm::testing_tools
