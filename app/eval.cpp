// equinorm eval: tests a saved net.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "commands.hpp"
#include "data/dataset.hpp"
#include "data/safetensors.hpp"
#include "equinorm/status.hpp"
#include "model_options.hpp"
#include "nn/checkpoint.hpp"
#include "nn/train.hpp"

namespace equinorm::app {

void run(const EvalOptions& options) {
  const nn::Checkpoint checkpoint = nn::load_checkpoint(options.file, options.machine.thread_count());
  if (options.split != "test" && options.split != "train") {
    throw Error("unknown split \"" + options.split + "\"; expected one of: test, train");
  }
  data::DataPair pair = data::load(options.data);
  data::Dataset& dataset = options.split == "test" ? pair.test : pair.train;
  dataset.normalization = checkpoint.normalization;  // the net's, not this data's

  const std::size_t classes = checkpoint.net.spec().classes;
  std::vector<float> logits;
  nn::LogitsSink sink;
  if (!options.logits.empty()) {
    logits.resize(dataset.count * classes);
    sink = [&](std::size_t first, std::span<const float> batch) {
      std::ranges::copy(batch, logits.begin() + static_cast<std::ptrdiff_t>(first * classes));
    };
  }
  const nn::Evaluation result = nn::evaluate(checkpoint.net, dataset, sink);
  if (!options.logits.empty()) {
    const std::vector<std::int64_t> labels(dataset.labels.begin(), dataset.labels.end());
    data::write_safetensors(options.logits,
                            std::vector{data::NamedTensor::of<float>("logits", {dataset.count, classes}, logits),
                                        data::NamedTensor::of<std::int64_t>("labels", {dataset.count}, labels)});
  }
  fmt::print("{}: {} of {} correct, {:.2f} %, loss {:.4f}\n", options.split, result.correct, result.rows,
             100 * result.accuracy, result.loss);
}

}  // namespace equinorm::app
