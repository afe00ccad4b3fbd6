// § 6.1: layer norm normalizes each sample over its features, and does not depend on the batch.
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/sample_norms.hpp"
#include "audit/format.hpp"
#include "audit/training.hpp"

namespace equinorm::audit {
namespace {

const std::size_t kBatches[] = {1, 32};  // where batch norm cannot train, and where it can
const char* const kArms[] = {"none", "batch", "layer"};

// What counts as worse: a point is some three standard errors of a test error of 3 % on 2,000 digits.
constexpr double kLoss = 1;

Outcome measure(const Context& context) {
  nn::ModelSpec model;
  model.model = "mlp";
  model.activation = "relu";
  BatchSweep sweep(kArms, kBatches, model, context.pick<std::size_t>(10000, 100000), rate_grid(1e-3, 3.1623, 8));
  context.progress.expect(static_cast<double>(context.seeds.size()) + sweep.work(context));
  Outcome outcome;
  outcome.findings = exact_layer_norm_findings(context);
  const Split split =
      make_split(context.digits, context.pick<std::size_t>(10000, 50000), context.pick<std::size_t>(2000, 10000));
  sweep.run(context, split);

  const auto difference = [](std::string text, Role role, const std::vector<double>& a, const std::vector<double>& b,
                             double threshold) {
    return Finding{std::move(text), role, Direction::below, false, paired_difference(a, b), threshold, "% points"};
  };
  outcome.findings.push_back(difference("Batches of 1: test error with layer norm minus with batch norm", Role::stated,
                                        sweep.errors(2, 0), sweep.errors(1, 0), 0));
  outcome.findings.push_back(difference("Layer norm: test error at batches of 1 minus at batches of 32", Role::stated,
                                        sweep.errors(2, 0), sweep.errors(2, 1), kLoss));
  outcome.findings.push_back(difference("Batches of 1: test error with layer norm minus without", Role::context,
                                        sweep.errors(2, 0), sweep.errors(0, 0), 0));
  outcome.findings.push_back(difference("Batches of 32: test error with layer norm minus with batch norm",
                                        Role::context, sweep.errors(2, 1), sweep.errors(1, 1), 0));
  Samples chart;
  for (std::size_t a = 0; a < std::size(kArms); ++a) {
    for (std::size_t b = 0; b < std::size(kBatches); ++b) {
      for (const double value : sweep.errors(a, b)) chart.add(arm(kArms[a]).name, static_cast<double>(b), value);
    }
  }
  outcome.notes = sweep.notes();
  outcome.charts = {{"Test error at the two batch sizes",
                     "",
                     "test error, %",
                     false,
                     true,
                     {"batches of 1", "batches of 32"},
                     chart.geometric_means()}};
  outcome.notes.emplace_back(
      "That layer norm does better in recurrent nets and transformers, which the note says too, is not measured here.");
  return outcome;
}

}  // namespace

constinit const Claim kLayerNorm{
    .id = "layernorm",
    .title = "Layer norm",
    .section = "6.1",
    .kind = Kind::trained,
    .statement =
        "Layer norm normalizes each sample over its own features. It does not depend on the batch, and so trains with "
        "a single sample at a time.",
    .quote = "对单个样本的所有特征进行归一化；优势：不依赖 batch size",
    .method =
        "Batches of real activations and of hostile inputs, forward and backward, whole, one sample at a time, seven "
        "at a time, in reverse order, beside neighbours that are not numbers, and on several numbers of threads, "
        "compared bit for bit; y against the formula in double. Then the digits net 784–100–100–100–10 with ReLU on "
        "the same number of digits in batches of 1 and of 32, without norm, with batch norm and with layer norm, each "
        "at the rate that is best for it on the validation digits, from 0.001 to 3.",
    .rule =
        "Supported if not one bit differs, y is within 3 ulp of the terms of the formula, the test error at batches of "
        "1 is below batch norm's, with its 95 % interval, and not more than 1 point above layer norm's own at batches "
        "of 32. Refuted if one of these fails, otherwise not shown.",
    .measure = &measure};

}  // namespace equinorm::audit
