// What a net is, as data: the model, its normalization, activation and initial weights; and the names of the choices.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "equinorm/batch_norm.hpp"

namespace equinorm::nn {

/// How weights are drawn; biases start at 0, γ at 1, β at 0.
enum class Init {
  he,      ///< N(0, 2/fan_in): He et al. 2015, arXiv:1502.01852, eq. 10
  xavier,  ///< N(0, 2/(fan_in + fan_out)): Glorot & Bengio 2010, eq. 12
  scaled,  ///< N(0, 1/fan_in): LeCun et al. 1998, "Efficient BackProp", eq. 16
};

/// The non-linearity between layers.
enum class Nonlinearity { relu, sigmoid, tanh };

enum class NormKind {
  none,
  batch,     ///< over the batch, for each channel
  layer,     ///< over all of a sample; γ and β for each channel, as PyTorch's GroupNorm(1, channels)
  rms,       ///< each position over its channels, without a mean and without β
  instance,  ///< over the positions of a sample, for each channel
  group,     ///< over the positions and a group of channels of a sample
};

/// Normalization of a net: its kind and what the kind needs.
struct NormSpec {
  NormKind kind = NormKind::batch;
  double epsilon = 1e-5;
  std::size_t groups = 1;    ///< of `group`; divides the channels of every layer
  RunningOptions running{};  ///< of `batch`
  SingleValuePolicy single_value =
      SingleValuePolicy::error;  ///< of `batch`: `allow` trains a multilayer perceptron on batches of 1
};

/// Everything that decides the functions of a net and its initial parameters, but the seed.
struct ModelSpec {
  std::string model = "cnn";  ///< a name in model_names()
  NormSpec norm{};
  std::string activation{};  ///< relu, sigmoid or tanh; "" is the model's default: sigmoid for mlp, relu elsewhere
  Init init = Init::he;
  double init_scale = 1;          ///< a factor on every initial weight
  double dropout = 0;             ///< rate: after each hidden activation of mlp, before the last linear layer elsewhere
  std::size_t hidden_layers = 3;  ///< of mlp
  std::size_t height = 28, width = 28, channels = 1;
  std::size_t classes = 10;
};

/// "none", "batch", "layer", "rms", "instance" or "group:G", G a number. Throws Error naming the choices.
NormSpec parse_norm(std::string_view text);
std::string name_of(const NormSpec& norm);

/// "he", "xavier" or "scaled". Throws Error naming the choices.
Init parse_init(std::string_view text);
std::string_view name_of(Init init);

/// "relu", "sigmoid" or "tanh". Throws Error naming the choices.
Nonlinearity parse_nonlinearity(std::string_view text);
std::string_view name_of(Nonlinearity nonlinearity);

/// The models there are: mlp, cnn, resnet8.
std::vector<std::string_view> model_names();

/// The spec with its defaults filled in. Throws Error naming the field, its value and what was expected.
ModelSpec validated(ModelSpec spec);

}  // namespace equinorm::nn
