// § 7.2: batch norm costs computation and memory.
#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "audit/training.hpp"
#include "data/sampler.hpp"
#include "nn/net.hpp"
#include "nn/optimizer.hpp"

namespace equinorm::audit {
namespace {

constexpr std::size_t kBatch = 64;

/// The nets that are timed. A norm is a layer of its own before a sigmoid, and fused with a ReLU that follows it.
struct NetKind {
  const char *model, *activation;
  Role role;
};
constexpr NetKind kNets[] = {{"mlp", "sigmoid", Role::stated},
                             {"cnn", "sigmoid", Role::stated},
                             {"mlp", "relu", Role::context},
                             {"cnn", "relu", Role::context}};

/// Least processor seconds of each action over the rounds: whatever else runs on the machine can only add. The actions
/// take turns, so that it adds to all of them.
std::vector<double> interleaved(const std::vector<std::function<void()>>& actions, int rounds) {
  std::vector<std::vector<double>> seconds(actions.size());
  for (int round = -2; round < rounds; ++round) {  // two rounds warm the caches up
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const double begin = thread_seconds();
      actions[i]();
      if (round >= 0) seconds[i].push_back(thread_seconds() - begin);
    }
  }
  std::vector<double> least;
  least.reserve(seconds.size());
  for (const auto& times : seconds) least.push_back(*std::min_element(times.begin(), times.end()));
  return least;
}

/// A net with a batch of digits in it.
nn::Net loaded_net(const NetKind& kind, const nn::NormSpec& norm, const data::Dataset& digits, std::uint64_t seed,
                   bool training) {
  nn::ModelSpec spec;
  spec.model = kind.model;
  spec.norm = norm;
  spec.activation = kind.activation;
  nn::Net net(spec, {.batch = kBatch, .training = training, .threads = 1, .seed = seed});
  data::gather(digits, data::subset(digits, kBatch, seed, data::Strata::none), net.images(), net.labels());
  return net;
}

struct Cost {
  double step = 0;       // % of the step without norm that norm adds
  double kept = 0;       // % of the bytes kept for backward that norm adds
  double inference = 0;  // % that norm adds to inference, when it is not folded
};

double percent_more(double with, double without) {
  return 100 * (with / without - 1);
}

Cost cost_of(const NetKind& kind, const data::Dataset& digits, std::uint64_t seed, int rounds) {
  std::vector<nn::Net> training, inference;
  for (const Arm& arm : arms()) {
    training.push_back(loaded_net(kind, arm.norm, digits, seed, true));
    inference.push_back(loaded_net(kind, arm.norm, digits, seed, false));
  }
  std::vector<nn::Optimizer> optimizers;
  optimizers.reserve(training.size());
  for (const nn::Net& net : training) optimizers.emplace_back(nn::OptimizerSpec{}, net.parameters());
  const auto step = [&](std::size_t a) {
    return [&, a] {
      training[a].forward(0);
      training[a].backward();
      optimizers[a].step(1e-6);  // so small that the net stays what it is
    };
  };
  const auto infer = [&](std::size_t a) { return [&, a] { inference[a].infer(kBatch); }; };
  const std::vector<double> seconds = interleaved({step(0), step(1), infer(0), infer(1)}, rounds);
  const auto kept = [&](std::size_t a) {
    return static_cast<double>(training[a].memory().kept + training[a].memory().saved);
  };
  Cost cost;
  cost.step = percent_more(seconds[1], seconds[0]);
  cost.kept = percent_more(kept(1), kept(0));
  cost.inference = percent_more(seconds[3], seconds[2]);
  return cost;
}

/// % that a ReLU of its own adds to norm in inference, over one that is fused into it, on activations of real digits.
double unfused_relu(const BatchNormOps& ops, const data::Dataset& digits, std::uint64_t seed, int rounds) {
  const Input input = conv_activations(digits, seed * 1000, kBatch, 16, Layout::channels_last, seed);
  const std::vector<float> mean(input.channels(), 0.1F), variance(input.channels(), 0.5F);
  std::vector<float> y(input.x.size());
  const auto infer = [&](Activation activation) {
    BatchNormOptions options = audit_options();
    options.activation = activation;
    throw_if_error(ops.inference(options, input.view(), input.affine(), mean.data(), variance.data(), {},
                                 {y.data(), input.shape, input.layout}, {}));
  };
  const std::vector<double> seconds = interleaved({[&] { infer(Activation::relu); },
                                                   [&] {
                                                     infer(Activation::none);
                                                     for (float& value : y) value = std::max(value, 0.0F);
                                                   }},
                                                  rounds);
  return percent_more(seconds[1], seconds[0]);
}

Outcome measure(const Context& context) {
  const int rounds = context.pick(25, 100);
  const data::Dataset& digits = context.digits.train;
  context.progress.expect(static_cast<double>(std::size(kNets) * context.seeds.size()));
  Outcome outcome;
  std::vector<Finding> asides;
  std::vector<std::string> labels;
  Samples time, memory;
  for (const NetKind& kind : kNets) {
    // One at a time: a trial beside it would compete for memory.
    const auto costs = map_trials(context.seeds, 1, context.progress,
                                  [&](std::uint64_t seed) { return cost_of(kind, digits, seed, rounds); });
    std::vector<double> step, kept, inference;
    const std::string net = std::string(kind.model) + ", " + kind.activation;
    for (const Cost& cost : costs) {
      step.push_back(cost.step);
      kept.push_back(cost.kept);
      inference.push_back(cost.inference);
      const auto label = static_cast<double>(labels.size());
      time.add("training step", label, cost.step);
      time.add("inference", label, cost.inference);
      memory.add("kept from forward to backward", label, cost.kept);
    }
    labels.push_back(net);
    const bool fused = kind.role == Role::context;
    const std::string how = fused ? " (fused with it)" : "";
    auto& findings = fused ? asides : outcome.findings;
    findings.push_back(trend(kind.role, fmt::format("{}: time that norm adds to a training step{}", net, how), step,
                             Direction::above, 0, "%"));
    findings.push_back(trend(kind.role, fmt::format("{}: bytes that norm adds to what backward needs{}", net, how),
                             kept, Direction::above, 0, "%"));
    asides.push_back(aside(
        fmt::format("{}: time that norm adds to inference{}; folded into the layer before, it adds nothing", net, how),
        inference, "%"));
  }
  std::vector<double> unfused;
  for (const std::uint64_t seed : context.seeds) unfused.push_back(unfused_relu(context.ops, digits, seed, rounds));
  asides.push_back(aside("Time that a ReLU of its own adds to norm, over one fused into it", unfused, "%"));
  outcome.findings.insert(outcome.findings.end(), asides.begin(), asides.end());
  outcome.charts = {{"Time that norm adds", "net", "% of the net without", false, false, labels, time.means()},
                    {"Memory that norm adds", "net", "% of the net without", false, false, labels, memory.means()}};
  return outcome;
}

}  // namespace

constinit const Claim kCost{
    .id = "cost",
    .title = "Costs time and memory",
    .section = "7.2",
    .kind = Kind::exact,
    .statement =
        "Batch norm adds computation to the forward and backward pass, and memory for statistics and intermediate "
        "results.",
    .quote = "计算开销：增加前向和反向传播的计算量；内存消耗：需要存储均值、方差和中间结果",
    .method =
        "The digits net and a net of three convolutions (16, 32, 64 channels), with and without norm, on 64 real "
        "digits and one thread: processor time of whole training steps and of inference, taken in turns in one "
        "process, the least of many rounds; bytes that live from forward to backward, counted in the net's own "
        "memory plan. Before a sigmoid the norm is a layer of its own; with a ReLU it is fused.",
    .rule =
        "Supported if norm as a layer of its own adds time to the step and bytes to what backward needs in both "
        "nets, each above 0 with its 95 % interval over the seeds. Refuted if one is below 0, and not shown if an "
        "interval contains 0.",
    .measure = &measure};

}  // namespace equinorm::audit
