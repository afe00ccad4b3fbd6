// The derivative of every norm in a given direction (Jacobian-vector product), element by element in double. It is for
// those who study norms, not for training: simple before fast.
//
//   ẏ = act'(z)·ż,  ż = γ·x̂̇ + γ̇·x̂ + β̇ + ṙ,  x̂̇ = (ẋ − mean(ẋ) − x̂·mean((ẋ − mean(ẋ))·x̂))/√(σ² + ε)
//
// with means over the elements that x̂ is taken over, a set. RMS norm takes no mean of ẋ away.
#pragma once

#include <cmath>
#include <cstddef>

#include "core/activation.hpp"
#include "core/check.hpp"
#include "core/elements.hpp"
#include "equinorm/norm.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::jvp {

/// Some elements of a set: number i lies in its tensor's row `row` at begin + i·step, and has the parameters at
/// parameter + i·parameter_step.
struct Run {
  std::size_t row, begin, step, count, parameter, parameter_step;

  std::size_t parameter_of(std::size_t i) const { return parameter + i * parameter_step; }
};

/// What stands where Run says; an absent tensor is 0. Dense tensors are one row.
template <class T>
struct Tensor {
  T* data = nullptr;
  std::size_t row_stride = 0;

  T& element(const Run& run, std::size_t i) const { return data[run.row * row_stride + run.begin + i * run.step]; }
  double at(const Run& run, std::size_t i) const { return data == nullptr ? 0 : to_double(element(run, i)); }
};

/// A norm at a point, and the direction. The residual is the one behind the norm.
template <class T>
struct Norm {
  double epsilon;
  Activation activation;
  const double *mean, *variance;  ///< of each set; without a mean (RMS norm) variance is the mean square
  Affine<T> affine, affine_tangent;
  Tensor<const T> x, residual, x_tangent, residual_tangent;
  Tensor<T> y_tangent;
};

/// Calls of visit(set, body) go to body(run) for the runs of a set, always in the same order: so do the sums, whoever
/// takes a set. An element is written when everything has been read of it, and no other set reads it: in place is fine.
template <class T, class Visit>
void differentiate(const Norm<T>& n, std::size_t sets, const Visit& visit, const Workers& workers) {
  const auto parameter = [](const Parameter<T>* values, std::size_t at, double absent) {
    return values == nullptr ? absent : static_cast<double>(values[at]);
  };
  parallel_for(sets, workers, [&](std::size_t set) {
    const auto mean_of = [&](const auto& term) {
      double sum = 0;
      std::size_t count = 0;
      visit(set, [&](const Run& run) {
        for (std::size_t i = 0; i < run.count; ++i) sum += term(run, i);
        count += run.count;
      });
      return count == 0 ? 0 : sum / static_cast<double>(count);
    };
    const double mean = n.mean == nullptr ? 0 : n.mean[set];
    const double inverse = 1 / std::sqrt(n.variance[set] + n.epsilon);
    const auto normalized = [&](const Run& run, std::size_t i) { return (n.x.at(run, i) - mean) * inverse; };
    const double mean_tangent =
        n.mean == nullptr ? 0 : mean_of([&](const Run& run, std::size_t i) { return n.x_tangent.at(run, i); });
    // Without its mean: rounding has left x̂ one too, by which a large ẋ would be seen.
    const auto moved = [&](const Run& run, std::size_t i) { return n.x_tangent.at(run, i) - mean_tangent; };
    const double dot = mean_of([&](const Run& run, std::size_t i) { return moved(run, i) * normalized(run, i); });
    visit(set, [&](const Run& run) {
      for (std::size_t i = 0; i < run.count; ++i) {
        const std::size_t p = run.parameter_of(i);
        const double gamma = parameter(n.affine.gamma, p, 1), x_hat = normalized(run, i);
        const double z = gamma * x_hat + parameter(n.affine.beta, p, 0) + n.residual.at(run, i);
        const double z_tangent = gamma * ((moved(run, i) - x_hat * dot) * inverse) +
                                 parameter(n.affine_tangent.gamma, p, 0) * x_hat +
                                 parameter(n.affine_tangent.beta, p, 0) + n.residual_tangent.at(run, i);
        n.y_tangent.element(run, i) = to_element<T>(activation_slope(n.activation, z) * z_tangent);
      }
    });
  });
}

/// The tensors of a norm with its residual behind it, all dense and like x.
template <class T>
Checks& check_dense(Checks& checks, const TensorView<const T>& x, const TensorView<const T>& residual,
                    const Tangents<T>& tangents, const TensorView<T>& y_tangent, Activation activation) {
  checks.like("residual", residual, x, true).like("tangents.x", tangents.x, x, true);
  checks.like("tangents.residual", tangents.residual, x, true).like("y_tangent", y_tangent, x);
  return checks.require(activation == Activation::none || tangents.residual.data == nullptr || residual.data != nullptr,
                        "tangents.residual is given without a residual",
                        "forward's residual, on which the activation's slope depends");
}

template <class T>
Norm<T> dense_norm(double epsilon, Activation activation, const TensorView<const T>& x,
                   const TensorView<const T>& residual, const Tangents<T>& tangents, const Affine<T>& affine,
                   const Statistics& statistics, const TensorView<T>& y_tangent) {
  return {epsilon,  activation,      statistics.mean,   statistics.variance,      affine,          tangents.affine,
          {x.data}, {residual.data}, {tangents.x.data}, {tangents.residual.data}, {y_tangent.data}};
}

}  // namespace equinorm::jvp
