// What group norm does alike of planes and of columns.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>

#include "core/padding.hpp"
#include "core/workspace.hpp"
#include "equinorm/tensor.hpp"
#include "kernels/careful.hpp"
#include "kernels/channel.hpp"
#include "kernels/column_plan.hpp"
#include "kernels/kernels.hpp"
#include "ops/group_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::group_norm {

/// What one task keeps in the workspace. The sums are its own; the rest, which Planes and Columns add, serves all tasks
/// of a worker, one after another: it stays in the caches (measured: up to 5 % less).
struct GradientSums {
  GradientSums(const Geometry& g, Workspace& workspace)
      : dgamma(workspace.take<double>(g.channels)), dbeta(workspace.take<double>(g.channels)) {}

  double *dgamma, *dbeta;  ///< [channels], over the units of this task
};

template <class T, class Scratch>
class Groups {
 public:
  /// scratch: one a task.
  Groups(const Plan& plan, const Scratch* scratch, double epsilon, const Affine<T>& affine, Workers workers)
      : p_(plan), g_(plan.g), s_(scratch), epsilon_(epsilon), affine_(affine), workers_(workers) {}

 protected:
  using P = Parameter<T>;

  bool streams(std::size_t stride, std::initializer_list<const T*> outs,
               std::size_t least = kernels::kStreamBytes) const {
    return g_.lengths == nullptr && kernels::streams(g_.samples * g_.sample_elements(), outs, stride, least) &&
           g_.sample_elements() * sizeof(T) % 64 == 0;
  }

  // --- Of channels and groups. ---

  /// Channel c among all.
  double gamma(std::size_t c) const { return affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[c]); }
  double beta(std::size_t c) const { return affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[c]); }

  double inverse_deviation(double variance) const { return 1 / std::sqrt(variance + epsilon_); }

  // --- What is told. ---

  /// Where a sample has no values its statistics are 0.
  void begin_statistics(const Statistics& out) const {
    if (g_.lengths == nullptr) return;
    for (double* array : {out.mean, out.variance}) {
      if (array != nullptr) std::fill_n(array, g_.samples * g_.groups, 0.0);
    }
  }
  static void tell(const Statistics& out, std::size_t group, double mean, double variance) {
    if (out.mean == nullptr) return;
    out.mean[group] = mean;
    out.variance[group] = variance;
  }

  void begin_gradients() const {
    for (std::size_t task = 0; task < p_.tasks; ++task) {
      std::fill_n(s_[task].dgamma, g_.channels, 0.0);
      std::fill_n(s_[task].dbeta, g_.channels, 0.0);
    }
  }
  void end_gradients(const AffineGradients<T>& gradients) const {
    for (std::size_t c = 0; c < g_.channels; ++c) {
      double gamma = 0, beta = 0;
      for (std::size_t task = 0; task < p_.tasks; ++task) {
        gamma += s_[task].dgamma[c];
        beta += s_[task].dbeta[c];
      }
      if (gradients.gamma != nullptr) gradients.gamma[c] = static_cast<P>(gamma);
      if (gradients.beta != nullptr) gradients.beta[c] = static_cast<P>(beta);
    }
  }

  /// Writes 0 to the padding of an output.
  void clear(T* out) const {
    if (g_.lengths == nullptr) return;
    parallel_for(g_.samples, workers_,
                 [&](std::size_t n) { clear_padding(out, g_.layout, g_.channels, g_.positions, n, g_.lengths[n]); });
  }

  const Plan& p_;
  const Geometry& g_;
  const Scratch* s_;
  double epsilon_;
  const Affine<T>& affine_;
  Workers workers_;
  const bool cached_ = kernels::is_cached<T>(g_.samples * g_.sample_elements());
  const kernels::Kernels<T>& kernel_ = kernels::get<T>();
};

}  // namespace equinorm::group_norm
