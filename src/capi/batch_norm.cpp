#include "equinorm/batch_norm.hpp"

#include "capi/edge.hpp"

namespace equinorm::capi {
namespace {

BatchNormOptions options_of(const equinorm_batch_norm_options* given) {
  equinorm_batch_norm_options o{};
  equinorm_batch_norm_options_init(&o, sizeof o);
  o = read_sized(given, o, "options");
  return {o.epsilon, read_enum(o.activation, Activation::gelu, "options.activation"),
          read_enum(o.non_finite, NonFinitePolicy::propagate, "options.non_finite"),
          read_enum(o.single_value, SingleValuePolicy::allow, "options.single_value")};
}

/// Running statistics that an operation updates: C's struct as C++'s, and the counts back.
template <class T>
class Running {
 public:
  explicit Running(equinorm_running_statistics* given) : given_(given) {
    equinorm_running_statistics r{};
    equinorm_running_statistics_init(&r, sizeof r);
    r = read_sized(given, r, "running");
    ours_ = {static_cast<Parameter<T>*>(r.mean),
             static_cast<Parameter<T>*>(r.variance),
             r.batches,
             r.skipped,
             {r.running_weight, r.cumulative != 0,
              read_enum(r.variance_kind, VarianceKind::unbiased, "running.variance_kind")}};
  }
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

}  // namespace
}  // namespace equinorm::capi

using namespace equinorm;
using namespace equinorm::capi;

void equinorm_batch_norm_options_init(equinorm_batch_norm_options* options, size_t size) {
  constexpr BatchNormOptions kDefaults;
  initialize(options, size,
             {0, kDefaults.epsilon, static_cast<int32_t>(kDefaults.activation),
              static_cast<int32_t>(kDefaults.non_finite), static_cast<int32_t>(kDefaults.single_value), 0});
}

void equinorm_running_statistics_init(equinorm_running_statistics* running, size_t size) {
  constexpr RunningOptions kDefaults;
  initialize(running, size,
             {0, nullptr, nullptr, 0, 0, kDefaults.running_weight, kDefaults.cumulative ? 1 : 0,
              static_cast<int32_t>(kDefaults.variance)});
}

size_t equinorm_batch_norm_workspace_bytes(const equinorm_tensor* x) {
  return workspace_bytes(x, [&]<class T>(const Arguments<T>& a) {
    return batch_norm_workspace_bytes<T>(a.in(x, "x").shape, a.in(x, "x").layout);
  });
}

equinorm_status equinorm_batch_norm_forward(const equinorm_batch_norm_options* options, const equinorm_tensor* x,
                                            const void* gamma, const void* beta, const equinorm_tensor* residual,
                                            const equinorm_tensor* y, double* mean, double* variance,
                                            equinorm_running_statistics* running, const equinorm_execution* execution) {
  return run("batch_norm_forward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      Running<T> taken(running);
      return batch_norm_forward<T>(options_of(options), a.in(x, "x"), a.affine(gamma, beta), a.in(residual, "residual"),
                                   a.out(y, "y"), {mean, variance}, taken.get(), how);
    });
  });
}

equinorm_status equinorm_batch_norm_inference(const equinorm_batch_norm_options* options, const equinorm_tensor* x,
                                              const void* gamma, const void* beta, const void* mean,
                                              const void* variance, const equinorm_tensor* residual,
                                              const equinorm_tensor* y, const equinorm_execution* execution) {
  return run("batch_norm_inference", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return batch_norm_inference<T>(options_of(options), a.in(x, "x"), a.affine(gamma, beta),
                                     static_cast<const Parameter<T>*>(mean), static_cast<const Parameter<T>*>(variance),
                                     a.in(residual, "residual"), a.out(y, "y"), how);
    });
  });
}

equinorm_status equinorm_batch_norm_backward(const equinorm_batch_norm_options* options, const equinorm_tensor* x,
                                             const equinorm_tensor* y, const equinorm_tensor* dy, const void* gamma,
                                             const void* beta, const double* mean, const double* variance,
                                             const equinorm_tensor* dx, const equinorm_tensor* dresidual, void* dgamma,
                                             void* dbeta, const equinorm_execution* execution) {
  return run("batch_norm_backward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return batch_norm_backward<T>(options_of(options), a.in(x, "x"), a.in(y, "y"), a.in(dy, "dy"),
                                    a.affine(gamma, beta), read_only(mean, variance), a.out(dx, "dx"),
                                    a.out(dresidual, "dresidual"), a.gradients(dgamma, dbeta), how);
    });
  });
}
