// § 3.2: inference uses global statistics; it is deterministic and independent of the batch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::audit {
namespace {

constexpr double kEpsilon = 1e-5;

// Folded weights and bias are rounded to float once each, ½ ulp of every term of the sum; the layer itself rounds its
// input (½) and makes four roundings of its own: 6 ulp of the sum of absolute terms.
constexpr double kFoldBound = 6;

/// Global statistics of a layer: those of its whole batch, as floats.
struct Global {
  std::vector<float> mean, variance;
};

Global statistics_of(const Input& input) {
  const auto exact =
      reference::batch_norm_forward(widen(input.x), input.shape, input.layout, {}, {}, {}, false, kEpsilon);
  return {{exact.mean.begin(), exact.mean.end()}, {exact.variance.begin(), exact.variance.end()}};
}

std::vector<float> infer(const BatchNormOps& ops, const Input& input, const Global& global, int threads = 1) {
  std::vector<float> y(input.x.size());
  Execution execution;
  execution.threads = threads;
  throw_if_error(ops.inference(audit_options(), input.view(), input.affine(), global.mean.data(),
                               global.variance.data(), {}, {y.data(), input.shape, input.layout}, execution));
  return y;
}

/// Values that change when samples are run one by one, or in odd groups, instead of together.
double batch_dependence(const BatchNormOps& ops, const Input& input) {
  const Global global = statistics_of(input);
  const std::vector<float> together = infer(ops, input, global);
  const std::size_t stride = input.x.size() / input.shape[0];
  double count = 0;
  for (const std::size_t group : {std::size_t{1}, std::size_t{7}}) {
    for (std::size_t first = 0; first < input.shape[0]; first += group) {
      const std::size_t size = std::min(group, input.shape[0] - first);
      count +=
          differing(infer(ops, samples_of(input, first, size), global), std::span(together).subspan(first * stride));
    }
  }
  return count;
}

/// Values that change between repetitions and between numbers of threads.
double nondeterminism(const BatchNormOps& ops, const Input& input) {
  const Global global = statistics_of(input);
  const std::vector<float> first = infer(ops, input, global);
  double count = 0;
  for (const int threads : {1, 2, 3, 8}) count += differing(infer(ops, input, global, threads), first);
  return count;
}

/// Share of the values of the first sample that change when its neighbours are replaced: in training and in inference.
struct Contrast {
  double training = 0, inference = 0;
};

Contrast neighbours_matter(const BatchNormOps& ops, const Input& a, const Input& b) {
  Input mixed = b;
  const std::size_t stride = a.x.size() / a.shape[0];
  std::copy_n(a.x.begin(), stride, mixed.x.begin());
  mixed.gamma = a.gamma;
  mixed.beta = a.beta;
  const Global global = statistics_of(a);
  const auto changed = [&](const std::vector<float>& one, const std::vector<float>& other) {
    return differing(std::span(one).first(stride), other) / static_cast<double>(stride);
  };
  return {changed(run_forward(ops, a).y, run_forward(ops, mixed).y),
          changed(infer(ops, a, global), infer(ops, mixed, global))};
}

/// A linear map of `rows` [n, inputs] with a norm behind it, against the one linear map that both fold into: worst
/// difference in ulp of Σ|w·x| + |b|. A convolution is the same map applied to patches.
double fold_error(const BatchNormOps& ops, const std::vector<float>& rows, std::size_t inputs, std::size_t outputs,
                  std::uint64_t seed) {
  const std::size_t n = rows.size() / inputs;
  const std::vector<float> weight = random_normal(outputs * inputs, seed, 21);
  const auto dot = [&](std::size_t r, std::size_t o, const auto& term) {
    double sum = 0;
    for (std::size_t i = 0; i < inputs; ++i)
      sum += term(static_cast<double>(rows[r * inputs + i]), weight[o * inputs + i]);
    return sum;
  };
  Input layer{"",
              {n, outputs},
              Layout::channels_last,
              std::vector<float>(n * outputs),
              random_normal(outputs, seed, 22),
              random_normal(outputs, seed, 23)};
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t o = 0; o < outputs; ++o) {
      layer.x[r * outputs + o] =
          static_cast<float>(dot(r, o, [](double x, float w) { return x * static_cast<double>(w); }));
    }
  }
  const Global global = statistics_of(layer);
  const std::vector<float> y = infer(ops, layer, global);
  double worst = 0;
  for (std::size_t o = 0; o < outputs; ++o) {
    const auto gamma = static_cast<double>(layer.gamma[o]), beta = static_cast<double>(layer.beta[o]);
    const double factor = gamma / std::sqrt(static_cast<double>(global.variance[o]) + kEpsilon);
    const double shift = static_cast<double>(global.mean[o]) * factor;
    const auto folded_bias = static_cast<float>(beta - shift);
    const auto folded = [&](double x, float w) {
      return x * static_cast<double>(static_cast<float>(static_cast<double>(w) * factor));
    };
    for (std::size_t r = 0; r < n; ++r) {
      const double sum = dot(r, o, folded) + static_cast<double>(folded_bias);
      const double terms =
          dot(r, o, [&](double x, float w) { return std::abs(folded(x, w)); }) + std::abs(shift) + std::abs(beta);
      worst = worse(worst, std::abs(static_cast<double>(y[r * outputs + o]) - sum) / ulp_at(terms));
    }
  }
  return worst;
}

/// Digits as rows of pixels, or as the 3×3 patches a convolution sees.
std::vector<float> pixel_rows(const data::Dataset& digits, std::size_t first, std::size_t count) {
  std::vector<float> rows;
  for (std::size_t n = 0; n < count; ++n) {
    const auto image = digit(digits, first + n);
    rows.insert(rows.end(), image.begin(), image.end());
  }
  return rows;
}

std::vector<float> patch_rows(const data::Dataset& digits, std::size_t first, std::size_t count) {
  std::vector<float> rows;
  for (std::size_t n = 0; n < count; ++n) {
    const auto image = digit(digits, first + n);
    for (std::size_t row = 0; row + 3 <= kSide; ++row) {
      for (std::size_t column = 0; column + 3 <= kSide; ++column) {
        for (std::size_t k = 0; k < 9; ++k) rows.push_back(image[(row + k / 3) * kSide + column + k % 3]);
      }
    }
  }
  return rows;
}

struct Trial {
  double dependence = 0, nondeterminism = 0, fold_linear = 0, fold_conv = 0;
  std::vector<Contrast> neighbours;  // of kRows
};

const std::size_t kRows[] = {2, 4, 8, 16, 32, 64, 128, 256};

Trial measure_seed(const Context& context, std::uint64_t seed) {
  const data::Dataset& digits = context.digits.train;
  Trial trial;
  for (const Input& input : exact_inputs(digits, seed)) {
    trial.dependence += batch_dependence(context.ops, input);
    trial.nondeterminism += nondeterminism(context.ops, input);
  }
  trial.fold_linear = fold_error(context.ops, pixel_rows(digits, seed * 1000, 64), kPixels, 32, seed);
  trial.fold_conv = fold_error(context.ops, patch_rows(digits, seed * 1000, 2), 9, 32, seed);
  for (const std::size_t rows : kRows) {
    trial.neighbours.push_back(neighbours_matter(context.ops, linear_activations(digits, seed * 1000, rows, 32, seed),
                                                 linear_activations(digits, seed * 1000 + 500, rows, 32, seed)));
  }
  return trial;
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress,
                                 [&](std::uint64_t seed) { return measure_seed(context, seed); });
  std::vector<double> dependence, nondeterministic, fold_linear, fold_conv;
  Samples neighbours;
  for (const Trial& trial : trials) {
    dependence.push_back(trial.dependence);
    nondeterministic.push_back(trial.nondeterminism);
    fold_linear.push_back(trial.fold_linear);
    fold_conv.push_back(trial.fold_conv);
    for (std::size_t i = 0; i < std::size(kRows); ++i) {
      neighbours.add("training", static_cast<double>(kRows[i]), 100 * trial.neighbours[i].training);
      neighbours.add("inference", static_cast<double>(kRows[i]), 100 * trial.neighbours[i].inference);
    }
  }
  Outcome outcome;
  outcome.findings = {
      at_most(Role::stated, "Values with other bits when samples are inferred alone, or seven at a time", dependence, 0,
              "values"),
      at_most(Role::stated, "Values with other bits when repeated, and on 1, 2, 3 and 8 threads", nondeterministic, 0,
              "values"),
      at_most(Role::stated, "Folded into the linear layer before it: difference in ulp of the terms", fold_linear,
              kFoldBound, "ulp"),
      at_most(Role::stated, "Folded into the convolution before it: difference in ulp of the terms", fold_conv,
              kFoldBound, "ulp")};
  outcome.charts = {{"One digit, other neighbours",
                     "digits in the batch",
                     "values of the digit that change, %",
                     true,
                     false,
                     {},
                     neighbours.ranges()}};
  outcome.notes = {
      "The chart shows the contrast: in training a digit's output changes with its neighbours, in inference never a "
      "bit."};
  return outcome;
}

}  // namespace

constinit const Claim kInference{
    .id = "inference",
    .title = "Inference",
    .section = "3.2",
    .kind = Kind::exact,
    .statement =
        "Inference normalizes with global statistics, so that a result is deterministic, works for a single sample, "
        "and does not depend on what else is in the batch.",
    .quote = "推理时：x̂ = (x − μ_global)/√(σ²_global + ε)，确保推理结果的确定性和一致性",
    .method =
        "Batches of real activations and of hostile inputs, inferred whole, one sample at a time, seven at a time, "
        "repeated and on several numbers of threads, compared bit for bit; the layer folded into the linear layer or "
        "convolution before it, which only fixed statistics allow.",
    .rule =
        "Holds if not one bit differs and folding changes nothing beyond 6 ulp of the terms. One counter-example "
        "refutes.",
    .measure = &measure};

}  // namespace equinorm::audit
