#include "ops/rms_norm/reference.hpp"

#include <cmath>

#include "ops/rows/reference.hpp"

namespace equinorm::reference {

RmsNorm rms_norm(const Values& x, std::size_t features, const Values& gamma, const Values& beta, Activation activation,
                 long double epsilon, const Values& dy, const Values& dsum) {
  RmsNorm result;
  result.y.resize(x.size());
  result.dx.resize(x.size());
  result.dgamma.resize(features);
  result.dbeta.resize(features);
  const auto n = static_cast<long double>(features);
  for (std::size_t row = 0; row < x.size(); row += features) {
    long double mean_square = 0;
    for (std::size_t i = 0; i < features; ++i) mean_square += x[row + i] * x[row + i] / n;
    const long double root = std::sqrt(mean_square + epsilon);

    Values h(features);
    long double mean_hx = 0;
    for (std::size_t i = 0; i < features; ++i) {
      const long double scale = gamma.empty() ? 1 : gamma[i], shift = beta.empty() ? 0 : beta[i];
      const long double x_hat = x[row + i] / root, z = scale * x_hat + shift;
      const auto [value, slope] = activated(activation, z);
      result.y[row + i] = value;
      const long double g = dy.empty() ? 0 : dy[row + i] * slope;
      result.dgamma[i] += g * x_hat;
      result.dbeta[i] += g;
      h[i] = g * scale;
      mean_hx += h[i] * x_hat / n;
    }
    for (std::size_t i = 0; i < features; ++i) {
      const long double added = dsum.empty() ? 0 : dsum[row + i];
      result.dx[row + i] = (h[i] - x[row + i] / root * mean_hx) / root + added;
    }
    result.mean_square.push_back(mean_square);
  }
  return result;
}

}  // namespace equinorm::reference
