// § 7.2: batch norm does poorly at small batches.
#include <cmath>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/format.hpp"
#include "audit/training.hpp"

namespace equinorm::audit {
namespace {

constexpr std::size_t kBatches[] = {1, 2, 4, 8, 16, 32, 64, 128};
constexpr std::size_t kSmall = 4;      // the batches that the claim is held to: 1, 2, 4
constexpr std::size_t kVerySmall = 2;  // and those of its condition: 1, 2
constexpr std::size_t kLarge = 32;     // the note calls more than 16 large

// The claim is about the first two; the others show what to use instead. Ten groups of ten features.
const char* const kArms[] = {"none", "batch", "layer", "group:10"};

Outcome measure(const Context& context) {
  const Split split =
      make_split(context.digits, context.pick<std::size_t>(10000, 50000), context.pick<std::size_t>(2000, 10000));
  nn::ModelSpec model;
  model.model = "mlp";
  model.activation = "relu";
  BatchSweep sweep(kArms, kBatches, model, context.pick<std::size_t>(20000, 100000), rate_grid(1e-3, 3.1623, 8));
  context.progress.expect(sweep.work(context));
  sweep.run(context, split);

  Outcome outcome;
  Samples errors, differences;
  std::vector<Finding> asides;
  for (std::size_t b = 0; b < std::size(kBatches); ++b) {
    std::vector<double> percent[std::size(kArms)];
    for (std::size_t a = 0; a < std::size(kArms); ++a) {
      percent[a] = sweep.errors(a, b);
      for (const double error : percent[a]) errors.add(arm(kArms[a]).name, static_cast<double>(kBatches[b]), error);
    }
    for (std::size_t a = 1; a < std::size(kArms); ++a) {
      for (std::size_t s = 0; s < context.seeds.size(); ++s) {
        differences.add(arm(kArms[a]).name + " − none", static_cast<double>(kBatches[b]),
                        percent[a][s] - percent[0][s]);
      }
    }
    const std::size_t batch = kBatches[b];
    const Role role = batch <= kVerySmall ? Role::core : batch <= kSmall ? Role::stated : Role::context;
    const Finding finding{"Batches of " + std::to_string(batch) + ": test error with batch norm minus without",
                          role,
                          Direction::above,
                          false,
                          paired_difference(percent[1], percent[0]),
                          0,
                          "% points"};
    if (role != Role::context) outcome.findings.push_back(finding);
    if (batch == kLarge) asides.push_back(finding);
    if (batch != kSmall) continue;
    for (std::size_t a = 2; a < std::size(kArms); ++a) {
      asides.push_back(
          {"Batches of " + std::to_string(batch) + ": test error with " + arm(kArms[a]).name + " minus with batch norm",
           Role::context, Direction::below, false, paired_difference(percent[a], percent[1]), 0, "% points"});
    }
  }
  outcome.findings.insert(outcome.findings.end(), asides.begin(), asides.end());
  outcome.charts = {
      {"Test error over batch size", "digits in a batch", "test error, %", true, true, {}, errors.geometric_means()},
      {"What a norm adds to the error",
       "digits in a batch",
       "difference, % points",
       true,
       false,
       {},
       differences.means(),
       0.0}};
  outcome.notes = sweep.notes();
  outcome.notes.emplace_back(
      "With one digit per batch x̂ of batch norm is 0 whatever the digit: the net cannot learn anything but the shares "
      "of the "
      "classes.");
  return outcome;
}

}  // namespace

constinit const Claim kSmallBatch{
    .id = "smallbatch",
    .title = "Poor at small batches",
    .section = "7.2",
    .kind = Kind::trained,
    .statement = "When the batch is very small, a net with batch norm does worse than the same net without.",
    .quote = "小 batch 问题：batch size 很小时效果差",
    .method =
        "The digits net 784–100–100–100–10 with ReLU on batches of 1 … 128 and the same number of digits for all; "
        "test error with and without norm, beside layer norm and group norm of 10 groups, each at the rate that is "
        "best for its batch size on the validation "
        "digits, from 0.001 to 3.",
    .rule =
        "Supported if at batches of 1, 2 and 4 the test error with batch norm is above that without, with its 95 % "
        "interval. Conditional if that is shown at 1 and 2 only. Otherwise refuted if it is below at one of them, "
        "and not shown if an interval contains 0.",
    .measure = &measure};

}  // namespace equinorm::audit
