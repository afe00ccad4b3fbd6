#include "ops/layer_norm/reference.hpp"

#include <cmath>

#include "ops/rows/reference.hpp"

namespace equinorm::reference {

LayerNorm layer_norm(const Values& x, std::size_t features, const Values& gamma, const Values& beta,
                     Activation activation, long double epsilon, const Values& dy, const Values& dsum) {
  LayerNorm result;
  result.y.resize(x.size());
  result.dx.resize(x.size());
  result.dgamma.resize(features);
  result.dbeta.resize(features);
  const auto n = static_cast<long double>(features);
  for (std::size_t row = 0; row < x.size(); row += features) {
    long double mean = 0, variance = 0;
    for (std::size_t i = 0; i < features; ++i) mean += x[row + i];
    mean /= n;
    for (std::size_t i = 0; i < features; ++i) variance += (x[row + i] - mean) * (x[row + i] - mean) / n;
    const long double root = std::sqrt(variance + epsilon);

    Values x_hat(features), h(features);
    long double mean_h = 0, mean_hx = 0;
    for (std::size_t i = 0; i < features; ++i) {
      const long double scale = gamma.empty() ? 1 : gamma[i], shift = beta.empty() ? 0 : beta[i];
      x_hat[i] = (x[row + i] - mean) / root;
      const long double z = scale * x_hat[i] + shift;
      const auto [value, slope] = activated(activation, z);
      result.y[row + i] = value;
      const long double g = dy.empty() ? 0 : dy[row + i] * slope;
      result.dgamma[i] += g * x_hat[i];
      result.dbeta[i] += g;
      h[i] = g * scale;
      mean_h += h[i] / n;
      mean_hx += h[i] * x_hat[i] / n;
    }
    for (std::size_t i = 0; i < features; ++i) {
      const long double added = dsum.empty() ? 0 : dsum[row + i];
      result.dx[row + i] = (h[i] - mean_h - x_hat[i] * mean_hx) / root + added;
    }
    result.mean.push_back(mean);
    result.variance.push_back(variance);
  }
  return result;
}

}  // namespace equinorm::reference
