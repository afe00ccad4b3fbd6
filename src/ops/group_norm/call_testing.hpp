// A call of group norm on elements of any type, and the bounds that its results must keep. For tests alone.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/activation.hpp"
#include "core/norm_promises.hpp"
#include "core/norm_testing.hpp"
#include "core/value_cases.hpp"
#include "equinorm/group_norm.hpp"
#include "ops/group_norm/cases.hpp"
#include "ops/group_norm/reference.hpp"

namespace equinorm::testing_tools {

using cases::kNormal;

template <class T>
struct Call : CallOverResidual<Call<T>, T> {
  using Base = CallOverResidual<Call<T>, T>;
  using Tensors<T>::in, Tensors<T>::view, Tensors<T>::x, Tensors<T>::y;

  Call(const cases::GroupCase& c, const cases::ValueCase& value, std::uint64_t seed = 3)
      : Base(c.shape, c.layout, c.shape[0] * c.groups, value, seed) {
    options.groups = c.groups;
  }

  Status forward_at(const Places<T>& p, const Execution& execution) {
    return group_norm_forward<T>(options, view(p.x), p.affine, this->added(p), view(p.y), p.statistics, execution);
  }
  Status backward_at(const Places<T>& p, const Execution& execution) {
    return group_norm_backward<T>(options, view(p.x), this->y_for_backward(p), this->residual_for_backward(p),
                                  view(p.dy), p.affine, p.statistics, view(p.dx), this->wanted(p), p.gradients,
                                  execution);
  }
  std::size_t sample_of(std::size_t i) const { return i / (x.size() / this->shape[0]); }
  std::size_t set_of(std::size_t i) const {  // its group
    return sample_of(i) * options.groups + this->channel_of(i) / (this->channels / options.groups);
  }
  std::size_t positions() const { return x.size() / this->shape[0] / this->channels; }
  std::size_t valid_positions(std::size_t n) const {
    return options.lengths == nullptr ? positions() : options.lengths[n];
  }
  bool is_padding(std::size_t i) const {
    const std::size_t position = this->layout == Layout::channels_last ? i / this->channels : i;
    return position % positions() >= valid_positions(sample_of(i));
  }
  std::vector<std::size_t> lengths() const {
    if (options.lengths == nullptr) return {};
    return {options.lengths, options.lengths + this->shape[0]};
  }

  GroupNormOptions options{};
};

/// Checks outputs against the reference. Bounds as in batch norm's tests, in roundings of the type of computing, and
/// one of T; double sums up n roundings in its statistics, and rounds the mean itself. silu and gelu multiply the error
/// of z by their slope, at most 1.13, and add 16 roundings; the slope differs by z's error times 0.8, the largest
/// second derivative, and by 19 roundings of its own 1.13, and one of the product (simd/activation_test.cpp).
template <class T>
void expect_right(const Call<T>& call, const std::string& what, double excess = StatisticsRoundings::kNoOutlier) {
  constexpr double u = kUnit<Parameter<T>>;
  const auto elements = [&](std::size_t k) {  // of group k
    const std::size_t group_channels = call.channels / call.options.groups;
    return static_cast<double>(call.valid_positions(k / call.options.groups) * group_channels);
  };
  const double parameter_terms = static_cast<double>(call.x.size()) / static_cast<double>(call.channels);
  // The worst that a sum over all positions may come to; of dγ each term has four roundings of its own.
  const double parameter_sums = std::is_same_v<T, double> ? parameter_terms + 1 : StatisticsRoundings::kOfMany;
  const auto add = call.add ? widen(call.residual) : std::vector<double>{};
  const auto want =
      reference::group_norm_forward(widen(call.x), call.shape, call.layout, call.options.groups, widen(call.gamma),
                                    widen(call.beta), add, call.options.epsilon, call.lengths());
  const std::vector<double> y = widen(call.y), dy = widen(call.dy), dx = widen(call.dx);
  const Activation activation = call.options.activation;
  const bool curved = activation == Activation::silu || activation == Activation::gelu;
  std::vector<double> g(y.size()), g_error(y.size());                     // g_error: of silu and gelu alone
  std::vector<double> sum_g(call.mean.size()), sum_gx(call.mean.size());  // Σ|γg|, Σ|γg·x̂| of a group
  std::vector<double> abs_g(call.channels), abs_gx(call.channels);
  std::vector<double> sum_error(call.mean.size()), dot_error(call.mean.size());  // what g_error does to the group's
  std::vector<double> dbeta_error(call.channels), dgamma_error(call.channels);
  const auto condition = [&](std::size_t k) {  // what one rounding of the mean costs, in double
    const double cost = std::abs(want.mean[k]) / std::sqrt(want.variance[k] + call.options.epsilon);
    return 4 * (0x1p-53 / u) * cost;
  };
  for (std::size_t k = 0; k < call.mean.size(); ++k) {
    const double sigma = std::sqrt(want.variance[k]);
    const auto roundings = StatisticsRoundings::of<T>(elements(k), excess);
    ASSERT_NEAR(call.mean[k], want.mean[k], roundings.mean * u * sigma + 1e-15 * std::abs(want.mean[k]) + 1e-300)
        << what;
    ASSERT_NEAR(call.variance[k], want.variance[k],
                roundings.variance * u * want.variance[k] + 1e-15 * std::abs(want.mean[k]) * sigma +
                    1e-30 * want.mean[k] * want.mean[k] + 1e-300)
        << what;
  }
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (call.is_padding(i)) {
      ASSERT_EQ(y[i], 0) << what << " element " << i;
      ASSERT_EQ(dx[i], 0) << what << " element " << i;
      ASSERT_EQ(call.add ? to_double(call.dresidual[i]) : 0, 0) << what << " element " << i;
      continue;
    }
    const std::size_t c = call.channel_of(i), k = call.set_of(i);
    const double gamma = std::abs(to_double(call.gamma[c])), beta = std::abs(to_double(call.beta[c]));
    const double reach = std::abs(want.x_hat[i]) + 1 + condition(k);
    const auto roundings = StatisticsRoundings::of<T>(elements(k), excess);
    const double statistics =
        std::is_same_v<T, double> ? roundings.mean + roundings.variance / 2 * std::abs(want.x_hat[i]) : 0;
    const double slack = u * (gamma * (6 * reach + statistics) + 3 * beta + 2 * (add.empty() ? 0 : std::abs(add[i])));
    const double expected = activate(activation, want.z[i]);
    ASSERT_NEAR(y[i], expected,
                (curved ? 1.13 : 1) * slack + ((curved ? 16 : 2) * u + kUnit<T>)*std::abs(expected) + kTiny<T>)
        << what << " element " << i;
    g[i] = dy[i] * activation_slope(activation, curved ? want.z[i] : y[i]);
    g_error[i] = curved ? std::abs(dy[i]) * (24 * u + 0.8 * slack) : 0;
    sum_error[k] += gamma * g_error[i];
    dot_error[k] += gamma * g_error[i] * reach;
    dbeta_error[c] += g_error[i];
    dgamma_error[c] += g_error[i] * reach;
    sum_g[k] += std::abs(gamma * g[i]);
    sum_gx[k] += std::abs(gamma * g[i] * want.x_hat[i]);
    abs_g[c] += std::abs(g[i]);
    abs_gx[c] += std::abs(g[i]) * reach;
  }
  const auto back = reference::group_norm_backward(widen(call.x), g, call.shape, call.layout, call.options.groups,
                                                   widen(call.gamma), call.options.epsilon, call.lengths());
  for (std::size_t c = 0; c < call.channels; ++c) {
    ASSERT_NEAR(to_double(call.dbeta[c]), back.dbeta[c],
                u * (2 * std::abs(back.dbeta[c]) + parameter_sums * abs_g[c]) + dbeta_error[c])
        << what;
    ASSERT_NEAR(to_double(call.dgamma[c]), back.dgamma[c],
                u * (2 * std::abs(back.dgamma[c]) + (parameter_sums + 4) * abs_gx[c]) + dgamma_error[c])
        << what;
  }
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (call.is_padding(i)) continue;
    const std::size_t c = call.channel_of(i), k = call.set_of(i);
    const double m = elements(k), sums = roundings_of_sum<T>(m);
    const double scale = 1 / std::sqrt(want.variance[k] + call.options.epsilon);
    const double gamma = std::abs(to_double(call.gamma[c])), reach = std::abs(want.x_hat[i]) + 1 + condition(k);
    const double parts =
        gamma * std::abs(g[i]) + sum_g[k] / m + reach * (sum_gx[k] + (1 + condition(k)) * sum_g[k]) / m;
    const double errors = gamma * g_error[i] + sum_error[k] / m + reach * dot_error[k] / m;
    ASSERT_NEAR(dx[i], back.dx[i], scale * (8 * sums * u * parts + errors) + kUnit<T> * std::abs(back.dx[i]) + kTiny<T>)
        << what << " element " << i;
    if (call.add) {
      ASSERT_NEAR(to_double(call.dresidual[i]), g[i], g_error[i] + (2 * u + kUnit<T>)*std::abs(g[i]) + kTiny<T>)
          << what << " leaky_relu's slope and product";
    }
  }
}

}  // namespace equinorm::testing_tools
