#include "peers/onednn_batch_norm.hpp"

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

namespace equinorm::bench {
namespace {

using Forward = dnnl::batch_normalization_forward;
using Backward = dnnl::batch_normalization_backward;
using Flags = dnnl::normalization_flags;

// oneDNN 3 did away with operation descriptors and split scale from shift.
Forward::primitive_desc describe(const dnnl::engine& engine, dnnl::prop_kind kind, const dnnl::memory::desc& data,
                                 Flags flags) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kind, data, data, 1e-5F, flags | Flags::use_scale | Flags::use_shift};
#else
  return {{kind, data, 1e-5F, flags | Flags::use_scale | Flags::use_shift}, engine};
#endif
}
Backward::primitive_desc describe(const dnnl::engine& engine, const dnnl::memory::desc& data, Flags flags,
                                  const Forward::primitive_desc& hint) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, dnnl::prop_kind::backward, data, data, data, 1e-5F, flags | Flags::use_scale | Flags::use_shift,
          hint};
#else
  return {{dnnl::prop_kind::backward, data, data, 1e-5F, flags | Flags::use_scale | Flags::use_shift}, engine, hint};
#endif
}

/// A primitive bound to its arguments.
std::function<void()> bound(const dnnl::primitive& primitive, dnnl::stream stream,
                            std::unordered_map<int, dnnl::memory> arguments) {
  return [primitive, stream, arguments = std::move(arguments)]() mutable {
    primitive.execute(stream, arguments);
    stream.wait();
  };
}

}  // namespace

OneDnnBatchNorm onednn_batch_norm(std::size_t n, std::size_t c, std::size_t h, std::size_t w, Layout layout,
                                  const PeerTensors& t) {
  const auto dim = [](std::size_t extent) { return static_cast<dnnl::memory::dim>(extent); };
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const dnnl::stream stream(engine);
  const auto tag = layout == Layout::channels_last ? dnnl::memory::format_tag::nhwc : dnnl::memory::format_tag::nchw;
  const dnnl::memory::desc data({dim(n), dim(c), dim(h), dim(w)}, dnnl::memory::data_type::f32, tag);
  const dnnl::memory::desc channel({dim(c)}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::a);
  const auto tensor = [&](float* p) { return dnnl::memory(data, engine, p); };
  const auto vector = [&](float* p) { return dnnl::memory(channel, engine, p); };

  // oneDNN fuses ReLU, keeping its mask in a workspace; an add before the ReLU is a pass of its own.
  const bool fused_relu = t.relu && t.residual == nullptr;
  const Flags flags = fused_relu ? Flags::fuse_norm_relu : Flags::none;
  const auto train_desc = describe(engine, dnnl::prop_kind::forward_training, data, flags);
  const auto infer_desc = describe(engine, dnnl::prop_kind::forward_inference, data, flags | Flags::use_global_stats);
  const auto backward_desc = describe(engine, data, flags, train_desc);

  std::unordered_map<int, dnnl::memory> forward{
      {DNNL_ARG_SRC, tensor(t.x)},       {DNNL_ARG_DST, tensor(t.y)},
      {DNNL_ARG_MEAN, vector(t.mean)},   {DNNL_ARG_VARIANCE, vector(t.variance)},
      {DNNL_ARG_SCALE, vector(t.gamma)}, {DNNL_ARG_SHIFT, vector(t.beta)}};
  std::unordered_map<int, dnnl::memory> infer = forward;
  std::unordered_map<int, dnnl::memory> backward = forward;
  backward.erase(DNNL_ARG_DST);
  backward.insert({{DNNL_ARG_DIFF_DST, tensor(t.dy)},
                   {DNNL_ARG_DIFF_SRC, tensor(t.dx)},
                   {DNNL_ARG_DIFF_SCALE, vector(t.dgamma)},
                   {DNNL_ARG_DIFF_SHIFT, vector(t.dbeta)}});
  if (fused_relu) {
    const dnnl::memory mask(train_desc.workspace_desc(), engine);
    forward.insert({DNNL_ARG_WORKSPACE, mask});
    backward.insert({DNNL_ARG_WORKSPACE, mask});
  }
  std::function<void()> train = bound(dnnl::batch_normalization_forward(train_desc), stream, forward);
  std::function<void()> inference = bound(dnnl::batch_normalization_forward(infer_desc), stream, infer);
  if (t.residual != nullptr) {
    // y ← y + residual, with the ReLU fused to it.
    dnnl::post_ops post;
    dnnl::primitive_attr attributes;
    if (t.relu) {
#if DNNL_VERSION_MAJOR >= 3
      post.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
#else
      post.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
#endif
      attributes.set_post_ops(post);
    }
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::binary::primitive_desc add_desc(engine, dnnl::algorithm::binary_add, data, data, data, attributes);
#else
    const dnnl::binary::primitive_desc add_desc({dnnl::algorithm::binary_add, data, data, data}, attributes, engine);
#endif
    const auto add =
        bound(dnnl::binary(add_desc), stream,
              {{DNNL_ARG_SRC_0, tensor(t.y)}, {DNNL_ARG_SRC_1, tensor(t.residual)}, {DNNL_ARG_DST, tensor(t.y)}});
    const auto both = [](std::function<void()> first, std::function<void()> second) {
      return [first = std::move(first), second = std::move(second)] { first(), second(); };
    };
    train = both(std::move(train), add);
    inference = both(std::move(inference), add);
  }
  return {std::move(train), std::move(inference),
          bound(dnnl::batch_normalization_backward(backward_desc), stream, backward)};
}

}  // namespace equinorm::bench
