#include "audit/format.hpp"

#include <fmt/core.h>

#include <cmath>

namespace equinorm::audit {
namespace {
std::string with_unit(const std::string& number, const std::string& unit) {
  return unit.empty() ? number : number + " " + unit;
}
}  // namespace

std::string format_number(double value) {
  if (std::isnan(value)) return "not a number";
  if (std::isinf(value)) return value > 0 ? "∞" : "-∞";
  const bool plain = std::abs(value) >= 1000 && std::abs(value) < 1e6;
  return plain ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

std::string format_seconds(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  return fmt::format("{:.0f} min {:.0f} s", std::floor(seconds / 60), std::floor(std::fmod(seconds, 60)));
}

std::string format_threshold(const Finding& finding) {
  const bool below = finding.direction == Direction::below;
  const char* sign = below ? (finding.exact ? "≤ " : "< ") : (finding.exact ? "≥ " : "> ");
  return sign + with_unit(format_number(finding.threshold), finding.unit);
}

std::string format_value(const Finding& finding) {
  return with_unit(format_number(finding.estimate.value), finding.unit);
}

}  // namespace equinorm::audit
