#include "model_options.hpp"

#include <algorithm>
#include <thread>

#include "commands.hpp"

namespace equinorm::app {

void ModelOptions::add_to(CLI::App& command) {
  command.add_option("--model", model, "mlp, cnn or resnet8")->capture_default_str();
  command
      .add_option("--norm", norm, "Normalization: none, batch, layer, rms, instance or group:G (G groups of channels)")
      ->capture_default_str();
  command.add_option("--activation", activation, "relu, sigmoid or tanh (default: sigmoid for mlp, relu elsewhere)");
  command.add_option("--optimizer", optimizer, "sgd (with momentum) or adam")->capture_default_str();
  command.add_option("--batch", batch, "Rows of a step")->capture_default_str()->check(kNotNegative);
  command.add_option("--threads", threads, "Threads (default: one for each core)")->check(kNotNegative);
}

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
