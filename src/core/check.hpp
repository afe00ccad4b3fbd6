// Checks of arguments, with the one form of message: "[operator] argument is …; expected …".
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "core/activation.hpp"
#include "core/number.hpp"
#include "equinorm/execution.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm {

inline std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.rank() && i < kMaxRank; ++i) {
    text += i > 0 ? ", " : "";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

inline std::string to_string(Layout layout) {
  return layout == Layout::channels_last ? "channels-last" : "channels-first";
}

/// Gathers the first failure of a list of checks.
class Checks {
 public:
  using Text = std::pair<std::string, std::string>;  ///< what was found, what was expected

  explicit Checks(std::string_view op) : op_(op) {}

  /// Unless `holds`, fails with "[op] <what>; expected <expected>".
  Checks& require(bool holds, std::string_view what, std::string_view expected) {
    return require(holds, [&] { return Text(what, expected); });
  }

  /// The same, where make() → Text: called only on failure, since texts allocate and operations must not.
  template <class MakeText>
  Checks& require(bool holds, const MakeText& make) {
    if (!holds) [[unlikely]]
      fail(make);
    return *this;
  }

  Checks& epsilon(double value) {
    return require(value >= 1e-30 && std::isfinite(value),
                   [&] { return Text("epsilon is " + text_of(value), "a finite number of at least 1e-30"); });
  }

  /// A tensor of a rank from `least` on, whose size in bytes a pointer difference can hold.
  template <class T>
  Checks& extents(std::string_view name, const TensorView<T>& view, std::size_t least) {
    const std::size_t rank = view.shape.rank();
    if (rank < least || rank > kMaxRank) [[unlikely]] {
      return require(false, [&] {
        return Text(std::string(name) + " has rank " + std::to_string(rank),
                    "rank " + std::to_string(least) + " to " + std::to_string(kMaxRank));
      });
    }
    std::size_t elements = 1;
    bool fits = true;
    for (std::size_t i = 0; i < rank; ++i) {
      fits = fits && !__builtin_mul_overflow(elements, std::max<std::size_t>(view.shape[i], 1), &elements);
    }
    return require(fits && elements <= most<T>(),
                   [&] { return Text(is(name, view), "fewer elements than memory can hold"); });
  }

  /// A dense tensor of rank 2–5 with channels.
  template <class T>
  Checks& tensor(std::string_view name, const TensorView<T>& view) {
    if (!extents(name, view, 2).ok()) return *this;
    const std::size_t axis = view.layout == Layout::channels_last ? view.shape.rank() - 1 : 1;
    require(view.shape[axis] > 0,
            [&] { return Text(is(name, view) + ", " + to_string(view.layout), "at least one channel"); });
    return dense(name, view).present(name, view.data != nullptr || view.shape.elements() == 0);
  }

  /// A tensor with the shape and layout of x; may be absent if `optional`.
  template <class T, class U>
  Checks& like(std::string_view name, const TensorView<T>& view, const TensorView<U>& x, bool optional = false) {
    if (view.data == nullptr && (optional || x.shape.elements() == 0)) return *this;
    present(name, view.data != nullptr).dense(name, view).same_shape(name, view, x);
    return require(view.layout == x.layout, [&] {
      return Text(std::string(name) + " is " + to_string(view.layout), to_string(x.layout) + ", the layout of x");
    });
  }

  Checks& present(std::string_view name, bool is_present) {
    return require(is_present, [&] { return Text(std::string(name) + " is null", "a tensor"); });
  }

  template <class T, class U>
  Checks& same_shape(std::string_view name, const TensorView<T>& view, const TensorView<U>& x) {
    return require(view.shape == x.shape,
                   [&] { return Text(is(name, view), to_string(x.shape) + ", the shape of x"); });
  }

  /// How many positions of each sample are valid; nullptr: all. To be called when x has been checked.
  template <class T>
  Checks& lengths(const std::size_t* lengths, const TensorView<T>& x) {
    if (lengths == nullptr || !ok()) return *this;
    const std::size_t axis = x.layout == Layout::channels_last ? x.shape.rank() - 1 : 1;
    std::size_t positions = 1;
    for (std::size_t i = 1; i < x.shape.rank(); ++i) positions *= i == axis ? 1 : x.shape[i];
    return this->lengths(lengths, x.shape[0], positions);
  }

  Checks& lengths(const std::size_t* lengths, std::size_t samples, std::size_t positions) {
    for (std::size_t n = 0; lengths != nullptr && ok() && n < samples; ++n) {
      require(lengths[n] <= positions, [&] {
        return Text("lengths[" + std::to_string(n) + "] is " + std::to_string(lengths[n]),
                    "at most the " + std::to_string(positions) + " positions of a sample");
      });
    }
    return *this;
  }

  /// Forward's y and residual, from which backward knows z where an activation stands over a residual. That there was
  /// one it sees by dresidual alone; or by y, which without one nobody needs to give.
  template <class T>
  Checks& behind(Activation activation, const TensorView<T>& y, const TensorView<T>& residual, const TensorView<T>& x,
                 bool wants_dresidual) {
    like("y", y, x, true).like("residual", residual, x, true);
    if (activation == Activation::none || residual.data != nullptr || x.shape.elements() == 0) return *this;
    if (has_slope_of_sign(activation)) {
      return require(!wants_dresidual || y.data != nullptr, "y and residual are null",
                     "one of them where dresidual is given: the activation stands over a residual");
    }
    return require(!wants_dresidual && y.data == nullptr, "residual is null",
                   "forward's residual where y or dresidual is given: y does not tell silu's and gelu's slope");
  }

  Checks& workspace(const Execution& execution, std::size_t bytes) {
    if (execution.workspace == nullptr) return *this;
    require(reinterpret_cast<std::uintptr_t>(execution.workspace) % 64 == 0, "workspace is misaligned",
            "alignment to 64 bytes");
    return require(execution.workspace_bytes >= bytes, [&] {
      return Text("workspace has " + std::to_string(execution.workspace_bytes) + " bytes",
                  "at least " + std::to_string(bytes));
    });
  }

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

  /// The most elements that memory can hold.
  template <class T>
  static constexpr std::size_t most() {
    return static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T);
  }

 private:
  template <class T>
  static std::string is(std::string_view name, const TensorView<T>& view) {
    return std::string(name) + " has shape " + to_string(view.shape);
  }

  template <class T>
  Checks& dense(std::string_view name, const TensorView<T>& view) {
    const bool is_dense = view.row_stride == 0 || (view.shape.rank() == 2 && view.row_stride == view.shape[1]);
    return require(is_dense, [&] {
      return Text(std::string(name) + " has a row stride of " + std::to_string(view.row_stride), "0: a dense tensor");
    });
  }

  /// Out of the way: calls on little data take as long as their checks.
  template <class MakeText>
  [[gnu::cold, gnu::noinline]] void fail(const MakeText& make) {
    if (!ok()) return;
    const Text text = make();
    const auto& [what, expected] = text;
    status_ = {StatusCode::invalid_argument, "[" + std::string(op_) + "] " + what + "; expected " + expected};
  }

  std::string_view op_;
  Status status_;
};

}  // namespace equinorm
