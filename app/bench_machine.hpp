// The machine and the day of a measurement, for the foot of a table.
#pragma once

#include <string>

namespace equinorm::app {

/// How many processes wanted to run in the last minute.
double load_average();

/// "2 × AMD EPYC, AVX3, GCC 12.2.0, 2026-11-23".
std::string machine_text();

}  // namespace equinorm::app
