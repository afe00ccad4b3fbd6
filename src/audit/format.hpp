// Numbers in words that fit a table.
#pragma once

#include <string>

#include "audit/outcome.hpp"

namespace equinorm::audit {

/// Three significant digits: "0.0123", "4250", "1.2e-07"; "∞", "not a number".
std::string format_number(double value);

/// "0.4 s", "2 min 5 s".
std::string format_seconds(double seconds);

/// "≤ 4 ulp", "> 0"; what a finding must be. An exact bound may be met, a trend's may not.
std::string format_threshold(const Finding& finding);

/// "0.52 ulp".
std::string format_value(const Finding& finding);

}  // namespace equinorm::audit
