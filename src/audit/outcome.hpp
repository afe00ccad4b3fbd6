// What a claim brings back: findings that decide its verdict, and the series behind them.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/statistics.hpp"
#include "audit/verdict.hpp"

namespace equinorm::audit {

/// One measured quantity, held against a threshold that its claim's source file fixes.
struct Finding {
  std::string text;  ///< what was measured, in words
  Role role = Role::stated;
  Direction direction = Direction::below;
  bool exact = false;  ///< judged by the worst case (the interval is then the range of all cases), else by the interval
  Estimate estimate{};
  double threshold = 0;
  std::string unit;

  Answer answer() const {
    return exact ? judge_worst(estimate.value, direction, threshold) : judge(estimate.interval, direction, threshold);
  }
};

/// A finding of an exact claim: the worst of `values` must not exceed the threshold.
Finding at_most(Role role, std::string text, std::span<const double> values, double threshold, std::string unit);

/// A finding from paired trials: the mean of `values` must lie above or below the threshold with its 95 % interval.
Finding trend(Role role, std::string text, std::span<const double> values, Direction direction, double threshold,
              std::string unit);

/// A quantity worth knowing: its mean and 95 % interval decide nothing.
Finding aside(std::string text, std::span<const double> values, std::string unit);

struct Point {
  double x = 0;  ///< or the index of a label
  Estimate y{};
};

struct Line {
  std::string name;
  std::vector<Point> points;
};

/// Numbers to be drawn: lines over x, or, with labels, one group of intervals per label.
struct Chart {
  std::string title, x_title, y_title;
  bool x_log = false, y_log = false;
  std::vector<std::string> labels;  ///< of a chart over categories; empty: x is a number
  std::vector<Line> lines;
  std::optional<double> threshold{};  ///< of the finding that the chart is about, on the y axis
};

struct Outcome {
  std::vector<Finding> findings;  ///< in order of weight; a stated one comes first
  std::vector<Chart> charts;
  std::vector<std::string> notes;  ///< sentences for the report: rates chosen, optima at an edge, trials that diverged

  Verdict verdict() const;

  /// The finding that decided: the first of what is stated that fails, or else is open, or else the first.
  const Finding& headline() const;
};

/// Collects (line, x) → values over seeds while trials come in, and turns them into a chart's lines.
class Samples {
 public:
  void add(const std::string& line, double x, double value);

  /// Each point is the mean of its values with a 95 % t-interval.
  std::vector<Line> means() const;
  /// The same of the logarithms: for a logarithmic axis. All values must be positive.
  std::vector<Line> geometric_means() const;
  /// Each point is the median of its values with their range.
  std::vector<Line> ranges() const;

 private:
  std::vector<Line> summarize(Estimate (*summary)(std::span<const double>)) const;

  std::vector<std::string> order_;
  std::map<std::string, std::map<double, std::vector<double>>> values_;
};

}  // namespace equinorm::audit
