#include "audit/claims/sample_norms.hpp"

#include <algorithm>
#include <limits>
#include <span>

#include "ops/group_norm/reference.hpp"

namespace equinorm::audit {
namespace {

/// Layer norm's parameters: an element of a sample has those of its channel.
struct SpreadAffine {
  std::vector<float> gamma, beta;

  explicit SpreadAffine(const Input& input) {
    const std::size_t size = input.x.size() / input.shape[0], inner = size / input.channels();
    for (std::size_t at = 0; at < size; ++at) {
      const std::size_t c = input.layout == Layout::channels_last ? at % input.channels() : at / inner;
      gamma.push_back(input.gamma[c]);
      beta.push_back(input.beta[c]);
    }
  }
  Affine<float> view() const { return {gamma.data(), beta.data()}; }
};

LayerNormOptions layer_norm_options(const Input& input) {
  LayerNormOptions options;
  options.epsilon = audit_options().epsilon;
  options.normalized_axes = input.shape.rank() - 1;
  return options;
}

Execution on(int threads) {
  Execution execution;
  execution.threads = threads;
  return execution;
}

/// Batch norm of one sample has one sample's statistics of a channel: instance norm.
std::vector<float> batch_norm_alone(const BatchNormOps& ops, const Input& input) {
  std::vector<float> y;
  for (std::size_t i = 0; i < input.shape[0]; ++i) {
    const std::vector<float> alone = run_forward(ops, samples_of(input, i, 1)).y;
    y.insert(y.end(), alone.begin(), alone.end());
  }
  return y;
}

std::span<const float> sample(const std::vector<float>& values, std::size_t i, std::size_t count) {
  const std::size_t size = values.size() / count;
  return std::span(values).subspan(i * size, size);
}

}  // namespace

double neighbour_dependence(const Input& input, const SampleWise& run) {
  const std::size_t count = input.shape[0], size = input.x.size() / count;
  const std::vector<float> together = run(input, 1);
  double changed = 0;
  for (const std::size_t group : {std::size_t{1}, std::size_t{7}}) {
    for (std::size_t first = 0; first < count; first += group) {
      const std::vector<float> apart = run(samples_of(input, first, std::min(group, count - first)), 1);
      changed += differing(apart, std::span(together).subspan(first * size));
    }
  }
  Input reversed = input, poisoned = input;
  for (std::size_t i = 0; i < count; ++i) {
    std::ranges::copy(sample(input.x, count - 1 - i, count),
                      reversed.x.begin() + static_cast<std::ptrdiff_t>(i * size));
    if (i % 2 == 1) {
      std::fill_n(poisoned.x.begin() + static_cast<std::ptrdiff_t>(i * size), size,
                  std::numeric_limits<float>::quiet_NaN());
    }
  }
  const std::vector<float> backwards = run(reversed, 1), beside_nan = run(poisoned, 1);
  for (std::size_t i = 0; i < count; ++i) {
    changed += differing(sample(together, i, count), sample(backwards, count - 1 - i, count));
    if (i % 2 == 0) changed += differing(sample(together, i, count), sample(beside_nan, i, count));
  }
  for (const int threads : {2, 3, 8}) changed += differing(together, run(input, threads));
  return changed;
}

std::vector<float> run_group_norm(const SampleNormOps& ops, const Input& input, std::size_t groups, int threads) {
  std::vector<float> y(input.x.size());
  const GroupNormOptions options{groups, audit_options().epsilon, Activation::none};
  throw_if_error(
      ops.group(options, input.view(), input.affine(), {}, {y.data(), input.shape, input.layout}, {}, on(threads)));
  return y;
}

std::vector<float> run_layer_norm(const SampleNormOps& ops, const Input& input, int threads) {
  std::vector<float> y(input.x.size());
  const SpreadAffine affine(input);
  throw_if_error(ops.layer(layer_norm_options(input), input.view(), affine.view(), {}, {},
                           {y.data(), input.shape, input.layout}, {}, on(threads)));
  return y;
}

std::vector<float> run_layer_norm_backward(const SampleNormOps& ops, const Input& input, int threads) {
  std::vector<float> y(input.x.size()), dy(input.x.size()), dx(input.x.size());
  std::vector<double> mean(input.shape[0]), variance(input.shape[0]);
  for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = std::sin(input.x[i]);
  const SpreadAffine affine(input);
  const Statistics statistics{mean.data(), variance.data()};
  const auto view = [&]<class E>(E* data) { return TensorView<E>{data, input.shape, input.layout}; };
  throw_if_error(ops.layer(layer_norm_options(input), input.view(), affine.view(), {}, {}, view(y.data()), statistics,
                           on(threads)));
  throw_if_error(ops.layer_backward(layer_norm_options(input), input.view(), view(std::as_const(dy).data()),
                                    affine.view(), statistics, {}, view(dx.data()), {}, on(threads)));
  return dx;
}

GroupNormTerms exact_group_norm(const Input& input, std::size_t groups) {
  const auto exact = reference::group_norm_forward(widen(input.x), input.shape, input.layout, groups,
                                                   widen(input.gamma), widen(input.beta), {}, audit_options().epsilon);
  GroupNormTerms result{exact.z, std::vector<double>(input.x.size())};
  for (std::size_t c = 0; c < input.channels(); ++c) {
    const double gamma = std::abs(static_cast<double>(input.gamma[c])),
                 beta = std::abs(static_cast<double>(input.beta[c]));
    for (std::size_t i = 0; i < input.values(); ++i) {
      const std::size_t at = input.at(c, i);
      result.terms[at] = gamma * (std::abs(exact.x_hat[at]) + 1) + beta;
    }
  }
  return result;
}

std::vector<Finding> exact_layer_norm_findings(const Context& context) {
  const SampleNormOps& ops = context.sample_ops;
  struct Exact {
    double forward = 0, backward = 0, formula = 0;
  };
  const auto trials = map_trials(context.seeds, context.workers, context.progress, [&](std::uint64_t seed) {
    Exact exact;
    for (const Input& input : exact_inputs(context.digits.train, seed)) {
      exact.forward +=
          neighbour_dependence(input, [&](const Input& x, int threads) { return run_layer_norm(ops, x, threads); });
      exact.backward += neighbour_dependence(
          input, [&](const Input& x, int threads) { return run_layer_norm_backward(ops, x, threads); });
      const GroupNormTerms formula = exact_group_norm(input, 1);
      exact.formula = worse(exact.formula, worst_in_ulp(run_layer_norm(ops, input), formula.y, formula.terms));
    }
    return exact;
  });
  std::vector<double> forward, backward, formula;
  for (const Exact& exact : trials) {
    forward.push_back(exact.forward);
    backward.push_back(exact.backward);
    formula.push_back(exact.formula);
  }
  return {
      at_most(Role::stated, "Values of y with other bits beside other neighbours, in another order, on more threads",
              forward, 0, "values"),
      at_most(Role::stated, "Values of dx with other bits, likewise", backward, 0, "values"),
      at_most(Role::stated, "Difference from the formula in double, in ulp of the terms", formula, kKernelBound,
              "ulp")};
}

std::vector<Finding> exact_group_norm_findings(const Context& context) {
  const SampleNormOps& ops = context.sample_ops;
  struct Exact {
    double one_group = 0, single_channels = 0, formula = 0, dependence = 0;
  };
  const auto trials = map_trials(context.seeds, context.workers, context.progress, [&](std::uint64_t seed) {
    Exact exact;
    for (const Input& input : exact_inputs(context.digits.train, seed)) {
      const std::size_t channels = input.channels();
      for (const std::size_t groups : {std::size_t{1}, channels % 4 == 0 ? std::size_t{4} : channels, channels}) {
        const GroupNormTerms formula = exact_group_norm(input, groups);
        const std::vector<float> y = run_group_norm(ops, input, groups);
        exact.formula = worse(exact.formula, worst_in_ulp(y, formula.y, formula.terms));
        if (groups == 1) {
          exact.one_group = worse(exact.one_group, worst_in_ulp(y, run_layer_norm(ops, input), formula.terms));
        }
        if (groups == channels) {
          exact.single_channels =
              worse(exact.single_channels, worst_in_ulp(y, batch_norm_alone(context.ops, input), formula.terms));
        }
        exact.dependence += neighbour_dependence(
            input, [&](const Input& x, int threads) { return run_group_norm(ops, x, groups, threads); });
      }
    }
    return exact;
  });
  std::vector<double> one_group, single_channels, formula, dependence;
  for (const Exact& exact : trials) {
    one_group.push_back(exact.one_group);
    single_channels.push_back(exact.single_channels);
    formula.push_back(exact.formula);
    dependence.push_back(exact.dependence);
  }
  return {
      at_most(Role::core, "One group against layer norm, another kernel: difference in ulp of the terms", one_group,
              2 * kKernelBound, "ulp"),
      at_most(Role::core,
              "A group for every channel against batch norm of each sample alone: difference in ulp of the terms",
              single_channels, 2 * kKernelBound, "ulp"),
      at_most(Role::core, "Difference from the formula in double, in ulp of the terms", formula, kKernelBound, "ulp"),
      at_most(Role::core, "Values with other bits beside other neighbours, in another order, on more threads",
              dependence, 0, "values")};
}

}  // namespace equinorm::audit
