// Intervals: what the audit knows about a quantity that it measured a few times.
#pragma once

#include <span>
#include <vector>

namespace equinorm::audit {

struct Interval {
  double lo = 0, hi = 0;
};

/// A measured quantity: its value and the interval that goes with it.
struct Estimate {
  double value = 0;
  Interval interval{};
};

/// The t with P(T ≤ t) = p, T of Student's distribution with `dof` degrees of freedom; p in (0, 1), dof ≥ 1.
double student_t_quantile(double p, int dof);

/// The mean and its two-sided 95 % t-interval. One value has no interval but the whole line; none is an Error.
Estimate mean_with_interval(std::span<const double> values);

/// The same for the differences a[i] − b[i] of paired trials; the lengths must agree.
Estimate paired_difference(std::span<const double> a, std::span<const double> b);

/// The worst (largest) value, with the range of all of them: what exact claims report. NaN is worse than anything.
Estimate worst_with_range(std::span<const double> values);

/// The larger of two errors; NaN is larger than anything.
double worse(double a, double b);

double median(std::vector<double> values);

}  // namespace equinorm::audit
