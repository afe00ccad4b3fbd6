// § 6.2: instance norm takes away what a single image has of contrast and brightness, which is why style transfer uses
// it (Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, section 2).
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/sample_norms.hpp"

namespace equinorm::audit {
namespace {

// One hundredth of a channel's deviation: a digit has σ of about 0.3, so that is less than the 1/255 of an 8-bit step.
constexpr double kInvisible = 0.01;
// Batch norm must change by ten times that to count as not invariant.
constexpr double kVisible = 10 * kInvisible;

constexpr std::size_t kImages = 16;

/// What is done to an image: contrast·x + brightness.
struct Exposure {
  double contrast = 1, brightness = 0;
};

/// Contrasts from ¼ to 4 and brightnesses about 0, drawn for every image.
std::vector<Exposure> drawn_exposures(std::size_t images, std::uint64_t seed) {
  const std::vector<float> contrast = random_normal(images, seed, 31), brightness = random_normal(images, seed, 32);
  std::vector<Exposure> exposures;
  for (std::size_t i = 0; i < images; ++i) {
    exposures.push_back(
        {std::exp2(std::clamp(static_cast<double>(contrast[i]), -2.0, 2.0)), static_cast<double>(brightness[i])});
  }
  return exposures;
}

Input exposed(const Input& input, const std::vector<Exposure>& exposures) {
  Input result = input;
  const std::size_t size = input.x.size() / input.shape[0];
  for (std::size_t at = 0; at < result.x.size(); ++at) {
    const Exposure& e = exposures[at / size];
    result.x[at] = static_cast<float>(e.contrast * static_cast<double>(result.x[at]) + e.brightness);
  }
  return result;
}

/// Digits as gray images, and as eight channels behind a convolution, in both layouts.
std::vector<Input> images_of(const data::Dataset& digits, std::uint64_t seed) {
  const std::size_t first = seed * 1000;
  Input gray = normal_input("gray digits", {kImages, kSide, kSide, 1}, Layout::channels_last, 0, 1, seed);
  for (std::size_t i = 0; i < kImages; ++i) {
    std::ranges::copy(digit(digits, first + i), gray.x.begin() + static_cast<std::ptrdiff_t>(i * kPixels));
  }
  return {gray, conv_activations(digits, first, kImages, 8, Layout::channels_last, seed),
          conv_activations(digits, first, kImages, 8, Layout::channels_first, seed)};
}

std::vector<float> instance_norm(const SampleNormOps& ops, const Input& input, int threads = 1) {
  return run_group_norm(ops, input, input.channels(), threads);
}

/// The worst |y′ − y|, in multiples of how far exact arithmetic with ε, and the roundings, may drive y′ = norm(a·x + b)
/// from y = norm(x):
///   ε       |γ|·|x − μ|·|a/√(a²σ² + ε) − 1/√(σ² + ε)|: 0 if ε were 0
///   a·x + b is rounded once, by δ ≤ ½ ulp of the image's largest value. x and the mean move by δ at most, and so does
///           √(σ² + ε), as a root mean square; with s = √(a²σ² + ε) that is |γ|·(2δ + |x̂′|·δ)/(s − δ)
///   kernels kKernelBound ulp of the terms, twice
double in_bounds(const SampleNormOps& ops, const Input& input, const std::vector<Exposure>& exposures) {
  const double epsilon = audit_options().epsilon;
  const Input other = exposed(input, exposures);
  const std::vector<float> y = instance_norm(ops, input), y_other = instance_norm(ops, other);
  const std::vector<double> terms = exact_group_norm(input, input.channels()).terms,
                            terms_other = exact_group_norm(other, input.channels()).terms;
  const std::size_t positions = input.x.size() / input.shape[0] / input.channels();
  double worst = 0;
  for (std::size_t n = 0; n < input.shape[0]; ++n) {
    const double a = exposures[n].contrast;
    for (std::size_t c = 0; c < input.channels(); ++c) {
      double mean = 0, variance = 0, largest = 0;
      for (std::size_t i = n * positions; i < (n + 1) * positions; ++i) {
        mean += static_cast<double>(input.x[input.at(c, i)]) / static_cast<double>(positions);
        largest = std::max(largest, std::abs(static_cast<double>(other.x[input.at(c, i)])));
      }
      for (std::size_t i = n * positions; i < (n + 1) * positions; ++i) {
        variance += std::pow(static_cast<double>(input.x[input.at(c, i)]) - mean, 2) / static_cast<double>(positions);
      }
      const double before = std::sqrt(variance + epsilon), after = std::sqrt(a * a * variance + epsilon);
      const double delta = ulp_at(largest) / 2, gamma = std::abs(static_cast<double>(input.gamma[c]));
      for (std::size_t i = n * positions; i < (n + 1) * positions; ++i) {
        const std::size_t at = input.at(c, i);
        const double centred = std::abs(static_cast<double>(input.x[at]) - mean);
        const double by_epsilon = gamma * centred * std::abs(a / after - 1 / before);
        const double by_input = gamma * delta * (2 + a * centred / after) / (after - delta);
        const double by_kernel = kKernelBound * (ulp_at(terms[at]) + ulp_at(terms_other[at]));
        worst = worse(worst, std::abs(static_cast<double>(y_other[at]) - static_cast<double>(y[at])) /
                                 (by_epsilon + by_input + by_kernel));
      }
    }
  }
  return worst;
}

/// The change of an image's channel in its own deviations: the root mean square of (y′ − y)/γ. Over all channels of the
/// images with an odd number, the largest; and over all together.
struct Change {
  double largest = 0, typical = 0;
};

Change change(const Input& input, const std::vector<float>& y, const std::vector<float>& y_other) {
  const std::size_t positions = input.x.size() / input.shape[0] / input.channels();
  double sum = 0;
  Change result;
  for (std::size_t n = 1; n < input.shape[0]; n += 2) {
    for (std::size_t c = 0; c < input.channels(); ++c) {
      double square = 0;
      for (std::size_t i = n * positions; i < (n + 1) * positions; ++i) {
        const std::size_t at = input.at(c, i);
        square += std::pow((static_cast<double>(y_other[at]) - static_cast<double>(y[at])) /
                               static_cast<double>(input.gamma[c]),
                           2) /
                  static_cast<double>(positions);
      }
      result.largest = worse(result.largest, std::sqrt(square));
      sum += square;
    }
  }
  const std::size_t changed = input.shape[0] / 2;
  result.typical = std::sqrt(sum / static_cast<double>(changed * input.channels()));
  return result;
}

constexpr double kContrasts[] = {0.25, 0.5, 1, 2, 4};

struct Trial {
  double formula = 0, bounds = 0, largest = 0, batch_norm = 0, dependence = 0;
  std::vector<double> instance_by_contrast, batch_by_contrast;
};

Trial measure_seed(const Context& context, std::uint64_t seed) {
  const SampleNormOps& ops = context.sample_ops;
  Trial trial;
  const std::vector<Input> inputs = images_of(context.digits.train, seed);
  const std::vector<Exposure> exposures = drawn_exposures(kImages, seed);
  for (const Input& input : inputs) {
    const Input other = exposed(input, exposures);
    const GroupNormTerms exact = exact_group_norm(input, input.channels());
    trial.formula = worse(trial.formula, worst_in_ulp(instance_norm(ops, input), exact.y, exact.terms));
    trial.bounds = worse(trial.bounds, in_bounds(ops, input, exposures));
    trial.largest = worse(trial.largest, change(input, instance_norm(ops, input), instance_norm(ops, other)).largest);
    trial.dependence +=
        neighbour_dependence(input, [&](const Input& x, int threads) { return instance_norm(ops, x, threads); });
  }
  const Input& gray = inputs[0];
  const auto of_batch_norm = [&](const Input& input) { return run_forward(context.ops, input).y; };
  trial.batch_norm = change(gray, of_batch_norm(gray), of_batch_norm(exposed(gray, exposures))).typical;
  for (const double contrast : kContrasts) {
    std::vector<Exposure> half(kImages);  // the images with an odd number are changed, the others stay
    for (std::size_t i = 1; i < kImages; i += 2) half[i] = {contrast, 0.5};
    const Input other = exposed(gray, half);
    trial.instance_by_contrast.push_back(change(gray, instance_norm(ops, gray), instance_norm(ops, other)).typical);
    trial.batch_by_contrast.push_back(change(gray, of_batch_norm(gray), of_batch_norm(other)).typical);
  }
  return trial;
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress,
                                 [&](std::uint64_t seed) { return measure_seed(context, seed); });
  std::vector<double> formula, bounds, largest, batch_norm, dependence;
  Samples by_contrast;
  for (const Trial& trial : trials) {
    formula.push_back(trial.formula);
    bounds.push_back(trial.bounds);
    largest.push_back(trial.largest);
    batch_norm.push_back(trial.batch_norm);
    dependence.push_back(trial.dependence);
    for (std::size_t i = 0; i < std::size(kContrasts); ++i) {
      by_contrast.add("batch norm", kContrasts[i], trial.batch_by_contrast[i]);
      by_contrast.add("instance norm", kContrasts[i], trial.instance_by_contrast[i]);
    }
  }
  Outcome outcome;
  outcome.findings = {
      at_most(Role::stated,
              "Change of y with an image's contrast and brightness, in multiples of what ε and rounding "
              "may do",
              bounds, 1, "times"),
      at_most(Role::stated, "Largest change of a channel of an image, in its deviations", largest, kInvisible, "σ"),
      at_most(Role::stated, "Difference from the formula in double, in ulp of the terms", formula, kKernelBound, "ulp"),
      at_most(Role::stated, "Values with other bits beside other neighbours, in another order, on more threads",
              dependence, 0, "values"),
      trend(Role::stated, "Batch norm on the same images: change of y, in deviations", batch_norm, Direction::above,
            kVisible, "σ")};
  outcome.charts = {{"Half of the images with another contrast, and brighter by ½",
                     "contrast, in multiples",
                     "change of those images, in deviations",
                     true,
                     true,
                     {},
                     by_contrast.ranges(),
                     kInvisible}};
  outcome.notes = {
      "What ε leaves of the contrast a is a share of (1 − 1/a²)·ε/(2σ²), which matters only where an image is nearly "
      "flat. "
      "Style transfer and generative nets, of which the note speaks, are not measured here."};
  return outcome;
}

}  // namespace

constinit const Claim kInstanceNorm{
    .id = "instancenorm",
    .title = "Instance norm",
    .section = "6.2",
    .kind = Kind::exact,
    .statement =
        "Instance norm normalizes each channel of each image by itself. So an image's contrast and brightness make no "
        "difference to what comes out, which is what style transfer wants of it, and what batch norm does not do.",
    .quote = "对每个样本的每个通道单独归一化；应用：风格迁移、生成对抗网络",
    .method =
        "Digits as gray images and as channels behind a convolution; every image is given a contrast of its own, from "
        "¼ to 4, and a brightness of its own, and is normalized with and without; the same with batch norm. The bound "
        "on the difference is derived from ε and the roundings, value by value. Then other neighbours, bit for bit.",
    .rule =
        "Supported if no value changes by more than the derived bound, no channel of an image by more than 0.01 of its "
        "deviation, y is within 3 ulp of the terms of the formula, not one bit depends on the neighbours, and batch "
        "norm changes by more than 0.1, with its 95 % "
        "interval. Refuted if one of these fails, otherwise not shown.",
    .measure = &measure};

}  // namespace equinorm::audit
