#include "nn/plan.hpp"

#include <algorithm>

namespace equinorm::nn {
namespace {

constexpr std::size_t kNone = MemoryPlan::kNone;

std::size_t tensor_bytes(const Shape& shape) {
  return shape.elements() * sizeof(float);
}

class Planner {
 public:
  Planner(const Graph& graph, bool training) : graph_(graph), training_(training), loss_(graph.nodes.size()) {
    plan_.values.assign(graph.values.size(), kNone);
    plan_.gradients.assign(graph.values.size(), kNone);
    plan_.nodes.resize(graph.nodes.size());
    plan_.memory.layers.resize(graph.nodes.size());
  }

  MemoryPlan run() && {
    place_values();
    if (training_) place_gradients();
    place_the_rest();
    plan_.packing = pack(plan_.storages);
    account();
    return std::move(plan_);
  }

 private:
  std::size_t backward(std::size_t node) const { return 2 * loss_ - node; }
  std::size_t end() const { return 2 * loss_ + 1; }

  std::size_t storage(std::size_t bytes, std::size_t first, std::size_t last) {
    plan_.storages.push_back({bytes, first, last});
    pinned_.push_back(false);
    kept_.push_back(false);
    return plan_.storages.size() - 1;
  }
  std::size_t permanent(std::size_t bytes) { return bytes == 0 ? kNone : storage(bytes, 0, end()); }
  void touch(std::size_t storage, std::size_t time) {
    Lifetime& life = plan_.storages[storage];
    life.first = std::min(life.first, time);
    life.last = std::max(life.last, time);
  }

  void place_values() {
    plan_.values[graph_.images] = permanent(tensor_bytes(graph_.values[graph_.images].shape));
    pinned_[plan_.values[graph_.images]] = true;
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      const LayerPlan& layer = node.layer->plan();
      const std::size_t input = plan_.values[node.inputs[0]];
      const bool shares =
          layer.placement == Placement::same || (layer.placement == Placement::may_share && !pinned_[input]);
      for (const std::size_t output : node.outputs) {
        plan_.values[output] = shares ? input : storage(tensor_bytes(graph_.values[output].shape), i, i);
      }
      for (const std::size_t value : node.inputs) touch(plan_.values[value], i);
      for (const std::size_t value : node.outputs) touch(plan_.values[value], i);
      if (node.outputs.size() > 1) pinned_[plan_.values[node.outputs[0]]] = true;  // each branch needs it as it is
      if (!training_) continue;
      if (layer.keeps_input) keep(plan_.values[node.inputs[0]], i);
      if (layer.keeps_output) keep(plan_.values[node.outputs[0]], i);
    }
    touch(plan_.values[graph_.logits], end());
  }

  /// Backward of `node` reads this storage: until then it must live, and no later layer may write over it.
  void keep(std::size_t storage, std::size_t node) {
    touch(storage, backward(node));
    pinned_[storage] = true;
    kept_[storage] = true;
    plan_.memory.layers[node].kept += plan_.storages[storage].bytes;
  }

  void place_gradients() {
    plan_.gradients[graph_.logits] = storage(tensor_bytes(graph_.values[graph_.logits].shape), loss_, loss_);
    for (std::size_t i = graph_.nodes.size(); i-- > 0;) {
      const Node& node = graph_.nodes[i];
      for (const std::size_t value : node.outputs) {
        if (plan_.gradients[value] != kNone) touch(plan_.gradients[value], backward(i));
      }
      for (std::size_t k = 0; k < node.inputs.size(); ++k) {
        const std::size_t value = node.inputs[k];
        if (!graph_.values[value].needs_gradient) continue;
        const bool shares = node.layer->plan().gradient_shares == static_cast<int>(k);
        plan_.gradients[value] = shares ? plan_.gradients[node.outputs[0]]
                                        : storage(tensor_bytes(graph_.values[value].shape), backward(i), backward(i));
      }
    }
  }

  void place_the_rest() {
    std::size_t workspace = 0;
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const LayerPlan& layer = graph_.nodes[i].layer->plan();
      std::size_t parameters = 0;
      for (const ParameterPlan& parameter : layer.parameters) {
        parameters += parameter_bytes(parameter.shape);
        plan_.memory.layers[i].parameters += tensor_bytes(parameter.shape);
      }
      plan_.nodes[i].parameters = permanent(parameters);
      plan_.nodes[i].state = permanent(layer.state);
      if (training_) {
        plan_.nodes[i].parameter_gradients = permanent(parameters);
        plan_.nodes[i].saved = permanent(layer.saved);  // small; and the audit reads statistics after the step
        plan_.memory.layers[i].saved = layer.saved;
      }
      workspace = std::max(workspace, layer.workspace);
    }
    plan_.labels = permanent(graph_.values[graph_.images].shape[0]);
    plan_.workspace = permanent(workspace);
    plan_.memory.workspace = workspace;
  }

  void account() {
    Memory& memory = plan_.memory;
    std::vector<bool> of_activation(plan_.storages.size(), false);
    for (const auto* list : {&plan_.values, &plan_.gradients}) {
      for (const std::size_t s : *list) {
        if (s != kNone) of_activation[s] = true;
      }
    }
    std::size_t others = 0;
    for (std::size_t s = 0; s < plan_.storages.size(); ++s) {
      const Lifetime& life = plan_.storages[s];
      if (!of_activation[s]) others += life.bytes;
      if (kept_[s]) memory.kept += life.bytes;
    }
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      LayerMemory& layer = memory.layers[i];
      layer.name = graph_.nodes[i].layer->name();
      layer.kind = graph_.nodes[i].layer->kind();
      memory.parameters += layer.parameters;
      memory.saved += layer.saved;
    }
    memory.gradients = training_ ? memory.parameters : 0;
    memory.arena = plan_.packing.bytes;
    memory.activations = memory.arena - std::min(others, memory.arena);
  }

  const Graph& graph_;
  bool training_;
  std::size_t loss_;
  std::vector<bool> pinned_;  // per storage: its content must not be written over
  std::vector<bool> kept_;    // per storage: some backward reads it
  MemoryPlan plan_;
};

}  // namespace

std::size_t parameter_bytes(const Shape& shape) {
  return (tensor_bytes(shape) + kAlignment - 1) / kAlignment * kAlignment;
}

MemoryPlan plan_memory(const Graph& graph, bool training) {
  return Planner(graph, training).run();
}

}  // namespace equinorm::nn
