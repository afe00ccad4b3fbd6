// § 7.1: batch norm makes training less sensitive to the initial weights.
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/training.hpp"

namespace equinorm::audit {
namespace {

constexpr double kTarget = 0.9;
constexpr double kHalfDecade = 3.1623;

double error_of(const TrialResult& trial) {
  return trial.error;
}

/// Decades of initial scales at which each seed reached the accuracy. `trials`: [scale][seed].
std::vector<double> decades(std::span<const std::vector<TrialResult>> trials) {
  std::vector<double> sums(trials[0].size(), 0);
  for (const auto& at_scale : trials) {
    for (std::size_t s = 0; s < at_scale.size(); ++s) sums[s] += 1 - at_scale[s].error >= kTarget ? 0.5 : 0;
  }
  return sums;
}

Outcome measure(const Context& context) {
  const Split split =
      make_split(context.digits, context.pick<std::size_t>(10000, 50000), context.pick<std::size_t>(1000, 5000));
  const std::vector<double> grid = rate_grid(1e-3, 10, 5), scales = rate_grid(1e-2, kHalfDecade, 9);
  std::vector<TrialSpec> variants;  // [arm][scale]
  for (const Arm& arm : arms()) {
    for (const double scale : scales) {
      TrialSpec spec;
      spec.model.model = "mlp";
      spec.model.activation = "relu";
      spec.model.norm = arm.norm;
      spec.model.init_scale = scale;
      spec.batch = 64;
      spec.steps = context.pick<std::uint64_t>(400, 1500);
      variants.push_back(spec);
    }
  }
  context.progress.expect(work_of(variants) *
                          static_cast<double>(grid.size() * context.tuning_seeds.size() + 2 * context.seeds.size()));
  const std::vector<Tuned> tuned = tune(context, split, variants, grid, error_of);

  std::vector<TrialSpec> one_rate = variants, own_rate = variants;
  const std::size_t middle = scales.size() / 2;  // scale 1: He's initial weights
  for (std::size_t v = 0; v < variants.size(); ++v) {
    one_rate[v].rate = tuned[v / scales.size() * scales.size() + middle].rate;
    own_rate[v].rate = tuned[v].rate;
  }

  Outcome outcome;
  const auto compare = [&](const std::vector<TrialSpec>& specs, const char* title) {
    const auto measured = measure_trials(context, split, specs);
    Samples errors;
    for (std::size_t v = 0; v < specs.size(); ++v) {
      for (const TrialResult& trial : measured[v]) {
        errors.add(arms()[v / scales.size()].name, scales[v % scales.size()], 100 * trial.error);
      }
    }
    outcome.charts.push_back({title,
                              "initial weights, in multiples of He's",
                              "test error, %",
                              true,
                              false,
                              {},
                              errors.means(),
                              100 * (1 - kTarget)});
    const auto none = decades(std::span(measured).first(scales.size())),
               batch = decades(std::span(measured).last(scales.size()));
    return paired_difference(batch, none);
  };
  const Estimate one = compare(one_rate, "One rate for all scales: the best at He's");
  const Estimate own = compare(own_rate, "Each scale with its own best rate");
  outcome.findings = {{"Decades of initial scales that train, with norm minus without; one rate for all scales",
                       Role::stated, Direction::above, false, one, 0, "decades"},
                      {"Decades of initial scales that train, with norm minus without; the rate tuned at every scale",
                       Role::core, Direction::above, false, own, 0, "decades"}};

  for (std::size_t a = 0; a < arms().size(); ++a) {
    std::string rates;
    for (std::size_t s = 0; s < scales.size(); ++s) {
      rates += (s == 0 ? "" : ", ") + in_words("", tuned[a * scales.size() + s]).substr(1);
    }
    outcome.notes.push_back("Rates chosen on the validation digits for " + arms()[a].name +
                            ", from scale 0.01 to 100: " + rates + ".");
  }
  return outcome;
}

}  // namespace

constinit const Claim kInit{
    .id = "init",
    .title = "Less sensitive to initial weights",
    .section = "7.1",
    .kind = Kind::trained,
    .statement = "With batch norm, training depends less on how the initial weights are scaled.",
    .quote = "提高稳定性：减少对权重初始化的依赖",
    .method =
        "The digits net 784–100–100–100–10 with ReLU; all initial weights are He's times 0.01 … 100, in nine steps "
        "of half a decade. A scale counts as trained if 90 % of the test digits are right after a fixed number of "
        "steps; once with one learning rate for all scales, the best at He's, and once with the best rate at each "
        "scale, both chosen for each arm from 0.001 … 10.",
    .rule =
        "Supported if the decades of scales that train are more with norm than without, with their 95 % interval, "
        "both with one rate and with the rate tuned at every scale. Conditional if that is shown with the tuned rate "
        "only. Otherwise refuted if one is fewer, and not shown if an interval contains 0.",
    .measure = &measure};

}  // namespace equinorm::audit
