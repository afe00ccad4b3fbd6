// § 3.3: the moments of the output, and whether training and inference agree.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::audit {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr std::size_t kUnits = 32, kPopulation = 4096;
constexpr std::size_t kStreamRows = 64, kStreamBatches = 100;  // what the running statistics see

// y has four roundings to float (see forward): a mean over a channel is off by 4 ulp of its scale at most, a variance
// by twice that relative to (max|y|)².
constexpr double kMeanBound = 4, kVarianceBound = 8;
// "Variance γ²" is held to 1 %: what a reader would still call equal.
constexpr double kDeviationBound = 0.01;
// Distributions agree when no probability differs by more than 0.05 (Kolmogorov–Smirnov distance).
constexpr double kDistanceBound = 0.05;
// The conditions under which the note's sentence is checked again.
constexpr double kConditionVariance = 1000 * kEpsilon;
constexpr std::size_t kConditionRows = 32;

struct ChannelMoments {
  double mean = 0, variance = 0, largest = 0;
};

ChannelMoments moments_of(const Input& input, const std::vector<float>& y, std::size_t c) {
  const auto m = static_cast<double>(input.values());
  ChannelMoments result;
  for (std::size_t i = 0; i < input.values(); ++i) {
    const auto value = static_cast<double>(y[input.at(c, i)]);
    result.mean += value / m;
    result.largest = std::max(result.largest, std::abs(value));
  }
  for (std::size_t i = 0; i < input.values(); ++i) {
    result.variance += std::pow(static_cast<double>(y[input.at(c, i)]) - result.mean, 2) / m;
  }
  return result;
}

/// Digits as they come, 784 pixels as channels, many of them nearly or wholly constant; scaled, so that σ² runs through
/// all magnitudes around ε.
Input pixels(const data::Dataset& digits, std::size_t first, std::size_t rows, double scale, std::uint64_t seed) {
  Input input{"", {rows, kPixels}, Layout::channels_last, {}, {}, {}};
  for (std::size_t n = 0; n < rows; ++n) {
    const auto image = digit(digits, first + n);
    for (const float pixel : image) input.x.push_back(static_cast<float>(scale * static_cast<double>(pixel)));
  }
  input.gamma = random_normal(kPixels, seed, 31);
  input.beta = random_normal(kPixels, seed, 32);
  for (float& gamma : input.gamma) gamma = 1.5F + 0.25F * gamma;
  return input;
}

/// Greatest difference between the cumulative distributions of two samples.
double distribution_distance(std::vector<double> a, std::vector<double> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  double worst = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const double at = std::min(a[i], b[j]);
    while (i < a.size() && a[i] <= at) ++i;
    while (j < b.size() && b[j] <= at) ++j;
    worst = std::max(worst, std::abs(static_cast<double>(i) / static_cast<double>(a.size()) -
                                     static_cast<double>(j) / static_cast<double>(b.size())));
  }
  return worst;
}

const std::size_t kRows[] = {2, 4, 8, 16, 32, 64, 128, 256};
const double kWeights[] = {0.01, 0.1, 0.5};
const std::size_t kSteps[] = {1, 2, 5, 10, 20, 50, 100};
constexpr double kScales[] = {1e-3, 1e-2, 1e-1, 1, 10};

struct Trial {
  std::vector<double> mean_error, law_error;           // ulp, all channels
  std::vector<double> deviation, conditioned;          // |Var/γ² − 1|, all channels and those with σ² ≥ 1000 ε
  std::vector<std::pair<double, double>> by_variance;  // decade of σ²/ε → Var/γ²
  std::vector<double> distance;                        // of kRows, running statistics of the population
  std::vector<std::vector<double>> gap;                // [weight][step], kStreamRows rows
  std::vector<double> gap_rows, gap_recalibrated;      // of kRows, weight 0.1 and cumulative
};

void measure_moments(const Context& context, std::uint64_t seed, Trial& trial) {
  for (const double scale : kScales) {
    const Input input = pixels(context.digits.train, seed * 1000, 256, scale, seed);
    const Forward ours = run_forward(context.ops, input);
    const auto exact =
        reference::batch_norm_forward(widen(input.x), input.shape, input.layout, {}, {}, {}, false, kEpsilon);
    for (std::size_t c = 0; c < input.channels(); ++c) {
      const ChannelMoments y = moments_of(input, ours.y, c);
      const auto gamma = static_cast<double>(input.gamma[c]), beta = static_cast<double>(input.beta[c]);
      const double variance = exact.variance[c], ratio = y.variance / (gamma * gamma);
      const double largest = std::max(y.largest, std::abs(beta));
      const double law = gamma * gamma * variance / (variance + kEpsilon);
      trial.mean_error.push_back(std::abs(y.mean - beta) / ulp_at(largest));
      trial.law_error.push_back(std::abs(y.variance - law) / (largest * ulp_at(largest)));
      trial.deviation.push_back(std::abs(ratio - 1));
      if (variance >= kConditionVariance) trial.conditioned.push_back(std::abs(ratio - 1));
      if (variance > 0) trial.by_variance.emplace_back(std::round(2 * std::log10(variance / kEpsilon)) / 2, ratio);
    }
  }
}

/// What training mode gives for batches of `rows`, what inference gives with `mean` and `variance`, and the root mean
/// square of their difference.
struct Modes {
  std::vector<double> training, inference;
  double gap = 0;
};

Modes both_modes(const BatchNormOps& ops, const Input& stream, std::size_t rows, const std::vector<float>& mean,
                 const std::vector<float>& variance, std::size_t batches) {
  Modes modes;
  Input batch{
      "", {rows, kUnits}, Layout::channels_last, {}, std::vector<float>(kUnits, 1), std::vector<float>(kUnits, 0)};
  std::vector<float> y(rows * kUnits);
  double squares = 0;
  for (std::size_t b = 0; b < batches; ++b) {
    const auto begin = stream.x.begin() + static_cast<std::ptrdiff_t>(b * rows * kUnits);
    batch.x.assign(begin, begin + static_cast<std::ptrdiff_t>(rows * kUnits));
    const Forward training = run_forward(ops, batch);
    throw_if_error(ops.inference(audit_options(), batch.view(), batch.affine(), mean.data(), variance.data(), {},
                                 {y.data(), batch.shape}, {}));
    for (std::size_t i = 0; i < y.size(); ++i) {
      modes.training.push_back(static_cast<double>(training.y[i]));
      modes.inference.push_back(static_cast<double>(y[i]));
      squares += std::pow(modes.training.back() - modes.inference.back(), 2);
    }
  }
  modes.gap = std::sqrt(squares / static_cast<double>(modes.training.size()));
  return modes;
}

/// Running statistics after each of `batches` batches of the stream.
template <class Each>
void run_stream(const BatchNormOps& ops, const Input& stream, std::size_t rows, std::size_t batches,
                const RunningOptions& options, const Each& each) {
  std::vector<float> mean(kUnits, 0.0F), variance(kUnits, 1.0F), y(rows * kUnits);
  std::vector<double> batch_mean(kUnits), batch_variance(kUnits);
  RunningStatistics<float> running{mean.data(), variance.data(), 0, 0, options};
  for (std::size_t b = 0; b < batches; ++b) {
    throw_if_error(ops.forward(audit_options(), {stream.x.data() + b * rows * kUnits, {rows, kUnits}}, {}, {},
                               {y.data(), {rows, kUnits}}, {batch_mean.data(), batch_variance.data()}, &running, {}));
    each(b + 1, mean, variance);
  }
}

void measure_agreement(const Context& context, std::uint64_t seed, Trial& trial) {
  const Input stream =
      linear_activations(context.digits.train, seed * 1000, kPopulation + kStreamRows * kStreamBatches, kUnits, seed);
  const Input held_out = linear_activations(context.digits.test, seed * 1000, kPopulation, kUnits, seed);
  const auto population =
      reference::batch_norm_forward(widen(held_out.x), held_out.shape, held_out.layout, {}, {}, {}, false, kEpsilon);
  const std::vector<float> mean(population.mean.begin(), population.mean.end());
  const std::vector<float> variance(population.variance.begin(), population.variance.end());
  for (const std::size_t rows : kRows) {
    const Modes modes = both_modes(context.ops, held_out, rows, mean, variance, kPopulation / rows);
    trial.distance.push_back(distribution_distance(modes.training, modes.inference));
    const std::size_t batches = std::min(kStreamBatches, kPopulation / rows);
    const auto last_gap = [&](const RunningOptions& options, std::size_t count) {
      double gap = 0;
      run_stream(context.ops, stream, rows, count, options, [&](std::size_t b, const auto& m, const auto& v) {
        if (b == count) gap = both_modes(context.ops, held_out, rows, m, v, std::min<std::size_t>(16, batches)).gap;
      });
      return gap;
    };
    RunningOptions plain = RunningOptions::torch();
    plain.cumulative = true;
    trial.gap_rows.push_back(last_gap(RunningOptions::torch(), batches));
    trial.gap_recalibrated.push_back(last_gap(plain, kPopulation / rows));
  }
  for (const double weight : kWeights) {
    trial.gap.emplace_back();
    run_stream(context.ops, stream, kStreamRows, kStreamBatches, RunningOptions::torch(weight),
               [&](std::size_t b, const auto& m, const auto& v) {
                 if (std::find(std::begin(kSteps), std::end(kSteps), b) != std::end(kSteps)) {
                   trial.gap.back().push_back(both_modes(context.ops, held_out, kStreamRows, m, v, 16).gap);
                 }
               });
  }
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress, [&](std::uint64_t seed) {
    Trial trial;
    measure_moments(context, seed, trial);
    measure_agreement(context, seed, trial);
    return trial;
  });
  std::vector<double> mean_error, law_error, deviation, conditioned, distance, distance_conditioned, recalibrated;
  Samples ratio, distances, gap_steps, gap_rows;
  const auto append = [](std::vector<double>& all, const std::vector<double>& part) {
    all.insert(all.end(), part.begin(), part.end());
  };
  for (const Trial& trial : trials) {
    append(mean_error, trial.mean_error);
    append(law_error, trial.law_error);
    append(deviation, trial.deviation);
    append(conditioned, trial.conditioned);
    append(distance, trial.distance);
    for (const auto& [decade, value] : trial.by_variance) {
      ratio.add("measured", std::pow(10.0, decade), value);
    }
    for (std::size_t i = 0; i < std::size(kRows); ++i) {
      const auto rows = static_cast<double>(kRows[i]);
      distances.add("training against inference", rows, trial.distance[i]);
      if (kRows[i] >= kConditionRows) distance_conditioned.push_back(trial.distance[i]);
      gap_rows.add("running weight 0.1", rows, trial.gap_rows[i]);
      gap_rows.add("recalibrated: average of all batches", rows, trial.gap_recalibrated[i]);
      if (kRows[i] == 64) recalibrated.push_back(trial.gap_rows[i] - trial.gap_recalibrated[i]);
    }
    for (std::size_t w = 0; w < std::size(kWeights); ++w) {
      const std::string label = "running weight " + std::string(w == 0 ? "0.01" : w == 1 ? "0.1" : "0.5");
      for (std::size_t i = 0; i < std::size(kSteps); ++i) {
        gap_steps.add(label, static_cast<double>(kSteps[i]), trial.gap[w][i]);
      }
    }
  }
  Outcome outcome;
  outcome.findings = {
      at_most(Role::stated, "Variance of the output against γ², every channel: |Var/γ² − 1|", deviation,
              kDeviationBound, ""),
      at_most(Role::core, "Mean of the output against β, every channel, in ulp", mean_error, kMeanBound, "ulp"),
      at_most(Role::stated,
              "Outputs in training and inference over one population, batches of 2 … 256: greatest difference of "
              "probabilities",
              distance, kDistanceBound, ""),
      at_most(Role::condition, "|Var/γ² − 1| in channels with σ² ≥ 1000 ε", conditioned, kDeviationBound, ""),
      at_most(Role::condition, "Variance against γ²·σ²/(σ²+ε), every channel, in ulp", law_error, kVarianceBound,
              "ulp"),
      at_most(Role::condition, "Outputs in training and inference, batches of 32 … 256", distance_conditioned,
              kDistanceBound, ""),
      aside("What recalibration takes off the gap between the modes at batches of 64, in γ", recalibrated, "γ")};
  outcome.charts = {{"Variance of the output: γ² needs σ² ≫ ε",
                     "σ² / ε of the channel",
                     "Var(y) / γ²",
                     true,
                     false,
                     {},
                     ratio.ranges()},
                    {"Do training and inference give the same distribution?",
                     "digits in a batch",
                     "greatest difference of probabilities",
                     true,
                     false,
                     {},
                     distances.means(),
                     kDistanceBound},
                    {"Gap between the modes over steps",
                     "batches seen",
                     "root mean square difference, in γ",
                     true,
                     true,
                     {},
                     gap_steps.geometric_means()},
                    {"Gap between the modes over batch size",
                     "digits in a batch",
                     "root mean square difference, in γ",
                     true,
                     true,
                     {},
                     gap_rows.geometric_means()}};
  return outcome;
}

}  // namespace

constinit const Claim kMoments{
    .id = "moments",
    .title = "Moments of the output",
    .section = "3.3",
    .kind = Kind::exact,
    .statement =
        "In training every output has mean β and variance γ²; with good global statistics inference gives the same "
        "distribution.",
    .quote = "E[yᵢ] = β，Var[yᵢ] = γ²·1 = γ²；若 μ_global ≈ E[x] 且 σ²_global ≈ Var[x]，则推理时的输出分布与训练时一致",
    .method =
        "Pixels of real digits as channels, scaled so that σ² runs from far below ε to far above; then the outputs "
        "of a layer on 4,096 test digits, in training mode by batches of 2 … 256 and in inference with the "
        "statistics of the whole; the gap between the modes over steps, running weight and batch size, and after "
        "recalibration.",
    .rule =
        "Supported if in every channel the mean is β within 4 ulp and the variance γ² within 1 %, and the "
        "distributions of the two modes differ by no more than 0.05 in probability at every batch size. Conditional "
        "if that fails, but Var = γ²·σ²/(σ²+ε) holds within 8 ulp everywhere, the 1 % where σ² ≥ 1000 ε, and the "
        "0.05 from batches of 32 on. Refuted otherwise.",
    .measure = &measure};

}  // namespace equinorm::audit
