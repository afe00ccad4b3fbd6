// A call of batch norm on elements of any type, and the bounds that its results must keep. For tests alone.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/activation.hpp"
#include "core/norm_promises.hpp"
#include "core/norm_testing.hpp"
#include "core/value_cases.hpp"
#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::testing_tools {

template <class T>
struct Call : CallOverResidual<Call<T>, T> {
  using Base = CallOverResidual<Call<T>, T>;
  using Tensors<T>::in, Tensors<T>::view;

  Call(const Shape& of_shape, Layout of_layout, const cases::ValueCase& value, std::uint64_t seed = 11)
      : Base(of_shape, of_layout, of_shape[of_layout == Layout::channels_last ? of_shape.rank() - 1 : 1], value, seed) {
  }
  Call(const Shape& of_shape, Layout of_layout, double mean_of_x, double sigma_of_x = 1)
      : Call(of_shape, of_layout, {"", mean_of_x, sigma_of_x, ""}) {}
  Call(const Shape& of_shape, Layout of_layout, std::vector<T> of_x) : Call(of_shape, of_layout, 0) {
    this->x = std::move(of_x);
  }

  std::size_t set_of(std::size_t i) const { return this->channel_of(i); }

  Status forward_at(const Places<T>& p, const Execution& execution) {
    return batch_norm_forward<T>(options, view(p.x), p.affine, this->added(p), view(p.y), p.statistics, nullptr,
                                 execution);
  }
  Status backward_at(const Places<T>& p, const Execution& execution) {
    return batch_norm_backward<T>(options, view(p.x), this->y_for_backward(p), this->residual_for_backward(p),
                                  view(p.dy), p.affine, p.statistics, view(p.dx), this->wanted(p), p.gradients,
                                  execution);
  }

  /// With the running statistics of each channel c: mean (c mod 7)/8 − 1/4, and variance (c mod 5 + 2)/4.
  Status inference_at(const Places<T>& p, const Execution& execution) const {
    std::vector<Parameter<T>> means, variances;
    for (std::size_t c = 0; c < this->channels; ++c) {
      means.push_back(to_element<Parameter<T>>(running_mean(c)));
      variances.push_back(to_element<Parameter<T>>(running_variance(c)));
    }
    return batch_norm_inference<T>(options, view(p.x), p.affine, means.data(), variances.data(), this->added(p),
                                   view(p.y), execution);
  }
  Status infer_to(T* for_y, const Execution& execution = {}) {
    Places<T> p = this->places();
    p.y = for_y;
    return inference_at(p, execution);
  }
  static double running_mean(std::size_t c) { return static_cast<double>(c % 7) / 8 - 0.25; }
  static double running_variance(std::size_t c) { return static_cast<double>(c % 5 + 2) / 4; }

  BatchNormOptions options{};
};

/// Makes one channel such that dx, near 10³⁰, has a coefficient near 10⁴⁰, of x − μ: floats do not hold it.
inline void make_steep(Call<float>& call, std::size_t channel) {
  constexpr float kSigma = 1e-10F;
  call.options.epsilon = 1e-30;
  call.gamma[channel] = kSigma;
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    if (call.channel_of(i) != channel) continue;
    call.dy[i] = 1e30F * (call.dy[i] + call.x[i]);
    call.x[i] *= kSigma;
  }
}
/// That it is.
inline void expect_steep(const Call<float>& call, std::size_t channel) {
  const double m = static_cast<double>(call.x.size()) / static_cast<double>(call.channels);
  const double slope = to_double(call.dgamma[channel]) / m / call.variance[channel] * to_double(call.gamma[channel]);
  EXPECT_GT(slope, to_double(std::numeric_limits<float>::max())) << "or this tests nothing";
}

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

/// Checks all outputs against the reference. u: one rounding in the type of computing; r: what statistics are off by
/// (StatisticsRoundings), sums a term of them: thirteen roundings of floats, and of n doubles n.
///
/// y: of |γ|(|x̂| + 1), x − mean, the scale, their product, z and y once each, and the part of the shift that holds the
/// mean's rest; the statistics' own average out to less than one here. Of |β|: the shift, z and y. Of |r|: y, and one
/// for the reference. dβ: its own, and sums of Σ|g|. dγ: its own and the deviation's; of its terms d and its product
/// with g have one each; the mean brings r.mean times Σg, and what it lacks as a float at most one of Σ|g|. dx: its
/// parts, each rounded a few times on its way. In double the saved mean is rounded itself, relative to σ.
///
/// An activation adds 8 of its own (simd/activation-inl.hpp) and multiplies the error of z by its slope, at most 1.13;
/// its own slope differs by as much as z's error times 0.8, the largest second derivative.
template <class T>
void expect_right(const Call<T>& call, const std::string& what, double excess = StatisticsRoundings::kNoOutlier) {
  constexpr double u = kUnit<Parameter<T>>;
  constexpr bool wide = std::is_same_v<T, double>;
  const Activation activation = call.options.activation;
  const bool curved = activation == Activation::silu || activation == Activation::gelu;
  const auto add = call.add ? widen(call.residual) : std::vector<double>{};
  const double epsilon = call.options.epsilon;
  const std::vector<double> x = widen(call.x), y = widen(call.y), dy = widen(call.dy), dx = widen(call.dx);
  const auto z = reference::batch_norm_forward(x, call.shape, call.layout, widen(call.gamma), widen(call.beta), add,
                                               false, epsilon);
  const double m = static_cast<double>(x.size()) / static_cast<double>(call.channels);
  const double sums = roundings_of_sum<T>(m), in_sum = wide ? m : StatisticsRoundings::kOfMany;
  const auto roundings = StatisticsRoundings::of<T>(m, excess);

  struct Channel {
    double gamma, beta, inverse, of_mean;               // of_mean: what one rounding of the mean costs
    double sum = 0, dot = 0, abs_sum = 0, abs_dot = 0;  // Σg, Σg·x̂, and of magnitudes
    double sum_error = 0, dot_error = 0;                // what errors of g add up to
    double reach(double x_hat) const { return std::abs(x_hat) + 1 + 4 * of_mean; }
  };
  std::vector<Channel> channels;
  for (std::size_t c = 0; c < call.channels; ++c) {
    const double sigma = std::sqrt(z.variance[c]), inverse = 1 / std::sqrt(z.variance[c] + epsilon);
    const double of_mean = wide ? std::abs(z.mean[c]) * inverse : 0;
    channels.push_back({to_double(call.gamma[c]), to_double(call.beta[c]), inverse, of_mean});
    const double mean_rounding = 1e-15 * std::abs(z.mean[c]);
    ASSERT_NEAR(call.mean[c], z.mean[c], roundings.mean * u * sigma + mean_rounding + 1e-300) << what;
    ASSERT_NEAR(call.variance[c], z.variance[c],
                roundings.variance * u * z.variance[c] + (wide ? mean_rounding * (sigma + mean_rounding) : 0) + 1e-300)
        << what << " channel " << c;
  }

  std::vector<double> x_hat(x.size()), g(x.size()), g_error(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t at = call.channel_of(i);
    Channel& c = channels[at];
    x_hat[i] = (x[i] - z.mean[at]) * c.inverse;
    const double z_error =
        sums * u *
        (6 * std::abs(c.gamma) * c.reach(x_hat[i]) + 3 * std::abs(c.beta) + 2 * (add.empty() ? 0 : std::abs(add[i])));
    const double want = activate(activation, z.y[i]);
    ASSERT_NEAR(y[i], want,
                (curved ? 1.13 : 1) * z_error +
                    ((activation == Activation::none ? 0 : 8) * u + kUnit<T>)*std::abs(want) + kTiny<T>)
        << what << " element " << i;
    g[i] = dy[i] * activation_slope(activation, curved ? z.y[i] : y[i]);
    g_error[i] = std::abs(dy[i]) * (activation == Activation::none ? 0 : 8 * u + (curved ? z_error : 0));
    c.sum += g[i];
    c.dot += g[i] * x_hat[i];
    c.abs_sum += std::abs(g[i]);
    c.abs_dot += std::abs(g[i] * x_hat[i]);
    c.sum_error += g_error[i];
    c.dot_error += g_error[i] * c.reach(x_hat[i]);
  }
  for (std::size_t i = 0; i < call.channels; ++i) {
    const Channel& c = channels[i];
    ASSERT_NEAR(to_double(call.dbeta[i]), c.sum,
                u * (std::abs(c.sum) + in_sum * c.abs_sum) + c.sum_error + 1e-13 * c.abs_sum + 1e-300)
        << what << " channel " << i;
    ASSERT_NEAR(to_double(call.dgamma[i]), c.dot,
                u * ((1 + roundings.variance / 2) * std::abs(c.dot) + (in_sum + 2) * c.abs_dot +
                     roundings.mean * std::abs(c.sum) + (1 + 4 * c.of_mean) * c.abs_sum) +
                    c.dot_error + 1e-13 * c.abs_dot + 1e-300)
        << what << " channel " << i;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Channel& c = channels[call.channel_of(i)];
    const double scale = std::abs(c.gamma) * c.inverse, reach = c.reach(x_hat[i]);
    const double want = c.gamma * c.inverse * (g[i] - c.sum / m - x_hat[i] * c.dot / m);
    const double parts = std::abs(g[i]) + c.abs_sum / m + reach * (c.abs_dot + (1 + 4 * c.of_mean) * c.abs_sum) / m;
    const double errors = g_error[i] + c.sum_error / m + reach * c.dot_error / m;
    ASSERT_NEAR(dx[i], want, scale * (8 * sums * u * parts + errors) + kUnit<T> * std::abs(want) + kTiny<T>)
        << what << " element " << i;
    if (call.add) {
      ASSERT_NEAR(to_double(call.dresidual[i]), g[i], g_error[i] + kUnit<T> * std::abs(g[i]) + kTiny<T>) << what;
    }
  }
}

}  // namespace equinorm::testing_tools
