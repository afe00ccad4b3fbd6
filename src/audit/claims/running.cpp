// § 3.1: running statistics by exponential average.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::audit {
namespace {

constexpr std::size_t kRows = 64, kUnits = 32, kBatches = 200;
constexpr double kAlpha = 0.9;

// An update rounds to float once, half an ulp; the average forgets as α^k, so that at most ½/(1−α) = 5 ulp of the
// largest value are alive at a time, and the float that is read adds nothing. 6 ulp.
constexpr double kBound = 6;
// In the plain average of t batches the rounding of step i counts for i/t: ½·Σ i/t = (t+1)/4 ulp at most.
constexpr double kCumulativeBound = (kBatches + 1) / 4.0;
// 1 − 0.9 and 0.1 differ in the last bit of a double, which a float shows once in a while.
constexpr double kConventionBound = 1;

/// A stream of batches from one layer, with the statistics of each and of all rows, in double.
struct Stream {
  Input all;
  std::vector<std::vector<double>> means, variances;  // [batch][unit], biased
  std::vector<double> population_mean, population_variance;
};

Stream make_stream(const data::Dataset& digits, std::uint64_t seed) {
  Stream stream{linear_activations(digits, seed * 1000, kRows * kBatches, kUnits, seed), {}, {}, {}, {}};
  const auto x = widen(stream.all.x);
  for (std::size_t b = 0; b < kBatches; ++b) {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(b * kRows * kUnits);
    const auto batch = reference::batch_norm_forward({begin, begin + static_cast<std::ptrdiff_t>(kRows * kUnits)},
                                                     {kRows, kUnits}, Layout::channels_last, {}, {}, {}, false, 1e-5);
    stream.means.push_back(batch.mean);
    stream.variances.push_back(batch.variance);
  }
  const auto population =
      reference::batch_norm_forward(x, stream.all.shape, Layout::channels_last, {}, {}, {}, false, 1e-5);
  stream.population_mean = population.mean;
  stream.population_variance = population.variance;
  return stream;
}

struct Running {
  std::vector<float> mean, variance;
};

/// Feeds the stream to the operation; what the running statistics are after each batch. They start at 0 and 1.
std::vector<Running> run(const BatchNormOps& ops, const Stream& stream, const RunningOptions& options) {
  Running now{std::vector<float>(kUnits, 0.0F), std::vector<float>(kUnits, 1.0F)};
  RunningStatistics<float> running{now.mean.data(), now.variance.data(), 0, 0, options};
  std::vector<float> y(kRows * kUnits);
  std::vector<double> mean(kUnits), variance(kUnits);
  std::vector<Running> history;
  for (std::size_t b = 0; b < kBatches; ++b) {
    throw_if_error(ops.forward(audit_options(), {stream.all.x.data() + b * kRows * kUnits, {kRows, kUnits}}, {}, {},
                               {y.data(), {kRows, kUnits}}, {mean.data(), variance.data()}, &running, {}));
    history.push_back(now);
  }
  return history;
}

/// αᵗ·start + (1−α)·Σ αᵗ⁻ⁱ·batchᵢ: the recursion of the note, written out.
double closed_form(const std::vector<std::vector<double>>& batches, std::size_t unit, std::size_t t, double start,
                   double factor) {
  double value = std::pow(kAlpha, static_cast<double>(t)) * start;
  for (std::size_t i = 0; i < t; ++i) {
    value += (1 - kAlpha) * std::pow(kAlpha, static_cast<double>(t - 1 - i)) * factor * batches[i][unit];
  }
  return value;
}

double plain_average(const std::vector<std::vector<double>>& batches, std::size_t unit, std::size_t t, double factor) {
  double sum = 0;
  for (std::size_t i = 0; i < t; ++i) sum += factor * batches[i][unit];
  return sum / static_cast<double>(t);
}

// Scales: a mean is a sum of values that lie σ around it, so that an ulp of it is one at |μ| + σ, however near 0 it is.

/// Worst distance of a history from what `expected(batches, unit, t, start)` says, in ulp of the largest value met so
/// far.
template <class Expected>
double history_error(const std::vector<Running>& history, const Stream& stream, double variance_factor,
                     const Expected& expected) {
  double worst = 0;
  for (std::size_t u = 0; u < kUnits; ++u) {
    double scale_mean = 0, scale_variance = 1;
    for (std::size_t t = 1; t <= kBatches; ++t) {
      scale_mean = std::max(scale_mean, std::abs(stream.means[t - 1][u]) + std::sqrt(stream.variances[t - 1][u]));
      scale_variance = std::max(scale_variance, variance_factor * stream.variances[t - 1][u]);
      if (t % 10 != 0 && t > 10) continue;
      const Running& now = history[t - 1];
      worst = worse(worst, std::abs(static_cast<double>(now.mean[u]) - expected(stream.means, u, t, 0.0, 1.0)) /
                               ulp_at(scale_mean));
      worst = worse(worst, std::abs(static_cast<double>(now.variance[u]) -
                                    expected(stream.variances, u, t, 1.0, variance_factor)) /
                               ulp_at(scale_variance));
    }
  }
  return worst;
}

/// Worst difference of two histories, in ulp of the largest value met so far.
double difference(const std::vector<Running>& a, const std::vector<Running>& b, const Stream& stream) {
  double worst = 0;
  for (std::size_t u = 0; u < kUnits; ++u) {
    double scale_mean = 0, scale_variance = 1;
    for (std::size_t t = 0; t < kBatches; ++t) {
      scale_mean = std::max(scale_mean, std::abs(stream.means[t][u]) + std::sqrt(stream.variances[t][u]));
      scale_variance = std::max(scale_variance, stream.variances[t][u]);
      worst = worse(
          worst, std::abs(static_cast<double>(a[t].mean[u]) - static_cast<double>(b[t].mean[u])) / ulp_at(scale_mean));
      worst = worse(worst, std::abs(static_cast<double>(a[t].variance[u]) - static_cast<double>(b[t].variance[u])) /
                               ulp_at(scale_variance));
    }
  }
  return worst;
}

/// Distance of running statistics from the population's: of means in σ, root mean square over units that vary.
double distance_to_population(const Running& now, const Stream& stream) {
  double squares = 0;
  for (std::size_t u = 0; u < kUnits; ++u) {
    squares +=
        std::pow(static_cast<double>(now.mean[u]) - stream.population_mean[u], 2) / stream.population_variance[u];
  }
  return std::sqrt(squares / kUnits);
}

struct Trial {
  double biased = 0, unbiased = 0, cumulative = 0, conventions = 0;
  std::vector<double> distance_average, distance_cumulative;
};

Trial measure_seed(const Context& context, std::uint64_t seed) {
  const Stream stream = make_stream(context.digits.train, seed);
  const auto note = run(context.ops, stream, RunningOptions::note(kAlpha));
  const auto torch = run(context.ops, stream, RunningOptions::torch(0.1));
  RunningOptions torch_biased = RunningOptions::torch(0.1);
  torch_biased.variance = VarianceKind::biased;
  const auto same = run(context.ops, stream, torch_biased);
  RunningOptions plain = RunningOptions::note(kAlpha);
  plain.cumulative = true;
  const auto cumulative = run(context.ops, stream, plain);
  const double unbias = static_cast<double>(kRows) / (kRows - 1);
  Trial trial;
  trial.biased = history_error(note, stream, 1, closed_form);
  trial.unbiased = history_error(torch, stream, unbias, closed_form);
  trial.cumulative = history_error(cumulative, stream, 1,
                                   [](const auto& batches, std::size_t u, std::size_t t, double, double factor) {
                                     return plain_average(batches, u, t, factor);
                                   });
  trial.conventions = difference(note, same, stream);
  for (std::size_t t = 0; t < kBatches; ++t) {
    trial.distance_average.push_back(distance_to_population(note[t], stream));
    trial.distance_cumulative.push_back(distance_to_population(cumulative[t], stream));
  }
  return trial;
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress,
                                 [&](std::uint64_t seed) { return measure_seed(context, seed); });
  std::vector<double> biased, unbiased, cumulative, conventions, left;
  Samples distance;
  for (const Trial& trial : trials) {
    biased.push_back(trial.biased);
    unbiased.push_back(trial.unbiased);
    cumulative.push_back(trial.cumulative);
    conventions.push_back(trial.conventions);
    left.push_back(trial.distance_average.back());
    for (std::size_t t = 1; t <= kBatches; t += t < 10 ? 1 : t < 50 ? 5 : 25) {
      distance.add("α = 0.9", static_cast<double>(t), trial.distance_average[t - 1]);
      distance.add("plain average of all batches", static_cast<double>(t), trial.distance_cumulative[t - 1]);
    }
  }
  Outcome outcome;
  outcome.findings = {
      at_most(Role::stated, "Running mean and variance against the written-out recursion with α = 0.9, in ulp", biased,
              kBound, "ulp"),
      at_most(Role::stated, "α = 0.9 here against momentum 0.1 of the other convention: difference in ulp", conventions,
              kConventionBound, "ulp"),
      at_most(Role::stated, "The same recursion on the unbiased variance (PyTorch's), in ulp", unbiased, kBound, "ulp"),
      at_most(Role::stated, "Cumulative mode against the plain average of all batches, in ulp", cumulative,
              kCumulativeBound, "ulp"),
      aside("Distance of the running mean from the population's after 200 batches of 64, in σ", left, "σ")};
  outcome.charts = {{"From the first batch to the population",
                     "batches",
                     "distance of the means, in σ",
                     true,
                     true,
                     {},
                     distance.geometric_means()}};
  outcome.notes = {
      "The exponential average never arrives: it keeps the noise of its last ten batches or so, while the plain "
      "average "
      "goes on towards the population as long as the net does not change."};
  return outcome;
}

}  // namespace

constinit const Claim kRunning{
    .id = "running",
    .title = "Running statistics",
    .section = "3.1",
    .kind = Kind::exact,
    .statement = "While training, global statistics follow the batches by an exponential average with α = 0.9.",
    .quote = "μ_global ← α·μ_global + (1−α)·μ_B,  σ²_global ← α·σ²_global + (1−α)·σ²_B，通常 α = 0.9",
    .method =
        "200 batches of 64 real digits through a linear layer; the running statistics after each batch against the "
        "recursion written out in double, in the note's dialect and in PyTorch's; cumulative mode against the plain "
        "average; the distance to the statistics of all rows.",
    .rule =
        "Holds if the averages agree with the written-out recursion within 6 ulp (½ ulp a step, over a memory of ten "
        "steps; (t+1)/4 = 50 ulp for the plain average of t = 200 batches) and α = 0.9 agrees with momentum 0.1 "
        "within 1 ulp. One counter-example refutes.",
    .measure = &measure};

}  // namespace equinorm::audit
