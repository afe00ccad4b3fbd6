// The exact claims measure: they hold for the operation of this program, and each is refuted when handed a wrong one.
#include "audit/claims.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "audit/claims/sample_norms.hpp"
#include "audit/results.hpp"
#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

const data::DataPair& digits() {
  static const data::DataPair loaded = data::load("mnist");
  return loaded;
}

Outcome measure(const char* id, const BatchNormOps& ops, std::vector<std::uint64_t> seeds = {1}, int workers = 2) {
  Progress progress;
  return claim_named(id).measure({digits(), Mode::quick, std::move(seeds), {1001}, workers, progress, ops});
}

/// What is exact of a norm that looks at one sample at a time: for instance norm the whole claim.
using ExactFindings = std::vector<Finding> (*)(const Context&);

std::vector<Finding> instance_norm_findings(const Context& context) {
  return claim_named("instancenorm").measure(context).findings;
}

Verdict verdict_of(ExactFindings findings, const SampleNormOps& ops) {
  Progress progress;
  Outcome outcome;
  outcome.findings = findings({digits(), Mode::quick, {1, 2, 3}, {1001}, 2, progress, {}, ops});
  return outcome.verdict();
}

TEST(Claims, HaveAllTheirWords) {
  std::set<std::string_view> ids;
  for (const Claim* claim : claims()) {
    EXPECT_TRUE(ids.insert(claim->id).second) << claim->id << " is there twice";
    for (const std::string_view words :
         {claim->title, claim->section, claim->statement, claim->quote, claim->method, claim->rule}) {
      EXPECT_FALSE(words.empty()) << claim->id;
    }
    EXPECT_EQ(&claim_named(claim->id), claim);
  }
}

TEST(Claims, UnknownOneIsAnErrorThatListsTheKnown) {
  try {
    claim_named("forwards");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'forwards'; the claims are: forward, identity"), std::string::npos)
        << error.what();
  }
}

TEST(ExactClaims, OfThisProgram) {
  EXPECT_EQ(measure("forward", {}).verdict(), Verdict::supported);
  EXPECT_EQ(measure("identity", {}).verdict(), Verdict::supported);
  EXPECT_EQ(measure("gradient", {}).verdict(), Verdict::supported);
  EXPECT_EQ(measure("running", {}).verdict(), Verdict::supported);
  EXPECT_EQ(measure("inference", {}).verdict(), Verdict::supported);
  EXPECT_EQ(measure("moments", {}).verdict(), Verdict::conditional);  // Var = γ² needs σ² ≫ ε
}

TEST(ExactClaims, OfTheNormsOfOneSample) {
  EXPECT_EQ(verdict_of(&exact_layer_norm_findings, {}), Verdict::supported);
  EXPECT_EQ(verdict_of(&exact_group_norm_findings, {}), Verdict::supported);
  EXPECT_EQ(verdict_of(&instance_norm_findings, {}), Verdict::supported);
}

TEST(ExactClaims, DoNotDependOnTheNumberOfWorkers) {
  const auto json = [](const char* id, int workers) {
    Progress progress;
    const Context context{digits(), Mode::quick, {1, 2, 3}, {1001}, workers, progress, {}};
    return to_json({{}, Mode::quick, {result_of(claim_named(id), context, 0, claim_named(id).measure(context))}});
  };
  for (const char* id : {"identity", "gradient", "running", "instancenorm"}) EXPECT_EQ(json(id, 1), json(id, 3)) << id;
}

// Wrong operations, each with a fault that somebody's library once had.

std::size_t channel_of(std::size_t at, const Shape& shape, Layout layout) {
  if (layout == Layout::channels_last) return at % shape[shape.rank() - 1];
  return at / (shape.elements() / shape[0] / shape[1]) % shape[1];
}

/// Forward as it should be, but with y changed by `fault(y, x, mean, variance, channel)`.
template <auto Fault>
Status forward_with(const BatchNormOptions& options, TensorView<const float> x, const Affine<float>& affine,
                    TensorView<const float> residual, TensorView<float> y, const Statistics& statistics,
                    RunningStatistics<float>* running, const Execution& execution) {
  Status status = batch_norm_forward(options, x, affine, residual, y, statistics, running, execution);
  if (!status.ok()) return status;
  for (std::size_t i = 0; i < x.shape.elements(); ++i) {
    const std::size_t c = channel_of(i, x.shape, x.layout);
    y.data[i] = static_cast<float>(Fault(static_cast<double>(y.data[i]), statistics.mean[c], statistics.variance[c],
                                         affine.gamma != nullptr ? static_cast<double>(affine.gamma[c]) : 1.0,
                                         affine.beta != nullptr ? static_cast<double>(affine.beta[c]) : 0.0));
  }
  return status;
}

constexpr auto kEpsilonOutsideRoot = [](double y, double, double variance, double, double beta) {
  return beta + (y - beta) * std::sqrt(variance + 1e-5) / (std::sqrt(variance) + 1e-5);
};
constexpr auto kCancellingVariance = [](double y, double mean, double variance, double, double beta) {
  const auto m = static_cast<float>(mean), square = static_cast<float>(variance + mean * mean);
  const double lossy = std::max(0.0F, square - m * m);  // E[x²] − E[x]² in float
  return beta + (y - beta) * std::sqrt(variance + 1e-5) / std::sqrt(lossy + 1e-5);
};
constexpr auto kUnbiasedVariance = [](double y, double, double, double, double beta) {
  return beta + (y - beta) * std::sqrt(255.0 / 256.0);
};

Status backward_without_last_term(const BatchNormOptions& options, TensorView<const float> x, TensorView<const float>,
                                  TensorView<const float>, TensorView<const float> dy, const Affine<float>& affine,
                                  const Statistics& statistics, TensorView<float> dx, TensorView<float> dresidual,
                                  const AffineGradients<float>& gradients, const Execution& execution) {
  Status status = batch_norm_backward(options, x, {}, {}, dy, affine, statistics, dx, dresidual, gradients, execution);
  const std::size_t channels = x.layout == Layout::channels_last ? x.shape[x.shape.rank() - 1] : x.shape[1];
  const std::size_t rows = x.shape.elements() / channels;
  for (std::size_t i = 0; i < x.shape.elements(); ++i) {
    const std::size_t c = channel_of(i, x.shape, x.layout);
    const double root = std::sqrt(statistics.variance[c] + options.epsilon);
    const double normalized = (static_cast<double>(x.data[i]) - statistics.mean[c]) / root;
    dx.data[i] += static_cast<float>(static_cast<double>(affine.gamma[c]) / root * normalized *
                                     static_cast<double>(gradients.gamma[c]) / static_cast<double>(rows));
  }
  return status;
}

/// A derivative in a direction that takes the statistics for constants.
Status jvp_of_inference(const BatchNormOptions& options, TensorView<const float> x, TensorView<const float>,
                        const Tangents<float>& tangents, const Affine<float>& affine, const Statistics& statistics,
                        TensorView<float> y_tangent, const Execution&) {
  for (std::size_t i = 0; i < x.shape.elements(); ++i) {
    const std::size_t c = channel_of(i, x.shape, x.layout);
    const double root = std::sqrt(statistics.variance[c] + options.epsilon);
    const double normalized = (static_cast<double>(x.data[i]) - statistics.mean[c]) / root;
    const double slope = static_cast<double>(affine.gamma[c]) / root * static_cast<double>(tangents.x.data[i]);
    y_tangent.data[i] = static_cast<float>(slope + static_cast<double>(tangents.affine.gamma[c]) * normalized +
                                           static_cast<double>(tangents.affine.beta[c]));
  }
  return {};
}

/// The momentum of the other convention: the running statistics keep 0.1 and take 0.9.
Status forward_with_swapped_momentum(const BatchNormOptions& options, TensorView<const float> x,
                                     const Affine<float>& affine, TensorView<const float> residual, TensorView<float> y,
                                     const Statistics& statistics, RunningStatistics<float>* running,
                                     const Execution& execution) {
  if (running == nullptr) return batch_norm_forward(options, x, affine, residual, y, statistics, running, execution);
  RunningStatistics<float> swapped = *running;
  swapped.options.running_weight = 1 - running->options.running_weight;
  Status status = batch_norm_forward(options, x, affine, residual, y, statistics, &swapped, execution);
  running->batches = swapped.batches;
  return status;
}

/// A frozen layer that is not frozen: inference by the statistics of the batch.
Status inference_by_batch(const BatchNormOptions& options, TensorView<const float> x, const Affine<float>& affine,
                          const float*, const float*, TensorView<const float> residual, TensorView<float> y,
                          const Execution& execution) {
  std::vector<double> mean(x.shape.elements()), variance(x.shape.elements());
  return batch_norm_forward(options, x, affine, residual, y, {mean.data(), variance.data()}, nullptr, execution);
}

TEST(ExactClaims, AreRefutedByWrongOperations) {
  struct Row {
    const char *id, *fault;
    BatchNormOps ops;
  };
  for (const Row& row : {
           Row{"forward", "ε outside the root", {.forward = &forward_with<kEpsilonOutsideRoot>}},
           Row{"forward", "variance as E[x²] − E[x]² in float", {.forward = &forward_with<kCancellingVariance>}},
           Row{"identity", "ε outside the root", {.forward = &forward_with<kEpsilonOutsideRoot>}},
           Row{"gradient", "last term of dx left out", {.backward = &backward_without_last_term}},
           Row{"gradient", "derivative in a direction of frozen statistics", {.jvp = &jvp_of_inference}},
           Row{"running", "momentum of the other convention", {.forward = &forward_with_swapped_momentum}},
           Row{"inference", "statistics of the batch", {.inference = &inference_by_batch}},
           Row{"moments", "normalized by the unbiased variance", {.forward = &forward_with<kUnbiasedVariance>}},
       }) {
    EXPECT_EQ(measure(row.id, row.ops).verdict(), Verdict::refuted) << row.id << ": " << row.fault;
  }
}

/// Layer norm by the statistics of the whole batch.
Status layer_norm_of_the_batch(const LayerNormOptions& options, TensorView<const float> x, const Affine<float>& affine,
                               TensorView<const float> residual, TensorView<float> sum, TensorView<float> y,
                               const Statistics&, const Execution& execution) {
  LayerNormOptions whole = options;
  whole.normalized_axes = x.shape.rank();
  Status status = layer_norm_forward<float>(whole, x, {}, residual, sum, y, {}, execution);
  const std::size_t size = x.shape.elements() / x.shape[0];
  for (std::size_t i = 0; i < x.shape.elements(); ++i) {
    y.data[i] = affine.gamma[i % size] * y.data[i] + affine.beta[i % size];
  }
  return status;
}

/// dx with a part of the element before it, over the ends of rows too.
Status layer_norm_backward_across_rows(const LayerNormOptions& options, TensorView<const float> x,
                                       TensorView<const float> dy, const Affine<float>& affine,
                                       const Statistics& statistics, TensorView<const float> dsum, TensorView<float> dx,
                                       const AffineGradients<float>& gradients, const Execution& execution) {
  Status status = layer_norm_backward<float>(options, x, dy, affine, statistics, dsum, dx, gradients, execution);
  for (std::size_t i = 1; i < x.shape.elements(); ++i) dx.data[i] += 1e-3F * dx.data[i - 1];
  return status;
}

template <auto Change>
Status group_norm_with(const GroupNormOptions& options, TensorView<const float> x, const Affine<float>& affine,
                       TensorView<const float> residual, TensorView<float> y, const Statistics& statistics,
                       const Execution& execution) {
  const std::size_t channels = x.layout == Layout::channels_last ? x.shape[x.shape.rank() - 1] : x.shape[1];
  return group_norm_forward<float>(Change(options, channels), x, affine, residual, y, statistics, execution);
}
constexpr auto kGroupsAsTheirSize = [](GroupNormOptions options, std::size_t channels) {
  options.groups = channels / options.groups;
  return options;
};
constexpr auto kOneGroup = [](GroupNormOptions options, std::size_t) {
  options.groups = 1;
  return options;
};
constexpr auto kLargeEpsilon = [](GroupNormOptions options, std::size_t) {
  options.epsilon = 1e-3;
  return options;
};

/// Group norm by the statistics of the batch.
Status group_norm_of_the_batch(const GroupNormOptions&, TensorView<const float> x, const Affine<float>& affine,
                               TensorView<const float> residual, TensorView<float> y, const Statistics&,
                               const Execution& execution) {
  const std::size_t channels = x.layout == Layout::channels_last ? x.shape[x.shape.rank() - 1] : x.shape[1];
  std::vector<double> mean(channels), variance(channels);
  BatchNormOptions options;
  options.single_value = SingleValuePolicy::allow;
  options.non_finite = NonFinitePolicy::propagate;
  return batch_norm_forward<float>(options, x, affine, residual, y, {mean.data(), variance.data()}, nullptr, execution);
}

TEST(ExactClaims, OfTheNormsOfOneSampleAreRefutedByWrongOperations) {
  struct Row {
    ExactFindings findings;
    const char *id, *fault;
    SampleNormOps ops;
  };
  for (const Row& row : {
           Row{&exact_layer_norm_findings, "layernorm", "statistics of the batch", {.layer = &layer_norm_of_the_batch}},
           Row{&exact_layer_norm_findings,
               "layernorm",
               "dx with a part of its neighbour",
               {.layer_backward = &layer_norm_backward_across_rows}},
           Row{&exact_group_norm_findings,
               "groupnorm",
               "the number of groups taken for their size",
               {.group = &group_norm_with<kGroupsAsTheirSize>}},
           Row{&exact_group_norm_findings, "groupnorm", "statistics of the batch", {.group = &group_norm_of_the_batch}},
           Row{&instance_norm_findings, "instancenorm", "all channels as one", {.group = &group_norm_with<kOneGroup>}},
           Row{&instance_norm_findings, "instancenorm", "an ε of 1e-3", {.group = &group_norm_with<kLargeEpsilon>}},
           Row{&instance_norm_findings, "instancenorm", "statistics of the batch", {.group = &group_norm_of_the_batch}},
       }) {
    EXPECT_EQ(verdict_of(row.findings, row.ops), Verdict::refuted) << row.id << ": " << row.fault;
  }
}

}  // namespace
}  // namespace equinorm::audit
