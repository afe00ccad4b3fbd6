// equinorm train: trains a net on a data set, tests it, saves it.
#include "nn/train.hpp"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>

#include "commands.hpp"
#include "data/dataset.hpp"
#include "equinorm/status.hpp"
#include "model_options.hpp"
#include "nn/checkpoint.hpp"
#include "progress.hpp"

namespace equinorm::app {
namespace {

/// The best of a small grid on MNIST at batch 32: normalized nets take rates at which the others do not train.
double default_rate(const nn::TrainSpec& spec) {
  if (spec.optimizer.kind == nn::OptimizerKind::adam) return 0.003;
  switch (spec.model.norm.kind) {
    case nn::NormKind::none:
      return 0.05;
    case nn::NormKind::batch:
    case nn::NormKind::instance:
      return 0.4;
    default:
      return 0.2;
  }
}

nn::TrainSpec spec_of(const TrainOptions& o) {
  nn::TrainSpec spec;
  spec.model = o.model_spec();
  spec.model.init = nn::parse_init(o.init);
  spec.model.init_scale = o.init_scale;
  spec.model.dropout = o.dropout;
  spec.optimizer.kind = nn::parse_optimizer(o.optimizer);
  spec.optimizer.lr = o.lr ? *o.lr : default_rate(spec);
  spec.optimizer.momentum = o.momentum;
  spec.optimizer.weight_decay = o.weight_decay;
  spec.optimizer.decoupled = o.decoupled;
  spec.optimizer.norm_lr = o.norm_lr;
  nn::validate(spec.optimizer);
  spec.schedule.kind = nn::parse_schedule(o.schedule);
  spec.schedule.warmup = o.warmup;
  spec.batch = o.batch;
  spec.epochs = o.epochs;
  spec.seed = o.seed;
  spec.threads = o.thread_count();
  return spec;
}

/// What can be wrong with the file to save is told before the training, not after.
void expect_savable(const std::string& file) {
  if (file.empty()) return;
  const std::filesystem::path path(file), parent = path.has_parent_path() ? path.parent_path() : ".";
  if (!std::filesystem::is_directory(parent))
    throw Error("--save " + file + ": there is no directory " + parent.string());
  if (std::filesystem::is_directory(path)) throw Error("--save " + file + " is a directory; expected a file");
}

/// Sums over the steps since the last line.
struct Window {
  double loss = 0;
  std::size_t correct = 0, rows = 0;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

  void add(const nn::Outcome& outcome) {
    loss += outcome.loss * static_cast<double>(outcome.rows);
    correct += outcome.correct;
    rows += outcome.rows;
  }
  std::string text() const {
    const auto n = static_cast<double>(rows);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return fmt::format("loss {:.4f}  accuracy {:.2f} %  {:.0f} images/s", loss / n,
                       100 * static_cast<double>(correct) / n, n / seconds);
  }
};

std::string diverged_message(const nn::StepReport& step) {
  return fmt::format("the loss is {} at step {} of {} (learning rate {:.4g}): training diverged; try a smaller --lr{}",
                     step.outcome.loss, step.step + 1, step.steps, step.lr, "; nothing was saved");
}

}  // namespace

void run(const TrainOptions& options) {
  const nn::TrainSpec spec = spec_of(options);
  expect_savable(options.save);
  const data::DataPair data = data::load(options.data);
  const std::uint64_t epoch_steps = nn::planned_steps(spec, data.train.count) / spec.epochs;
  fmt::print("{} with {} norm on {} ({} training images), batch {}, {} threads\n", spec.model.model,
             nn::name_of(spec.model.norm), options.data, data.train.count, spec.batch, spec.threads);

  nn::Evaluation test;
  {
    Progress progress;
    Window window;
    const auto observe = [&](const nn::StepReport& report, const nn::Net& net) {
      window.add(report.outcome);
      progress.update(report.step + 1, report.steps, window.text());
      if ((report.step + 1) % epoch_steps != 0) return true;
      const std::string line = window.text();
      test = nn::evaluate(net, data.test);
      progress.clear();
      fmt::print("epoch {}: {}  test accuracy {:.2f} %\n", report.epoch + 1, line, 100 * test.accuracy);
      window = {};
      return true;
    };
    const nn::TrainResult result = nn::train(spec, data.train, observe);
    progress.clear();
    if (result.diverged) throw Error(diverged_message(result.last));
    if (!std::isfinite(test.loss)) throw Error(diverged_message(result.last) + ": the test loss is not finite");
    if (!options.save.empty()) nn::save_checkpoint(options.save, result.net, data.train.normalization);
  }
  fmt::print("test: {} of {} correct, {:.2f} %, loss {:.4f}\n", test.correct, test.rows, 100 * test.accuracy,
             test.loss);
  if (!options.save.empty()) fmt::print("saved {}\n", options.save);
}

}  // namespace equinorm::app
