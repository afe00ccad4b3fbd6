// What the norms of rows share: arguments checked, the cut into threads and chunks, the run. A tensor is a matrix
// [rows, features]; each row is normalized by itself, so masks need no help: a row that nobody asks for hurts no other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
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

/// The matrix that a tensor is to a norm over its last `axes` axes.
struct Matrix {
  Matrix(const Shape& shape, std::size_t axes) {
    for (std::size_t i = 0; i < shape.rank(); ++i) (i + axes < shape.rank() ? rows : features) *= shape[i];
  }

  std::size_t rows = 1, features = 1;
};

/// Under this many elements a second thread costs more than it brings.
inline constexpr std::size_t kSingleThreadElements = 64 << 10;

/// The rows whose parameter gradients are summed as one, by the shape alone: enough to make the sums small beside the
/// rows, few enough to go round.
struct Chunks {
  explicit Chunks(const Matrix& m) {
    constexpr std::size_t kElements = 64 << 10, kRows = 16, kMost = 32;
    rows = std::max({kRows, kElements / m.features, (m.rows + kMost - 1) / kMost});
    count = (m.rows + rows - 1) / rows;
  }

  std::size_t rows, count;
};

/// The workspace of backward in bytes: the sums of each chunk, for gamma and for beta.
inline std::size_t workspace_bytes(const Matrix& m) {
  if (m.rows == 0 || m.features == 0) return 0;
  Workspace count;
  count.take<double>(2 * Chunks(m).count * m.features);
  return count.used();
}

/// Whether `axes` of x's axes can be normalized; x, and whatever is `like` it, is a matrix then.
template <class T>
Checks& check_x(Checks& checks, const TensorView<T>& x, std::size_t axes) {
  const std::size_t rank = x.shape.rank();
  const auto shape = [&] { return "x has shape " + to_string(x.shape); };
  if (rank < 1 || rank > kMaxRank) {
    return checks.require(false, [&] { return Checks::Text("x has rank " + std::to_string(rank), "rank 1 to 5"); });
  }
  if (axes < 1 || axes > rank) {
    return checks.require(false, [&] {
      return Checks::Text("normalized_axes is " + std::to_string(axes),
                          "1 to " + std::to_string(rank) + ", the rank of x");
    });
  }
  std::size_t room = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T);
  for (std::size_t i = 0; i < rank; ++i) {
    if (x.shape[i] == 0) continue;
    if (x.shape[i] > room) {
      return checks.require(false, [&] { return Checks::Text(shape(), "fewer elements than memory can hold"); });
    }
    room /= x.shape[i];
  }
  return checks.require(Matrix(x.shape, axes).features > 0,
                        [&] { return Checks::Text(shape(), "at least one element in the axes normalized"); });
}

/// A tensor of the shape of x, whose rows do not overlap; may be absent if `optional`, or where there are no rows.
template <class T, class U>
Checks& check_like(Checks& checks, std::string_view name, const TensorView<T>& view, const TensorView<U>& x,
                   std::size_t axes, bool optional = false) {
  if (!checks.ok() || (view.data == nullptr && (optional || x.shape.elements() == 0))) return checks;
  checks.require(view.data != nullptr, [&] { return Checks::Text(std::string(name) + " is null", "a tensor"); });
  checks.require(view.shape == x.shape, [&] {
    return Checks::Text(std::string(name) + " has shape " + to_string(view.shape),
                        to_string(x.shape) + ", the shape of x");
  });
  const Matrix m(x.shape, axes);
  const std::size_t stride = view.row_stride;
  const std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T);
  return checks.require(stride == 0 || (stride >= m.features && (m.rows < 2 || stride <= most / m.rows)), [&] {
    return Checks::Text(std::string(name) + " has a row stride of " + std::to_string(stride),
                        "0 (dense) or at least " + std::to_string(m.features) + ", the elements of a row");
  });
}

inline Checks& check_epsilon(Checks& checks, double epsilon) {
  return checks.require(epsilon >= 1e-30 && std::isfinite(epsilon), [&] {
    return Checks::Text("epsilon is " + std::to_string(epsilon), "a finite number of at least 1e-30");
  });
}

/// A view as the kernels take it.
template <class T>
kernels::Rows<T> rows_of(const TensorView<T>& view, const Matrix& m) {
  return {view.data, view.row_stride == 0 ? m.features : view.row_stride};
}

template <class T>
bool streams(const kernels::Rows<T>& out, const Matrix& m) {
  return kernels::streams(m.rows * m.features, out.data, out.stride);
}

inline Workers workers_for(const Matrix& m, const Execution& execution) {
  return m.rows * m.features < kSingleThreadElements ? Workers(1) : Workers(execution);
}

/// What the options of every norm of rows hold.
struct Options {
  std::string_view op;
  double epsilon;
  std::size_t axes;
  Activation activation;
};

/// Runs kernel(norm, begin, end) over all rows. Where there is a residual but no place for its sum, y is its place.
template <class T, class Kernel>
void run_forward(const Matrix& m, kernels::RowForward<T> norm, Kernel kernel, const Execution& execution) {
  if (norm.sum.data == nullptr) norm.sum = norm.y;
  norm.stream = streams(norm.y, m);
  parallel_ranges(m.rows, workers_for(m, execution),
                  [&](std::size_t begin, std::size_t end) { kernel(norm, begin, end); });
}

/// Runs kernel(norm, begin, end, dgamma, dbeta) over all rows, and writes the parameters' gradients.
template <class T, class Kernel>
void run_backward(const Matrix& m, kernels::RowBackward<T> norm, const AffineGradients<T>& gradients, Kernel kernel,
                  const Execution& execution) {
  norm.stream = streams(norm.dx, m);
  const Workers workers = workers_for(m, execution);
  if (gradients.gamma == nullptr && gradients.beta == nullptr) {
    parallel_ranges(m.rows, workers,
                    [&](std::size_t begin, std::size_t end) { kernel(norm, begin, end, nullptr, nullptr); });
    return;
  }
  if (m.rows == 0) {
    if (gradients.gamma != nullptr) std::fill_n(gradients.gamma, m.features, Parameter<T>{0});
    if (gradients.beta != nullptr) std::fill_n(gradients.beta, m.features, Parameter<T>{0});
    return;
  }
  const Chunks chunks(m);
  const Memory memory(execution, workspace_bytes(m));
  auto* sums = static_cast<double*>(memory.base());
  parallel_for(chunks.count, workers, [&](std::size_t chunk) {
    double* dgamma = sums + 2 * chunk * m.features;
    std::fill_n(dgamma, 2 * m.features, 0.0);
    kernel(norm, chunk * chunks.rows, std::min((chunk + 1) * chunks.rows, m.rows), dgamma, dgamma + m.features);
  });
  for (std::size_t chunk = 1; chunk < chunks.count; ++chunk) {
    for (std::size_t i = 0; i < 2 * m.features; ++i) sums[i] += sums[2 * chunk * m.features + i];
  }
  for (std::size_t i = 0; i < m.features; ++i) {
    if (gradients.gamma != nullptr) gradients.gamma[i] = static_cast<Parameter<T>>(sums[i]);
    if (gradients.beta != nullptr) gradients.beta[i] = static_cast<Parameter<T>>(sums[m.features + i]);
  }
}

/// Forward of a norm of rows, arguments checked; kernel as for run_forward.
template <class T, class Kernel>
Status forward(const Options& o, const TensorView<const T>& x, const Affine<T>& affine,
               const TensorView<const T>& residual, const TensorView<T>& sum, const TensorView<T>& y,
               const Statistics& statistics, Kernel kernel, const Execution& execution) {
  Checks checks(o.op);
  check_like(check_x(check_epsilon(checks, o.epsilon), x, o.axes), "x", x, x, o.axes);
  check_like(checks, "residual", residual, x, o.axes, true);
  checks.require(sum.data == nullptr || residual.data != nullptr, "sum is given without a residual", "both or none");
  check_like(checks, "sum", sum, x, o.axes, true);
  check_like(checks, "y", y, x, o.axes);
  if (!checks.ok()) return checks.status();

  const Matrix m(x.shape, o.axes);
  run_forward<T>(m,
                 {{m.features, affine.gamma, affine.beta, o.epsilon, o.activation, false},
                  statistics.mean,
                  statistics.variance,
                  rows_of(x, m),
                  rows_of(residual, m),
                  rows_of(sum, m),
                  rows_of(y, m)},
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
  check_like(check_x(check_epsilon(checks, o.epsilon), x, o.axes), "x", x, x, o.axes);
  check_like(checks, "dy", dy, x, o.axes);
  check_saved(checks, x, mean, variance);
  check_like(checks, "dsum", dsum, x, o.axes, true);
  check_like(checks, "dx", dx, x, o.axes);
  if (checks.ok()) checks.workspace(execution, workspace_bytes(Matrix(x.shape, o.axes)));
  if (!checks.ok()) return checks.status();

  const Matrix m(x.shape, o.axes);
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
  check_like(check_x(check_epsilon(checks, o.epsilon), x, o.axes), "x", x, x, o.axes);
  check_like(checks, "tangents.x", tangents.x, x, o.axes, true);
  checks.require(tangents.residual.data == nullptr, "tangents.residual is given",
                 "none: x is the sum, and tangents.x the sum's");
  check_saved(checks, x, mean, variance);
  check_like(checks, "y_tangent", y_tangent, x, o.axes);
  if (!checks.ok()) return checks.status();

  const Matrix m(x.shape, o.axes);
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
        body(equinorm::jvp::Run{row, 0, 1, m.features, 0, 1});
      },
      workers_for(m, execution));
  return {};
}

}  // namespace equinorm::rows
