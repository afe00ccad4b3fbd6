#include "nn/models.hpp"

#include <array>
#include <string>

#include "nn/names.hpp"

namespace equinorm::nn {
namespace {

/// 784–100–100–100–10 on digits: the net of the batch norm paper's first experiment (arXiv:1502.03167, section 4.1);
/// with another number of hidden layers for the audit.
std::size_t mlp(Builder& b, std::size_t images, std::size_t classes) {
  std::size_t x = b.flatten("flatten", images);
  const std::size_t depth = b.hidden_layers();
  for (std::size_t i = 1; i <= depth; ++i) {
    const std::string layer = std::to_string(i);
    x = b.linear("fc" + layer, x, 100, true);
    x = b.norm_activation("bn" + layer, "act" + layer, x);
    x = b.dropout("drop" + layer, x);
  }
  return b.linear("fc" + std::to_string(depth + 1), x, classes, false);
}

/// Three 3×3 convolutions of 16, 32, 64 channels, each with norm and activation; pooling after the first two.
std::size_t cnn(Builder& b, std::size_t images, std::size_t classes) {
  std::size_t x = images;
  std::size_t channels = 16;
  for (const char* i : {"1", "2", "3"}) {
    const std::string layer = i;
    x = b.conv("conv" + layer, x, channels, 3, 1);
    x = b.norm_activation("bn" + layer, "act" + layer, x);
    if (layer != "3") x = b.max_pool("pool" + layer, x, 2);
    channels *= 2;
  }
  x = b.global_average_pool("pool3", x);
  return b.linear("fc", b.dropout("drop", x), classes, false);
}

/// Two 3×3 convolutions and a shortcut, which is a strided 1×1 convolution where the shape changes (He et al. 2015,
/// arXiv:1512.03385, figure 2 and option B).
std::size_t residual_block(Builder& b, const std::string& name, std::size_t x, std::size_t channels, std::size_t stride,
                           bool reshapes) {
  auto [main, shortcut] = b.fork(name + "fork", x);
  if (reshapes) {
    shortcut = b.norm(name + "downsample.1", b.conv(name + "downsample.0", shortcut, channels, 1, stride));
  }
  main = b.conv(name + "conv1", main, channels, 3, stride);
  main = b.norm_activation(name + "bn1", name + "act1", main);
  main = b.conv(name + "conv2", main, channels, 3, 1);
  return b.norm_add_activation(name + "bn2", name + "act2", main, shortcut);
}

/// A 3×3 stem and one residual block in each of three stages of 16, 32, 64 channels.
std::size_t resnet8(Builder& b, std::size_t images, std::size_t classes) {
  std::size_t x = b.conv("conv1", images, 16, 3, 1);
  x = b.norm_activation("bn1", "act1", x);
  x = residual_block(b, "layer1.0.", x, 16, 1, false);
  x = residual_block(b, "layer2.0.", x, 32, 2, true);
  x = residual_block(b, "layer3.0.", x, 64, 2, true);
  x = b.global_average_pool("avgpool", x);
  return b.linear("fc", b.dropout("drop", x), classes, false);
}

constexpr std::array kModels{
    Model{"mlp", "784-100-100-100-10 perceptron", Nonlinearity::sigmoid, 1, mlp},
    Model{"cnn", "three 3x3 convolutions of 16, 32, 64 channels", Nonlinearity::relu, 4, cnn},
    Model{"resnet8", "3x3 stem and three residual blocks of 16, 32, 64 channels", Nonlinearity::relu, 4, resnet8},
};

}  // namespace

std::span<const Model> models() {
  return kModels;
}

const Model& find_model(std::string_view name) {
  for (const Model& model : kModels) {
    if (model.name == name) return model;
  }
  throw_unknown("model", name, std::span<const Model>(kModels));
}

Graph build_model(const ModelSpec& spec, std::size_t batch, bool training) {
  Builder builder(spec, batch, training);
  const std::size_t logits = find_model(spec.model).build(builder, builder.images(), spec.classes);
  return std::move(builder).finish(logits);
}

}  // namespace equinorm::nn
