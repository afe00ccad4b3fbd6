// equinorm bench step: the time of one training step (forward, loss, backward, update) on images in memory; how they
// are read and batched is no part of it. bench/torch_step.py measures the same step in PyTorch.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "bench_json.hpp"
#include "commands.hpp"
#include "core/philox.hpp"
#include "equinorm/status.hpp"
#include "model_options.hpp"
#include "nn/net.hpp"
#include "nn/optimizer.hpp"

namespace equinorm::app {

void run(const StepOptions& options) {
  if (options.steps == 0 || options.steps > 1'000'000) {
    throw Error("--steps is " + std::to_string(options.steps) + "; expected 1 to 1000000");
  }
  nn::OptimizerSpec optimizer_spec;
  optimizer_spec.kind = nn::parse_optimizer(options.optimizer);
  optimizer_spec.lr = 0.01;
  const int threads = options.thread_count();
  nn::Net net(options.model_spec(), {.batch = options.batch, .training = true, .threads = threads, .seed = 1});
  nn::Optimizer optimizer(optimizer_spec, net.parameters());
  const Philox random(1, 1);
  for (std::size_t i = 0; i < net.images().size(); ++i) net.images()[i] = static_cast<float>(random.normal(i));
  for (std::size_t i = 0; i < net.labels().size(); ++i) net.labels()[i] = static_cast<std::uint8_t>(i % 10);

  using Clock = std::chrono::steady_clock;
  std::vector<double> ms;
  for (std::size_t step = 0; step < options.warmup + options.steps; ++step) {
    const auto start = Clock::now();
    net.forward(step);
    net.backward();
    optimizer.step(optimizer_spec.lr);
    if (step >= options.warmup) ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::ranges::sort(ms);
  const double median = ms[ms.size() / 2];
  const double spread = (ms[ms.size() * 3 / 4] - ms[ms.size() / 4]) / median;  // the middle half
  const double images = 1000 * static_cast<double>(options.batch) / median;
  if (options.json) {
    fmt::print("{}\n", json_text(options, {threads, median, spread, images}));
    return;
  }
  fmt::print("{} with {} norm, batch {}, {} threads: {:.3f} ms a step (spread {:.0f} %), {:.0f} images/s\n",
             options.model, options.norm, options.batch, threads, median, 100 * spread, images);
}

}  // namespace equinorm::app
