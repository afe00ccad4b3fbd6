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
  ForwardChannels(const Geometry& g, const Scratch<T>& scratch, double epsilon, const Affine<T>& affine,
                  const double* mean, const double* variance)
      : g_(g), s_(scratch), of_{mean, variance, affine.gamma, affine.beta, epsilon, scratch.inverse_deviation} {}

  const Geometry& geometry() const { return g_; }
  const Scratch<T>& scratch() const { return s_; }

  const kernels::ChannelStatistics<T>& statistics() const { return of_; }

  /// To be called once the statistics of channels begin … end − 1 stand, before anything else about them: writes their
  /// coefficients. Says whether one needs care.
  bool prepare(std::size_t begin, std::size_t end) const {
    return run_.prepare_channels(of_, s_.coefficients, begin, end);
  }
  bool prepare_all() const { return prepare(0, g_.channels); }

  kernels::Channel channel(std::size_t c) const {
    const double gamma = of_.gamma == nullptr ? 1.0 : static_cast<double>(of_.gamma[c]);
    const double beta = of_.beta == nullptr ? 0.0 : static_cast<double>(of_.beta[c]);
    return {of_.mean[c], gamma * inverse_deviation(c), beta};
  }
  bool needs_care(std::size_t c) const { return kernels::needs_care<T>(of_.mean[c], of_.variance[c]); }
  double inverse_deviation(std::size_t c) const { return of_.inverse_deviation[c]; }

  void normalize_carefully(std::size_t c, const kernels::Forward<T>& t) const {
    g_.for_each_run(c, [&](const kernels::Run& run) { kernels::careful_normalize(run, t, channel(c)); });
  }

 private:
  const Geometry& g_;
  const Scratch<T>& s_;
  kernels::ChannelStatistics<T> of_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

/// The channels' gradients: parameters, and the two coefficients that dx needs besides.
template <class T>
class BackwardChannels {
 public:
  BackwardChannels(const ForwardChannels<T>& forward, const AffineGradients<T>& gradients)
      : forward_(forward), g_(forward.geometry()), s_(forward.scratch()), gradients_(gradients) {}

  const ForwardChannels<T>& forward() const { return forward_; }

  /// To be called once scratch's sum and dot of channels begin … end − 1 hold Σg and Σ g·(x − the mean's upper part) as
  /// the kernels summed them (a channel that needs care, or whose sums overflowed, is summed here instead): writes what
  /// follows for them, their parameters' gradients and their coefficients. Says whether one needs care.
  bool finish(std::size_t begin, std::size_t end, const kernels::Backward<T>& t) const {
    if (!finish(begin, end, false)) return false;
    bool careful = false;
    for (std::size_t c = begin; c < end; ++c) {
      double &sum = s_.sum[c], &dot = s_.dot[c];
      if (forward_.needs_care(c) || !std::isfinite(sum) || !std::isfinite(dot)) {
        sum = dot = 0;
        g_.for_each_run(
            c, [&](const kernels::Run& run) { kernels::careful_dots(run, t, forward_.channel(c), &sum, &dot); });
        finish(c, c + 1, true);
      }
      careful = careful || needs_care(c);
    }
    return careful;
  }

  // Of a finished channel:

  /// Beside large statistics, a slope that a float cannot hold.
  bool needs_care(std::size_t c) const { return forward_.needs_care(c) || kernels::needs_care<T>(channel(c).slope); }
  void differentiate_carefully(std::size_t c, const kernels::Backward<T>& t) const {
    g_.for_each_run(c, [&](const kernels::Run& run) { kernels::careful_differentiate(run, t, channel(c)); });
  }

 private:
  bool finish(std::size_t begin, std::size_t end, bool exact) const {
    return run_.finish_channels(forward_.statistics(),
                                {values_, s_.sum, s_.dot, exact, gradients_.gamma, gradients_.beta}, s_.coefficients,
                                begin, end);
  }
  kernels::Channel channel(std::size_t c) const {
    const double inverse = forward_.inverse_deviation(c);
    kernels::Channel k = forward_.channel(c);
    k.offset = s_.sum[c] / values_ * k.scale;
    k.slope = s_.dot[c] / values_ * inverse * inverse * k.scale;
    return k;
  }

  const ForwardChannels<T>& forward_;
  const Geometry& g_;
  const Scratch<T>& s_;
  const double values_ = static_cast<double>(g_.values);
  AffineGradients<T> gradients_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

}  // namespace equinorm::batch_norm
