// The options that say what is trained, for every subcommand that trains.
#pragma once

#include <string>

#include "nn/spec.hpp"

namespace equinorm::app {

/// Options as they are typed; what they mean is for the trainer to judge.
struct ModelOptions {
  std::string model = "cnn", norm = "batch", activation, optimizer = "sgd";
  std::size_t batch = 32;
  int threads = 0;  ///< 0: one for each core

  nn::ModelSpec model_spec() const;
  int thread_count() const;
};

}  // namespace equinorm::app
