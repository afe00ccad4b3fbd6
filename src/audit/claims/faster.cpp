// § 7.1, § 8.2: batch norm trains faster and allows larger learning rates.
#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "audit/claims.hpp"
#include "audit/training.hpp"

namespace equinorm::audit {
namespace {

constexpr double kTarget = 0.93;

/// The nets: the one of the batch norm paper, and the same as it would be built today.
struct NetKind {
  const char *name, *activation;
  nn::Init init;
};
constexpr NetKind kNets[] = {{"Sigmoid", "sigmoid", nn::Init::xavier}, {"ReLU", "relu", nn::Init::he}};

constexpr double kRatio = 3.1623;  // half a decade

double steps_of(const TrialResult& trial) {
  return trial.steps;
}

/// What one arm of one net did: [seed], at its best rate and over all rates.
struct ArmResult {
  std::vector<double> steps, largest, decades;
  double step_seconds = 0;  // the least of all trials: whatever else runs on the machine can only add
  Tuned tuned{};
  std::size_t failed = 0;
};

/// Seconds of a trial at the arm's time for a step.
std::vector<double> seconds_of(const ArmResult& arm) {
  std::vector<double> seconds = arm.steps;
  for (double& value : seconds) value *= arm.step_seconds;
  return seconds;
}

/// `trials`: [rate][seed].
ArmResult summarize(std::span<const std::vector<TrialResult>> trials, std::span<const double> grid,
                    const Tuned& tuned) {
  const std::size_t seeds = trials[0].size();
  // An arm that trains at no rate has a largest rate just below the grid.
  ArmResult arm;
  arm.tuned = tuned;
  arm.decades.resize(seeds, 0);
  arm.largest.resize(seeds, grid[0] / kRatio);
  arm.step_seconds = std::numeric_limits<double>::infinity();
  for (std::size_t r = 0; r < grid.size(); ++r) {
    for (std::size_t s = 0; s < seeds; ++s) {
      arm.step_seconds = std::min(arm.step_seconds, trials[r][s].seconds / trials[r][s].steps);
      if (!trials[r][s].reached) continue;
      arm.largest[s] = grid[r];
      arm.decades[s] += std::log10(kRatio);
    }
    if (grid[r] != tuned.rate) continue;
    arm.steps = column(trials[r], steps_of);
    for (const TrialResult& trial : trials[r]) arm.failed += trial.reached ? 0U : 1U;
  }
  return arm;
}

Finding ratio(Role role, std::string text, std::span<const double> over, std::span<const double> under) {
  return {std::move(text), role, Direction::above, false, paired_ratio(over, under), 1, "×"};
}

TrialSpec variant_of(const NetKind& net, const Arm& arm, std::uint64_t steps) {
  TrialSpec spec;
  spec.model.model = "mlp";
  spec.model.activation = net.activation;
  spec.model.init = net.init;
  spec.model.norm = arm.norm;
  spec.batch = 64;
  spec.steps = steps;
  spec.target = kTarget;
  spec.check_every = 25;
  return spec;
}

void report_net(const std::string& net, const ArmResult& none, const ArmResult& batch, double largest_rate,
                Outcome& outcome) {
  const auto add = [&](Finding finding) { outcome.findings.push_back(std::move(finding)); };
  const auto stated = Role::stated;
  add(ratio(stated, net + " net: steps to 93 % without norm over with it, each at its best rate", none.steps,
            batch.steps));
  add(ratio(stated, net + " net: seconds to 93 % without norm over with it, each at its best rate", seconds_of(none),
            seconds_of(batch)));
  add(ratio(Role::core, net + " net: largest rate that still trains, with norm over without", batch.largest,
            none.largest));
  add({net + " net: range of rates that train, with norm minus without", Role::context, Direction::above, false,
       paired_difference(batch.decades, none.decades), 0, "decades"});
  outcome.notes.push_back(net + " net: rates chosen on the validation digits: " + in_words("none", none.tuned) + ", " +
                          in_words("batch norm", batch.tuned) + ". Trials at these rates that never reached 93 %: " +
                          std::to_string(none.failed) + " without norm, " + std::to_string(batch.failed) +
                          " with; such a trial counts with all its steps.");
  if (std::ranges::count(none.largest, largest_rate) + std::ranges::count(batch.largest, largest_rate) > 0) {
    outcome.notes.push_back(net + " net: an arm still trains at the largest rate of the grid; its limit lies beyond.");
  }
}

Outcome measure(const Context& context) {
  const Split split =
      make_split(context.digits, context.pick<std::size_t>(10000, 50000), context.pick<std::size_t>(1000, 5000));
  const std::vector<double> grid = rate_grid(0.01, kRatio, 9);
  std::vector<TrialSpec> variants, at_all_rates;  // [net][arm], [net][arm][rate]
  for (const NetKind& net : kNets) {
    for (const Arm& arm : arms()) {
      variants.push_back(variant_of(net, arm, context.pick<std::uint64_t>(1000, 4000)));
      for (const double rate : grid) {
        at_all_rates.push_back(variants.back());
        at_all_rates.back().rate = rate;
      }
    }
  }
  context.progress.expect(work_of(at_all_rates) *
                          static_cast<double>(context.tuning_seeds.size() + context.seeds.size()));
  const auto tuned = tune(context, split, variants, grid, steps_of);
  const auto measured = measure_trials(context, split, at_all_rates);

  Outcome outcome;
  std::size_t variant = 0;
  for (const NetKind& net : kNets) {
    Samples steps;
    std::vector<ArmResult> results;
    for (const Arm& arm : arms()) {
      const auto trials = std::span(measured).subspan(variant * grid.size(), grid.size());
      results.push_back(summarize(trials, grid, tuned[variant]));
      for (std::size_t r = 0; r < grid.size(); ++r) {
        for (const TrialResult& trial : trials[r]) steps.add(arm.name, grid[r], trial.steps);
      }
      ++variant;
    }
    report_net(net.name, results[0], results[1], grid.back(), outcome);
    outcome.charts.push_back({std::string(net.name) + " net: steps to 93 % by learning rate",
                              "learning rate",
                              "steps",
                              true,
                              false,
                              {},
                              steps.means()});
  }
  return outcome;
}

}  // namespace

constinit const Claim kFaster{
    .id = "faster",
    .title = "Faster training, larger rates",
    .section = "7.1, 8.2",
    .kind = Kind::trained,
    .statement = "A net with batch norm trains faster, and at larger learning rates, than the same net without.",
    .quote = "加速训练：可以使用更大的学习率",
    .method =
        "The digits net 784–100–100–100–10 with sigmoid (Xavier's initial weights) and with ReLU (He's), plain "
        "stochastic gradient descent on batches of 64, with and without norm, at nine rates from 0.01 to 100. Steps "
        "and seconds (at the least time for a step, whatever else runs can only add) until 93 % of the held-out "
        "digits are right, at the rate that is best on the validation digits.",
    .rule =
        "Supported if, for both nets, the steps and the seconds without norm over those with it, and the largest "
        "rate that still trains with norm over that without, are above 1 with their 95 % intervals. Conditional if "
        "that is not all shown, but the larger rates are for both nets. Otherwise refuted if one is below 1, and not "
        "shown if an interval contains 1.",
    .measure = &measure};

}  // namespace equinorm::audit
