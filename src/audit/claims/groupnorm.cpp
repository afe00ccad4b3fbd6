// § 6.3: group norm, between layer norm and instance norm, for small batches.
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/sample_norms.hpp"
#include "audit/format.hpp"
#include "audit/training.hpp"

namespace equinorm::audit {
namespace {

constexpr std::size_t kBatches[] = {1, 2, 4, 8, 16, 32};
constexpr std::size_t kSmall = 4;                  // the batches that the claim is held to: 1, 2, 4, as in `smallbatch`
constexpr std::size_t kVerySmall = 2;              // and those of its condition: 1, 2
const char* const kArms[] = {"batch", "group:4"};  // 4, 8 and 16 channels a group in the net's three layers

Outcome measure(const Context& context) {
  const auto images = context.pick<std::size_t>(4000, 50000);
  nn::ModelSpec model;
  model.model = "cnn";
  BatchSweep sweep(kArms, kBatches, model, images, rate_grid(1e-2, 3.1623, 6));
  context.progress.expect(static_cast<double>(context.seeds.size()) + sweep.work(context));
  Outcome outcome;
  outcome.findings = exact_group_norm_findings(context);
  const Split split =
      make_split(context.digits, context.pick<std::size_t>(4000, 50000), context.pick<std::size_t>(2000, 10000));
  sweep.run(context, split);

  std::vector<Finding> asides;
  Samples errors;
  for (std::size_t b = 0; b < std::size(kBatches); ++b) {
    const std::size_t batch = kBatches[b];
    const std::vector<double> with_batch = sweep.errors(0, b), with_group = sweep.errors(1, b);
    for (const double error : with_batch) errors.add(arm(kArms[0]).name, static_cast<double>(batch), error);
    for (const double error : with_group) errors.add(arm(kArms[1]).name, static_cast<double>(batch), error);
    const Role role = batch <= kVerySmall ? Role::core : batch <= kSmall ? Role::stated : Role::context;
    (role == Role::context ? asides : outcome.findings)
        .push_back({"Batches of " + std::to_string(batch) + ": test error with group norm minus with batch norm", role,
                    Direction::below, false, paired_difference(with_group, with_batch), 0, "% points"});
  }
  outcome.findings.insert(outcome.findings.end(), asides.begin(), asides.end());
  outcome.charts = {
      {"Test error over batch size", "digits in a batch", "test error, %", true, true, {}, errors.geometric_means()}};
  outcome.notes = sweep.notes();
  outcome.notes.push_back(
      "Every net has learnt from " + std::to_string(images) +
      " digits when it is tested: far from done in quick mode, which so measures who learns faster.");
  outcome.notes.emplace_back(
      "A convolution leaves batch norm 784 positions of every digit to take its statistics from, so that even a batch "
      "of 1 trains; `smallbatch` has the net without such positions. Detection, of which the note speaks too, is not "
      "measured here.");
  return outcome;
}

}  // namespace

constinit const Claim kGroupNorm{
    .id = "groupnorm",
    .title = "Group norm",
    .section = "6.3",
    .kind = Kind::trained,
    .statement =
        "Group norm normalizes groups of channels of each sample: with one group it is layer norm, with a group for "
        "every channel instance norm. It does not depend on the batch, and does better than batch norm when the batch "
        "is small.",
    .quote = "将通道分组进行归一化；优势：不依赖 batch size，在小 batch 时表现好",
    .method =
        "Batches of real activations and of hostile inputs: one group against layer norm, a group for every channel "
        "against batch norm of each sample alone, which are other kernels; both and four groups against the formula "
        "in double, and bit for bit beside other neighbours. Then the convolutional digits net with batch norm and "
        "with group norm of 4 groups on the same number of digits in batches of 1 … 32, each at the rate that is best "
        "for its batch size on the validation digits, from 0.01 to 3.",
    .rule =
        "Supported if both limits are within 6 ulp of the terms, the formula within 3 and not one bit depends on the "
        "neighbours, and the test error at batches of 1, 2 and 4 is below batch norm's, with its 95 % interval. "
        "Conditional if all of that is shown, but the error at batches of 1 and 2 only. Otherwise refuted if a "
        "difference is too large, a bit differs or an error is above batch norm's, and not shown if an interval "
        "contains 0.",
    .measure = &measure};

}  // namespace equinorm::audit
