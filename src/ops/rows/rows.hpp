// What the norms of rows share: arguments checked, the cut into threads and chunks, the run. A tensor is a matrix
// [rows, features], each row of which is normalized by itself; with lengths, that of samples of rows, behind which
// there is padding.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <string_view>

#include "core/check.hpp"
#include "core/workspace.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/tensor.hpp"
#include "kernels/column_plan.hpp"
#include "kernels/kernels.hpp"
#include "ops/jvp/jvp.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::rows {

/// What the options of every norm of rows hold.
struct Options {
  template <class Given>
  Options(std::string_view operation, const Given& o)
      : op(operation), epsilon(o.epsilon), axes(o.normalized_axes), activation(o.activation), lengths(o.lengths) {}

  std::string_view op;
  double epsilon;
  std::size_t axes;
  Activation activation;
  const std::size_t* lengths;
};

/// The matrix that a tensor is to a norm over its last `axes` axes: `samples` times `positions` rows, of which the
/// first lengths[n] are valid. Without lengths all of it is one sample.
struct Matrix {
  Matrix(const Shape& shape, std::size_t axes, const std::size_t* sample_lengths)
      : lengths(axes < shape.rank() ? sample_lengths : nullptr) {
    for (std::size_t i = 0; i < shape.rank(); ++i) (i + axes < shape.rank() ? rows : features) *= shape[i];
    positions = valid = rows;
    if (lengths == nullptr) return;
    samples = shape[0];
    positions = samples == 0 ? 0 : rows / samples;
    valid = std::accumulate(lengths, lengths + samples, std::size_t{0});
  }

  std::size_t length(std::size_t n) const { return lengths == nullptr ? positions : lengths[n]; }
  bool is_valid(std::size_t row) const { return lengths == nullptr || row % positions < lengths[row / positions]; }

  /// Calls body(begin, end) for the rows that are the valid ones begin … end − 1, counted without padding. Each
  /// sample's are a run of their own, whether padding lies behind it or not.
  template <class Body>
  void for_each_run(std::size_t begin, std::size_t end, const Body& body) const {
    for (std::size_t n = 0, before = 0; n < samples && before < end; before += length(n++)) {
      const std::size_t from = std::max(begin, before), to = std::min(end, before + length(n));
      if (from < to) body(n * positions + (from - before), n * positions + (to - before));
    }
  }

  /// Writes 0 to the first `width` elements of the rows that are padding.
  template <class E>
  void clear(const kernels::Rows<E>& tensor, std::size_t width, const Workers& workers) const {
    if (lengths == nullptr || tensor.data == nullptr) return;
    parallel_for(samples, workers, [&](std::size_t n) {
      for (std::size_t p = lengths[n]; p < positions; ++p) std::fill_n(tensor.at(n * positions + p), width, E{});
    });
  }

  const std::size_t* lengths;
  std::size_t rows = 1, features = 1, samples = 1, positions, valid;
};

/// The rows whose parameter gradients are summed as one, by the shape and the lengths alone: enough to make the sums
/// small beside the rows, few enough to go round.
struct Chunks {
  explicit Chunks(const Matrix& m) {
    constexpr std::size_t kElements = 64 << 10, kRows = 16, kMost = 32;
    rows = std::max({kRows, kElements / m.features, (m.valid + kMost - 1) / kMost});
    count = (m.valid + rows - 1) / rows;
  }

  std::size_t rows, count;
};

/// The workspace of backward in bytes: the sums of each chunk, for gamma and for beta.
inline std::size_t workspace_bytes(const Matrix& m) {
  if (m.valid == 0 || m.features == 0) return 0;
  Workspace count;
  count.take<double>(2 * Chunks(m).count * m.features);
  return count.used();
}

/// Epsilon, and whether the last axes of x can be normalized; x, and whatever is `like` it, is a matrix then.
template <class T>
Checks& check_x(Checks& checks, const Options& o, const TensorView<T>& x) {
  using Text = Checks::Text;
  const std::size_t rank = x.shape.rank();
  checks.epsilon(o.epsilon).extents("x", x, 1);
  checks.require(o.axes >= 1 && o.axes <= rank, [&] {
    return Text("normalized_axes is " + std::to_string(o.axes), "1 to " + std::to_string(rank) + ", the rank of x");
  });
  checks.require(o.lengths == nullptr || o.axes < rank, "lengths are given where all axes of x are normalized",
                 "none: there are no samples");
  if (!checks.ok()) return checks;
  const Matrix m(x.shape, o.axes, o.lengths);
  checks.require(m.features > 0, [&] {
    return Text("x has shape " + to_string(x.shape), "at least one element in the axes normalized");
  });
  return checks.lengths(m.lengths, m.samples, m.positions);
}

/// check_like for what is seldom seen.
template <class T, class U>
[[gnu::noinline]] void check_unusual(Checks& checks, std::string_view name, const TensorView<T>& view,
                                     const TensorView<U>& x, const Options& o) {
  if (view.data == nullptr && x.shape.elements() == 0) return;
  checks.present(name, view.data != nullptr).same_shape(name, view, x);
  const std::size_t stride = view.row_stride;
  if (!checks.ok() || stride == 0) return;
  const Matrix m(x.shape, o.axes, nullptr);
  checks.require(stride >= m.features && (m.rows < 2 || stride <= Checks::most<T>() / m.rows), [&] {
    return Checks::Text(std::string(name) + " has a row stride of " + std::to_string(stride),
                        "0 (dense) or at least " + std::to_string(m.features) + ", the elements of a row");
  });
}

/// A tensor of the shape of x, whose rows do not overlap; may be absent if `optional`, or where there are no rows.
template <class T, class U>
Checks& check_like(Checks& checks, std::string_view name, const TensorView<T>& view, const TensorView<U>& x,
                   const Options& o, bool optional = false) {
  const bool usual = view.data == nullptr ? optional : view.row_stride == 0 && view.shape == x.shape;
  if (!usual) [[unlikely]]
    check_unusual(checks, name, view, x, o);
  return checks;
}

/// A view as the kernels take it.
template <class T>
kernels::Rows<T> rows_of(const TensorView<T>& view, const Matrix& m) {
  return {view.data, view.row_stride == 0 ? m.features : view.row_stride};
}

template <class T>
bool streams(const kernels::Rows<T>& out, const Matrix& m) {
  return kernels::streams<T>(m.rows * m.features, {out.data}, out.stride);
}

/// Rows go so fast (16 Ki floats in 2 µs, without an activation) that a second thread, which takes 1 µs to join in,
/// pays for sure from here on; workers_for() is for passes that cost more.
inline Workers workers_of_rows(const Matrix& m, const Execution& execution) {
  constexpr std::size_t kSingleThreadElements = 48 << 10;
  return m.valid * m.features < kSingleThreadElements ? Workers(1) : Workers(execution);
}

/// Whether s is kept aside.
template <class T>
bool keeps_aside(const kernels::RowForward<T>& norm, const Matrix& m) {
  return norm.residual.data != nullptr && m.features * sizeof(T) <= kernels::kMostAside && norm.stream &&
         (norm.sum.data == nullptr || streams(norm.sum, m));
}

/// Runs kernel(norm, begin, end) over all valid rows. Where there is a residual, but its sum has no place and is not
/// kept aside, y is its place.
template <class T, class Kernel>
void run_forward(const Matrix& m, kernels::RowForward<T>&& norm, Kernel kernel, const Execution& execution) {
  const Workers workers = workers_of_rows(m, execution);
  m.clear(norm.sum, m.features, workers);
  norm.stream = streams(norm.y, m);
  norm.aside = keeps_aside(norm, m);
  if (norm.residual.data != nullptr && norm.sum.data == nullptr && !norm.aside) norm.sum = norm.y;
  parallel_ranges(m.valid, workers, [&](std::size_t begin, std::size_t end) {
    m.for_each_run(begin, end, [&](std::size_t from, std::size_t to) { kernel(norm, from, to); });
  });
  m.clear(norm.y, m.features, workers);
  for (double* statistic : {norm.mean, norm.variance}) m.clear(kernels::Rows<double>{statistic, 1}, 1, workers);
}

/// Writes `count` sums as P, unless nobody wants them.
template <class P>
void write_rounded(const double* sums, std::size_t count, P* to) {
  for (std::size_t i = 0; to != nullptr && i < count; ++i) to[i] = static_cast<P>(sums[i]);
}

/// Runs kernel(norm, begin, end, dgamma, dbeta) over all valid rows, and writes the parameters' gradients. The
/// kernel adds to dgamma and dbeta unless they are null, as dbeta is if it is not wanted, and both if neither is.
template <class T, class Kernel>
void run_backward(const Matrix& m, kernels::RowBackward<T>&& norm, const AffineGradients<T>& gradients, Kernel kernel,
                  const Execution& execution) {
  norm.stream = streams(norm.dx, m);
  const Workers workers = workers_of_rows(m, execution);
  const auto run = [&](std::size_t begin, std::size_t end, double* dgamma, double* dbeta) {
    m.for_each_run(begin, end, [&](std::size_t from, std::size_t to) { kernel(norm, from, to, dgamma, dbeta); });
  };
  if (gradients.gamma == nullptr && gradients.beta == nullptr) {
    parallel_ranges(m.valid, workers, [&](std::size_t begin, std::size_t end) { run(begin, end, nullptr, nullptr); });
  } else if (m.valid == 0) {
    if (gradients.gamma != nullptr) std::fill_n(gradients.gamma, m.features, Parameter<T>{0});
    if (gradients.beta != nullptr) std::fill_n(gradients.beta, m.features, Parameter<T>{0});
  } else {
    const Chunks chunks(m);
    const Memory memory(execution, workspace_bytes(m));
    auto* sums = static_cast<double*>(memory.base());
    parallel_for(chunks.count, workers, [&](std::size_t chunk) {
      double* dgamma = sums + 2 * chunk * m.features;
      double* dbeta = gradients.beta == nullptr ? nullptr : dgamma + m.features;
      std::fill_n(dgamma, 2 * m.features, 0.0);
      run(chunk * chunks.rows, std::min((chunk + 1) * chunks.rows, m.valid), dgamma, dbeta);
    });
    for (std::size_t chunk = 1; chunk < chunks.count; ++chunk) {
      for (std::size_t i = 0; i < 2 * m.features; ++i) sums[i] += sums[2 * chunk * m.features + i];
    }
    write_rounded(sums, m.features, gradients.gamma);
    write_rounded(sums + m.features, m.features, gradients.beta);
  }
  m.clear(norm.dx, m.features, workers);
}

/// Forward of a norm of rows, arguments checked; kernel as for run_forward.
template <class T, class Kernel>
Status forward(const Options& o, const TensorView<const T>& x, const Affine<T>& affine,
               const TensorView<const T>& residual, const TensorView<T>& sum, const TensorView<T>& y,
               const Statistics& statistics, Kernel kernel, const Execution& execution) {
  Checks checks(o.op);
  check_like(check_x(checks, o, x), "x", x, x, o);
  check_like(checks, "residual", residual, x, o, true);
  checks.require(sum.data == nullptr || residual.data != nullptr, "sum is given without a residual", "both or none");
  check_like(checks, "sum", sum, x, o, true);
  check_like(checks, "y", y, x, o);
  if (!checks.ok()) return checks.status();

  const Matrix m(x.shape, o.axes, o.lengths);
  run_forward<T>(m,
                 {{m.features, affine.gamma, affine.beta, o.epsilon, o.activation, false},
                  statistics.mean,
                  statistics.variance,
                  rows_of(x, m),
                  rows_of(residual, m),
                  rows_of(sum, m),
                  rows_of(y, m),
                  false},
                 kernel, execution);
  return {};
}

/// A saved statistic and its name in messages.
struct Saved {
  const double* values;
  std::string_view name;
};

/// Forward's statistics, as backward and JVP need them; mean is nullptr for a norm without.
template <class T>
Checks& check_saved(Checks& checks, const TensorView<const T>& x, const Saved* mean, const Saved& variance) {
  for (const Saved* saved : {mean, &variance}) {
    const bool needed = saved != nullptr && x.shape.elements() != 0;
    checks.require(!needed || saved->values != nullptr,
                   [&] { return Checks::Text(std::string(saved->name) + " is null", "[rows] doubles"); });
  }
  return checks;
}

/// Backward of a norm of rows, arguments checked; kernel as for run_backward.
template <class T, class Kernel>
Status backward(const Options& o, const TensorView<const T>& x, const TensorView<const T>& dy, const Affine<T>& affine,
                const Saved* mean, const Saved& variance, const TensorView<const T>& dsum, const TensorView<T>& dx,
                const AffineGradients<T>& gradients, Kernel kernel, const Execution& execution) {
  Checks checks(o.op);
  check_like(check_x(checks, o, x), "x", x, x, o);
  check_like(checks, "dy", dy, x, o);
  check_saved(checks, x, mean, variance);
  check_like(checks, "dsum", dsum, x, o, true);
  check_like(checks, "dx", dx, x, o);
  if (!checks.ok()) return checks.status();
  const Matrix m(x.shape, o.axes, o.lengths);
  if (!checks.workspace(execution, workspace_bytes(m)).ok()) return checks.status();

  run_backward<T>(m,
                  {{m.features, affine.gamma, affine.beta, o.epsilon, o.activation, false},
                   mean == nullptr ? nullptr : mean->values,
                   variance.values,
                   rows_of(x, m),
                   rows_of(dy, m),
                   rows_of(dsum, m),
                   rows_of(dx, m)},
                  gradients, kernel, execution);
  return {};
}

/// The derivative of a norm of rows in a direction, arguments checked.
template <class T>
Status jvp(const Options& o, const TensorView<const T>& x, const Tangents<T>& tangents, const Affine<T>& affine,
           const Saved* mean, const Saved& variance, const TensorView<T>& y_tangent, const Execution& execution) {
  Checks checks(o.op);
  check_like(check_x(checks, o, x), "x", x, x, o);
  check_like(checks, "tangents.x", tangents.x, x, o, true);
  checks.require(tangents.residual.data == nullptr, "tangents.residual is given",
                 "none: x is the sum, and tangents.x the sum's");
  check_saved(checks, x, mean, variance);
  check_like(checks, "y_tangent", y_tangent, x, o);
  if (!checks.ok()) return checks.status();

  const Matrix m(x.shape, o.axes, o.lengths);
  const Workers workers = workers_for(m.valid * m.features, execution);
  const auto tensor = [&]<class E>(const TensorView<E>& view) {
    return equinorm::jvp::Tensor<E>{view.data, rows_of(view, m).stride};
  };
  equinorm::jvp::differentiate<T>(
      {o.epsilon,
       o.activation,
       mean == nullptr ? nullptr : mean->values,
       variance.values,
       affine,
       tangents.affine,
       tensor(x),
       {},
       tensor(tangents.x),
       {},
       tensor(y_tangent)},
      m.rows,
      [&](std::size_t row, const auto& body) {
        if (m.is_valid(row)) body(equinorm::jvp::Run{row, 0, 1, m.features, 0, 1});
      },
      workers);
  m.clear(rows_of(y_tangent, m), m.features, workers);
  return {};
}

}  // namespace equinorm::rows
