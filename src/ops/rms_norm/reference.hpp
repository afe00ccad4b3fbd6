// The reference that the kernels are tested against: scalar, long double, the formulas of README.md as they are
// printed, one row at a time. It shares nothing with the kernels.
#pragma once

#include <cstddef>
#include <vector>

#include "equinorm/norm.hpp"

namespace equinorm::reference {

using Values = std::vector<long double>;

struct RmsNorm {
  Values y, mean_square;     ///< [rows, features]; [rows]
  Values dx, dgamma, dbeta;  ///< [rows, features]; [features]
};

/// x, dy, dsum: [rows, features], dy and dsum empty: 0. gamma, beta: [features] or empty (1, 0).
RmsNorm rms_norm(const Values& x, std::size_t features, const Values& gamma, const Values& beta, Activation activation,
                 long double epsilon, const Values& dy = {}, const Values& dsum = {});

}  // namespace equinorm::reference
