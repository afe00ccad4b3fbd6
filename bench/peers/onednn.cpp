#include "peers/onednn.hpp"

#include <type_traits>
#include <unordered_map>

#include "nn/onednn_version.hpp"

namespace equinorm::bench {
namespace {

using Arguments = std::unordered_map<int, dnnl::memory>;
using Desc = dnnl::memory::desc;
using Flags = dnnl::normalization_flags;
constexpr auto kFloatEpsilon = static_cast<float>(kEpsilon);

/// A primitive bound to its arguments.
std::function<void()> bound(const dnnl::primitive& primitive, dnnl::stream stream, Arguments arguments) {
  return [primitive, stream, arguments = std::move(arguments)]() mutable {
    primitive.execute(stream, arguments);
    stream.wait();
  };
}

/// destination ← destination + residual, with the ReLU fused to it.
std::function<void()> residual_add(const dnnl::engine& engine, const dnnl::stream& stream, const Desc& data,
                                   void* residual, void* destination, bool relu) {
  dnnl::post_ops post;
  dnnl::primitive_attr attributes;
  if (relu) nn::onednn::append_relu(post);
  attributes.set_post_ops(post);
  const auto add =
      nn::onednn::describe<dnnl::binary>(engine, attributes, dnnl::algorithm::binary_add, data, data, data);
  const auto tensor = [&](void* p) { return dnnl::memory(data, engine, p); };
  return bound(
      dnnl::binary(add), stream,
      {{DNNL_ARG_SRC_0, tensor(destination)}, {DNNL_ARG_SRC_1, tensor(residual)}, {DNNL_ARG_DST, tensor(destination)}});
}

template <class Forward, class Backward, class T>
Passes passes(const Problem& problem, const Tensors<T>& t, const dnnl::memory::dims& extents,
              dnnl::memory::format_tag tag) {
  const auto dim = [](std::size_t extent) { return static_cast<dnnl::memory::dim>(extent); };
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const dnnl::stream stream(engine);
  const auto type = std::is_same_v<T, float> ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
  const auto f32 = dnnl::memory::data_type::f32;
  const Desc data(extents, type, tag);
  const auto tensor = [&](T* p) { return dnnl::memory(data, engine, p); };
  const auto vector = [&](float* p, std::size_t count) {
    return dnnl::memory(Desc({dim(count)}, f32, dnnl::memory::format_tag::a), engine, p);
  };

  const bool relu = problem.activation == Activation::relu;
  // oneDNN keeps the mask of a fused ReLU in a workspace.
  const bool fused_relu = relu && !problem.add;
  const Flags affine = Flags::use_scale | Flags::use_shift;
  const Flags flags = fused_relu ? affine | Flags::fuse_norm_relu : affine;
  const Flags inference = problem.op == Op::batch_norm ? flags | Flags::use_global_stats : flags;
  const auto train_desc =
      nn::onednn::describe_norm<Forward>(engine, dnnl::prop_kind::forward_training, data, kFloatEpsilon, flags);
  const auto infer_desc =
      nn::onednn::describe_norm<Forward>(engine, dnnl::prop_kind::forward_inference, data, kFloatEpsilon, inference);

  Arguments forward{{DNNL_ARG_SRC, tensor(t.x)},
                    {DNNL_ARG_DST, tensor(t.y)},
                    {DNNL_ARG_MEAN, vector(t.mean, problem.statistics())},
                    {DNNL_ARG_VARIANCE, vector(t.variance, problem.statistics())},
                    {DNNL_ARG_SCALE, vector(t.gamma, problem.c)},
                    {DNNL_ARG_SHIFT, vector(t.beta, problem.c)}};
  Arguments infer = forward;
  if (problem.op == Op::layer_norm) {  // which takes its own
    infer.erase(DNNL_ARG_MEAN);
    infer.erase(DNNL_ARG_VARIANCE);
  }
  Arguments backward = forward;
  backward.erase(DNNL_ARG_DST);
  if (problem.op == Op::batch_norm && !nn::onednn::kBatchNormBackwardTakesShift) backward.erase(DNNL_ARG_SHIFT);
  backward.insert({{DNNL_ARG_DIFF_DST, tensor(t.dy)},
                   {DNNL_ARG_DIFF_SRC, tensor(t.dx)},
                   {DNNL_ARG_DIFF_SCALE, vector(t.dgamma, problem.c)},
                   {DNNL_ARG_DIFF_SHIFT, vector(t.dbeta, problem.c)}});
  if (fused_relu) {
    const dnnl::memory mask(train_desc.workspace_desc(), engine);
    forward.insert({DNNL_ARG_WORKSPACE, mask});
    backward.insert({DNNL_ARG_WORKSPACE, mask});
  }
  Passes result{bound(Forward(train_desc), stream, forward), bound(Forward(infer_desc), stream, infer), {}};
  if (problem.add) {
    const auto add = residual_add(engine, stream, data, t.residual, t.y, relu);
    for (auto* pass : {&result.train, &result.infer}) {
      *pass = [first = std::move(*pass), add] { first(), add(); };
    }
  } else if (t.dx != nullptr) {
    result.backward =
        bound(Backward(nn::onednn::describe_norm_backward<Backward>(engine, train_desc, data, kFloatEpsilon, flags)),
              stream, backward);
  }
  return result;
}  // NOLINT(clang-analyzer-cplusplus.NewDeleteLeaks): the functions own it, and go to the caller

}  // namespace

template <class T>
std::optional<Passes> onednn(const Problem& p, const Tensors<T>& tensors) {
  if (p.activation != Activation::none && p.activation != Activation::relu) return {};  // what it fuses
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, bfloat16>) {
    const auto dims = [](auto... extents) { return dnnl::memory::dims{static_cast<dnnl::memory::dim>(extents)...}; };
    using Tag = dnnl::memory::format_tag;
    try {
      if (p.op == Op::batch_norm) {
        return passes<dnnl::batch_normalization_forward, dnnl::batch_normalization_backward>(
            p, tensors, dims(p.n, p.c, p.h, p.w), p.layout == Layout::channels_last ? Tag::nhwc : Tag::nchw);
      }
      if (p.op == Op::layer_norm && p.activation == Activation::none && !p.add) {
        return passes<dnnl::layer_normalization_forward, dnnl::layer_normalization_backward>(p, tensors, dims(p.n, p.c),
                                                                                             Tag::ab);
      }
    } catch (const dnnl::error& error) {  // bf16 on a machine without AVX-512, for one
      if (error.status != dnnl_unimplemented) throw;
    }
  }
  return {};
}

template std::optional<Passes> onednn(const Problem&, const Tensors<float>&);
template std::optional<Passes> onednn(const Problem&, const Tensors<double>&);
template std::optional<Passes> onednn(const Problem&, const Tensors<bfloat16>&);
template std::optional<Passes> onednn(const Problem&, const Tensors<float16>&);

}  // namespace equinorm::bench
