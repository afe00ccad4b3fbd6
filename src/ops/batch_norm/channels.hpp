// From the statistics of channels, and the sums of their gradients, to the coefficients of the elementwise passes.
#pragma once

#include <cmath>
#include <cstddef>

#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/careful.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

/// What forward and inference share: the affine of a channel over given statistics.
template <class T>
class ForwardChannels {
 public:
  using P = Parameter<T>;

  ForwardChannels(double epsilon, const Affine<T>& affine, const double* mean, const double* variance)
      : epsilon_(epsilon), affine_(affine), mean_(mean), variance_(variance) {}

  Channel channel(std::size_t c) const {
    const double gamma = affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[c]);
    const double beta = affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[c]);
    return {mean_[c], gamma * inverse_deviation(c), beta};
  }
  bool needs_care(std::size_t c) const { return batch_norm::needs_care<T>(mean_[c], variance_[c]); }
  double inverse_deviation(std::size_t c) const { return 1.0 / std::sqrt(variance_[c] + epsilon_); }

  /// The upper part of the mean in P, and what is left of it (0 where that says nothing).
  P mean(std::size_t c) const { return static_cast<P>(mean_[c]); }
  double mean_rest(std::size_t c) const {
    const double rest = mean_[c] - static_cast<double>(mean(c));
    return std::isfinite(rest) ? rest : 0;
  }

  /// Writes the coefficients of channel c at `at`.
  void write(std::size_t c, const Scratch<T>& s, std::size_t at) const {
    const Channel k = channel(c);
    s.mean[at] = mean(c);
    s.scale[at] = static_cast<P>(k.scale);
    s.shift[at] = static_cast<P>(k.shift - mean_rest(c) * k.scale);
  }

 private:
  double epsilon_;
  Affine<T> affine_;
  const double* mean_;
  const double* variance_;
};

/// The channels' gradients: parameters, and the two coefficients that dx needs besides. sum = Σg, dot = Σ g·(x − μ).
template <class T>
class BackwardChannels {
 public:
  BackwardChannels(const ForwardChannels<T>& forward, const AffineGradients<T>& gradients, std::size_t values)
      : forward_(forward), gradients_(gradients), m_(static_cast<double>(values)) {}

  const ForwardChannels<T>& forward() const { return forward_; }

  Channel channel(std::size_t c, double sum, double dot) const {
    Channel k = forward_.channel(c);
    const double inverse = forward_.inverse_deviation(c);
    k.offset = sum / m_ * k.scale;
    k.slope = dot / m_ * inverse * inverse * k.scale;
    return k;
  }
  /// Beside large statistics, a slope that a float cannot hold.
  bool needs_care(std::size_t c, double sum, double dot) const {
    if (forward_.needs_care(c)) return true;
    const double slope = channel(c, sum, dot).slope;
    return !std::is_same_v<T, double> && std::isfinite(slope) && std::abs(slope) > 0x1p120;
  }
  void write(std::size_t c, double sum, double dot, const Scratch<T>& s, std::size_t at) const {
    const Channel k = channel(c, sum, dot);
    s.offset[at] = static_cast<Parameter<T>>(k.offset - forward_.mean_rest(c) * k.slope);
    s.slope[at] = static_cast<Parameter<T>>(k.slope);
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
