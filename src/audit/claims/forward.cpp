// § 2.1: the three formulas of the forward pass.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::audit {
namespace {

// Four roundings to float lie between the double statistics and y: x − μ, the scale γ/√(σ²+ε), their product and the
// sum with β; each is at most half an ulp of the channel's scale, or of a number up to twice as large. Hence 4 ulp.
constexpr double kBound = 4;

/// Worst error of y in a channel, in ulp of the channel's scale, the largest |y| or |β| in it.
double channel_error(const Input& input, const std::vector<float>& y, const std::vector<double>& exact, std::size_t c) {
  double scale = std::abs(static_cast<double>(input.beta[c])), worst = 0;
  for (std::size_t i = 0; i < input.values(); ++i) scale = std::max(scale, std::abs(exact[input.at(c, i)]));
  for (std::size_t i = 0; i < input.values(); ++i) {
    const std::size_t at = input.at(c, i);
    worst = worse(worst, std::abs(static_cast<double>(y[at]) - exact[at]) / ulp_at(scale));
  }
  return worst;
}

std::vector<double> exact_forward(const Input& input) {
  return reference::batch_norm_forward(widen(input.x), input.shape, input.layout, widen(input.gamma), widen(input.beta),
                                       {}, false, audit_options().epsilon)
      .y;
}

double forward_error(const BatchNormOps& ops, const Input& input) {
  const Forward ours = run_forward(ops, input);
  const std::vector<double> exact = exact_forward(input);
  double worst = 0;
  for (std::size_t c = 0; c < input.channels(); ++c) worst = worse(worst, channel_error(input, ours.y, exact, c));
  return worst;
}

/// How many promises about NaN and infinity are broken. A batch that holds one is refused, and the running statistics
/// keep every bit; or, when asked to go on, its channel becomes NaN and every other channel is as good as ever.
double broken_promises(const BatchNormOps& ops, const Input& clean, float poison) {
  const std::size_t channels = clean.channels(), poisoned = 1;
  Input input = clean;
  input.x[input.at(poisoned, 3)] = poison;
  std::vector<float> y(input.x.size());
  std::vector<double> mean(channels), variance(channels);
  const std::vector<float> before(channels, 0.25F);
  std::vector<float> running_mean = before, running_variance = before;
  RunningStatistics<float> running{running_mean.data(), running_variance.data(), 0, 0, {}};
  const auto forward = [&](NonFinitePolicy policy, RunningStatistics<float>* statistics) {
    BatchNormOptions options = audit_options();
    options.non_finite = policy;
    return ops.forward(options, input.view(), input.affine(), {}, {y.data(), input.shape, input.layout},
                       {mean.data(), variance.data()}, statistics, {});
  };
  double broken = 0;
  if (forward(NonFinitePolicy::error, &running).code() != StatusCode::non_finite) ++broken;
  if (running_mean != before || running_variance != before || running.batches != 0) ++broken;
  if (!forward(NonFinitePolicy::propagate, nullptr).ok()) ++broken;
  const std::vector<double> exact = exact_forward(clean);
  for (std::size_t c = 0; c < channels; ++c) {
    if (c != poisoned) broken += channel_error(clean, y, exact, c) <= kBound ? 0 : 1;
  }
  for (std::size_t i = 0; i < input.values(); ++i) broken += std::isnan(y[input.at(poisoned, i)]) ? 0 : 1;
  return broken;
}

struct Trial {
  std::vector<double> errors;  // of exact_inputs()
  std::vector<std::string> names;
  std::array<std::vector<double>, 2> by_mean;  // mean/σ = 10^0 … 10^6, channels last and first
  double broken = 0;
};

Trial measure_seed(const Context& context, std::uint64_t seed) {
  Trial trial;
  for (const Input& input : exact_inputs(context.digits.train, seed)) {
    trial.names.push_back(input.name);
    trial.errors.push_back(forward_error(context.ops, input));
  }
  for (int power = 0; power <= 6; ++power) {
    const double mean = std::pow(10.0, power);
    trial.by_mean[0].push_back(
        forward_error(context.ops, normal_input("", {1024, 8}, Layout::channels_last, mean, 1, seed)));
    trial.by_mean[1].push_back(
        forward_error(context.ops, normal_input("", {4, 8, 16, 16}, Layout::channels_first, mean, 1, seed)));
  }
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    trial.broken += broken_promises(context.ops, normal_input("", {32, 4}, Layout::channels_last, 0, 1, seed), poison);
    trial.broken +=
        broken_promises(context.ops, normal_input("", {4, 4, 3, 3}, Layout::channels_first, 0, 1, seed), poison);
  }
  return trial;
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress,
                                 [&](std::uint64_t seed) { return measure_seed(context, seed); });
  std::vector<double> worst, broken;
  Samples by_input, by_mean;
  for (const Trial& trial : trials) {
    for (std::size_t i = 0; i < trial.errors.size(); ++i) {
      worst.push_back(trial.errors[i]);
      by_input.add("error", static_cast<double>(i), trial.errors[i]);
    }
    for (int power = 0; power <= 6; ++power) {
      const auto p = static_cast<std::size_t>(power);
      worst.insert(worst.end(), {trial.by_mean[0][p], trial.by_mean[1][p]});
      by_mean.add("channels last", std::pow(10.0, power), trial.by_mean[0][p]);
      by_mean.add("channels first", std::pow(10.0, power), trial.by_mean[1][p]);
    }
    broken.push_back(trial.broken);
  }
  Outcome outcome;
  outcome.findings = {
      at_most(Role::stated, "Largest error of y against the formula in double, in ulp of its channel's scale", worst,
              kBound, "ulp"),
      at_most(
          Role::stated,
          "Promises broken about NaN and infinity: refused and kept out of running statistics, or kept in its channel",
          broken, 0, "broken")};
  outcome.charts = {{"Error of y by input", "input", "error, ulp of the channel's scale", false, false, trials[0].names,
                     by_input.ranges(), kBound},
                    {"Error of y as the mean outgrows σ",
                     "mean / σ",
                     "error, ulp of the channel's scale",
                     true,
                     false,
                     {},
                     by_mean.ranges(),
                     kBound}};
  return outcome;
}

}  // namespace

constinit const Claim kForward{
    .id = "forward",
    .title = "The forward formula",
    .section = "2.1",
    .kind = Kind::exact,
    .statement =
        "Batch norm subtracts the batch's mean, divides by the root of its variance plus ε = 1e-5, then scales by γ "
        "and shifts by β; the program computes just that, whatever the input.",
    .quote = "x̂ᵢ = (xᵢ − μ_B) / √(σ²_B + ε),  yᵢ = γ·x̂ᵢ + β",
    .method =
        "y of the public operation against the formulas in double, on activations of real digits and on inputs that "
        "break careless kernels: means up to a million σ, constant channels, one element, huge, tiny, denormal, NaN "
        "and infinity; both layouts.",
    .rule =
        "Holds if no error on any input exceeds 4 ulp of the channel's largest |y| (four roundings to float), and no "
        "promise about NaN and infinity is broken. One counter-example refutes.",
    .measure = &measure};

}  // namespace equinorm::audit
