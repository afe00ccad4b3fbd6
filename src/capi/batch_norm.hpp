// The structs of batch norm that several functions of the C interface take.
#pragma once

#include "capi/edge.hpp"
#include "equinorm/batch_norm.hpp"

namespace equinorm::capi {

inline BatchNormOptions options_of(const equinorm_batch_norm_options* given) {
  equinorm_batch_norm_options o{};
  equinorm_batch_norm_options_init(&o, sizeof o);
  o = read_sized(given, o, "options");
  return {o.epsilon, read_enum(o.activation, Activation::gelu, "options.activation"),
          read_enum(o.non_finite, NonFinitePolicy::propagate, "options.non_finite"),
          read_enum(o.single_value, SingleValuePolicy::allow, "options.single_value"), o.lengths};
}

/// C's struct as C++'s.
template <class T>
RunningStatistics<T> running_of(const equinorm_running_statistics* given, std::string_view name) {
  equinorm_running_statistics r{};
  equinorm_running_statistics_init(&r, sizeof r);
  r = read_sized(given, r, name);
  return {static_cast<Parameter<T>*>(r.mean),
          static_cast<Parameter<T>*>(r.variance),
          r.batches,
          r.skipped,
          {r.running_weight, r.cumulative != 0,
           read_enum(r.variance_kind, VarianceKind::unbiased, "running.variance_kind")}};
}

/// Running statistics that an operation updates, and the counts back. NULL is none.
template <class T>
class Running {
 public:
  explicit Running(equinorm_running_statistics* given) : given_(given), ours_(running_of<T>(given, "running")) {}
  ~Running() {
    if (given_ == nullptr) return;
    given_->batches = ours_.batches;
    given_->skipped = ours_.skipped;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  RunningStatistics<T>* get() { return given_ == nullptr ? nullptr : &ours_; }

 private:
  equinorm_running_statistics* given_;
  RunningStatistics<T> ours_;
};

}  // namespace equinorm::capi
