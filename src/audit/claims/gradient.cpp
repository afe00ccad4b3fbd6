// § 2.3: the closed forms of the three gradients.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/claims/inputs.hpp"
#include "core/philox.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm::audit {
namespace {

constexpr std::uint64_t kGradientStream = 11, kDirectionStream = 12, kScaleDirectionStream = 13,
                        kShiftDirectionStream = 14;

// Central differences of fourth order with step h on a function of scale 1: h⁴ ≈ 1e-12 of truncation and 1e-16/h =
// 1e-13 of rounding, both times a constant that grows with the derivatives. 1e-8 is far above that and far below any
// wrong term.
constexpr double kDifferenceBound = 1e-8, kStep = 1e-3;
// dx has five roundings to float (x − μ, x̂, its product with dγ/m, two subtractions, the factor), of half an ulp each
// on terms up to twice the channel's largest: 6 ulp.
constexpr double kKernelBound = 6;
// Sums over m values of dx, each off by kKernelBound ulp at most: the mean error is below the same bound.
constexpr double kSumBound = kKernelBound;
// Backward may be off by kKernelBound ulp of its terms. Those of the derivative in a direction, which is computed in
// double and rounded once, to half an ulp, are no more: Σ|u|·mean|v| = mean|u|·Σ|v|, and so for the products with x̂.
constexpr double kTransposeBound = kKernelBound + 0.5;

struct Gradients {
  std::vector<float> dx, dgamma, dbeta;
};

Gradients run_backward(const BatchNormOps& ops, const Input& input, const std::vector<float>& dy) {
  const Forward forward = run_forward(ops, input);
  std::vector<double> mean = forward.mean, variance = forward.variance;
  Gradients g{std::vector<float>(input.x.size()), std::vector<float>(input.channels()),
              std::vector<float>(input.channels())};
  throw_if_error(ops.backward(audit_options(), input.view(), {}, {}, {dy.data(), input.shape, input.layout},
                              input.affine(), {mean.data(), variance.data()}, {g.dx.data(), input.shape, input.layout},
                              {}, {g.dgamma.data(), g.dbeta.data()}, {}));
  return g;
}

/// Σ dy·y of the forward formula, in double.
double loss(const std::vector<double>& x, const Input& like, const std::vector<double>& gamma,
            const std::vector<double>& beta, const std::vector<float>& dy) {
  const auto forward =
      reference::batch_norm_forward(x, like.shape, like.layout, gamma, beta, {}, false, audit_options().epsilon);
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(dy[i]) * forward.y[i];
  return sum;
}

/// df/dp of a function of one number, by central differences of fourth order.
template <class Function>
double derivative(const Function& f, double p, double h) {
  return (8 * (f(p + h) - f(p - h)) - (f(p + 2 * h) - f(p - 2 * h))) / (12 * h);
}

double norm(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

/// Relative distance between the closed forms and finite differences of the forward formula, all in double.
double difference_error(const Input& input, const std::vector<float>& dy) {
  auto x = widen(input.x), gamma = widen(input.gamma), beta = widen(input.beta);
  const auto closed =
      reference::batch_norm_backward(x, widen(dy), input.shape, input.layout, gamma, {}, audit_options().epsilon);
  double worst = 0;
  const auto compare = [&](std::vector<double>& parameter, const std::vector<double>& gradient) {
    std::vector<double> error(parameter.size());
    for (std::size_t i = 0; i < parameter.size(); ++i) {
      const double kept = parameter[i];
      const double slope = derivative(
          [&](double p) {
            parameter[i] = p;
            return loss(x, input, gamma, beta, dy);
          },
          kept, kStep);
      parameter[i] = kept;
      error[i] = slope - gradient[i];
    }
    worst = worse(worst, norm(error) / norm(gradient));
  };
  compare(x, closed.dx);
  compare(gamma, closed.dgamma);
  compare(beta, closed.dbeta);
  return worst;
}

struct Errors {
  double kernel = 0;   // of dx, dγ, dβ against the closed forms, ulp of their scale
  double sum = 0;      // mean of dx, ulp
  double product = 0;  // mean of dx·x̂ minus what ε leaves of it, ulp
};

/// The kernel against the closed forms, and the two sums that the closed form of dx forces.
Errors kernel_errors(const BatchNormOps& ops, const Input& input, const std::vector<float>& dy) {
  const double epsilon = audit_options().epsilon;
  const Gradients ours = run_backward(ops, input, dy);
  const auto x = widen(input.x);
  const auto exact =
      reference::batch_norm_backward(x, widen(dy), input.shape, input.layout, widen(input.gamma), {}, epsilon);
  const auto forward = reference::batch_norm_forward(x, input.shape, input.layout, {}, {}, {}, false, epsilon);
  const auto m = static_cast<double>(input.values());
  Errors errors;
  for (std::size_t c = 0; c < input.channels(); ++c) {
    const double variance = forward.variance[c], root = std::sqrt(variance + epsilon);
    const double factor = std::abs(static_cast<double>(input.gamma[c])) / root;
    double largest_dy = 0, largest_normalized = 0, sum = 0, product = 0, absolute_dy = 0, absolute_product = 0;
    for (std::size_t i = 0; i < input.values(); ++i) {
      const std::size_t at = input.at(c, i);
      const double g = std::abs(static_cast<double>(dy[at])), normalized = (x[at] - forward.mean[c]) / root;
      largest_dy = std::max(largest_dy, g);
      largest_normalized = std::max(largest_normalized, std::abs(normalized));
      absolute_dy += g;
      absolute_product += g * std::abs(normalized);
      sum += static_cast<double>(ours.dx[at]);
      product += static_cast<double>(ours.dx[at]) * normalized;
    }
    // The scale of dx is that of the terms in its bracket, not of what is left when they cancel.
    const double terms = largest_dy + absolute_dy / m + largest_normalized * absolute_product / m;
    const double ulp = ulp_at(factor * terms);
    for (std::size_t i = 0; i < input.values(); ++i) {
      const std::size_t at = input.at(c, i);
      errors.kernel = worse(errors.kernel, std::abs(static_cast<double>(ours.dx[at]) - exact.dx[at]) / ulp);
    }
    // No float x − μ is finer than the smallest denormal, whatever is done with it afterwards.
    const double quantum = 0x1p-149 / root * absolute_dy;
    errors.kernel = worse(errors.kernel, std::abs(static_cast<double>(ours.dgamma[c]) - exact.dgamma[c]) /
                                             std::max(ulp_at(absolute_product), quantum));
    errors.kernel =
        worse(errors.kernel, std::abs(static_cast<double>(ours.dbeta[c]) - exact.dbeta[c]) / ulp_at(absolute_dy));
    // Σ dx·x̂ = γ/√(σ²+ε) · dγ · (1 − Σx̂²/m), and Σx̂²/m = σ²/(σ²+ε).
    const double left = static_cast<double>(input.gamma[c]) / root * exact.dgamma[c] * epsilon / (variance + epsilon);
    errors.sum = worse(errors.sum, std::abs(sum) / m / ulp);
    errors.product = worse(errors.product, std::abs(product - left) / m / (ulp * std::max(1.0, largest_normalized)));
  }
  return errors;
}

/// ⟨dx(u), v⟩ − ⟨u, J·v⟩ in ulp of Σ|dx·v|: the transposed product of the kernel against a forward difference
/// quotient.
double adjoint_error(const BatchNormOps& ops, const Input& input, const std::vector<float>& u, std::uint64_t seed) {
  const auto v = random_normal(input.x.size(), seed, kDirectionStream);
  const Gradients ours = run_backward(ops, input, u);
  const auto x = widen(input.x), gamma = widen(input.gamma), beta = widen(input.beta);
  double transposed = 0;
  for (std::size_t i = 0; i < v.size(); ++i) transposed += static_cast<double>(ours.dx[i]) * static_cast<double>(v[i]);
  std::vector<double> moved(x.size());
  const double direct = derivative(
      [&](double t) {
        for (std::size_t i = 0; i < x.size(); ++i) moved[i] = x[i] + t * static_cast<double>(v[i]);
        return loss(moved, input, gamma, beta, u);
      },
      0, kStep);
  double scale = 0;
  for (std::size_t i = 0; i < v.size(); ++i)
    scale += std::abs(static_cast<double>(ours.dx[i]) * static_cast<double>(v[i]));
  return std::abs(transposed - direct) / ulp_at(scale);
}

/// ⟨Jᵀu, (v, v_γ, v_β)⟩ − ⟨u, J·(v, v_γ, v_β)⟩, the program's backward against its own derivative in a direction: in
/// ulp of the terms that backward's errors are measured by, of the channel that is worst.
double transpose_error(const BatchNormOps& ops, const Input& input, const std::vector<float>& u, std::uint64_t seed) {
  const std::size_t channels = input.channels();
  const auto v = random_normal(input.x.size(), seed, kDirectionStream);
  const auto v_gamma = random_normal(channels, seed, kScaleDirectionStream),
             v_beta = random_normal(channels, seed, kShiftDirectionStream);
  const Gradients ours = run_backward(ops, input, u);
  Forward forward = run_forward(ops, input);
  std::vector<float> tangent(input.x.size());
  throw_if_error(ops.jvp(
      audit_options(), input.view(), {}, {{v.data(), input.shape, input.layout}, {}, {v_gamma.data(), v_beta.data()}},
      input.affine(), {forward.mean.data(), forward.variance.data()}, {tangent.data(), input.shape, input.layout}, {}));

  const double epsilon = audit_options().epsilon;
  const auto exact =
      reference::batch_norm_forward(widen(input.x), input.shape, input.layout, {}, {}, {}, false, epsilon);
  const auto m = static_cast<double>(input.values());
  double worst = 0;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto scale = static_cast<double>(v_gamma[c]), shift = static_cast<double>(v_beta[c]);
    double transposed = static_cast<double>(ours.dgamma[c]) * scale + static_cast<double>(ours.dbeta[c]) * shift;
    double direct = 0, largest_u = 0, largest_normalized = 0, absolute_u = 0, absolute_v = 0, absolute_product = 0;
    for (std::size_t i = 0; i < input.values(); ++i) {
      const std::size_t at = input.at(c, i);
      const auto g = static_cast<double>(u[at]), direction = static_cast<double>(v[at]);
      transposed += static_cast<double>(ours.dx[at]) * direction;
      direct += g * static_cast<double>(tangent[at]);
      largest_u = std::max(largest_u, std::abs(g));
      largest_normalized = std::max(largest_normalized, std::abs(exact.y[at]));
      absolute_u += std::abs(g);
      absolute_v += std::abs(direction);
      absolute_product += std::abs(g * exact.y[at]);
    }
    const double root = std::sqrt(exact.variance[c] + epsilon);
    const double terms = std::abs(static_cast<double>(input.gamma[c])) / root * absolute_v *
                             (largest_u + absolute_u / m + largest_normalized * absolute_product / m) +
                         std::abs(scale) * absolute_product + std::abs(shift) * absolute_u;
    // Denormal results are exact to the smallest denormal alone, and so is x − μ.
    const double quantum = 0x1p-149 * (absolute_u + absolute_v + std::abs(scale) * absolute_u / root);
    worst = worse(worst, std::abs(transposed - direct) / (0x1p-23 * terms + quantum));
  }
  return worst;
}

struct Trial {
  std::vector<std::string> names;
  std::vector<Errors> errors;
  std::vector<double> transpose;
  double difference = 0, adjoint = 0;
};

Trial measure_seed(const Context& context, std::uint64_t seed) {
  Trial trial;
  for (const Input& input : exact_inputs(context.digits.train, seed)) {
    trial.names.push_back(input.name);
    const auto dy = random_normal(input.x.size(), seed, kGradientStream);
    trial.errors.push_back(kernel_errors(context.ops, input, dy));
    trial.transpose.push_back(transpose_error(context.ops, input, dy, seed));
  }
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const Shape shape = layout == Layout::channels_last ? Shape{24, 3} : Shape{2, 3, 3, 4};
    const Input small = normal_input("", shape, layout, 0.5, 1, seed);
    const auto dy = random_normal(small.x.size(), seed, kGradientStream);
    trial.difference = worse(trial.difference, difference_error(small, dy));
    trial.adjoint = worse(trial.adjoint, adjoint_error(context.ops, small, dy, seed));
  }
  return trial;
}

Outcome measure(const Context& context) {
  context.progress.expect(static_cast<double>(context.seeds.size()));
  const auto trials = map_trials(context.seeds, context.workers, context.progress,
                                 [&](std::uint64_t seed) { return measure_seed(context, seed); });
  std::vector<double> kernel, sum, product, difference, adjoint, transpose;
  Samples by_input, transpose_by_input;
  for (const Trial& trial : trials) {
    for (std::size_t i = 0; i < trial.errors.size(); ++i) {
      const Errors& e = trial.errors[i];
      const auto x = static_cast<double>(i);
      kernel.push_back(e.kernel);
      sum.push_back(e.sum);
      product.push_back(e.product);
      by_input.add("gradients", x, e.kernel);
      by_input.add("mean of dx", x, e.sum);
      by_input.add("mean of dx·x̂", x, e.product);
      transpose.push_back(trial.transpose[i]);
      transpose_by_input.add("difference", x, trial.transpose[i]);
    }
    difference.push_back(trial.difference);
    adjoint.push_back(trial.adjoint);
  }
  Outcome outcome;
  outcome.findings = {
      at_most(Role::stated,
              "Closed forms of dx, dγ, dβ against finite differences of the forward formula in double, relative",
              difference, kDifferenceBound, ""),
      at_most(Role::stated, "Error of the program's dx, dγ, dβ against the closed forms, in ulp of their terms", kernel,
              kKernelBound, "ulp"),
      at_most(Role::stated, "Σdx = 0 in each channel: what is left per element, in ulp", sum, kSumBound, "ulp"),
      at_most(Role::stated, "Σdx·x̂ = γ/√(σ²+ε)·dγ·ε/(σ²+ε), nearly 0: what is left per element, in ulp", product,
              kSumBound, "ulp"),
      at_most(Role::stated, "⟨Jᵀu, v⟩ = ⟨u, Jv⟩: backward against a difference quotient along a direction, in ulp",
              adjoint, kKernelBound, "ulp"),
      at_most(
          Role::stated,
          "The same of the program's own derivative in a direction of x, γ and β, every channel of every input, in ulp",
          transpose, kTransposeBound, "ulp")};
  outcome.charts = {
      {"Errors of the gradients by input", "input", "error, ulp of the terms", false, false, trials[0].names,
       by_input.ranges(), kKernelBound},
      {"Backward against the program's own derivative in a direction", "input", "difference, ulp of the terms", false,
       false, trials[0].names, transpose_by_input.ranges(), kTransposeBound}};
  return outcome;
}

}  // namespace

constinit const Claim kGradient{
    .id = "gradient",
    .title = "The closed-form gradients",
    .section = "2.3",
    .kind = Kind::exact,
    .statement =
        "The gradients by γ, β and x have the closed forms that the note gives; the one by x loses the part that a "
        "shift or a scaling of the whole batch would explain.",
    .quote = "∂ℓ/∂xᵢ = γ/√(σ²_B+ε) · [∂ℓ/∂yᵢ − (1/m)·Σⱼ ∂ℓ/∂yⱼ − (x̂ᵢ/m)·Σⱼ ∂ℓ/∂yⱼ·x̂ⱼ]",
    .method =
        "The closed forms against fourth-order finite differences of the forward formula, both in double; the "
        "program's backward pass against the closed forms on real activations and hostile inputs; the two sums over "
        "a channel that must vanish; the backward pass against a difference quotient along a direction, and against "
        "the program's own derivative in a direction (JVP), of which it must be the transpose.",
    .rule =
        "Holds if the finite differences agree within 1e-8, and every error of the program is at most 6 ulp of the "
        "terms that are summed (6.5 where its derivative in a direction adds its own). One counter-example refutes.",
    .measure = &measure};

}  // namespace equinorm::audit
