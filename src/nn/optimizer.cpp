#include "nn/optimizer.hpp"

#include <array>
#include <cmath>
#include <numbers>
#include <string>

#include "core/number.hpp"
#include "equinorm/status.hpp"
#include "nn/names.hpp"
#include "nn/vectorize.hpp"

namespace equinorm::nn {
namespace {

constexpr std::array kOptimizers{Named<OptimizerKind>{"sgd", OptimizerKind::sgd},
                                 Named<OptimizerKind>{"adam", OptimizerKind::adam}};
constexpr std::array kSchedules{Named<ScheduleKind>{"constant", ScheduleKind::constant},
                                Named<ScheduleKind>{"step", ScheduleKind::step},
                                Named<ScheduleKind>{"cosine", ScheduleKind::cosine}};

/// What one parameter's update needs, in the precision of the parameter.
struct Rates {
  float lr, keep;  // w ← keep·w − lr·…: keep is 1 without decoupled weight decay
  float decay;     // g ← g + decay·w
};

EQUINORM_VECTORIZE void sgd(const Rates& r, float momentum, const float* g, float* v, float* w, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    v[i] = momentum * v[i] + (g[i] + r.decay * w[i]);
    w[i] = r.keep * w[i] - r.lr * v[i];
  }
}

/// correction: 1/√(1 − β₂ᵗ); 1/(1 − β₁ᵗ) is in the rate.
EQUINORM_VECTORIZE void adam(const Rates& r, float beta1, float beta2, float epsilon, float correction, const float* g,
                             float* m, float* v, float* w, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float gradient = g[i] + r.decay * w[i];
    m[i] = beta1 * m[i] + (1.0F - beta1) * gradient;
    v[i] = beta2 * v[i] + (1.0F - beta2) * gradient * gradient;
    w[i] = r.keep * w[i] - r.lr * m[i] / (__builtin_sqrtf(v[i]) * correction + epsilon);
  }
}

void expect(bool holds, const char* what, double value, const char* expected) {
  if (!holds) throw Error(std::string(what) + " is " + text_of(value) + "; expected " + expected);
}

}  // namespace

OptimizerKind parse_optimizer(std::string_view text) {
  return parse_name<OptimizerKind>("optimizer", text, kOptimizers);
}
ScheduleKind parse_schedule(std::string_view text) {
  return parse_name<ScheduleKind>("schedule", text, kSchedules);
}
std::string_view name_of(OptimizerKind kind) {
  return name_in<OptimizerKind>(kOptimizers, kind);
}
std::string_view name_of(ScheduleKind kind) {
  return name_in<ScheduleKind>(kSchedules, kind);
}

void validate(const OptimizerSpec& spec) {
  expect(spec.lr > 0 && spec.lr <= 1e6, "learning rate", spec.lr, "more than 0, at most 1e6");
  expect(spec.momentum >= 0 && spec.momentum < 1, "momentum", spec.momentum, "0 to less than 1");
  expect(spec.beta1 >= 0 && spec.beta1 < 1, "beta1", spec.beta1, "0 to less than 1");
  expect(spec.beta2 >= 0 && spec.beta2 < 1, "beta2", spec.beta2, "0 to less than 1");
  expect(spec.epsilon > 0 && spec.epsilon <= 1, "optimizer epsilon", spec.epsilon, "more than 0, at most 1");
  expect(spec.weight_decay >= 0 && spec.weight_decay <= 1, "weight decay", spec.weight_decay, "0 to 1");
  expect(spec.norm_lr >= 0 && spec.norm_lr <= 1e3, "norm rate multiplier", spec.norm_lr, "0 to 1000");
}

void validate(const ScheduleSpec& spec) {
  expect(spec.step_factor > 0 && spec.step_factor <= 1, "schedule step factor", spec.step_factor,
         "more than 0, at most 1");
  expect(spec.step_parts >= 1, "schedule step parts", static_cast<double>(spec.step_parts), "at least 1");
}

double scheduled_rate(const ScheduleSpec& schedule, double lr, std::uint64_t step, std::uint64_t steps) {
  if (step < schedule.warmup) return lr * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup);
  if (steps <= schedule.warmup) return lr;
  // The schedule proper runs over what the warm-up leaves, from 0 to less than 1.
  const double done = static_cast<double>(step - schedule.warmup) / static_cast<double>(steps - schedule.warmup);
  switch (schedule.kind) {
    case ScheduleKind::constant:
      return lr;
    case ScheduleKind::step:
      return lr * std::pow(schedule.step_factor, std::floor(done * static_cast<double>(schedule.step_parts)));
    case ScheduleKind::cosine:
      return lr * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  }
  return lr;
}

Optimizer::Optimizer(const OptimizerSpec& spec, std::span<const Parameter> parameters)
    : spec_(spec), parameters_(parameters) {
  validate(spec);
  std::size_t elements = 0;
  for (const Parameter& parameter : parameters) {
    if (parameter.gradient.empty())
      throw Error("parameter " + parameter.name + " has no gradient: its net is for inference");
    elements += parameter.values.size();
  }
  state_.assign(spec.kind == OptimizerKind::sgd ? elements : 2 * elements, 0.0F);
}

void Optimizer::step(double lr) {
  ++steps_;
  const auto t = static_cast<double>(steps_);
  const double correction1 = spec_.kind == OptimizerKind::adam ? 1.0 / (1.0 - std::pow(spec_.beta1, t)) : 1.0;
  const auto correction2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(spec_.beta2, t)));
  const std::size_t half = state_.size() / 2;
  float* first = state_.data();
  for (const Parameter& p : parameters_) {
    const bool decays = (p.of_norm() && spec_.decay_norm) || (p.kind == ParameterKind::bias && spec_.decay_bias) ||
                        p.kind == ParameterKind::weight;
    const double decay = decays ? spec_.weight_decay : 0.0;
    const double rate = p.of_norm() ? lr * spec_.norm_lr : lr;
    const Rates rates{static_cast<float>(rate * correction1),
                      spec_.decoupled ? static_cast<float>(1.0 - rate * decay) : 1.0F,
                      spec_.decoupled ? 0.0F : static_cast<float>(decay)};
    if (spec_.kind == OptimizerKind::sgd) {
      sgd(rates, static_cast<float>(spec_.momentum), p.gradient.data(), first, p.values.data(), p.values.size());
    } else {
      adam(rates, static_cast<float>(spec_.beta1), static_cast<float>(spec_.beta2), static_cast<float>(spec_.epsilon),
           correction2, p.gradient.data(), first, first + half, p.values.data(), p.values.size());
    }
    first += p.values.size();
  }
}

}  // namespace equinorm::nn
