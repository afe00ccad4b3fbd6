#include "ours.hpp"

#include "equinorm/batch_norm.hpp"
#include "equinorm/group_norm.hpp"
#include "equinorm/layer_norm.hpp"
#include "equinorm/rms_norm.hpp"

namespace equinorm::bench {
namespace {

/// What the passes of every operation are called with. Views are made beforehand: they are no part of what is timed.
template <class T>
struct Call {
  Call(const Problem& problem_, const Tensors<T>& t_, Memory& memory_, const int* threads_)
      : problem(problem_), t(t_), memory(&memory_), threads(threads_) {
    const std::size_t count = problem.statistics();
    statistics = {memory->take<double>(count), memory->take<double>(count)};
  }

  template <class U>
  TensorView<U> view(U* p) const {
    return {p, problem.shape(), problem.by_rows() ? Layout::channels_last : problem.layout};
  }
  TensorView<const T> in(const T* p) const { return view(p); }

  template <class Options>
  Options options() const {
    Options options;
    options.epsilon = kEpsilon;
    options.activation = problem.activation;
    return options;
  }
  void take_workspace(std::size_t bytes) {
    workspace = memory->take<std::byte>(bytes);
    workspace_bytes = bytes;
  }
  Execution execution() const { return {threads == nullptr ? problem.threads : *threads, workspace, workspace_bytes}; }

  Problem problem;
  Tensors<T> t;
  Memory* memory;
  const int* threads;
  Statistics statistics{};
  std::byte* workspace = nullptr;
  std::size_t workspace_bytes = 0;

  TensorView<const T> x = in(t.x), residual = in(t.residual), dy = in(t.dy);
  TensorView<const T> y_behind_residual = in(problem.add ? t.y : nullptr);  ///< tells z's sign, where that is enough
  TensorView<const T> normalized = in(problem.add ? t.sum : t.x);           ///< of a norm of rows
  TensorView<T> y = view(t.y), sum = view(t.sum), dx = view(t.dx), dresidual = view(t.dresidual);
  Affine<T> affine{t.gamma, t.beta};
  AffineGradients<T> gradients{t.dgamma, t.dbeta};
};

template <class T>
Passes batch_norm(Call<T> c) {
  auto options = c.template options<BatchNormOptions>();
  options.non_finite = NonFinitePolicy::skip;  // for the table of errors, which asks for these too
  options.single_value = SingleValuePolicy::allow;
  c.take_workspace(batch_norm_workspace_bytes<T>(c.problem.shape(), c.problem.layout));
  return {[=] {
            throw_if_error(
                batch_norm_forward(options, c.x, c.affine, c.residual, c.y, c.statistics, nullptr, c.execution()));
          },
          [=] {
            throw_if_error(
                batch_norm_inference(options, c.x, c.affine, c.t.mean, c.t.variance, c.residual, c.y, c.execution()));
          },
          [=] {
            throw_if_error(batch_norm_backward(options, c.x, c.y_behind_residual, c.residual, c.dy, c.affine,
                                               c.statistics, c.dx, c.dresidual, c.gradients, c.execution()));
          }};
}

/// Instance norm is group norm with a group for every channel.
template <class T>
Passes group_norm(Call<T> c) {
  auto options = c.template options<GroupNormOptions>();
  options.groups = c.problem.op == Op::instance_norm ? c.problem.c : c.problem.groups;
  c.take_workspace(group_norm_workspace_bytes<T>(options, c.problem.shape(), c.problem.layout));
  const auto forward = [=](const Statistics& statistics) {
    return
        [=] { throw_if_error(group_norm_forward(options, c.x, c.affine, c.residual, c.y, statistics, c.execution())); };
  };
  return {forward(c.statistics), forward({}), [=] {
            throw_if_error(group_norm_backward(options, c.x, c.y_behind_residual, c.residual, c.dy, c.affine,
                                               c.statistics, c.dx, c.dresidual, c.gradients, c.execution()));
          }};
}

template <class T>
Passes layer_norm(Call<T> c) {
  const auto options = c.template options<LayerNormOptions>();
  c.take_workspace(layer_norm_workspace_bytes<T>(options, c.problem.shape()));
  const auto forward = [=](const Statistics& statistics) {
    return [=] {
      throw_if_error(layer_norm_forward(options, c.x, c.affine, c.residual, c.sum, c.y, statistics, c.execution()));
    };
  };
  return {forward(c.statistics), forward({}), [=] {
            throw_if_error(layer_norm_backward(options, c.normalized, c.dy, c.affine, c.statistics, {}, c.dx,
                                               c.gradients, c.execution()));
          }};
}

template <class T>
Passes rms_norm(Call<T> c) {
  const auto options = c.template options<RmsNormOptions>();
  c.take_workspace(rms_norm_workspace_bytes<T>(options, c.problem.shape()));
  const auto forward = [=](double* mean_square) {
    return [=] {
      throw_if_error(rms_norm_forward(options, c.x, c.affine, c.residual, c.sum, c.y, mean_square, c.execution()));
    };
  };
  return {forward(c.statistics.mean), forward(nullptr), [=] {
            throw_if_error(rms_norm_backward(options, c.normalized, c.dy, c.affine, c.statistics.mean, {}, c.dx,
                                             c.gradients, c.execution()));
          }};
}

}  // namespace

template <class T>
Passes ours(const Problem& problem, const Tensors<T>& tensors, Memory& memory, const int* threads) {
  const Call<T> call(problem, tensors, memory, threads);
  switch (problem.op) {
    case Op::batch_norm:
      return batch_norm(call);
    case Op::layer_norm:
      return layer_norm(call);
    case Op::rms_norm:
      return rms_norm(call);
    case Op::group_norm:
    case Op::instance_norm:
      break;
  }
  return group_norm(call);
}

template Passes ours(const Problem&, const Tensors<float>&, Memory&, const int*);
template Passes ours(const Problem&, const Tensors<double>&, Memory&, const int*);
template Passes ours(const Problem&, const Tensors<bfloat16>&, Memory&, const int*);
template Passes ours(const Problem&, const Tensors<float16>&, Memory&, const int*);

}  // namespace equinorm::bench
