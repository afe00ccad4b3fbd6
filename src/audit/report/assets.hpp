// The files that the report carries inside, embedded by CMake.
#pragma once

#include <string_view>

namespace equinorm::audit::assets {

extern const std::string_view kChartLibrary;  ///< Chart.js, MIT licence
extern const std::string_view kStyle;         ///< report.css
extern const std::string_view kScript;        ///< report.js

}  // namespace equinorm::audit::assets
