// A measurement as JSON: what `equinorm bench OP --json` prints and speed.json lists.
#pragma once

#include <nlohmann/json.hpp>

#include "measure.hpp"

namespace equinorm::app {

nlohmann::ordered_json bench_json(const bench::Measurement& measured);

}  // namespace equinorm::app
