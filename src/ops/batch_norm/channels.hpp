// From the statistics of channels, and the sums of their gradients, to the coefficients of the elementwise passes.
#pragma once

#include <cmath>
#include <cstddef>

#include "equinorm/batch_norm.hpp"
#include "kernels/channel.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

/// What forward and inference share: the affine of a channel over given statistics.
template <class T>
class ForwardChannels {
 public:
  using P = Parameter<T>;

  ForwardChannels(double epsilon, const Affine<T>& affine, const double* mean, const double* variance,
                  const Scratch<T>& scratch)
      : epsilon_(epsilon), affine_(affine), mean_(mean), variance_(variance), s_(scratch) {}

  /// To be called once the statistics of channel c stand, before anything else about it.
  void prepare(std::size_t c) const { s_.inverse_deviation[c] = 1.0 / std::sqrt(variance_[c] + epsilon_); }

  kernels::Channel channel(std::size_t c) const {
    const double gamma = affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[c]);
    const double beta = affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[c]);
    return {mean_[c], gamma * inverse_deviation(c), beta};
  }
  bool needs_care(std::size_t c) const { return kernels::needs_care<T>(mean_[c], variance_[c]); }
  double inverse_deviation(std::size_t c) const { return s_.inverse_deviation[c]; }
  double mean_rest(std::size_t c) const { return kernels::mean_rest<P>(mean_[c]); }

  /// Writes the coefficients of channel c at `at`.
  void write(std::size_t c, std::size_t at) const { s_.coefficients.write_forward(at, channel(c)); }

  const Scratch<T>& scratch() const { return s_; }

 private:
  double epsilon_;
  Affine<T> affine_;
  const double* mean_;
  const double* variance_;
  const Scratch<T>& s_;
};

/// The channels' gradients: parameters, and the two coefficients that dx needs besides. sum = Σg, dot = Σ g·(x − μ).
template <class T>
class BackwardChannels {
 public:
  BackwardChannels(const ForwardChannels<T>& forward, const AffineGradients<T>& gradients, std::size_t values)
      : forward_(forward), gradients_(gradients), m_(static_cast<double>(values)) {}

  const ForwardChannels<T>& forward() const { return forward_; }

  kernels::Channel channel(std::size_t c, double sum, double dot) const {
    kernels::Channel k = forward_.channel(c);
    const double inverse = forward_.inverse_deviation(c);
    k.offset = sum / m_ * k.scale;
    k.slope = dot / m_ * inverse * inverse * k.scale;
    return k;
  }
  /// Beside large statistics, a slope that a float cannot hold.
  bool needs_care(std::size_t c, double sum, double dot) const {
    return forward_.needs_care(c) || kernels::needs_care<T>(channel(c, sum, dot).slope);
  }
  void write(std::size_t c, double sum, double dot, std::size_t at) const {
    forward_.scratch().coefficients.write_backward(at, channel(c, sum, dot));
  }
  void write_parameters(std::size_t c, double sum, double dot) const {
    using P = Parameter<T>;
    if (gradients_.gamma != nullptr) gradients_.gamma[c] = static_cast<P>(dot * forward_.inverse_deviation(c));
    if (gradients_.beta != nullptr) gradients_.beta[c] = static_cast<P>(sum);
  }

 private:
  const ForwardChannels<T>& forward_;
  AffineGradients<T> gradients_;
  double m_;
};

}  // namespace equinorm::batch_norm
