#include "nn/train.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "data/dataset.hpp"
#include "data/sampler.hpp"
#include "equinorm/status.hpp"

namespace equinorm::nn {
namespace {

/// The spec with what the data decides.
ModelSpec fit(ModelSpec model, const data::Dataset& dataset) {
  model.height = dataset.height;
  model.width = dataset.width;
  model.channels = dataset.channels;
  model.classes = std::max<std::size_t>(dataset.classes, 2);
  return model;
}

}  // namespace

std::uint64_t planned_steps(const TrainSpec& spec, std::size_t rows) {
  if (spec.batch == 0 || spec.batch > rows) {
    throw Error("batch size is " + std::to_string(spec.batch) + "; expected 1 to the " + std::to_string(rows) +
                " rows of the data");
  }
  constexpr std::uint64_t most = 1'000'000'000;
  if (spec.steps > most || spec.epochs > 1'000'000 || (spec.steps == 0 && spec.epochs == 0)) {
    throw Error("training of " + std::to_string(spec.epochs) + " epochs, " + std::to_string(spec.steps) +
                " steps; expected 1 to 1000000 epochs or 1 to " + std::to_string(most) + " steps");
  }
  return spec.steps != 0 ? spec.steps : spec.epochs * (rows / spec.batch);
}

TrainResult train(const TrainSpec& spec, const data::Dataset& dataset, const Observer& observer) {
  const std::uint64_t steps = planned_steps(spec, dataset.count);
  validate(spec.schedule);
  TrainResult result{.net = Net(fit(spec.model, dataset),
                                {.batch = spec.batch, .training = true, .threads = spec.threads, .seed = spec.seed})};
  Net& net = result.net;
  Optimizer optimizer(spec.optimizer, net.parameters());
  data::Batches batches(data::all_rows(dataset.count), spec.batch, data::LastBatch::drop);

  for (std::uint64_t step = 0; step < steps; ++step) {
    const std::uint64_t epoch = step / batches.size();
    const std::size_t position = step % batches.size();
    if (position == 0) batches.shuffle(spec.seed, epoch);
    data::gather(dataset, batches[position], net.images(), net.labels());
    const double lr = scheduled_rate(spec.schedule, spec.optimizer.lr, step, steps);
    result.last = {step, steps, epoch, lr, net.forward(step)};
    if (!std::isfinite(result.last.outcome.loss)) {
      result.diverged = true;
      break;
    }
    net.backward();
    optimizer.step(lr);
    ++result.steps;
    if (observer && !observer(result.last, net)) break;
  }
  return result;
}

Evaluation evaluate(const Net& net, const data::Dataset& dataset, const LogitsSink& logits) {
  const ModelSpec& model = net.spec();
  const ModelSpec fitted = fit(model, dataset);
  if (fitted.height != model.height || fitted.width != model.width || fitted.channels != model.channels) {
    const auto text = [](const ModelSpec& m) {
      return std::to_string(m.height) + "x" + std::to_string(m.width) + "x" + std::to_string(m.channels);
    };
    throw Error(dataset.name + " has images of " + text(fitted) + "; the net expects " + text(model));
  }
  Net inference(model, {.batch = std::clamp<std::size_t>(dataset.count, 1, 256),
                        .training = false,
                        .threads = net.options().threads,
                        .seed = 0});
  inference.copy_state(net);
  const data::Batches batches(data::all_rows(dataset.count), inference.options().batch, data::LastBatch::keep);
  Evaluation evaluation;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const auto rows = batches[i];
    data::gather(dataset, rows, inference.images(), inference.labels());
    const Outcome outcome = inference.infer(rows.size());
    if (logits) logits(evaluation.rows, inference.logits().first(rows.size() * model.classes));
    evaluation.loss += outcome.loss * static_cast<double>(outcome.rows);
    evaluation.correct += outcome.correct;
    evaluation.rows += outcome.rows;
  }
  evaluation.loss /= static_cast<double>(evaluation.rows);
  evaluation.accuracy = static_cast<double>(evaluation.correct) / static_cast<double>(evaluation.rows);
  return evaluation;
}

}  // namespace equinorm::nn
