#include "nn/net.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "equinorm/status.hpp"
#include "nn/graph.hpp"
#include "nn/init.hpp"
#include "nn/loss.hpp"
#include "nn/models.hpp"
#include "nn/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::nn {

Moments moments(std::span<const float> values) {
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const double mean = sum / static_cast<double>(values.size());
  double centred = 0;
  for (const float value : values) {
    const double difference = static_cast<double>(value) - mean;
    centred += difference * difference;
  }
  return {mean, std::sqrt(centred / static_cast<double>(values.size())), std::sqrt(squares)};
}

struct Net::State {
  State(const ModelSpec& model, const NetOptions& how);

  std::byte* at(std::size_t storage) const {
    return storage == MemoryPlan::kNone ? nullptr : arena.data() + plan.packing.offsets[storage];
  }
  void add_parameters(std::size_t node);
  Tensor tensor(std::size_t value) const {
    return {graph.values[value].shape, reinterpret_cast<float*>(at(plan.values[value])),
            reinterpret_cast<float*>(at(plan.gradients[value]))};
  }
  std::uint8_t* labels() const { return reinterpret_cast<std::uint8_t*>(at(plan.labels)); }
  Outcome run(const Call& call, std::size_t rows);
  void show(const Node& node, bool gradient) const;

  ModelSpec spec;
  NetOptions options;
  Graph graph;
  MemoryPlan plan;
  Arena arena;
  std::vector<Parameter> parameters;
  std::vector<NormState> norms;
  Probe probe;
  Call last{};               // of the last forward
  bool can_go_back = false;  // its activations are all there
};

namespace {

const NetOptions& checked(const NetOptions& options) {
  const auto expect = [](const char* what, auto value, auto most) {
    if (value < 1 || value > most) {
      throw Error(std::string(what) + " is " + std::to_string(value) + "; expected 1 to " + std::to_string(most));
    }
  };
  expect("batch size", options.batch, std::size_t{65536});
  expect("number of threads", options.threads, 1024);
  set_openmp_threads(options.threads);  // oneDNN plans for so many
  return options;
}

}  // namespace

Net::State::State(const ModelSpec& model, const NetOptions& how)
    : spec(validated(model)),
      options(checked(how)),
      graph(build_model(spec, options.batch, options.training)),
      plan(plan_memory(graph, options.training)),
      arena(plan.packing.bytes) {
  std::size_t count = 0;
  for (const Node& node : graph.nodes) count += node.layer->plan().parameters.size();
  parameters.reserve(count);  // layers keep spans of it
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    Layer& layer = *graph.nodes[i].layer;
    const std::size_t first = parameters.size();
    add_parameters(i);
    Binding binding{.parameters = std::span(parameters).subspan(first),
                    .saved = at(plan.nodes[i].saved),
                    .state = at(plan.nodes[i].state),
                    .workspace = at(plan.workspace)};
    for (const std::size_t value : graph.nodes[i].inputs) binding.in.push_back(tensor(value));
    for (const std::size_t value : graph.nodes[i].outputs) binding.out.push_back(tensor(value));
    layer.bind(std::move(binding));
    if (layer.norm() != nullptr) norms.push_back(*layer.norm());
  }
}

void Net::State::add_parameters(std::size_t node) {
  const Layer& layer = *graph.nodes[node].layer;
  std::size_t offset = 0;
  for (const ParameterPlan& planned : layer.plan().parameters) {
    const auto span = [&](std::size_t storage) -> std::span<float> {
      if (storage == MemoryPlan::kNone) return {};
      return {reinterpret_cast<float*>(at(storage) + offset), planned.shape.elements()};
    };
    parameters.push_back({layer.name() + "." + planned.suffix, planned.kind, planned.shape,
                          span(plan.nodes[node].parameters), span(plan.nodes[node].parameter_gradients)});
    initialize(spec, planned, options.seed, parameters.back());
    offset += parameter_bytes(planned.shape);
  }
}

void Net::State::show(const Node& node, bool gradient) const {
  if (!probe || node.layer->kind() == "fork" || node.layer->kind() == "flatten") return;
  const Tensor value = tensor(node.outputs[0]);
  const float* data = gradient ? value.gradient : value.values;
  if (data != nullptr) probe({node.layer->name(), node.layer->kind(), gradient, value.shape, {data, value.elements()}});
}

Outcome Net::State::run(const Call& call, std::size_t rows) {
  set_openmp_threads(options.threads);
  last = call;
  for (const Node& node : graph.nodes) {
    node.layer->forward(call);
    show(node, false);
  }
  const Tensor logits = tensor(graph.logits);
  return softmax_cross_entropy(logits.values, labels(), rows, spec.classes, call.training ? logits.gradient : nullptr);
}

Net::Net(const ModelSpec& spec, const NetOptions& options) : state_(std::make_unique<State>(spec, options)) {}
Net::~Net() = default;
Net::Net(Net&&) noexcept = default;
Net& Net::operator=(Net&&) noexcept = default;

const ModelSpec& Net::spec() const {
  return state_->spec;
}

const NetOptions& Net::options() const {
  return state_->options;
}

std::span<float> Net::images() {
  const Tensor images = state_->tensor(state_->graph.images);
  return {images.values, images.elements()};
}

std::span<std::uint8_t> Net::labels() {
  return {state_->labels(), state_->options.batch};
}

std::span<const float> Net::logits() const {
  const Tensor logits = state_->tensor(state_->graph.logits);
  return {logits.values, logits.elements()};
}

Outcome Net::forward(std::uint64_t step) {
  if (!state_->options.training) throw Error("a net planned for inference cannot be trained");
  state_->can_go_back = false;
  const Outcome outcome =
      state_->run({.training = true, .seed = state_->options.seed, .step = step, .threads = state_->options.threads},
                  state_->options.batch);
  state_->can_go_back = true;
  return outcome;
}

void Net::backward() {
  if (!std::exchange(state_->can_go_back, false))
    throw Error("backward of a net needs a training forward just before it");
  set_openmp_threads(state_->options.threads);
  const auto& nodes = state_->graph.nodes;
  for (std::size_t i = nodes.size(); i-- > 0;) {
    if (!state_->graph.values[nodes[i].outputs[0]].needs_gradient) continue;
    state_->show(nodes[i], true);
    nodes[i].layer->backward(state_->last);
  }
}

Outcome Net::infer(std::size_t rows) {
  if (rows > state_->options.batch) {
    throw Error("inference of " + std::to_string(rows) + " rows in a net planned for " +
                std::to_string(state_->options.batch));
  }
  state_->can_go_back = false;
  return state_->run({.training = false, .threads = state_->options.threads}, rows);
}

std::span<const Parameter> Net::parameters() const {
  return state_->parameters;
}

const Parameter& Net::parameter(std::string_view name) const {
  const auto found = std::ranges::find(state_->parameters, name, &Parameter::name);
  if (found == state_->parameters.end()) throw Error("the net has no parameter \"" + std::string(name) + "\"");
  return *found;
}

std::span<const NormState> Net::norms() const {
  return state_->norms;
}

void Net::copy_state(const Net& other) {
  const auto same = [](const Parameter& a, const Parameter& b) { return a.name == b.name && a.shape == b.shape; };
  if (!std::ranges::equal(parameters(), other.parameters(), same)) {
    throw Error("the state of a net can only be copied to a net of the same model");
  }
  for (std::size_t i = 0; i < state_->parameters.size(); ++i) {
    std::ranges::copy(other.state_->parameters[i].values, state_->parameters[i].values.begin());
  }
  for (std::size_t i = 0; i < state_->norms.size(); ++i) {
    const NormState &from = other.state_->norms[i], &to = state_->norms[i];
    std::ranges::copy(from.running_mean, to.running_mean.begin());
    std::ranges::copy(from.running_variance, to.running_variance.begin());
    to.running->batches = from.running->batches;
    to.running->skipped = from.running->skipped;
  }
}

void Net::set_probe(Probe probe) {
  state_->probe = std::move(probe);
}

const Memory& Net::memory() const {
  return state_->plan.memory;
}

}  // namespace equinorm::nn
