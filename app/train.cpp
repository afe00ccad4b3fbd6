// equinorm train: trains a net on a data set, tests it, saves it.
#include "nn/train.hpp"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
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

struct TrainOptions : ModelOptions {
  std::string data = "mnist", schedule = "cosine", init = "he", save;
  std::size_t epochs = 3;
  std::uint64_t warmup = 0, seed = 1;
  std::optional<double> lr;
  double momentum = 0.9, weight_decay = 0, norm_lr = 1, init_scale = 1, dropout = 0;
  bool decoupled = false;
};

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

void train(const TrainOptions& options) {
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

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train a net, test it, save it as safetensors");
  auto options = std::make_shared<TrainOptions>();
  TrainOptions& o = *options;
  o.add_to(*command);
  command
      ->add_option("--data", o.data,
                   "mnist, or a directory of IDX files (train-images*, train-labels*, t10k-…; also gzip'd)")
      ->capture_default_str();
  command->add_option("--epochs", o.epochs, "Times through the training images")
      ->capture_default_str()
      ->check(kNotNegative);
  command->add_option("--lr", o.lr,
                      "Peak learning rate (default: 0.4 for sgd with batch or instance norm, 0.05 without norm, else "
                      "0.2; 0.003 for adam)");
  command->add_option("--momentum", o.momentum, "Of sgd")->capture_default_str();
  command->add_option("--weight-decay", o.weight_decay, "Of weights; norm parameters and biases are spared")
      ->capture_default_str();
  command->add_flag("--decoupled", o.decoupled, "Weight decay apart from the gradient (AdamW)");
  command->add_option("--schedule", o.schedule, "Of the rate: constant, step or cosine")->capture_default_str();
  command->add_option("--warmup", o.warmup, "Steps in which the rate rises to its peak")
      ->capture_default_str()
      ->check(kNotNegative);
  command->add_option("--norm-lr", o.norm_lr, "A factor on the rate of norm parameters")->capture_default_str();
  command->add_option("--init", o.init, "Initial weights: he, xavier or scaled (variance 1/fan-in)")
      ->capture_default_str();
  command->add_option("--init-scale", o.init_scale, "A factor on every initial weight")->capture_default_str();
  command->add_option("--dropout", o.dropout, "Dropout rate")->capture_default_str();
  command->add_option("--seed", o.seed, "Of initial weights, order of images and dropout")
      ->capture_default_str()
      ->check(kNotNegative);
  command->add_option("--save", o.save, "File for the trained net, with PyTorch's parameter names");
  command->footer(
      "Example: 99 % on MNIST in under a minute, saved for later\n"
      "  equinorm train --model cnn --norm batch --epochs 3 --save cnn.safetensors\n"
      "  equinorm eval cnn.safetensors\n"
      "Saved tensors are called as in PyTorch: conv1.weight [out, in, h, w], bn1.running_mean, fc.bias, …\n"
      "(resnet8: as torchvision's ResNet, layer2.0.downsample.0.weight, …; mlp: fc1 … fc4, bn1 … bn3)");
  command->callback([options] { train(*options); });
}

}  // namespace equinorm::app
