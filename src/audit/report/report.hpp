// report.html: one offline file, made from the results alone.
#pragma once

#include <string>
#include <string_view>

#include "audit/results.hpp"

namespace equinorm::audit {

/// The whole page: style, charts' library and data are inside, nothing is fetched.
std::string report_html(const Results& results);

/// Text as it may stand in HTML, attributes included.
std::string escape_html(std::string_view text);

}  // namespace equinorm::audit
