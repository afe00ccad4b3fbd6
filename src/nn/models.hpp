// The models. Parameter names are those of the equivalent nets in PyTorch:
//   mlp      fc1 … fc4 (norms bn1 … bn3), as attributes of an nn.Module
//   cnn      conv1 … conv3, bn1 … bn3, fc
//   resnet8  as torchvision's ResNet: conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.conv2, layer1.0.bn2, …,
//            layer2.0.downsample.0 (convolution) and .1 (norm), …, fc
#pragma once

#include <span>
#include <string_view>

#include "nn/graph.hpp"

namespace equinorm::nn {

struct Model {
  std::string_view name;
  std::string_view description;
  Nonlinearity activation;  ///< the default
  std::size_t smallest;     ///< least height and width of an image
  std::size_t (*build)(Builder& builder, std::size_t images, std::size_t classes);  ///< returns the logits
};

/// All of them.
std::span<const Model> models();

/// Throws Error naming the choices.
const Model& find_model(std::string_view name);

/// The graph of a validated spec.
Graph build_model(const ModelSpec& spec, std::size_t batch, bool training);

}  // namespace equinorm::nn
