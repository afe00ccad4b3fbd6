// From the statistics of channels, and the sums of their gradients, to the coefficients of the elementwise passes.
#pragma once

#include <cmath>
#include <cstddef>

#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/careful.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

/// Splits a double into two floats whose sum holds 48 of its bits. lo is 0 where hi is not finite.
inline void split(double value, float& hi, float& lo) {
  hi = static_cast<float>(value);
  const double rest = value - static_cast<double>(hi);
  lo = std::isfinite(rest) ? static_cast<float>(rest) : 0.0F;
}

/// What forward and inference share: the affine of a channel over given statistics.
class ForwardChannels {
 public:
  ForwardChannels(const BatchNormOptions& options, const BatchNormAffine& affine, const double* mean,
                  const double* variance)
      : epsilon_(options.epsilon), affine_(affine), mean_(mean), variance_(variance) {}

  CarefulChannel channel(std::size_t c) const {
    const double gamma = affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[c]);
    const double beta = affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[c]);
    return {mean_[c], gamma / std::sqrt(variance_[c] + epsilon_), beta};
  }
  bool needs_care(std::size_t c) const { return batch_norm::needs_care(mean_[c], variance_[c], channel(c).scale); }
  double inverse_variance(std::size_t c) const { return 1.0 / (variance_[c] + epsilon_); }
  double inverse_deviation(std::size_t c) const { return 1.0 / std::sqrt(variance_[c] + epsilon_); }

  /// Writes the coefficients of channel c at `at`.
  void write(std::size_t c, const Scratch& s, std::size_t at) const {
    const CarefulChannel k = channel(c);
    split(k.mean, s.mean_hi[at], s.mean_lo[at]);
    s.scale[at] = static_cast<float>(k.scale);
    s.shift[at] = static_cast<float>(k.shift);
  }

 private:
  double epsilon_;
  BatchNormAffine affine_;
  const double* mean_;
  const double* variance_;
};

/// The channels' gradients: parameters and the two coefficients that dx needs besides.
class BackwardChannels {
 public:
  BackwardChannels(const ForwardChannels& forward, const BatchNormGradients& gradients, std::size_t values)
      : forward_(forward), gradients_(gradients), m_(static_cast<double>(values)) {}

  const ForwardChannels& forward() const { return forward_; }

  CarefulChannel channel(std::size_t c, double sum, double dot) const {
    CarefulChannel k = forward_.channel(c);
    k.g_mean = sum / m_;
    k.slope = dot / m_ * forward_.inverse_variance(c);
    return k;
  }
  void write(std::size_t c, double sum, double dot, const Scratch& s, std::size_t at) const {
    const CarefulChannel k = channel(c, sum, dot);
    split(k.g_mean, s.g_hi[at], s.g_lo[at]);
    s.slope[at] = static_cast<float>(k.slope);
  }
  void write_parameters(std::size_t c, double sum, double dot) const {
    if (gradients_.gamma != nullptr) gradients_.gamma[c] = static_cast<float>(dot * forward_.inverse_deviation(c));
    if (gradients_.beta != nullptr) gradients_.beta[c] = static_cast<float>(sum);
  }

 private:
  const ForwardChannels& forward_;
  BatchNormGradients gradients_;
  double m_;
};

}  // namespace equinorm::batch_norm
