#include "nn/graph.hpp"

#include <algorithm>

#include "nn/layers/activation.hpp"
#include "nn/layers/batch_norm.hpp"
#include "nn/layers/conv2d.hpp"
#include "nn/layers/dropout.hpp"
#include "nn/layers/group_norm.hpp"
#include "nn/layers/linear.hpp"
#include "nn/layers/pooling.hpp"
#include "nn/layers/rms_norm.hpp"
#include "nn/layers/wiring.hpp"

namespace equinorm::nn {
namespace {

/// A norm with a β takes the place of the bias before it, as in torchvision's nets.
bool has_shift(const NormSpec& norm) {
  return norm.kind != NormKind::none && norm.kind != NormKind::rms;
}

}  // namespace

Builder::Builder(const ModelSpec& spec, std::size_t batch, bool training)
    : spec_(spec), nonlinearity_(parse_nonlinearity(spec.activation)), training_(training) {
  graph_.values.push_back({{batch, spec.height, spec.width, spec.channels}, false});
}

std::size_t Builder::add(std::unique_ptr<Layer> layer, std::vector<std::size_t> inputs, const Shape& out) {
  const bool needs_gradient = !layer->plan().parameters.empty() || std::ranges::any_of(inputs, [&](std::size_t value) {
    return graph_.values[value].needs_gradient;
  });
  const std::size_t value = graph_.values.size();
  graph_.values.push_back({out, needs_gradient});
  graph_.nodes.push_back({std::move(layer), std::move(inputs), {value}});
  return value;
}

onednn::Passes Builder::passes(std::size_t x, bool bias) const {
  return {.bias = bias, .training = training_, .input_gradient = graph_.values[x].needs_gradient};
}

std::size_t Builder::conv(std::string name, std::size_t x, std::size_t out_channels, std::size_t kernel,
                          std::size_t stride) {
  const Shape& s = shape(x);
  const onednn::ConvolutionShape conv{s[0], s[1], s[2], s[3], out_channels, kernel, stride, kernel / 2};
  const bool bias = !has_shift(spec_.norm);
  return add(std::make_unique<Conv2d>(std::move(name), conv, passes(x, bias)), {x},
             {s[0], conv.out_height(), conv.out_width(), out_channels});
}

std::size_t Builder::linear(std::string name, std::size_t x, std::size_t out_features, bool normed) {
  const Shape& s = shape(x);
  const bool bias = !normed || !has_shift(spec_.norm);
  return add(std::make_unique<Linear>(std::move(name), onednn::LinearShape{s[0], s[1], out_features}, passes(x, bias)),
             {x}, {s[0], out_features});
}

std::size_t Builder::activation(std::string name, std::size_t x) {
  return add(std::make_unique<ActivationLayer>(std::move(name), nonlinearity_), {x}, shape(x));
}

std::size_t Builder::groups_of(const std::string& layer, const Shape& s) const {
  const NormKind kind = spec_.norm.kind;
  const std::size_t channels = s[s.rank() - 1];
  const std::size_t groups = kind == NormKind::layer ? 1 : kind == NormKind::instance ? channels : spec_.norm.groups;
  if (channels % groups != 0) {
    throw Error("layer " + layer + " of " + spec_.model + ": its " + std::to_string(channels) +
                " channels do not fall into " + std::to_string(groups) + " groups, as norm " + name_of(spec_.norm) +
                " asks; expected a divisor of " + std::to_string(channels));
  }
  if (s.elements() / s[0] == groups) {
    throw Error(
        "layer " + layer + " of " + spec_.model + ": norm " + name_of(spec_.norm) +
        " would normalize every value by itself, to 0; expected a norm over more than one value, such as layer");
  }
  return groups;
}

std::size_t Builder::add_norm(std::string name, std::vector<std::size_t> inputs, Activation activation) {
  const Shape s = shape(inputs[0]);
  const NormSpec& norm = spec_.norm;
  const bool residual = inputs.size() == 2;
  std::unique_ptr<Layer> layer;
  if (norm.kind == NormKind::batch) {
    layer = std::make_unique<BatchNorm>(std::move(name), s, norm, activation, residual, training_);
  } else if (norm.kind == NormKind::rms) {
    layer = std::make_unique<RmsNorm>(std::move(name), s, norm.epsilon, activation, training_);
  } else {
    const std::size_t groups = groups_of(name, s);
    layer = std::make_unique<GroupNorm>(std::move(name), s, norm.epsilon, groups, activation, residual, training_);
  }
  return add(std::move(layer), std::move(inputs), s);
}

std::size_t Builder::norm(std::string name, std::size_t x) {
  return spec_.norm.kind == NormKind::none ? x : add_norm(std::move(name), {x}, Activation::none);
}

std::size_t Builder::norm_activation(std::string norm_name, std::string activation_name, std::size_t x) {
  if (spec_.norm.kind != NormKind::none && nonlinearity_ == Nonlinearity::relu) {
    return add_norm(std::move(norm_name), {x}, Activation::relu);
  }
  return activation(std::move(activation_name), norm(std::move(norm_name), x));
}

std::size_t Builder::norm_add_activation(const std::string& norm_name, const std::string& activation_name,
                                         std::size_t x, std::size_t shortcut) {
  if (spec_.norm.kind == NormKind::none || spec_.norm.kind == NormKind::rms) {
    const Shape s = shape(x);
    const std::size_t normed = norm(norm_name, x);
    return activation(activation_name, add(std::make_unique<Add>(activation_name + ".add"), {normed, shortcut}, s));
  }
  if (nonlinearity_ == Nonlinearity::relu) return add_norm(norm_name, {x, shortcut}, Activation::relu);
  return activation(activation_name, add_norm(norm_name, {x, shortcut}, Activation::none));
}

std::size_t Builder::max_pool(std::string name, std::size_t x, std::size_t window) {
  const Shape& s = shape(x);
  const Shape out{s[0], s[1] / window, s[2] / window, s[3]};
  return add(std::make_unique<MaxPool>(std::move(name), out, window, training_), {x}, out);
}

std::size_t Builder::global_average_pool(std::string name, std::size_t x) {
  const Shape out{shape(x)[0], shape(x)[3]};
  return add(std::make_unique<GlobalAveragePool>(std::move(name)), {x}, out);
}

std::size_t Builder::flatten(std::string name, std::size_t x) {
  const Shape out{shape(x)[0], shape(x).elements() / shape(x)[0]};
  return add(std::make_unique<Flatten>(std::move(name)), {x}, out);
}

std::size_t Builder::dropout(std::string name, std::size_t x) {
  if (spec_.dropout == 0) return x;
  const Shape s = shape(x);
  return add(std::make_unique<Dropout>(std::move(name), spec_.dropout, training_), {x}, s);
}

std::pair<std::size_t, std::size_t> Builder::fork(std::string name, std::size_t x) {
  const Shape s = shape(x);
  const std::size_t first = add(std::make_unique<Fork>(std::move(name)), {x}, s);
  const std::size_t second = graph_.values.size();
  graph_.values.push_back(graph_.values[first]);
  graph_.nodes.back().outputs.push_back(second);
  return {first, second};
}

Graph Builder::finish(std::size_t logits) && {
  graph_.logits = logits;
  return std::move(graph_);
}

}  // namespace equinorm::nn
