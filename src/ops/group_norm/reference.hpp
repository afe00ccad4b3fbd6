// The reference that the kernels are tested against: scalar, double, the formulas of README.md as they are printed, one
// group at a time. It shares nothing with the kernels.
#pragma once

#include <cstddef>
#include <vector>

#include "equinorm/tensor.hpp"

namespace equinorm::reference {

struct GroupNormForward {
  std::vector<double> x_hat, z;        ///< in the order of x; z before the activation
  std::vector<double> mean, variance;  ///< [N, groups], biased
};
struct GroupNormBackward {
  std::vector<double> dx;             ///< in the order of x
  std::vector<double> dgamma, dbeta;  ///< [channels]
};

/// gamma, beta: [channels] or empty (1, 0). residual: like x, or empty. lengths: [N] or empty (no padding). Of a sample
/// without positions mean and variance are 0.
GroupNormForward group_norm_forward(const std::vector<double>& x, const Shape& shape, Layout layout, std::size_t groups,
                                    const std::vector<double>& gamma, const std::vector<double>& beta,
                                    const std::vector<double>& residual, double epsilon,
                                    const std::vector<std::size_t>& lengths = {});

/// Backward; g is the gradient by z.
GroupNormBackward group_norm_backward(const std::vector<double>& x, const std::vector<double>& g, const Shape& shape,
                                      Layout layout, std::size_t groups, const std::vector<double>& gamma,
                                      double epsilon, const std::vector<std::size_t>& lengths = {});

}  // namespace equinorm::reference
