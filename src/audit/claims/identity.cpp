// § 2.2: γ = √(σ²+ε) and β = μ undo the normalization.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::audit {
namespace {

// γ and β are rounded to float (½ ulp each of σ and of μ), and forward makes its own four roundings: with x = μ + σ·x̂,
// no term is larger than the channel's largest |x| but by a factor of two. Hence 4 ulp.
constexpr double kBound = 4;

/// Gives `input` the γ and β that the note names, from statistics in double.
void set_identity(Input& input, const Input& statistics_of) {
  const auto exact = reference::batch_norm_forward(widen(statistics_of.x), statistics_of.shape, statistics_of.layout,
                                                   {}, {}, {}, false, audit_options().epsilon);
  for (std::size_t c = 0; c < input.channels(); ++c) {
    input.gamma[c] = static_cast<float>(std::sqrt(exact.variance[c] + audit_options().epsilon));
    input.beta[c] = static_cast<float>(exact.mean[c]);
  }
}

double largest(const Input& input, std::size_t c) {
  double scale = 0;
  for (std::size_t i = 0; i < input.values(); ++i) {
    scale = std::max(scale, std::abs(static_cast<double>(input.x[input.at(c, i)])));
  }
  return scale;
}

/// Worst |y − x| in ulp of the channel's largest |x|.
double identity_error(const BatchNormOps& ops, Input input) {
  set_identity(input, input);
  const Forward ours = run_forward(ops, input);
  double worst = 0;
  for (std::size_t c = 0; c < input.channels(); ++c) {
    const double ulp = ulp_at(largest(input, c));
    for (std::size_t i = 0; i < input.values(); ++i) {
      const std::size_t at = input.at(c, i);
      worst = worse(worst, std::abs(static_cast<double>(ours.y[at]) - static_cast<double>(input.x[at])) / ulp);
    }
  }
  return worst;
}

/// With γ and β fixed from one batch of digits, what the layer does to the next: root mean square of y − x in σ.
double next_batch_error(const BatchNormOps& ops, const data::Dataset& digits, std::size_t rows, std::uint64_t seed) {
  const std::size_t units = 32;
  const Input first = linear_activations(digits, seed * 1000, rows, units, seed);
  Input next = linear_activations(digits, seed * 1000 + rows, rows, units, seed);
  set_identity(next, first);
  const Forward ours = run_forward(ops, next);
  double squares = 0;
  for (std::size_t i = 0; i < next.x.size(); ++i) {
    const double deviation = std::sqrt(std::max(ours.variance[i % units], 1e-12));
    squares += std::pow((static_cast<double>(ours.y[i]) - static_cast<double>(next.x[i])) / deviation, 2);
  }
  return std::sqrt(squares / static_cast<double>(next.x.size()));
}

struct Trial {
  std::vector<std::string> names;
  std::vector<double> errors, next_batch;
};

const std::size_t kRows[] = {4, 8, 16, 32, 64, 128, 256};

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress, [&](std::uint64_t seed) {
    Trial trial;
    for (const Input& input : exact_inputs(context.digits.train, seed)) {
      trial.names.push_back(input.name);
      trial.errors.push_back(identity_error(context.ops, input));
    }
    for (const std::size_t rows : kRows) {
      trial.next_batch.push_back(next_batch_error(context.ops, context.digits.train, rows, seed));
    }
    return trial;
  });
  Outcome outcome;
  std::vector<double> worst, next_at_32;
  Samples by_input, by_rows;
  for (const Trial& trial : trials) {
    worst.insert(worst.end(), trial.errors.begin(), trial.errors.end());
    for (std::size_t i = 0; i < trial.errors.size(); ++i)
      by_input.add("y − x", static_cast<double>(i), trial.errors[i]);
    for (std::size_t i = 0; i < std::size(kRows); ++i) {
      by_rows.add("y − x on the next batch", static_cast<double>(kRows[i]), trial.next_batch[i]);
      if (kRows[i] == 32) next_at_32.push_back(trial.next_batch[i]);
    }
  }
  outcome.findings = {
      at_most(Role::stated, "Largest |y − x| with that γ and β, in ulp of the channel's largest |x|", worst, kBound,
              "ulp"),
      aside("Root mean square of y − x, in σ, when that γ and β meet the next batch of 32 digits", next_at_32, "σ")};
  outcome.charts = {{"Distance from the identity by input", "input", "largest |y − x|, ulp", false, false,
                     trials[0].names, by_input.ranges(), kBound},
                    {"The same γ and β on the next batch",
                     "digits in a batch",
                     "root mean square of y − x, in σ",
                     true,
                     true,
                     {},
                     by_rows.geometric_means()}};
  outcome.notes = {
      "γ and β are parameters, while μ_B and σ_B belong to one batch: the identity is exact for that batch only. The "
      "second chart shows how far the layer is from it on the next one."};
  return outcome;
}

}  // namespace

constinit const Claim kIdentity{
    .id = "identity",
    .title = "Giving the input back",
    .section = "2.2",
    .kind = Kind::exact,
    .statement =
        "With γ = √(σ²+ε) and β = μ the layer gives its input back, so normalization costs the net nothing in what "
        "it can express.",
    .quote = "当 γ = √(σ²_B + ε) 且 β = μ_B 时，输出 yᵢ = xᵢ，完全恢复原始输入",
    .method =
        "γ and β are set from the batch's statistics in double and rounded to float; y is compared with x on "
        "activations of real digits and on the hostile inputs of the forward claim.",
    .rule = "Holds if no |y − x| exceeds 4 ulp of the channel's largest |x|. One counter-example refutes.",
    .measure = &measure};

}  // namespace equinorm::audit
