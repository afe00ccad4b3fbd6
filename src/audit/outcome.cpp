#include "audit/outcome.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace equinorm::audit {

Finding at_most(Role role, std::string text, std::span<const double> values, double threshold, std::string unit) {
  return {std::move(text), role, Direction::below, true, worst_with_range(values), threshold, std::move(unit)};
}

Finding trend(Role role, std::string text, std::span<const double> values, Direction direction, double threshold,
              std::string unit) {
  return {std::move(text), role, direction, false, mean_with_interval(values), threshold, std::move(unit)};
}

Finding aside(std::string text, std::span<const double> values, std::string unit) {
  return trend(Role::context, std::move(text), values, Direction::below, 0, std::move(unit));
}

Verdict Outcome::verdict() const {
  std::vector<Judged> judged;
  for (const Finding& finding : findings) judged.push_back({finding.role, finding.answer()});
  return decide(judged);
}

const Finding& Outcome::headline() const {
  for (const Answer answer : {Answer::fails, Answer::open}) {
    for (const Finding& finding : findings) {
      if ((finding.role == Role::stated || finding.role == Role::core) && finding.answer() == answer) return finding;
    }
  }
  return findings.front();
}

void Samples::add(const std::string& line, double x, double value) {
  if (!values_.contains(line)) order_.push_back(line);
  values_[line][x].push_back(value);
}

std::vector<Line> Samples::means() const {
  return summarize(&mean_with_interval);
}

std::vector<Line> Samples::geometric_means() const {
  return summarize([](std::span<const double> values) {
    std::vector<double> logs;
    for (const double value : values) logs.push_back(std::log(value));
    const Estimate mean = mean_with_interval(logs);
    return Estimate{std::exp(mean.value), {std::exp(mean.interval.lo), std::exp(mean.interval.hi)}};
  });
}

std::vector<Line> Samples::ranges() const {
  return summarize([](std::span<const double> values) {
    return Estimate{median({values.begin(), values.end()}), worst_with_range(values).interval};
  });
}

std::vector<Line> Samples::summarize(Estimate (*summary)(std::span<const double>)) const {
  std::vector<Line> lines;
  for (const std::string& name : order_) {
    Line line{name, {}};
    for (const auto& [x, values] : values_.at(name)) line.points.push_back({x, summary(values)});
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace equinorm::audit
