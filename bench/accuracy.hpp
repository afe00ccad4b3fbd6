// How far results are from the scalar references, over inputs that break careless kernels; every element type.
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

/// All values are of the problem's element type, if need be rounded to it, whatever they stand in here.
struct AccuracyCase {
  Problem problem;
  std::string input;                ///< what x is like
  std::vector<double> x, dy;        ///< in the order of memory
  std::vector<double> gamma, beta;  ///< [channels]
};

/// Every operation and layout with every input that the type can hold; quick: of a quarter of the batch.
std::vector<AccuracyCase> accuracy_cases(Type type, bool quick);

StepResults<double> run_ours(const AccuracyCase& input);
std::optional<StepResults<double>> run_onednn(const AccuracyCase& input);

struct Expected {
  StepResults<long double> values;
  /// What the error of each may be, by what src/ops/*/README.md derives from the roundings on its way.
  StepResults<long double> bounds;
};
Expected run_reference(const AccuracyCase& input);

/// The largest error of a result. Its scale is the largest value expected in the same channel, row or group (whatever
/// shares statistics); of dγ and dβ, in the whole vector.
struct MaxError {
  double absolute = 0;
  double ulp = 0;       ///< in distances at the scale; infinite where all that was expected is 0 and something came
  double of_bound = 0;  ///< as a share of the bound, whichever element has the largest
};
std::array<MaxError, 4> errors(const AccuracyCase& input, const StepResults<double>& found, const Expected& expected);

/// How many elements of y and dx of ours change outside of the statistics of one x that becomes `poison`.
std::size_t changed_beyond(const AccuracyCase& input, double poison);

}  // namespace equinorm::bench
