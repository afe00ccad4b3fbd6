#include "nn/init.hpp"

#include <algorithm>
#include <cmath>

#include "core/philox.hpp"
#include "nn/stream.hpp"

namespace equinorm::nn {
namespace {

double deviation(Init init, double fan_in, double fan_out) {
  switch (init) {
    case Init::he:
      return std::sqrt(2.0 / fan_in);
    case Init::xavier:
      return std::sqrt(2.0 / (fan_in + fan_out));
    case Init::scaled:
      return std::sqrt(1.0 / fan_in);
  }
  return 0;
}

}  // namespace

void initialize(const ModelSpec& spec, const ParameterPlan& plan, std::uint64_t seed, const Parameter& parameter) {
  if (plan.kind != ParameterKind::weight) {
    std::ranges::fill(parameter.values, plan.kind == ParameterKind::gamma ? 1.0F : 0.0F);
    return;
  }
  const Philox random(seed, stream_of("init", parameter.name));
  const double scale = spec.init_scale * deviation(spec.init, plan.fan_in, plan.fan_out);
  for (std::size_t i = 0; i < parameter.values.size(); ++i) {
    parameter.values[i] = static_cast<float>(scale * random.normal(i));
  }
}

}  // namespace equinorm::nn
