#include "equinorm/batch_norm.hpp"

#include "capi/batch_norm.hpp"

using namespace equinorm;
using namespace equinorm::capi;

void equinorm_batch_norm_options_init(equinorm_batch_norm_options* options, size_t size) {
  constexpr BatchNormOptions kDefaults;
  initialize(options, size,
             {0, kDefaults.epsilon, static_cast<int32_t>(kDefaults.activation),
              static_cast<int32_t>(kDefaults.non_finite), static_cast<int32_t>(kDefaults.single_value), 0, nullptr});
}

void equinorm_running_statistics_init(equinorm_running_statistics* running, size_t size) {
  constexpr RunningOptions kDefaults;
  initialize(running, size,
             {0, nullptr, nullptr, 0, 0, kDefaults.running_weight, kDefaults.cumulative ? 1 : 0,
              static_cast<int32_t>(kDefaults.variance)});
}

size_t equinorm_batch_norm_workspace_bytes(const equinorm_batch_norm_options* options, const equinorm_tensor* x) {
  return workspace_bytes(x, [&]<class T>(const Arguments<T>& a) {
    return batch_norm_workspace_bytes<T>(a.in(x, "x").shape, a.in(x, "x").layout, options_of(options));
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
                                             const equinorm_tensor* y, const equinorm_tensor* residual,
                                             const equinorm_tensor* dy, const void* gamma, const void* beta,
                                             const double* mean, const double* variance, const equinorm_tensor* dx,
                                             const equinorm_tensor* dresidual, void* dgamma, void* dbeta,
                                             const equinorm_execution* execution) {
  return run("batch_norm_backward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return batch_norm_backward<T>(options_of(options), a.in(x, "x"), a.in(y, "y"), a.in(residual, "residual"),
                                    a.in(dy, "dy"), a.affine(gamma, beta), read_only(mean, variance), a.out(dx, "dx"),
                                    a.out(dresidual, "dresidual"), a.gradients(dgamma, dbeta), how);
    });
  });
}

equinorm_status equinorm_batch_norm_jvp(const equinorm_batch_norm_options* options, const equinorm_tensor* x,
                                        const equinorm_tensor* residual, const equinorm_tangents* tangents,
                                        const void* gamma, const void* beta, const double* mean, const double* variance,
                                        const equinorm_tensor* y_tangent, const equinorm_execution* execution) {
  return run("batch_norm_jvp", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return batch_norm_jvp<T>(options_of(options), a.in(x, "x"), a.in(residual, "residual"), a.tangents(tangents),
                               a.affine(gamma, beta), read_only(mean, variance), a.out(y_tangent, "y_tangent"), how);
    });
  });
}
