#include "audit/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

/// P(|T| ≤ t), t ≥ 0: the finite series of Abramowitz & Stegun, 26.7.3 (odd dof) and 26.7.4 (even dof).
double central_probability(double t, int dof) {
  const double theta = std::atan(t / std::sqrt(dof)), cosine = std::cos(theta);
  const bool odd = dof % 2 == 1;
  double term = odd ? cosine : 1, sum = dof == 1 ? 0 : term;
  for (int k = odd ? 3 : 2; k <= dof - 2; k += 2) {
    term *= cosine * cosine * (k - 1) / k;
    sum += term;
  }
  sum *= std::sin(theta);
  return odd ? (theta + sum) * 2 / std::numbers::pi : sum;
}

}  // namespace

double student_t_quantile(double p, int dof) {
  if (!(p > 0 && p < 1) || dof < 1) throw Error("student_t_quantile: p must lie in (0, 1) and dof be at least 1");
  if (p < 0.5) return -student_t_quantile(1 - p, dof);
  double low = 0, high = 1;
  while (central_probability(high, dof) < 2 * p - 1) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = (low + high) / 2;
    if (middle == low || middle == high) break;
    (central_probability(middle, dof) < 2 * p - 1 ? low : high) = middle;
  }
  return high;
}

Estimate mean_with_interval(std::span<const double> values) {
  if (values.empty()) throw Error("mean_with_interval: there are no values; expected at least one");
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (values.size() == 1) return {mean, {-kInfinity, kInfinity}};
  const double half = student_t_quantile(0.975, static_cast<int>(values.size()) - 1) * std::sqrt(squares / (n - 1) / n);
  return {mean, {mean - half, mean + half}};
}

Estimate paired_difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) {
    throw Error("paired_difference: the arms have " + std::to_string(a.size()) + " and " + std::to_string(b.size()) +
                " trials; expected as many in each");
  }
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return mean_with_interval(differences);
}

Estimate worst_with_range(std::span<const double> values) {
  if (values.empty()) throw Error("worst_with_range: there are no values; expected at least one");
  for (const double value : values) {
    if (std::isnan(value)) return {value, {value, value}};
  }
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return {*most, {*least, *most}};
}

double worse(double a, double b) {
  return std::isnan(a) || a > b ? a : b;
}

double median(std::vector<double> values) {
  if (values.empty()) throw Error("median: there are no values; expected at least one");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace equinorm::audit
