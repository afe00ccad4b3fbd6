// Initial values of parameters.
#pragma once

#include <cstdint>

#include "nn/layer.hpp"

namespace equinorm::nn {

/// Draws `parameter` from the stream of (seed, its name): two nets that share a layer share its initial weights.
void initialize(const ModelSpec& spec, const ParameterPlan& plan, std::uint64_t seed, const Parameter& parameter);

}  // namespace equinorm::nn
