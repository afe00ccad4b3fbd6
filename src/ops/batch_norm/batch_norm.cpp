// Batch norm: arguments checked, then handed to the family that the layout calls for.
#include "equinorm/batch_norm.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/check.hpp"
#include "core/number.hpp"
#include "core/padding.hpp"
#include "core/workspace.hpp"
#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/columns.hpp"
#include "ops/batch_norm/edge.hpp"
#include "ops/batch_norm/plan.hpp"
#include "ops/batch_norm/ragged.hpp"
#include "ops/batch_norm/segments.hpp"
#include "ops/jvp/jvp.hpp"

namespace equinorm {

template <class T>
std::size_t batch_norm_workspace_bytes(const Shape& shape, Layout layout, const BatchNormOptions& options) {
  if (shape.rank() < 2 || shape.rank() > kMaxRank || shape.elements() == 0) return 0;
  return batch_norm::scratch_bytes<T>(batch_norm::Geometry(shape, layout, options.lengths));
}

template <class T>
Status batch_norm_forward(const BatchNormOptions& options, TensorView<const T> x,
                          const std::type_identity_t<Affine<T>>& affine,
                          std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<T>> y,
                          const Statistics& statistics, std::type_identity_t<RunningStatistics<T>*> running,
                          const Execution& execution) {
  using namespace batch_norm;
  constexpr const char* kOp = "batch_norm_forward";
  Checks checks(kOp);
  checks.epsilon(options.epsilon).tensor("x", x).lengths(options.lengths, x);
  checks.like("residual", residual, x, true).like("y", y, x);
  check_running(check_statistics(checks, statistics), running);
  checks.workspace(execution, batch_norm_workspace_bytes<T>(x.shape, x.layout, options));
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout, options.lengths);
  if (g.values == 0 || (g.values == 1 && options.single_value == SingleValuePolicy::error)) {
    return {StatusCode::too_few_values, std::string("[") + kOp + "] x has shape " + to_string(x.shape) + ", " +
                                            std::to_string(g.values) +
                                            " values per channel in training; expected at least 2"};
  }

  const std::size_t bytes = scratch_bytes<T>(g);
  const Memory memory(execution, bytes);
  Workspace workspace(memory.base());
  const Scratch<T> scratch(g, workspace, y.data);
  const ForwardChannels<T> channels(g, scratch, options.epsilon, affine, statistics.mean, statistics.variance);
  const kernels::Forward<T> tensors{x.data, residual.data, y.data, options.activation, false};
  const Workers workers = workers_for(g.elements, execution);
  if (g.lengths != nullptr) {
    const Ragged<T> ragged(g, scratch, workers);
    ragged.statistics(x.data, statistics);
    ragged.normalize(tensors, channels);
  } else if (g.columns()) {
    const Columns<T> columns(g, scratch, workers);
    columns.statistics(x.data, statistics);
    columns.normalize(tensors, channels);
  } else {
    Segments<T>(g, scratch, workers).forward(tensors, statistics, channels);
  }

  if (options.non_finite != NonFinitePolicy::propagate &&
      !all_finite<Parameter<T>>(statistics, g.channels, running != nullptr)) {
    if (options.non_finite == NonFinitePolicy::error) {
      return {StatusCode::non_finite,
              std::string("[") + kOp + "] x, of shape " + to_string(x.shape) +
                  ", has a channel whose mean or variance is not finite; expected finite values"};
    }
    if (running != nullptr) ++running->skipped;
    return {};
  }
  if (running != nullptr) update_running(*running, statistics, g.channels, static_cast<double>(g.values));
  return {};
}

template <class T>
Status batch_norm_inference(const BatchNormOptions& options, TensorView<const T> x,
                            const std::type_identity_t<Affine<T>>& affine,
                            std::type_identity_t<const Parameter<T>*> mean,
                            std::type_identity_t<const Parameter<T>*> variance,
                            std::type_identity_t<TensorView<const T>> residual, std::type_identity_t<TensorView<T>> y,
                            const Execution& execution) {
  using namespace batch_norm;
  Checks checks("batch_norm_inference");
  checks.epsilon(options.epsilon).tensor("x", x).lengths(options.lengths, x);
  checks.like("residual", residual, x, true).like("y", y, x);
  checks.require(mean != nullptr, "mean is null", "[channels] values");
  checks.require(variance != nullptr, "variance is null", "[channels] values");
  checks.workspace(execution, batch_norm_workspace_bytes<T>(x.shape, x.layout, options));
  if (!checks.ok()) return checks.status();
  const Geometry g(x.shape, x.layout, options.lengths);
  const Parameter<T>* const end = variance + g.channels;
  const auto is_negative = [](Parameter<T> v) { return v < 0; };
  if (std::count_if(variance, end, is_negative) > 0) {  // unlike a search, by vectors
    const auto* const at = std::find_if(variance, end, is_negative);
    return checks.require(false, "variance[" + std::to_string(at - variance) + "] is " + text_of(*at), "a number >= 0")
        .status();
  }
  if (g.elements == 0) return {};

  const Memory memory(execution, scratch_bytes<T>(g));
  Workspace workspace(memory.base());
  const Scratch<T> scratch(g, workspace, y.data);
  std::copy_n(mean, g.channels, scratch.first);
  std::copy_n(variance, g.channels, scratch.second);
  const ForwardChannels<T> channels(g, scratch, options.epsilon, affine, scratch.first, scratch.second);
  const kernels::Forward<T> tensors{x.data, residual.data, y.data, options.activation, false};
  const Workers workers = workers_for(g.elements, execution);
  if (g.lengths != nullptr) {
    Ragged<T>(g, scratch, workers).normalize(tensors, channels);
  } else if (g.columns()) {
    Columns<T>(g, scratch, workers).normalize(tensors, channels);
  } else {
    Segments<T>(g, scratch, workers).normalize(tensors, channels);
  }
  return {};
}

template <class T>
Status batch_norm_backward(const BatchNormOptions& options, TensorView<const T> x,
                           std::type_identity_t<TensorView<const T>> y,
                           std::type_identity_t<TensorView<const T>> residual,
                           std::type_identity_t<TensorView<const T>> dy, const std::type_identity_t<Affine<T>>& affine,
                           const Statistics& statistics, std::type_identity_t<TensorView<T>> dx,
                           std::type_identity_t<TensorView<T>> dresidual,
                           const std::type_identity_t<AffineGradients<T>>& gradients, const Execution& execution) {
  using namespace batch_norm;
  Checks checks("batch_norm_backward");
  checks.epsilon(options.epsilon).tensor("x", x).lengths(options.lengths, x);
  checks.behind(options.activation, y, residual, x, dresidual.data != nullptr);
  checks.like("dy", dy, x).like("dx", dx, x).like("dresidual", dresidual, x, true);
  check_statistics(checks, statistics).workspace(execution, batch_norm_workspace_bytes<T>(x.shape, x.layout, options));
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout, options.lengths);
  if (g.values == 0) {  // sums over nothing
    if (gradients.gamma != nullptr) std::fill_n(gradients.gamma, g.channels, Parameter<T>{0});
    if (gradients.beta != nullptr) std::fill_n(gradients.beta, g.channels, Parameter<T>{0});
    std::fill_n(dx.data, g.elements, T{});  // where there are elements, all of them are padding
    if (dresidual.data != nullptr) std::fill_n(dresidual.data, g.elements, T{});
    return {};
  }
  const Memory memory(execution, scratch_bytes<T>(g));
  Workspace workspace(memory.base());
  const Scratch<T> scratch(g, workspace, dx.data);
  const ForwardChannels<T> forward(g, scratch, options.epsilon, affine, statistics.mean, statistics.variance);
  const BackwardChannels<T> channels(forward, gradients);
  const auto tensors =
      kernels::Backward<T>::of(options.activation, x.data, y.data, residual.data, dy.data, dx.data, dresidual.data);
  const Workers workers = workers_for(g.elements, execution);
  if (g.lengths != nullptr) {
    Ragged<T>(g, scratch, workers).differentiate(tensors, channels);
  } else if (g.columns()) {
    Columns<T>(g, scratch, workers).differentiate(tensors, channels);
  } else {
    Segments<T>(g, scratch, workers).differentiate(tensors, channels);
  }
  return {};
}

template <class T>
Status batch_norm_jvp(const BatchNormOptions& options, TensorView<const T> x,
                      std::type_identity_t<TensorView<const T>> residual,
                      const std::type_identity_t<Tangents<T>>& tangents, const std::type_identity_t<Affine<T>>& affine,
                      const Statistics& statistics, std::type_identity_t<TensorView<T>> y_tangent,
                      const Execution& execution) {
  using namespace batch_norm;
  Checks checks("batch_norm_jvp");
  checks.epsilon(options.epsilon).tensor("x", x).lengths(options.lengths, x);
  check_statistics(jvp::check_dense(checks, x, residual, tangents, y_tangent, options.activation), statistics);
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout, options.lengths);
  jvp::differentiate(
      jvp::dense_norm(options.epsilon, options.activation, x, residual, tangents, affine, statistics, y_tangent),
      g.channels,
      [&](std::size_t c, const auto& body) {
        g.for_each_run(c, [&](const kernels::Run& run) { body(jvp::Run{0, run.begin, run.step, run.count, c, 0}); });
      },
      workers_for(g.elements, execution));
  for (std::size_t n = 0; g.lengths != nullptr && n < g.samples; ++n) {
    clear_padding(y_tangent.data, g.layout, g.channels, g.positions, n, g.lengths[n]);
  }
  return {};
}

// The four element types.
#define EQUINORM_INSTANTIATE(T)                                                                                        \
  template std::size_t batch_norm_workspace_bytes<T>(const Shape&, Layout, const BatchNormOptions&);                   \
  template Status batch_norm_forward<T>(const BatchNormOptions&, TensorView<const T>, const Affine<T>&,                \
                                        TensorView<const T>, TensorView<T>, const Statistics&, RunningStatistics<T>*,  \
                                        const Execution&);                                                             \
  template Status batch_norm_inference<T>(const BatchNormOptions&, TensorView<const T>, const Affine<T>&,              \
                                          const Parameter<T>*, const Parameter<T>*, TensorView<const T>,               \
                                          TensorView<T>, const Execution&);                                            \
  template Status batch_norm_backward<T>(                                                                              \
      const BatchNormOptions&, TensorView<const T>, TensorView<const T>, TensorView<const T>, TensorView<const T>,     \
      const Affine<T>&, const Statistics&, TensorView<T>, TensorView<T>, const AffineGradients<T>&, const Execution&); \
  template Status batch_norm_jvp<T>(const BatchNormOptions&, TensorView<const T>, TensorView<const T>,                 \
                                    const Tangents<T>&, const Affine<T>&, const Statistics&, TensorView<T>,            \
                                    const Execution&);
EQUINORM_INSTANTIATE(float)
EQUINORM_INSTANTIATE(double)
EQUINORM_INSTANTIATE(bfloat16)
EQUINORM_INSTANTIATE(float16)
#undef EQUINORM_INSTANTIATE

}  // namespace equinorm
