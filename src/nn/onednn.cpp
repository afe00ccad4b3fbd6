#include "nn/onednn.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "equinorm/status.hpp"
#include "nn/onednn_version.hpp"

namespace equinorm::nn::onednn {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // else it is allocated at every call
  return attr;
}

memory::dim dim(std::size_t extent) {
  return static_cast<memory::dim>(extent);
}

memory::desc tensor(const memory::dims& dims, Tag tag) {
  return {dims, memory::data_type::f32, tag};
}

void check(dnnl_status_t status) {
  if (status != dnnl_success) throw Error("oneDNN failed to run a primitive: status " + std::to_string(status));
}

/// A primitive with its arguments, bound once. It is run through the C interface, which unlike the C++ one takes the
/// arguments as they lie.
class Bound {
 public:
  Bound() = default;
  explicit Bound(dnnl::primitive primitive) : primitive_(std::move(primitive)) {}

  void argument(int name, const memory::desc& desc, const void* data) {
    // oneDNN's memory objects know no const.
    memories_.emplace_back(desc, cpu(), const_cast<void*>(data));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    arguments_.push_back({name, memories_.back().get()});
  }
  void run(const dnnl::stream& stream) const {
    check(
        dnnl_primitive_execute(primitive_.get(), stream.get(), static_cast<int>(arguments_.size()), arguments_.data()));
  }

 private:
  dnnl::primitive primitive_;
  std::vector<memory> memories_;
  std::vector<dnnl_exec_arg_t> arguments_;
};

/// One pass: the primitive, and the reorder of the weights (or of their gradient) between PyTorch's order and the one
/// that the primitive chose, unless they are the same.
struct Pass {
  dnnl::primitive primitive;
  memory::desc weight;  // the primitive's choice
  memory::desc scratchpad;
  Bound main{}, reorder{};
  bool reorders = false;

  std::size_t weight_bytes() const { return reorders ? (weight.get_size() + 63) / 64 * 64 : 0; }
  std::size_t workspace_bytes() const { return weight_bytes() + scratchpad.get_size(); }
};

struct Descs {
  memory::desc x, y, weight_any, weight_plain, bias;
};

}  // namespace

struct Operation::State {
  Descs descs;
  Passes passes;
  // With one vector of output channels or fewer, products of small matrices are slower than the direct kernel: 0.41 and
  // 0.20 ms for 128x28x28x1 → 16, 2.9 and 2.3 ms for 16 → 16 (2.6.3, AVX-512).
  bool narrow = false;
  Pass forward, backward_input, backward_weight;
  dnnl::stream stream{cpu()};

  template <class Primitive>
  Pass pass(const typename Primitive::primitive_desc& desc, const memory::desc& weight) const {
    Pass result{Primitive(desc), weight, desc.scratchpad_desc()};
    result.reorders = weight != descs.weight_plain;
    return result;
  }

  /// Passes over the implementation that oneDNN puts first, if the next one is a direct kernel too.
  template <class Desc>
  static void prefer_jit(Desc& desc) {
    if (!std::string_view(desc.impl_info_str()).starts_with("brg")) return;
    Desc next = desc;
    if (next.next_impl() && std::string_view(next.impl_info_str()).starts_with("jit")) desc = next;
  }

  /// Args: what a primitive of this family takes after its tensors (strides and padding).
  template <class Forward, class BackwardData, class BackwardWeights, class Front, class... Args>
  void plan(const Front& front, const Args&... args) {
    const Descs& d = descs;  // not a structured binding: clang 14 does not let lambdas have those
    auto hint = front([&](auto... algorithm) {
      const auto kind = passes.training ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
      return describe<Forward>(cpu(), attributes(), kind, algorithm..., d.x, d.weight_any, d.bias, d.y, args...);
    });
    if (narrow) prefer_jit(hint);
    forward = pass<Forward>(hint, hint.weights_desc());
    if (!passes.training) return;
    const auto weights = front([&](auto... algorithm) {
      return describe_backward<BackwardWeights>(cpu(), attributes(), hint, algorithm..., d.x, d.weight_any, d.bias, d.y,
                                                args...);
    });
    backward_weight = pass<BackwardWeights>(weights, weights.diff_weights_desc());
    if (!passes.input_gradient) return;
    const auto data = front([&](auto... algorithm) {
      return describe_backward<BackwardData>(cpu(), attributes(), hint, algorithm..., d.x, d.weight_any, d.y, args...);
    });
    backward_input = pass<BackwardData>(data, data.weights_desc());
  }
};

Operation::Operation(const ConvolutionShape& s, const Passes& passes) : state_(std::make_unique<State>()) {
  const memory::dims weight{dim(s.out_channels), dim(s.in_channels), dim(s.kernel), dim(s.kernel)};
  state_->passes = passes;
  state_->narrow = s.out_channels <= 16;
  state_->descs = {tensor({dim(s.batch), dim(s.in_channels), dim(s.height), dim(s.width)}, Tag::nhwc),
                   tensor({dim(s.batch), dim(s.out_channels), dim(s.out_height()), dim(s.out_width())}, Tag::nhwc),
                   tensor(weight, Tag::any), tensor(weight, Tag::oihw),
                   passes.bias ? tensor({dim(s.out_channels)}, Tag::x) : memory::desc()};
  const memory::dims strides(2, dim(s.stride)), padding(2, dim(s.padding));
  state_->plan<dnnl::convolution_forward, dnnl::convolution_backward_data, dnnl::convolution_backward_weights>(
      [](auto describe) { return describe(dnnl::algorithm::convolution_direct); }, strides, padding, padding);
}

Operation::Operation(const LinearShape& s, const Passes& passes) : state_(std::make_unique<State>()) {
  const memory::dims weight{dim(s.out_features), dim(s.in_features)};
  state_->passes = passes;
  state_->descs = {tensor({dim(s.rows), dim(s.in_features)}, Tag::nc),
                   tensor({dim(s.rows), dim(s.out_features)}, Tag::nc), tensor(weight, Tag::oi),
                   tensor(weight, Tag::oi), passes.bias ? tensor({dim(s.out_features)}, Tag::x) : memory::desc()};
  state_->plan<dnnl::inner_product_forward, dnnl::inner_product_backward_data, dnnl::inner_product_backward_weights>(
      [](auto describe) { return describe(); });
}

Operation::~Operation() = default;

std::size_t Operation::workspace_bytes() const {
  const State& s = *state_;
  std::size_t bytes = s.forward.workspace_bytes();
  if (s.passes.training) bytes = std::max(bytes, s.backward_weight.workspace_bytes());
  if (s.passes.training && s.passes.input_gradient) bytes = std::max(bytes, s.backward_input.workspace_bytes());
  return bytes;
}

void Operation::bind(const Pointers& p) {
  State& s = *state_;
  const Descs& d = s.descs;
  // The workspace begins with the weights in the primitive's order; its scratchpad follows.
  const auto weight = [&](Pass& pass, int name, const float* given) {
    pass.main = Bound(pass.primitive);
    pass.main.argument(DNNL_ARG_SCRATCHPAD, pass.scratchpad, p.workspace + pass.weight_bytes());
    pass.main.argument(name, pass.weight, pass.reorders ? static_cast<const void*>(p.workspace) : given);
    if (!pass.reorders) return;
    const bool in = name == DNNL_ARG_WEIGHTS;  // else it is the gradient, which comes out
    const memory::desc& from = in ? d.weight_plain : pass.weight;
    const memory::desc& to = in ? pass.weight : d.weight_plain;
    const dnnl::reorder::primitive_desc desc(cpu(), from, cpu(), to);
    pass.reorder = Bound(dnnl::reorder(desc));
    pass.reorder.argument(DNNL_ARG_FROM, from, in ? static_cast<const void*>(given) : p.workspace);
    pass.reorder.argument(DNNL_ARG_TO, to, in ? static_cast<const void*>(p.workspace) : given);
  };

  weight(s.forward, DNNL_ARG_WEIGHTS, p.weight);
  s.forward.main.argument(DNNL_ARG_SRC, d.x, p.x);
  s.forward.main.argument(DNNL_ARG_DST, d.y, p.y);
  if (s.passes.bias) s.forward.main.argument(DNNL_ARG_BIAS, d.bias, p.bias);
  if (!s.passes.training) return;

  weight(s.backward_weight, DNNL_ARG_DIFF_WEIGHTS, p.dweight);
  s.backward_weight.main.argument(DNNL_ARG_SRC, d.x, p.x);
  s.backward_weight.main.argument(DNNL_ARG_DIFF_DST, d.y, p.dy);
  if (s.passes.bias) s.backward_weight.main.argument(DNNL_ARG_DIFF_BIAS, d.bias, p.dbias);
  if (!s.passes.input_gradient) return;

  weight(s.backward_input, DNNL_ARG_WEIGHTS, p.weight);
  s.backward_input.main.argument(DNNL_ARG_DIFF_DST, d.y, p.dy);
  s.backward_input.main.argument(DNNL_ARG_DIFF_SRC, d.x, p.dx);
}

void Operation::forward() {
  State& s = *state_;
  if (s.forward.reorders) s.forward.reorder.run(s.stream);
  s.forward.main.run(s.stream);
}

void Operation::backward_input() {
  State& s = *state_;
  if (s.backward_input.reorders) s.backward_input.reorder.run(s.stream);
  s.backward_input.main.run(s.stream);
}

void Operation::backward_weight() {
  State& s = *state_;
  s.backward_weight.main.run(s.stream);
  if (s.backward_weight.reorders) s.backward_weight.reorder.run(s.stream);
}

std::string version() {
  const dnnl_version_t* v = dnnl_version();
  return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

}  // namespace equinorm::nn::onednn
