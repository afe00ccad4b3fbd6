// Training and evaluation of a net on a data set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "nn/net.hpp"
#include "nn/optimizer.hpp"
#include "nn/spec.hpp"

namespace equinorm::data {
struct Dataset;
}

namespace equinorm::nn {

struct TrainSpec {
  ModelSpec model{};  ///< height, width, channels and classes are taken from the data
  OptimizerSpec optimizer{};
  ScheduleSpec schedule{};
  std::size_t batch = 128;  ///< the rows at the end of an epoch that do not fill a batch wait for the next shuffle
  std::size_t epochs = 3;
  std::uint64_t steps = 0;  ///< if not 0: so many steps, whatever epochs says
  std::uint64_t seed = 1;   ///< of initial weights, order of rows, dropout
  int threads = 1;
};

/// One finished step.
struct StepReport {
  std::uint64_t step = 0, steps = 0;  ///< from 0; of how many
  std::uint64_t epoch = 0;            ///< from 0
  double lr = 0;                      ///< rate of this step
  Outcome outcome{};
};

/// Called after every step; false ends the training.
using Observer = std::function<bool(const StepReport&, const Net&)>;

struct TrainResult {
  Net net;
  std::uint64_t steps = 0;  ///< taken
  bool diverged = false;    ///< the loss stopped being finite: the last step was not applied
  StepReport last{};
};

/// How many steps the spec takes on so many rows. Throws Error if a batch is larger than the data.
std::uint64_t planned_steps(const TrainSpec& spec, std::size_t rows);

/// Trains. Throws Error where the spec makes no sense; divergence is a result, not an error.
TrainResult train(const TrainSpec& spec, const data::Dataset& dataset, const Observer& observer = {});

struct Evaluation {
  double loss = 0;      ///< mean over all rows
  double accuracy = 0;  ///< share of rows, 0 … 1
  std::size_t correct = 0, rows = 0;
};

/// Inference on all rows, with running statistics, in a net planned for inference with the state of `net`; rows do not
/// depend on each other, so the batch size is a matter of speed. Each batch's logits go to `logits` if given:
/// [rows, classes] of the batch that starts at `first`.
using LogitsSink = std::function<void(std::size_t first, std::span<const float> logits)>;
Evaluation evaluate(const Net& net, const data::Dataset& dataset, const LogitsSink& logits = {});

}  // namespace equinorm::nn
