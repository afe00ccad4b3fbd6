#include "ops/batch_norm/reference.hpp"

#include <cmath>

namespace equinorm::reference {
namespace {

/// Where the elements of a channel lie.
struct Channels {
  Channels(const Shape& shape, Layout layout) {
    const std::size_t axis = layout == Layout::channels_last ? shape.rank() - 1 : 1;
    count = shape[axis];
    inner = 1;
    for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    values = count == 0 ? 0 : shape.elements() / count;
  }
  /// Index in memory of value i of channel c.
  std::size_t at(std::size_t c, std::size_t i) const { return (i / inner * count + c) * inner + i % inner; }

  std::size_t count, inner, values;
};

double or_default(const std::vector<double>& parameter, std::size_t c, double value) {
  return parameter.empty() ? value : parameter[c];
}

double activate(double y, bool relu) {
  return relu && y < 0 ? 0 : y;
}

}  // namespace

BatchNormForward batch_norm_forward(const std::vector<double>& x, const Shape& shape, Layout layout,
                                    const std::vector<double>& gamma, const std::vector<double>& beta,
                                    const std::vector<double>& residual, bool relu, double epsilon) {
  const Channels channels(shape, layout);
  BatchNormForward result;
  for (std::size_t c = 0; c < channels.count; ++c) {
    const auto m = static_cast<double>(channels.values);
    // Long double where the machine has it: the reference must be better than what it judges, at mean = 1e6 σ too.
    long double sum = 0;
    for (std::size_t i = 0; i < channels.values; ++i) sum += x[channels.at(c, i)];
    const long double mean = sum / m;
    long double squares = 0;
    for (std::size_t i = 0; i < channels.values; ++i) {
      const long double difference = x[channels.at(c, i)] - mean;
      squares += difference * difference;
    }
    result.mean.push_back(static_cast<double>(mean));
    result.variance.push_back(static_cast<double>(squares / m));
  }
  result.y = batch_norm_inference(x, shape, layout, gamma, beta, result.mean, result.variance, residual, relu, epsilon);
  return result;
}

std::vector<double> batch_norm_inference(const std::vector<double>& x, const Shape& shape, Layout layout,
                                         const std::vector<double>& gamma, const std::vector<double>& beta,
                                         const std::vector<double>& mean, const std::vector<double>& variance,
                                         const std::vector<double>& residual, bool relu, double epsilon) {
  const Channels channels(shape, layout);
  std::vector<double> y(x.size());
  for (std::size_t c = 0; c < channels.count; ++c) {
    for (std::size_t i = 0; i < channels.values; ++i) {
      const std::size_t at = channels.at(c, i);
      const double normalized = (x[at] - mean[c]) / std::sqrt(variance[c] + epsilon);
      const double sum =
          or_default(gamma, c, 1) * normalized + or_default(beta, c, 0) + (residual.empty() ? 0.0 : residual[at]);
      y[at] = activate(sum, relu);
    }
  }
  return y;
}

BatchNormBackward batch_norm_backward(const std::vector<double>& x, const std::vector<double>& dy, const Shape& shape,
                                      Layout layout, const std::vector<double>& gamma, const std::vector<bool>& passed,
                                      double epsilon) {
  const Channels channels(shape, layout);
  const BatchNormForward forward = batch_norm_forward(x, shape, layout, {}, {}, {}, false, epsilon);
  BatchNormBackward result;
  result.dx.resize(x.size());
  result.dresidual.resize(x.size());
  for (std::size_t at = 0; at < x.size(); ++at) result.dresidual[at] = passed.empty() || passed[at] ? dy[at] : 0.0;
  for (std::size_t c = 0; c < channels.count; ++c) {
    const auto m = static_cast<double>(channels.values);
    const double root = std::sqrt(forward.variance[c] + epsilon);
    long double dbeta = 0;
    long double dgamma = 0;
    for (std::size_t i = 0; i < channels.values; ++i) {
      const std::size_t at = channels.at(c, i);
      dbeta += result.dresidual[at];
      dgamma += static_cast<long double>(result.dresidual[at]) * ((x[at] - forward.mean[c]) / root);
    }
    result.dbeta.push_back(static_cast<double>(dbeta));
    result.dgamma.push_back(static_cast<double>(dgamma));
    for (std::size_t i = 0; i < channels.values; ++i) {
      const std::size_t at = channels.at(c, i);
      const double normalized = (x[at] - forward.mean[c]) / root;
      result.dx[at] = or_default(gamma, c, 1) / root *
                      (result.dresidual[at] - result.dbeta[c] / m - normalized * result.dgamma[c] / m);
    }
  }
  return result;
}

}  // namespace equinorm::reference
