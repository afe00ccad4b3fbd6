// A model as a list of layers and the values that flow between them, in the order in which they run.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/layer.hpp"
#include "nn/onednn.hpp"

namespace equinorm::nn {

struct Node {
  std::unique_ptr<Layer> layer;
  std::vector<std::size_t> inputs, outputs;  // values
};

/// Every value has one producer (the input of the net: none) and one consumer (the logits: the loss); what goes two
/// ways goes through a Fork.
struct Graph {
  struct Value {
    Shape shape;
    bool needs_gradient;
  };
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::size_t images = 0, logits = 0;
};

/// Adds layers to a graph: the vocabulary in which models are written. Functions take and return values. Where a layer
/// gives two readings, the one with fewer passes over memory is chosen: relu after a norm goes into the norm, and so
/// does the sum that ends a residual block where the norm can take it.
class Builder {
 public:
  Builder(const ModelSpec& spec, std::size_t batch, bool training);

  std::size_t images() const { return graph_.images; }
  std::size_t conv(std::string name, std::size_t x, std::size_t out_channels, std::size_t kernel, std::size_t stride);
  std::size_t linear(std::string name, std::size_t x, std::size_t out_features, bool normed);
  std::size_t activation(std::string name, std::size_t x);
  /// The spec's norm, if any, then its activation.
  std::size_t norm_activation(std::string norm, std::string activation, std::size_t x);
  /// The same over x + shortcut: act(norm(x) + shortcut).
  std::size_t norm_add_activation(const std::string& norm, const std::string& activation, std::size_t x,
                                  std::size_t shortcut);
  /// The spec's norm alone, if any.
  std::size_t norm(std::string name, std::size_t x);
  std::size_t max_pool(std::string name, std::size_t x, std::size_t window);
  std::size_t global_average_pool(std::string name, std::size_t x);
  std::size_t flatten(std::string name, std::size_t x);
  std::size_t hidden_layers() const { return spec_.hidden_layers; }

  /// The spec's dropout, if any.
  std::size_t dropout(std::string name, std::size_t x);
  std::pair<std::size_t, std::size_t> fork(std::string name, std::size_t x);

  Graph finish(std::size_t logits) &&;

 private:
  const Shape& shape(std::size_t value) const { return graph_.values[value].shape; }
  std::size_t add(std::unique_ptr<Layer> layer, std::vector<std::size_t> inputs, const Shape& out);
  /// act(norm(inputs[0]) + inputs[1]), the second being optional.
  std::size_t add_norm(std::string name, std::vector<std::size_t> inputs, Activation activation);
  std::size_t groups_of(const std::string& layer, const Shape& shape) const;
  onednn::Passes passes(std::size_t x, bool bias) const;

  ModelSpec spec_;
  Nonlinearity nonlinearity_;
  bool training_;
  Graph graph_;
};

}  // namespace equinorm::nn
