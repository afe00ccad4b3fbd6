// From the statistics of channels, and the sums of their gradients, to the coefficients of the elementwise passes.
#pragma once

#include <cmath>
#include <cstddef>

#include "equinorm/batch_norm.hpp"
#include "kernels/careful.hpp"
#include "kernels/channel.hpp"
#include "ops/batch_norm/plan.hpp"

namespace equinorm::batch_norm {

/// What forward and inference share: the affine of a channel over given statistics.
template <class T>
class ForwardChannels {
 public:
  using P = Parameter<T>;

  ForwardChannels(const Geometry& g, const Scratch<T>& scratch, double epsilon, const Affine<T>& affine,
                  const double* mean, const double* variance)
      : g_(g), s_(scratch), epsilon_(epsilon), affine_(affine), mean_(mean), variance_(variance) {}

  const Geometry& geometry() const { return g_; }
  const Scratch<T>& scratch() const { return s_; }

  /// To be called once the statistics of channel c stand, before anything else about it: writes its coefficients at c.
  void prepare(std::size_t c) const {
    s_.inverse_deviation[c] = 1.0 / std::sqrt(variance_[c] + epsilon_);
    s_.coefficients.write_forward(c, channel(c));
    s_.coefficients.write_unit(c, channel(c), s_.inverse_deviation[c]);
  }
  /// All of them; says whether a channel needs care.
  bool prepare_all() const {
    bool careful = false;
    for (std::size_t c = 0; c < g_.channels; ++c) {
      prepare(c);
      careful = careful || needs_care(c);
    }
    return careful;
  }

  kernels::Channel channel(std::size_t c) const {
    const double gamma = affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[c]);
    const double beta = affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[c]);
    return {mean_[c], gamma * inverse_deviation(c), beta};
  }
  bool needs_care(std::size_t c) const { return kernels::needs_care<T>(mean_[c], variance_[c]); }
  double inverse_deviation(std::size_t c) const { return s_.inverse_deviation[c]; }
  double mean_rest(std::size_t c) const { return kernels::mean_rest<P>(mean_[c]); }

  void normalize_carefully(std::size_t c, const kernels::Forward<T>& t) const {
    g_.for_each_run(c, [&](const kernels::Run& run) { kernels::careful_normalize(run, t, channel(c)); });
  }

 private:
  const Geometry& g_;
  const Scratch<T>& s_;
  double epsilon_;
  Affine<T> affine_;
  const double* mean_;
  const double* variance_;
};

/// The channels' gradients: parameters, and the two coefficients that dx needs besides.
template <class T>
class BackwardChannels {
 public:
  BackwardChannels(const ForwardChannels<T>& forward, const AffineGradients<T>& gradients)
      : forward_(forward), g_(forward.geometry()), s_(forward.scratch()), gradients_(gradients) {}

  const ForwardChannels<T>& forward() const { return forward_; }

  /// Takes Σg and Σ g·(x − the mean's upper part) as the kernels summed them (a channel that needs care, or whose sums
  /// overflowed, is summed here instead) and writes what follows for channel c: its parameters' gradients, and its
  /// coefficients at c. Says whether it needs care (asked for again, it took 7 % of the time of 49 values a channel).
  bool finish(std::size_t c, const kernels::Backward<T>& t, double sum, double dot) const {
    const bool large = forward_.needs_care(c);
    if (large || !std::isfinite(sum) || !std::isfinite(dot)) {
      sum = dot = 0;
      g_.for_each_run(c,
                      [&](const kernels::Run& run) { kernels::careful_dots(run, t, forward_.channel(c), &sum, &dot); });
    } else {
      dot -= sum * forward_.mean_rest(c);
    }
    using P = Parameter<T>;
    if (gradients_.gamma != nullptr) gradients_.gamma[c] = static_cast<P>(dot * forward_.inverse_deviation(c));
    if (gradients_.beta != nullptr) gradients_.beta[c] = static_cast<P>(sum);
    s_.sum[c] = sum;
    s_.dot[c] = dot;
    const kernels::Channel k = channel(c, sum, dot);
    s_.coefficients.write_backward(c, k);
    return large || kernels::needs_care<T>(k.slope);
  }

  // Of a finished channel:

  /// Beside large statistics, a slope that a float cannot hold.
  bool needs_care(std::size_t c) const { return forward_.needs_care(c) || kernels::needs_care<T>(channel(c).slope); }
  void differentiate_carefully(std::size_t c, const kernels::Backward<T>& t) const {
    g_.for_each_run(c, [&](const kernels::Run& run) { kernels::careful_differentiate(run, t, channel(c)); });
  }

 private:
  kernels::Channel channel(std::size_t c) const { return channel(c, s_.sum[c], s_.dot[c]); }
  kernels::Channel channel(std::size_t c, double sum, double dot) const {
    const double inverse = forward_.inverse_deviation(c);
    kernels::Channel k = forward_.channel(c);
    k.offset = sum / values_ * k.scale;
    k.slope = dot / values_ * inverse * inverse * k.scale;
    return k;
  }

  const ForwardChannels<T>& forward_;
  const Geometry& g_;
  const Scratch<T>& s_;
  const double values_ = static_cast<double>(g_.values);
  AffineGradients<T> gradients_;
};

}  // namespace equinorm::batch_norm
