// Optimizers: stochastic gradient descent with momentum, and Adam; and the schedules of their rate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "nn/parameter.hpp"

namespace equinorm::nn {

enum class OptimizerKind {
  sgd,   ///< v ← m·v + g,  w ← w − lr·v (PyTorch's form; Sutskever et al. 2013 put lr inside v)
  adam,  ///< Kingma & Ba 2015, arXiv:1412.6980, algorithm 1, with bias correction
};

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::sgd;
  double lr = 0.1;
  double momentum = 0.9;                              ///< sgd: m
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam
  double weight_decay = 0;
  bool decoupled =
      false;  ///< w ← w − lr·decay·w apart from the gradient (AdamW, arXiv:1711.05101); else g ← g + decay·w
  double norm_lr = 1;       ///< a factor on the rate of γ and β
  bool decay_norm = false;  ///< whether weight decay reaches γ and β
  bool decay_bias = false;  ///< whether weight decay reaches biases
};

enum class ScheduleKind {
  constant,
  step,    ///< × step_factor at each of step_parts − 1 equally spaced moments of the run
  cosine,  ///< to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts)
};

struct ScheduleSpec {
  ScheduleKind kind = ScheduleKind::constant;
  std::uint64_t warmup = 0;  ///< steps in which the rate rises linearly from lr/warmup to lr
  double step_factor = 0.1;
  std::uint64_t step_parts = 3;
};

/// "sgd" or "adam"; "constant", "step" or "cosine". Throw Error naming the choices.
OptimizerKind parse_optimizer(std::string_view text);
ScheduleKind parse_schedule(std::string_view text);
std::string_view name_of(OptimizerKind kind);
std::string_view name_of(ScheduleKind kind);

/// Throw Error naming the field, its value and what was expected.
void validate(const OptimizerSpec& spec);
void validate(const ScheduleSpec& spec);

/// The rate of step `step` (from 0) of `steps`, where `lr` is the schedule's peak.
double scheduled_rate(const ScheduleSpec& schedule, double lr, std::uint64_t step, std::uint64_t steps);

/// Updates parameters from their gradients. Its state is allocated once, here: step() allocates nothing.
class Optimizer {
 public:
  /// The parameters must outlive the optimizer.
  Optimizer(const OptimizerSpec& spec, std::span<const Parameter> parameters);

  /// One update at rate `lr`, in one pass over each parameter.
  void step(double lr);

  std::size_t state_bytes() const { return state_.size() * sizeof(float); }

 private:
  OptimizerSpec spec_;
  std::span<const Parameter> parameters_;
  std::vector<float> state_;  // sgd: v; adam: m of all parameters, then v of all
  std::uint64_t steps_ = 0;
};

}  // namespace equinorm::nn
