// Group norm, and instance norm, which has a group for every channel: arguments checked, then planned and run.
#include "equinorm/group_norm.hpp"

#include <algorithm>
#include <new>
#include <string>
#include <type_traits>

#include "core/check.hpp"
#include "core/padding.hpp"
#include "core/workspace.hpp"
#include "equinorm/instance_norm.hpp"
#include "ops/group_norm/columns.hpp"
#include "ops/group_norm/plan.hpp"
#include "ops/group_norm/planes.hpp"
#include "ops/jvp/jvp.hpp"

namespace equinorm {
namespace group_norm {
namespace {

/// An entry point's name, and what its statistics are, as messages say it.
struct Entry {
  const char *op, *statistics;
};

std::size_t channels_of(const Shape& shape, Layout layout) {
  return shape[layout == Layout::channels_last ? shape.rank() - 1 : 1];
}

GroupNormOptions as_groups(const InstanceNormOptions& options, const Shape& shape, Layout layout) {
  const bool has_channels = shape.rank() >= 2 && shape.rank() <= kMaxRank;
  return {has_channels ? channels_of(shape, layout) : 0, options.epsilon, options.activation, options.lengths};
}

/// Whether the shape can be planned at all; what else is wrong is said by check().
bool plannable(const GroupNormOptions& options, const Shape& shape, Layout layout) {
  if (shape.rank() < 2 || shape.rank() > kMaxRank || shape.elements() == 0 || options.groups == 0) return false;
  return channels_of(shape, layout) % options.groups == 0;
}

template <class T>
Checks& check(Checks& checks, const GroupNormOptions& options, const TensorView<const T>& x) {
  using Text = Checks::Text;
  checks.epsilon(options.epsilon).tensor("x", x).lengths(options.lengths, x);
  if (!checks.ok()) return checks;
  const std::size_t channels = channels_of(x.shape, x.layout);
  return checks.require(options.groups > 0 && channels % options.groups == 0, [&] {
    return Text("groups is " + std::to_string(options.groups),
                "a divisor of the " + std::to_string(channels) + " channels");
  });
}

/// Forward's, as backward and JVP need them.
Checks& check_statistics(Checks& checks, const Entry& entry, const Statistics& statistics, bool empty) {
  checks.require(statistics.mean != nullptr || empty, "statistics.mean is null", entry.statistics);
  return checks.require(statistics.variance != nullptr || empty, "statistics.variance is null", entry.statistics);
}

/// Calls body(plan, norm) with the class for such a tensor, to be named by std::type_identity.
template <class T, class Body>
auto with_plan(const GroupNormOptions& options, const Shape& shape, Layout layout, const Body& body) {
  const Geometry g(options, shape, layout);
  const Plan plan(g, kernels::ColumnPlan::of<T>(g.longest(), g.channels));
  return g.columns ? body(plan, std::type_identity<Columns<T>>()) : body(plan, std::type_identity<Planes<T>>());
}

template <class T>
std::size_t workspace_bytes(const GroupNormOptions& options, const Shape& shape, Layout layout) {
  if (!plannable(options, shape, layout)) return 0;
  return with_plan<T>(options, shape, layout, []<class Norm>(const Plan& plan, std::type_identity<Norm>) {
    using Scratch = typename Norm::Scratch;
    Workspace count;
    count.take<Scratch>(plan.tasks);
    for (std::size_t task = 0; task < plan.tasks; ++task) Scratch(plan, count);
    return count.used();
  });
}

/// Plans x, lays out the workspace, beside what is written to `out`, and calls body(groups).
template <class T, class Body>
void with_groups(const GroupNormOptions& options, const TensorView<const T>& x, const Affine<T>& affine, const T* out,
                 const Execution& execution, const Body& body) {
  const Memory memory(execution, workspace_bytes<T>(options, x.shape, x.layout));
  with_plan<T>(options, x.shape, x.layout, [&]<class Norm>(const Plan& plan, std::type_identity<Norm>) {
    using Scratch = typename Norm::Scratch;
    Workspace workspace(memory.base());
    auto* const scratch = workspace.take<Scratch>(plan.tasks);
    for (std::size_t task = 0; task < plan.tasks; ++task) new (scratch + task) Scratch(plan, workspace, out);
    body(Norm(plan, scratch, options.epsilon, affine, workers_for(x.shape.elements(), execution)));
  });
}

template <class T>
Status forward(const Entry& entry, const GroupNormOptions& options, const TensorView<const T>& x,
               const Affine<T>& affine, const TensorView<const T>& residual, const TensorView<T>& y,
               const Statistics& statistics, const Execution& execution) {
  Checks checks(entry.op);
  check(checks, options, x).like("residual", residual, x, true).like("y", y, x);
  checks.require((statistics.mean == nullptr) == (statistics.variance == nullptr),
                 "one of statistics.mean and variance is null", "both or neither");
  checks.workspace(execution, workspace_bytes<T>(options, x.shape, x.layout));
  if (!checks.ok() || x.shape.elements() == 0) return checks.status();

  with_groups<T>(options, x, affine, y.data, execution, [&](const auto& groups) {
    groups.forward({x.data, residual.data, y.data, options.activation, false}, statistics);
  });
  return {};
}

template <class T>
Status backward(const Entry& entry, const GroupNormOptions& options, const TensorView<const T>& x,
                const TensorView<const T>& y, const TensorView<const T>& residual, const TensorView<const T>& dy,
                const Affine<T>& affine, const Statistics& statistics, const TensorView<T>& dx,
                const TensorView<T>& dresidual, const AffineGradients<T>& gradients, const Execution& execution) {
  const Activation activation = options.activation;
  const bool empty = x.shape.elements() == 0;
  Checks checks(entry.op);
  check(checks, options, x)
      .behind(activation, y, residual, x, dresidual.data != nullptr)
      .like("dy", dy, x)
      .like("dx", dx, x)
      .like("dresidual", dresidual, x, true);
  check_statistics(checks, entry, statistics, empty);
  checks.workspace(execution, workspace_bytes<T>(options, x.shape, x.layout));
  if (!checks.ok()) return checks.status();
  if (empty) {  // sums over nothing
    const std::size_t channels = channels_of(x.shape, x.layout);
    if (gradients.gamma != nullptr) std::fill_n(gradients.gamma, channels, Parameter<T>{0});
    if (gradients.beta != nullptr) std::fill_n(gradients.beta, channels, Parameter<T>{0});
    return {};
  }

  with_groups<T>(options, x, affine, dx.data, execution, [&](const auto& groups) {
    groups.backward(
        kernels::Backward<T>::of(activation, x.data, y.data, residual.data, dy.data, dx.data, dresidual.data),
        statistics, gradients);
  });
  return {};
}

template <class T>
Status jvp(const Entry& entry, const GroupNormOptions& options, const TensorView<const T>& x,
           const TensorView<const T>& residual, const Tangents<T>& tangents, const Affine<T>& affine,
           const Statistics& statistics, const TensorView<T>& y_tangent, const Execution& execution) {
  const bool empty = x.shape.elements() == 0;
  Checks checks(entry.op);
  check(checks, options, x);
  check_statistics(equinorm::jvp::check_dense(checks, x, residual, tangents, y_tangent, options.activation), entry,
                   statistics, empty);
  if (!checks.ok() || empty) return checks.status();

  const Geometry g(options, x.shape, x.layout);
  const bool last = x.layout == Layout::channels_last;
  equinorm::jvp::differentiate(
      equinorm::jvp::dense_norm(options.epsilon, options.activation, x, residual, tangents, affine, statistics,
                                y_tangent),
      g.samples * g.groups,
      [&](std::size_t set, const auto& body) {
        const std::size_t sample = set / g.groups, first = set % g.groups * g.group_channels;
        const std::size_t valid = g.lengths == nullptr ? g.positions : g.lengths[sample];
        for (std::size_t c = first; c < first + g.group_channels; ++c) {
          const std::size_t begin = sample * g.sample_elements() + (last ? c : c * g.positions);
          body(equinorm::jvp::Run{0, begin, last ? g.channels : 1, valid, c, 0});
        }
      },
      workers_for(x.shape.elements(), execution));
  for (std::size_t n = 0; g.lengths != nullptr && n < g.samples; ++n) {
    clear_padding(y_tangent.data, g.layout, g.channels, g.positions, n, g.lengths[n]);
  }
  return {};
}

}  // namespace
}  // namespace group_norm

template <class T>
std::size_t group_norm_workspace_bytes(const GroupNormOptions& options, const Shape& shape, Layout layout) {
  return group_norm::workspace_bytes<T>(options, shape, layout);
}

template <class T>
Status group_norm_forward(const GroupNormOptions& options, TensorView<const T> x,
                          const std::type_identity_t<Affine<T>>& affine,
                          std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<T>> y,
                          const Statistics& statistics, const Execution& execution) {
  return group_norm::forward<T>({"group_norm_forward", "[N, groups] doubles"}, options, x, affine, residual, y,
                                statistics, execution);
}

template <class T>
Status group_norm_backward(const GroupNormOptions& options, TensorView<const T> x,
                           std::type_identity_t<TensorView<const T>> y,
                           std::type_identity_t<TensorView<const T>> residual,
                           std::type_identity_t<TensorView<const T>> dy, const std::type_identity_t<Affine<T>>& affine,
                           const Statistics& statistics, std::type_identity_t<TensorView<T>> dx,
                           std::type_identity_t<TensorView<T>> dresidual,
                           const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution) {
  return group_norm::backward<T>({"group_norm_backward", "[N, groups] doubles"}, options, x, y, residual, dy, affine,
                                 statistics, dx, dresidual, gradients, execution);
}

template <class T>
Status group_norm_jvp(const GroupNormOptions& options, TensorView<const T> x,
                      std::type_identity_t<TensorView<const T>> residual,
                      const std::type_identity_t<Tangents<T>>& tangents, const std::type_identity_t<Affine<T>>& affine,
                      const Statistics& statistics, std::type_identity_t<TensorView<T>> y_tangent,
                      const Execution& execution) {
  return group_norm::jvp<T>({"group_norm_jvp", "[N, groups] doubles"}, options, x, residual, tangents, affine,
                            statistics, y_tangent, execution);
}

template <class T>
std::size_t instance_norm_workspace_bytes(const InstanceNormOptions& options, const Shape& shape, Layout layout) {
  return group_norm::workspace_bytes<T>(group_norm::as_groups(options, shape, layout), shape, layout);
}

template <class T>
Status instance_norm_forward(const InstanceNormOptions& options, TensorView<const T> x,
                             const std::type_identity_t<Affine<T>>& affine,
                             std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<T>> y,
                             const Statistics& statistics, const Execution& execution) {
  return group_norm::forward<T>({"instance_norm_forward", "[N, channels] doubles"},
                                group_norm::as_groups(options, x.shape, x.layout), x, affine, residual, y, statistics,
                                execution);
}

template <class T>
Status instance_norm_backward(const InstanceNormOptions& options, TensorView<const T> x,
                              std::type_identity_t<TensorView<const T>> y,
                              std::type_identity_t<TensorView<const T>> residual,
                              std::type_identity_t<TensorView<const T>> dy,
                              const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                              std::type_identity_t<TensorView<T>> dx, std::type_identity_t<TensorView<T>> dresidual,
                              const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution) {
  return group_norm::backward<T>({"instance_norm_backward", "[N, channels] doubles"},
                                 group_norm::as_groups(options, x.shape, x.layout), x, y, residual, dy, affine,
                                 statistics, dx, dresidual, gradients, execution);
}

template <class T>
Status instance_norm_jvp(const InstanceNormOptions& options, TensorView<const T> x,
                         std::type_identity_t<TensorView<const T>> residual,
                         const std::type_identity_t<Tangents<T>>& tangents,
                         const std::type_identity_t<Affine<T>>& affine, const Statistics& statistics,
                         std::type_identity_t<TensorView<T>> y_tangent, const Execution& execution) {
  return group_norm::jvp<T>({"instance_norm_jvp", "[N, channels] doubles"},
                            group_norm::as_groups(options, x.shape, x.layout), x, residual, tangents, affine,
                            statistics, y_tangent, execution);
}

// Both norms, of the four element types.
#define EQUINORM_INSTANTIATE_NORM(kind, Options, T)                                                                    \
  template std::size_t kind##_norm_workspace_bytes<T>(const Options&, const Shape&, Layout);                           \
  template Status kind##_norm_forward<T>(const Options&, TensorView<const T>, const Affine<T>&, TensorView<const T>,   \
                                         TensorView<T>, const Statistics&, const Execution&);                          \
  template Status kind##_norm_backward<T>(                                                                             \
      const Options&, TensorView<const T>, TensorView<const T>, TensorView<const T>, TensorView<const T>,              \
      const Affine<T>&, const Statistics&, TensorView<T>, TensorView<T>, const AffineGradients<T>&, const Execution&); \
  template Status kind##_norm_jvp<T>(const Options&, TensorView<const T>, TensorView<const T>, const Tangents<T>&,     \
                                     const Affine<T>&, const Statistics&, TensorView<T>, const Execution&);
#define EQUINORM_INSTANTIATE(T)                         \
  EQUINORM_INSTANTIATE_NORM(group, GroupNormOptions, T) \
  EQUINORM_INSTANTIATE_NORM(instance, InstanceNormOptions, T)
EQUINORM_INSTANTIATE(float)
EQUINORM_INSTANTIATE(double)
EQUINORM_INSTANTIATE(bfloat16)
EQUINORM_INSTANTIATE(float16)
#undef EQUINORM_INSTANTIATE
#undef EQUINORM_INSTANTIATE_NORM

}  // namespace equinorm
