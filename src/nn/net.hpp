// A net: a model planned once for a batch size into one arena. After that, neither a training step nor inference
// allocates.
//
//   Net net(spec, {.batch = 128, .threads = 2, .seed = 1});
//   fill net.images() and net.labels();
//   const Outcome outcome = net.forward(step);  net.backward();  optimizer.step(lr);
//
// Tensors are f32, channels-last. Results repeat bit for bit at the same number of threads. Several nets may run at
// once on threads of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/parameter.hpp"
#include "nn/spec.hpp"

namespace equinorm::nn {

struct NetOptions {
  std::size_t batch = 128;
  bool training = true;  ///< false: no gradients, no backward; activations share memory
  int threads = 1;
  std::uint64_t seed = 1;  ///< of the initial weights and of dropout
};

/// Of one batch.
struct Outcome {
  double loss = 0;          ///< softmax cross-entropy, mean over the rows; not finite if the net diverged
  std::size_t correct = 0;  ///< rows whose largest logit is the label's
  std::size_t rows = 0;
};

/// The state of one batch norm beside its parameters: of the norms it alone has any. All [channels].
struct NormState {
  std::string name;                                    ///< the layer's, such as "bn1"
  std::span<float> running_mean, running_variance;     ///< may be written: inference uses what lies here
  RunningStatistics<float>* running = nullptr;         ///< how many batches, and the options
  std::span<const double> batch_mean, batch_variance;  ///< of the last training forward; empty in a net for inference
};

/// What a probe is shown: one tensor of one layer, before anything overwrites it.
struct ProbedTensor {
  std::string_view layer;  ///< such as "conv1"
  std::string_view kind;   ///< conv, linear, norm, activation, pool, dropout
  bool gradient;  ///< false: the layer's output in forward; true: the loss's gradient by that output, in backward
  Shape shape;    ///< batch first
  std::span<const float> values;
};
using Probe = std::function<void(const ProbedTensor&)>;

/// Summary of a tensor, in double.
struct Moments {
  double mean = 0, deviation = 0, norm = 0;  ///< norm: Euclidean
};
Moments moments(std::span<const float> values);

/// Where the bytes of a net are.
struct LayerMemory {
  std::string name;
  std::string kind;
  std::size_t kept = 0;        ///< of activations that this layer's backward reads, kept from forward until then
  std::size_t saved = 0;       ///< of its own notes for backward: statistics, indices
  std::size_t parameters = 0;  ///< of its parameters
};
struct Memory {
  std::size_t parameters = 0, gradients = 0;  ///< of parameters, and of the loss by them
  std::size_t kept = 0;                       ///< activations that live from forward to backward, each counted once
  std::size_t saved = 0;                      ///< notes of layers for their backward
  std::size_t workspace = 0;                  ///< scratch of one layer at a time
  std::size_t activations = 0;  ///< the part of the arena that activations and their gradients share by lifetime
  std::size_t arena = 0;        ///< all of it
  std::vector<LayerMemory> layers;
};

class Net {
 public:
  /// Plans the model and draws its parameters. Throws Error where the spec, the batch or the threads make no sense.
  Net(const ModelSpec& spec, const NetOptions& options);
  ~Net();
  Net(Net&&) noexcept;
  Net& operator=(Net&&) noexcept;

  const ModelSpec& spec() const;
  const NetOptions& options() const;

  std::span<float> images();              ///< [batch, height, width, channels]: the input of the next forward
  std::span<std::uint8_t> labels();       ///< [batch]
  std::span<const float> logits() const;  ///< [batch, classes], of the last forward or infer

  /// Training forward of the whole batch: norms use the batch's statistics and update the running ones; dropout draws
  /// the mask of `step`. Throws Error naming the layer, for one value per channel for example.
  Outcome forward(std::uint64_t step);

  /// The gradients of the last forward's loss by all parameters.
  void backward();

  /// Inference on the first `rows` rows: running statistics, no dropout. Other rows are not read.
  Outcome infer(std::size_t rows);

  std::span<const Parameter> parameters() const;
  const Parameter& parameter(std::string_view name) const;  ///< throws Error if there is none
  std::span<const NormState> norms() const;                 ///< of batch norms

  /// Takes parameters and norm states from a net of the same model.
  void copy_state(const Net& other);

  /// Shown every layer's output in forward and its gradient in backward; an empty function ends it.
  void set_probe(Probe probe);

  const Memory& memory() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace equinorm::nn
