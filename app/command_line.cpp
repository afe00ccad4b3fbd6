// Every command and its options, as --help shows them. The one file that includes CLI11, which has no compiled form.
#include "command_line.hpp"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "commands.hpp"

namespace equinorm::app {
namespace {

constexpr int kWrongUse = 2;  // the exit status

/// For options that CLI11 reads into unsigned or floating numbers: it would print the whole range of a double.
const CLI::Validator kNotNegative(
    [](const std::string& text) {
      return text.starts_with('-') ? "found " + text + "; expected a number of at least 0" : std::string();
    },
    "NUMBER");

void add_audit(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("audit", "Measure the claims about batch normalization and report a verdict on each");
  auto options = std::make_shared<AuditOptions>();
  CLI::Option* quick = command->add_flag(
      "--quick", options->quick, "Fewer digits and steps, at least 3 seeds; within 5 minutes on 2 cores (default)");
  command->add_flag("--full", options->full, "All of them, at least 5 seeds")->excludes(quick);
  command->add_option("--claims", options->claims, "Only these, separated by commas")->delimiter(',');
  command->add_option("--seeds", options->seeds, "Measured trials per arm")->check(CLI::Range(1, 1000));
  command->add_option("--threads", options->threads, "Trials at a time (default: the number of cores)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--out", options->out, "Directory of results.json and report.html")->capture_default_str();
  command->add_flag("--resume", options->resume,
                    "Keep the finished claims of DIR/results.json and go on with the rest");
  command->add_flag("--list", options->list, "List the claims and end");
  command->callback([options] {
    if (!run(*options)) throw CLI::RuntimeError(kWrongUse);
  });
}

/// For every command that trains.
void add_model_options(CLI::App& command, ModelOptions& o) {
  command.add_option("--model", o.model, "mlp, cnn or resnet8")->capture_default_str();
  command
      .add_option("--norm", o.norm,
                  "Normalization: none, batch, layer, rms, instance or group:G (G groups of channels)")
      ->capture_default_str();
  command.add_option("--activation", o.activation, "relu, sigmoid or tanh (default: sigmoid for mlp, relu elsewhere)");
  command.add_option("--optimizer", o.optimizer, "sgd (with momentum) or adam")->capture_default_str();
  command.add_option("--batch", o.batch, "Rows of a step")->capture_default_str()->check(kNotNegative);
  command.add_option("--threads", o.threads, "Threads (default: one for each core)")->check(kNotNegative);
}

void add_train(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train a net, test it, save it as safetensors");
  auto options = std::make_shared<TrainOptions>();
  TrainOptions& o = *options;
  add_model_options(*command, o);
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
  command->callback([options] { run(*options); });
}

void add_eval(CLI::App& app) {
  CLI::App* command = app.add_subcommand("eval", "Test a saved net");
  auto options = std::make_shared<EvalOptions>();
  command->add_option("FILE", options->file, "A checkpoint of equinorm train")->required();
  command->add_option("--data", options->data, "mnist, or a directory of IDX files")->capture_default_str();
  command->add_option("--split", options->split, "test or train")->capture_default_str();
  command->add_option("--logits", options->logits, "File for the logits and labels of every image, as safetensors");
  command->add_option("--threads", options->machine.threads, "Threads (default: one for each core)")
      ->check(kNotNegative);
  command->footer("Example\n  equinorm eval cnn.safetensors --data mnist --logits logits.safetensors");
  command->callback([options] { run(*options); });
}

struct OpRow {
  bench::Op op;
  const char* help;
};
constexpr OpRow kOpRows[] = {
    {bench::Op::batch_norm, "Batch norm beside a copy of its tensor and oneDNN, interleaved in one run"},
    {bench::Op::layer_norm, "Layer norm beside a copy of its tensor and oneDNN"},
    {bench::Op::rms_norm, "RMS norm beside a copy of its tensor"},
    {bench::Op::group_norm, "Group norm beside a copy of its tensor"},
    {bench::Op::instance_norm, "Instance norm beside a copy of its tensor"},
};

template <class Table>
CLI::Validator one_of(const Table& table) {
  std::vector<std::string> names;
  names.reserve(table.size());
  for (const auto& row : table) names.emplace_back(row.name);
  return CLI::IsMember(names);
}

void add_bench_ops(CLI::App& bench_command) {
  for (const OpRow& row : kOpRows) {
    auto options = std::make_shared<OpOptions>(row.op);
    CLI::App* command = bench_command.add_subcommand(std::string(bench::name_of(bench::kOps, row.op)), row.help);
    const bool by_rows = options->problem.by_rows();
    command->add_option("--shape", options->shape, by_rows ? "ROWS,FEATURES" : "N,C,H,W (or N,C), whatever the layout")
        ->capture_default_str();
    command->add_option("--layout", options->layout)->check(one_of(bench::kLayouts))->capture_default_str();
    command->add_option("--pass", options->pass)->check(one_of(bench::kPasses))->capture_default_str();
    command->add_option("--type", options->type)->check(one_of(bench::kTypes))->capture_default_str();
    CLI::Option* activation = command->add_option("--activation", options->activation, "Fused behind the norm")
                                  ->check(one_of(bench::kActivations))
                                  ->capture_default_str();
    command
        ->add_flag_callback(
            "--relu", [options] { options->activation = "relu"; }, "The same as --activation relu")
        ->excludes(activation);
    command->add_flag("--add", options->problem.add,
                      by_rows ? "Fuse a residual add before the norm" : "Fuse a residual add before the activation");
    if (row.op == bench::Op::group_norm)
      command->add_option("--groups", options->problem.groups)->capture_default_str();
    command->add_option("--threads", options->problem.threads)->check(CLI::Range(1, 1024))->capture_default_str();
    command->add_option("--simd", options->simd, "Force an instruction set (an unknown name lists them)");
    command->add_option("--seconds", options->seconds, "How long to measure")
        ->check(CLI::Range(0.01, 600.0))
        ->capture_default_str();
    command->add_flag("--json", options->json, "Print one line of JSON");
    command->callback([options] { run(*options); });
  }
}

void add_bench_all(CLI::App& bench_command) {
  auto options = std::make_shared<AllOptions>();
  CLI::App* command = bench_command.add_subcommand(
      "all", "Every operation beside a copy, oneDNN and its target: speed.md, speed.svg and speed.json (10 minutes)");
  command->add_flag("--quick", options->quick, "Batches a 16th, half a minute in all: to see that it works");
  command->add_option("--out", options->out, "Directory for the three files")->capture_default_str();
  command->add_option("--visits", options->visits, "How often to go through the table (3, quick 1)")
      ->check(CLI::Range(1, 1000));
  command->add_option("--seconds", options->seconds, "How long to measure a row each time (0.5, quick 0.05)")
      ->check(CLI::Range(0.001, 600.0));
  command->callback([options] { run(*options); });
}

void add_bench_accuracy(CLI::App& bench_command) {
  auto options = std::make_shared<AccuracyOptions>();
  CLI::App* command = bench_command.add_subcommand(
      "accuracy", "Errors of a training step on hostile inputs, beside oneDNN's and PyTorch's: accuracy.md");
  command->add_option("--out", options->out, "Directory for the table")->capture_default_str();
  command->add_flag("--quick", options->quick, "A quarter of the batches: to see that it works");
  command->add_option("--torch", options->torch, "bench/torch_accuracy.py, to have PyTorch in the table")
      ->check(CLI::ExistingFile);
  command->callback([options] { run(*options); });
}

void add_bench_step(CLI::App& bench_command) {
  CLI::App* command = bench_command.add_subcommand(
      "step", "One training step on synthetic 28x28 images in memory (reading and batching of data excluded)");
  auto options = std::make_shared<StepOptions>();
  add_model_options(*command, *options);
  command->add_option("--steps", options->steps, "Measured steps")->capture_default_str()->check(kNotNegative);
  command->add_option("--warmup", options->warmup, "Steps before")->capture_default_str()->check(kNotNegative);
  command->add_flag("--json", options->json, "Print one line of JSON");
  command->footer("Example\n  equinorm bench step --model cnn --norm batch --batch 128 --threads 1 --json");
  command->callback([options] { run(*options); });
}

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure the kernels and the training step beside their peers");
  bench->require_subcommand(1);
  add_bench_ops(*bench);
  add_bench_all(*bench);
  add_bench_accuracy(*bench);
  add_bench_step(*bench);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app{"Normalization for neural networks: kernels, a CPU trainer, and an audit of the claims about them."};
  app.require_subcommand(1);
  add_audit(app);
  add_train(app);
  add_eval(app);
  add_bench(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {  // a command or a file is missing: show what there is
    const auto chosen = app.get_subcommands();
    fmt::print(stderr, "{}", chosen.empty() ? app.help() : chosen.front()->help());
    fmt::print(stderr, "\nequinorm: {}\n", error.what());
    return kWrongUse;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongUse;
  }
  return 0;
}

}  // namespace equinorm::app
