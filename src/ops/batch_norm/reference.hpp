// The reference that the kernels are tested against: scalar, double, the formulas of README.md as they are printed,
// one channel at a time. It shares nothing with the kernels.
#pragma once

#include <cstddef>
#include <vector>

#include "equinorm/tensor.hpp"

namespace equinorm::reference {

struct BatchNormForward {
  std::vector<double> y;               ///< in the order of x
  std::vector<double> mean, variance;  ///< [channels], biased
};
struct BatchNormBackward {
  std::vector<double> dx, dresidual;  ///< in the order of x
  std::vector<double> dgamma, dbeta;  ///< [channels]
};

/// gamma, beta: [channels] or empty (1, 0). residual: like x, or empty.
BatchNormForward batch_norm_forward(const std::vector<double>& x, const Shape& shape, Layout layout,
                                    const std::vector<double>& gamma, const std::vector<double>& beta,
                                    const std::vector<double>& residual, bool relu, double epsilon);

/// Forward with given statistics, [channels].
std::vector<double> batch_norm_inference(const std::vector<double>& x, const Shape& shape, Layout layout,
                                         const std::vector<double>& gamma, const std::vector<double>& beta,
                                         const std::vector<double>& mean, const std::vector<double>& variance,
                                         const std::vector<double>& residual, bool relu, double epsilon);

/// Backward. passed[i] says whether the activation of element i passed its input (empty: there is no activation).
BatchNormBackward batch_norm_backward(const std::vector<double>& x, const std::vector<double>& dy, const Shape& shape,
                                      Layout layout, const std::vector<double>& gamma, const std::vector<bool>& passed,
                                      double epsilon);

}  // namespace equinorm::reference
