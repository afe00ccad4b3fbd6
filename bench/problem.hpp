// What a benchmark runs: an operation on tensors of one shape, layout and element type.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/pages.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/tensor.hpp"
#include "equinorm/types.hpp"
#include "kernels/column_plan.hpp"

namespace equinorm::bench {

enum class Op { batch_norm, layer_norm, rms_norm, group_norm, instance_norm };
enum class Pass { train, backward, infer };
enum class Type { f32, bf16, f16, f64 };

template <class E>
struct Named {
  std::string_view name;
  E value;
};

inline constexpr std::array kOps{Named<Op>{"batch_norm", Op::batch_norm}, Named<Op>{"layer_norm", Op::layer_norm},
                                 Named<Op>{"rms_norm", Op::rms_norm}, Named<Op>{"group_norm", Op::group_norm},
                                 Named<Op>{"instance_norm", Op::instance_norm}};
inline constexpr std::array kPasses{Named<Pass>{"train", Pass::train}, Named<Pass>{"backward", Pass::backward},
                                    Named<Pass>{"infer", Pass::infer}};
inline constexpr std::array kTypes{Named<Type>{"f32", Type::f32}, Named<Type>{"bf16", Type::bf16},
                                   Named<Type>{"f16", Type::f16}, Named<Type>{"f64", Type::f64}};
inline constexpr std::array kActivations{
    Named<Activation>{"none", Activation::none}, Named<Activation>{"relu", Activation::relu},
    Named<Activation>{"leaky_relu", Activation::leaky_relu}, Named<Activation>{"silu", Activation::silu},
    Named<Activation>{"gelu", Activation::gelu}};
inline constexpr std::array kLayouts{Named<Layout>{"nhwc", Layout::channels_last},
                                     Named<Layout>{"nchw", Layout::channels_first}};

template <class Table>
auto value_of(const Table& table, std::string_view name) -> std::optional<decltype(table[0].value)> {
  for (const auto& row : table) {
    if (row.name == name) return row.value;
  }
  return {};
}

template <class Table>
std::string_view name_of(const Table& table, decltype(table[0].value) value) {
  for (const auto& row : table) {
    if (row.value == value) return row.name;
  }
  return "?";
}

/// Of every norm that is measured, ours and those beside it.
inline constexpr double kEpsilon = 1e-5;

/// What a pass fetches by hand of the memory that it reads next: nothing; what lies a page ahead; that and the
/// beginnings of pages farther ahead while sums are taken (see AccumulatePairs); or what lies two pages ahead, into the
/// second cache (see FetchFar). Or it claims what it writes, a page at a time (see Claim in kernels), and fetches
/// nothing, or what is summed, far ahead.
enum class Fetch { nothing, near, far, second, claim, far_claim };
inline constexpr Fetch kFetches[] = {Fetch::nothing, Fetch::near,  Fetch::far,
                                     Fetch::second,  Fetch::claim, Fetch::far_claim};
constexpr bool claims(Fetch fetch) {
  return fetch == Fetch::claim || fetch == Fetch::far_claim;
}
constexpr bool fetches_far(Fetch fetch) {
  return fetch == Fetch::far || fetch == Fetch::far_claim;
}

/// How far ahead, in bytes; 0: nothing is fetched.
constexpr std::size_t bytes_ahead(Fetch fetch) {
  if (fetch == Fetch::nothing || fetch == Fetch::claim) return 0;
  return fetch == Fetch::second ? 2 * kPageBytes : kPageBytes;
}

struct Problem {
  Op op = Op::batch_norm;
  std::size_t n = 1, c = 1, h = 1, w = 1;  ///< as PyTorch counts, whatever the layout; rows and features of row norms
  Layout layout = Layout::channels_last;
  Pass pass = Pass::train;
  Type type = Type::f32;
  Activation activation = Activation::none;
  bool add = false;
  std::size_t groups = 32;  ///< of group_norm
  int threads = 1;

  bool by_rows() const { return op == Op::layer_norm || op == Op::rms_norm; }
  bool has_beta() const { return op != Op::rms_norm; }  ///< as in its paper and in PyTorch
  bool matrix() const { return h == 1 && w == 1; }
  /// Whether the values of a channel lie in planes, one behind another.
  bool planes() const { return !by_rows() && layout == Layout::channels_first && !matrix(); }
  /// From this size on (bytes) what is written goes around the caches.
  std::size_t least_streamed() const {
    return planes() && pass == Pass::backward ? kernels::kStreamBytesOfPlaneGradients : kernels::kStreamBytes;
  }
  std::size_t elements() const { return n * c * h * w; }
  std::size_t statistics() const {  ///< means, and as many variances
    return by_rows() ? n : op == Op::batch_norm ? c : op == Op::group_norm ? n * groups : n * c;
  }
  Shape shape() const {
    return by_rows() ? Shape{n, c} : layout == Layout::channels_last ? Shape{n, h, w, c} : Shape{n, c, h, w};
  }
};

/// What is fused: " + add + relu".
inline std::string fused_text(const Problem& p) {
  std::string text = p.add ? " + add" : "";
  if (p.activation != Activation::none) text.append(" + ").append(name_of(kActivations, p.activation));
  return text;
}

/// The memory of a problem; T is its element type. A pointer may be null where the problem has no use for it.
template <class T>
struct Tensors {
  T *x = nullptr, *residual = nullptr, *y = nullptr, *dy = nullptr, *dx = nullptr;
  T* sum = nullptr;        ///< row norms: x + residual, which backward takes as its x
  T* dresidual = nullptr;  ///< the others: the gradient of the residual
  Parameter<T>*gamma = nullptr, *beta = nullptr, *dgamma = nullptr, *dbeta = nullptr;
  Parameter<T>*mean = nullptr, *variance = nullptr;  ///< batch norm's inference, and the peer's statistics
};

/// The passes of a problem, bound to its memory: nothing is allocated when they run.
struct Passes {
  std::function<void()> train, infer, backward;
  const std::function<void()>& operator[](Pass pass) const {
    return pass == Pass::train ? train : pass == Pass::infer ? infer : backward;
  }
};

/// Calls body(T{}) with the element type.
template <class Body>
auto with_type(Type type, const Body& body) {
  switch (type) {
    case Type::f32:
      return body(float{});
    case Type::bf16:
      return body(bfloat16{});
    case Type::f16:
      return body(float16{});
    case Type::f64:
      break;
  }
  return body(double{});
}

}  // namespace equinorm::bench
