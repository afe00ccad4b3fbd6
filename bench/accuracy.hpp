// How far results are from the scalar references, over inputs that break careless kernels; f32.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "problem.hpp"

namespace equinorm::bench {

/// The four results of a training step, in the order of every table.
inline constexpr std::array<const char*, 4> kResultNames = {"y", "dx", "dgamma", "dbeta"};
template <class T>
using StepResults = std::array<std::vector<T>, 4>;

struct AccuracyCase {
  Problem problem;
  std::string input;               ///< what x is like
  std::vector<float> x, dy;        ///< in the order of memory
  std::vector<float> gamma, beta;  ///< [channels]
};

/// Every operation and layout with every input.
std::vector<AccuracyCase> accuracy_cases();

StepResults<float> run_ours(const AccuracyCase& input);
std::optional<StepResults<float>> run_onednn(const AccuracyCase& input);
StepResults<double> run_reference(const AccuracyCase& input);

/// The largest error of a result. Its scale is the largest value expected in the same channel, row or group (whatever
/// shares statistics); of dγ and dβ, in the whole vector.
struct MaxError {
  double absolute = 0;
  double ulp = 0;  ///< in floats' distances at the scale; infinite where all that was expected is 0 and something came
};
std::array<MaxError, 4> errors(const AccuracyCase& input, const StepResults<float>& found,
                               const StepResults<double>& expected);

}  // namespace equinorm::bench
