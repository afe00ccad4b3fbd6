#include "ops/group_norm/reference.hpp"

#include <cmath>

namespace equinorm::reference {
namespace {

/// Where the elements of a group lie.
struct Grouped {
  Grouped(const Shape& shape, Layout tensor_layout, std::size_t group_count,
          const std::vector<std::size_t>& sample_lengths)
      : layout(tensor_layout), groups(group_count), lengths(sample_lengths) {
    samples = shape[0];
    channels = shape[layout == Layout::channels_last ? shape.rank() - 1 : 1];
    positions = channels == 0 || samples == 0 ? 0 : shape.elements() / channels / samples;
    if (lengths.empty()) lengths.assign(samples, positions);
  }
  std::size_t at(std::size_t n, std::size_t c, std::size_t p) const {
    return layout == Layout::channels_last ? (n * positions + p) * channels + c : (n * channels + c) * positions + p;
  }
  /// Calls body(index, channel) for the elements of group k of sample n.
  template <class Body>
  void for_each(std::size_t n, std::size_t k, const Body& body) const {
    for (std::size_t c = k * channels / groups; c < (k + 1) * channels / groups; ++c) {
      for (std::size_t p = 0; p < lengths[n]; ++p) body(at(n, c, p), c);
    }
  }
  long double size(std::size_t n) const {
    const std::size_t elements = channels / groups * lengths[n];
    return static_cast<long double>(elements);
  }

  Layout layout;
  std::size_t groups, samples, channels, positions;
  std::vector<std::size_t> lengths;
};

double or_default(const std::vector<double>& parameter, std::size_t c, double value) {
  return parameter.empty() ? value : parameter[c];
}

}  // namespace

GroupNormForward group_norm_forward(const std::vector<double>& x, const Shape& shape, Layout layout, std::size_t groups,
                                    const std::vector<double>& gamma, const std::vector<double>& beta,
                                    const std::vector<double>& residual, double epsilon,
                                    const std::vector<std::size_t>& lengths) {
  const Grouped grouped(shape, layout, groups, lengths);
  GroupNormForward result{std::vector<double>(x.size()), std::vector<double>(x.size()), {}, {}};
  for (std::size_t n = 0; n < grouped.samples; ++n) {
    for (std::size_t k = 0; k < groups; ++k) {
      // Long double: the reference must be better than what it judges, at mean = 1e6 σ too.
      long double sum = 0, squares = 0;
      grouped.for_each(n, k, [&](std::size_t i, std::size_t) { sum += x[i]; });
      const long double mean = grouped.size(n) == 0 ? 0 : sum / grouped.size(n);
      grouped.for_each(n, k, [&](std::size_t i, std::size_t) { squares += (x[i] - mean) * (x[i] - mean); });
      const long double variance = grouped.size(n) == 0 ? 0 : squares / grouped.size(n);
      grouped.for_each(n, k, [&](std::size_t i, std::size_t c) {
        result.x_hat[i] = static_cast<double>((x[i] - mean) / std::sqrt(variance + epsilon));
        result.z[i] =
            or_default(gamma, c, 1) * result.x_hat[i] + or_default(beta, c, 0) + (residual.empty() ? 0.0 : residual[i]);
      });
      result.mean.push_back(static_cast<double>(mean));
      result.variance.push_back(static_cast<double>(variance));
    }
  }
  return result;
}

GroupNormBackward group_norm_backward(const std::vector<double>& x, const std::vector<double>& g, const Shape& shape,
                                      Layout layout, std::size_t groups, const std::vector<double>& gamma,
                                      double epsilon, const std::vector<std::size_t>& lengths) {
  const Grouped grouped(shape, layout, groups, lengths);
  const GroupNormForward forward = group_norm_forward(x, shape, layout, groups, {}, {}, {}, epsilon, lengths);
  std::vector<long double> dgamma(grouped.channels), dbeta(grouped.channels);
  GroupNormBackward result{std::vector<double>(x.size()), {}, {}};
  for (std::size_t n = 0; n < grouped.samples; ++n) {
    for (std::size_t k = 0; k < groups; ++k) {
      long double sum = 0, dot = 0;
      grouped.for_each(n, k, [&](std::size_t i, std::size_t c) {
        dbeta[c] += g[i];
        dgamma[c] += static_cast<long double>(g[i]) * forward.x_hat[i];
        sum += static_cast<long double>(or_default(gamma, c, 1)) * g[i];
        dot += static_cast<long double>(or_default(gamma, c, 1)) * g[i] * forward.x_hat[i];
      });
      const double root = std::sqrt(forward.variance[n * groups + k] + epsilon);
      grouped.for_each(n, k, [&](std::size_t i, std::size_t c) {
        result.dx[i] = static_cast<double>(
            (or_default(gamma, c, 1) * g[i] - sum / grouped.size(n) - forward.x_hat[i] * dot / grouped.size(n)) / root);
      });
    }
  }
  result.dgamma.assign(dgamma.begin(), dgamma.end());
  result.dbeta.assign(dbeta.begin(), dbeta.end());
  return result;
}

}  // namespace equinorm::reference
