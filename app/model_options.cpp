#include "model_options.hpp"

#include <algorithm>
#include <thread>

namespace equinorm::app {

nn::ModelSpec ModelOptions::model_spec() const {
  nn::ModelSpec spec;
  spec.model = model;
  spec.norm = nn::parse_norm(norm);
  spec.activation = activation;
  return nn::validated(spec);
}

int ModelOptions::thread_count() const {
  return threads > 0 ? threads : static_cast<int>(std::max(std::thread::hardware_concurrency(), 1U));
}

}  // namespace equinorm::app
