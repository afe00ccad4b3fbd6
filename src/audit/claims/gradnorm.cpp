// § 4.1: gradients keep their size.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "audit/claims.hpp"
#include "audit/training.hpp"
#include "data/sampler.hpp"
#include "nn/net.hpp"

namespace equinorm::audit {
namespace {

constexpr std::size_t kBatch = 128;
constexpr std::size_t kDepths[] = {5, 10, 20, 50};
constexpr std::size_t kShallow = 5;  // the condition
constexpr double kSpreadBound = 1;   // decades: the largest gradient of the layers is at most ten times the smallest

// Weights and all that follows are scaled by powers of two, which costs no rounding, and ε is as small as it may be:
// what is left are the roundings of the next layers' inputs. 16 ulp of the gradient's norm.
constexpr double kInvarianceBound = 16 * 0x1p-23;

/// Norms of the loss's gradients at the start of training: by each linear layer's output, from the first to the last,
/// and by each layer's weights.
struct Gradients {
  std::vector<double> by_output, by_weight;
};

nn::ModelSpec net_of(const nn::NormSpec& norm, const char* activation, std::size_t depth) {
  nn::ModelSpec model;
  model.model = "mlp";
  model.norm = norm;
  model.activation = activation;
  model.init = std::string(activation) == "relu" ? nn::Init::he : nn::Init::xavier;
  model.hidden_layers = depth;
  return model;
}

/// One forward and backward pass on the digits of `seed`; `weight_factor` multiplies the weights of all layers before a
/// norm.
Gradients gradients_at_start(const nn::ModelSpec& model, const data::Dataset& digits, std::uint64_t seed,
                             float weight_factor = 1) {
  nn::Net net(model, {.batch = kBatch, .training = true, .threads = 1, .seed = seed});
  const std::string last = "fc" + std::to_string(model.hidden_layers + 1) + ".weight";
  for (const nn::Parameter& parameter : net.parameters()) {
    if (parameter.kind != nn::ParameterKind::weight || parameter.name == last) continue;
    for (float& weight : parameter.values) weight *= weight_factor;
  }
  data::gather(digits, data::subset(digits, kBatch, seed, data::Strata::none), net.images(), net.labels());
  Gradients gradients;
  net.set_probe([&](const nn::ProbedTensor& tensor) {
    if (tensor.gradient && tensor.kind == "linear") gradients.by_output.push_back(nn::moments(tensor.values).norm);
  });
  net.forward(0);
  net.backward();
  std::reverse(gradients.by_output.begin(), gradients.by_output.end());  // backward comes from the last layer
  for (const nn::Parameter& parameter : net.parameters()) {
    if (parameter.kind == nn::ParameterKind::weight)
      gradients.by_weight.push_back(nn::moments(parameter.gradient).norm);
  }
  return gradients;
}

/// Decades between the largest and the smallest; a gradient that is 0 or not finite counts as a hundred decades.
double spread(const std::vector<double>& norms) {
  const auto [least, most] = std::minmax_element(norms.begin(), norms.end());
  const double decades = std::log10(*most / *least);
  return std::isfinite(decades) ? decades : 100;
}

/// How far the gradient by weights that were multiplied by a is from 1/a of what it was.
double invariance_error(const Gradients& before, const Gradients& after, double factor) {
  double worst = 0;
  for (std::size_t layer = 0; layer + 1 < before.by_weight.size(); ++layer) {
    worst = worse(worst, std::abs(after.by_weight[layer] * factor / before.by_weight[layer] - 1));
  }
  return worst;
}

struct Trial {
  std::vector<double> invariance;
  std::array<std::vector<std::pair<double, double>>, 2> first_by_factor;  // [arm] (a, gradient by the first weights)
  std::array<std::vector<double>, 2> relu_by_depth, sigmoid_by_depth;     // [arm][depth] decades over the hidden layers
  std::array<std::vector<double>, 2> by_layer;                            // [arm] deepest ReLU net
  std::array<double, 2> over_scales = {0, 0};                             // [arm] decades over initial scales
};

const int kPowers[] = {-10, -7, -4, -2, 0, 2, 4, 7, 10};
const double kScales[] = {0.1, 0.316, 1, 3.16, 10};

/// Without the logits' layer, which has no norm behind it.
std::vector<double> hidden(std::vector<double> norms) {
  norms.pop_back();
  return norms;
}

Trial measure_seed(const Context& context, std::uint64_t seed) {
  const data::Dataset& digits = context.digits.train;
  Trial trial;
  const std::vector<Arm> both = arms();
  for (std::size_t a = 0; a < both.size(); ++a) {
    nn::ModelSpec net = net_of(both[a].norm, "relu", 3);
    for (const int power : kPowers) {
      const double factor = std::ldexp(1.0, power);
      const Gradients g = gradients_at_start(net, digits, seed, static_cast<float>(factor));
      trial.first_by_factor[a].emplace_back(factor, g.by_weight[0]);
    }
    std::vector<double> by_scale;
    for (const double scale : kScales) {
      net.init_scale = scale;
      by_scale.push_back(gradients_at_start(net, digits, seed).by_output[0]);
    }
    trial.over_scales[a] = spread(by_scale);
    for (const std::size_t depth : kDepths) {
      trial.by_layer[a] = hidden(gradients_at_start(net_of(both[a].norm, "relu", depth), digits, seed).by_output);
      trial.relu_by_depth[a].push_back(spread(trial.by_layer[a]));
      trial.sigmoid_by_depth[a].push_back(
          spread(hidden(gradients_at_start(net_of(both[a].norm, "sigmoid", depth), digits, seed).by_output)));
    }
  }
  nn::NormSpec exact = both[1].norm;
  exact.epsilon = 1e-30;
  const Gradients before = gradients_at_start(net_of(exact, "relu", 3), digits, seed);
  for (const int power : kPowers) {
    const double factor = std::ldexp(1.0, power);
    trial.invariance.push_back(invariance_error(
        before, gradients_at_start(net_of(exact, "relu", 3), digits, seed, static_cast<float>(factor)), factor));
  }
  return trial;
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress,
                                 [&](std::uint64_t seed) { return measure_seed(context, seed); });
  const std::vector<Arm> both = arms();
  Outcome outcome;
  Samples by_depth, by_layer, by_factor;
  std::vector<double> invariance, scales[2], relu[2][std::size(kDepths)], sigmoid[2][std::size(kDepths)];
  for (const Trial& trial : trials) {
    invariance.insert(invariance.end(), trial.invariance.begin(), trial.invariance.end());
    for (std::size_t a = 0; a < both.size(); ++a) {
      scales[a].push_back(trial.over_scales[a]);
      for (std::size_t d = 0; d < std::size(kDepths); ++d) {
        relu[a][d].push_back(trial.relu_by_depth[a][d]);
        sigmoid[a][d].push_back(trial.sigmoid_by_depth[a][d]);
        by_depth.add(both[a].name + ", ReLU", static_cast<double>(kDepths[d]), trial.relu_by_depth[a][d]);
        by_depth.add(both[a].name + ", sigmoid", static_cast<double>(kDepths[d]), trial.sigmoid_by_depth[a][d]);
      }
      for (std::size_t layer = 0; layer < trial.by_layer[a].size(); ++layer) {
        by_layer.add(both[a].name, static_cast<double>(layer + 1), trial.by_layer[a][layer] / trial.by_layer[a].back());
      }
      for (const auto& [factor, norm] : trial.first_by_factor[a]) by_factor.add(both[a].name, factor, norm);
    }
  }
  const auto less = [&](Role role, std::string text, std::span<const double> batch, std::span<const double> none) {
    return Finding{std::move(text), role, Direction::below, false, paired_difference(batch, none), 0, "decades"};
  };
  outcome.findings = {
      less(Role::core, "Gradient by the first layer over initial scales 0.1 … 10, its spread with norm minus without",
           scales[1], scales[0]),
      less(Role::core, "Sigmoid net 10 deep: spread over the layers with norm minus without", sigmoid[1][1],
           sigmoid[0][1])};
  for (std::size_t d = 0; d < std::size(kDepths); ++d) {
    outcome.findings.push_back(trend(kDepths[d] == kShallow ? Role::core : Role::stated,
                                     "Gradients over the layers of a ReLU net " + std::to_string(kDepths[d]) +
                                         " deep, with norm: largest over smallest",
                                     relu[1][d], Direction::below, kSpreadBound, "decades"));
  }
  outcome.findings.push_back(
      at_most(Role::core, "Weights times a, gradient by them times 1/a: relative error, a = 2⁻¹⁰ … 2¹⁰, ε = 1e-30",
              invariance, kInvarianceBound, ""));
  outcome.findings.push_back(aside("ReLU net 50 deep without norm, He's weights: largest gradient over smallest",
                                   relu[0][std::size(kDepths) - 1], "decades"));
  outcome.charts = {{"Gradient over the layers of a ReLU net 50 deep",
                     "layer, from the input",
                     "norm, relative to the last",
                     false,
                     true,
                     {},
                     by_layer.geometric_means()},
                    {"How far gradients differ over the layers",
                     "hidden layers",
                     "largest over smallest, decades",
                     true,
                     false,
                     {},
                     by_depth.means(),
                     kSpreadBound},
                    {"Weights times a: gradient by the first layer's",
                     "a",
                     "norm of the gradient",
                     true,
                     true,
                     {},
                     by_factor.geometric_means()}};
  outcome.notes = {
      "Without shortcuts, batch norm makes the gradients of a deep ReLU net grow from the output to the input, by "
      "about "
      "√(π/(π−1)) = 1.21 a layer (Yang et al. 2019, A mean field theory of batch normalization): stable in size, but "
      "not over depth."};
  return outcome;
}

}  // namespace

constinit const Claim kGradNorm{
    .id = "gradnorm",
    .title = "Gradients keep their size",
    .section = "4.1",
    .kind = Kind::trained,
    .statement =
        "With batch norm the norm of the gradients is stable: it goes as γ/√(σ²+ε), and neither explodes nor "
        "vanishes.",
    .quote = "‖∂ℓ/∂xᵢ‖ ∝ γ/√(σ²_B+ε)，这个比例因子相对稳定，避免了梯度爆炸或消失",
    .method =
        "Fully connected nets on 128 real digits at their initial weights (nothing is trained, so that there is no "
        "rate to tune), with and without norm: the gradient of the loss by the output of every linear layer, over "
        "initial scales and over 5 … 50 layers without shortcuts; the gradient by the weights when the weights are "
        "multiplied.",
    .rule =
        "Supported if with norm the gradient spreads less over initial scales and, in a sigmoid net 10 deep, over "
        "the layers; if over the layers of ReLU nets 5, 10, 20 and 50 deep it stays within a factor of ten; and if "
        "it goes exactly as 1/a when weights are multiplied by a. Conditional if that is shown but for the deeper "
        "ReLU nets: at 5 layers only. Otherwise refuted if one fails, and not shown if one is open.",
    .measure = &measure};

}  // namespace equinorm::audit
