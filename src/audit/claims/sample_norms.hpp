// Norms that look at one sample at a time: how the audit calls them, what they should give, whether they see a sample's
// neighbours; and what of their claims is exact.
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "audit/claims/inputs.hpp"
#include "audit/outcome.hpp"
#include "audit/statistics.hpp"

namespace equinorm::audit {

/// A result with as many values for each sample as the sample has.
using SampleWise = std::function<std::vector<float>(const Input&, int threads)>;

/// Values that get other bits when samples are taken alone, seven at a time, in reverse order, beside neighbours that
/// are not numbers, or on 2, 3 and 8 threads.
double neighbour_dependence(const Input& input, const SampleWise& run);

/// y of group norm.
std::vector<float> run_group_norm(const SampleNormOps& ops, const Input& input, std::size_t groups, int threads = 1);

/// y of layer norm over everything in a sample; γ and β are those of the element's channel.
std::vector<float> run_layer_norm(const SampleNormOps& ops, const Input& input, int threads = 1);

/// dx of the same, for a dy that is made of x.
std::vector<float> run_layer_norm_backward(const SampleNormOps& ops, const Input& input, int threads = 1);

/// What y should be, in double, and the size of the terms that it is made of: |γ|·(|x̂| + 1) + |β|.
struct GroupNormTerms {
  std::vector<double> y, terms;
};
GroupNormTerms exact_group_norm(const Input& input, std::size_t groups);

/// A kernel rounds to float at most six times on the way from double statistics to y (x less the two halves of μ, the
/// scale, its product with γ and with the difference, the sum with β), each time by half an ulp of the terms or less.
inline constexpr double kKernelBound = 3;

/// Worst |a − b| in ulp of the terms.
template <class A, class B>
double worst_in_ulp(const A& a, const B& b, const std::vector<double>& terms) {
  double worst = 0;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    worst = worse(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])) / ulp_at(terms[i]));
  }
  return worst;
}

/// The exact findings of `layernorm`, stated: other bits beside other neighbours, forward and backward; the formula.
std::vector<Finding> exact_layer_norm_findings(const Context& context);

/// The exact findings of `groupnorm`, core: its two limits, the formula, other bits beside other neighbours.
std::vector<Finding> exact_group_norm_findings(const Context& context);

}  // namespace equinorm::audit
