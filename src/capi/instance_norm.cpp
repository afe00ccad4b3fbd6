#include "equinorm/instance_norm.hpp"

#include "capi/edge.hpp"

namespace equinorm::capi {
namespace {

InstanceNormOptions options_of(const equinorm_instance_norm_options* given) {
  equinorm_instance_norm_options o{};
  equinorm_instance_norm_options_init(&o, sizeof o);
  o = read_sized(given, o, "options", offsetof(equinorm_instance_norm_options, lengths));
  return {o.epsilon, read_enum(o.activation, Activation::gelu, "options.activation"), o.lengths};
}

}  // namespace
}  // namespace equinorm::capi

using namespace equinorm;
using namespace equinorm::capi;

void equinorm_instance_norm_options_init(equinorm_instance_norm_options* options, size_t size) {
  constexpr InstanceNormOptions kDefaults;
  initialize(options, size, {0, kDefaults.epsilon, static_cast<int32_t>(kDefaults.activation), 0, nullptr});
}

size_t equinorm_instance_norm_workspace_bytes(const equinorm_instance_norm_options* options, const equinorm_tensor* x) {
  return workspace_bytes(x, [&]<class T>(const Arguments<T>& a) {
    return instance_norm_workspace_bytes<T>(options_of(options), a.in(x, "x").shape, a.in(x, "x").layout);
  });
}

equinorm_status equinorm_instance_norm_forward(const equinorm_instance_norm_options* options, const equinorm_tensor* x,
                                               const void* gamma, const void* beta, const equinorm_tensor* residual,
                                               const equinorm_tensor* y, double* mean, double* variance,
                                               const equinorm_execution* execution) {
  return run("instance_norm_forward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return instance_norm_forward<T>(options_of(options), a.in(x, "x"), a.affine(gamma, beta),
                                      a.in(residual, "residual"), a.out(y, "y"), {mean, variance}, how);
    });
  });
}

equinorm_status equinorm_instance_norm_backward(const equinorm_instance_norm_options* options, const equinorm_tensor* x,
                                                const equinorm_tensor* y, const equinorm_tensor* residual,
                                                const equinorm_tensor* dy, const void* gamma, const void* beta,
                                                const double* mean, const double* variance, const equinorm_tensor* dx,
                                                const equinorm_tensor* dresidual, void* dgamma, void* dbeta,
                                                const equinorm_execution* execution) {
  return run("instance_norm_backward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return instance_norm_backward<T>(options_of(options), a.in(x, "x"), a.in(y, "y"), a.in(residual, "residual"),
                                       a.in(dy, "dy"), a.affine(gamma, beta), read_only(mean, variance),
                                       a.out(dx, "dx"), a.out(dresidual, "dresidual"), a.gradients(dgamma, dbeta), how);
    });
  });
}

equinorm_status equinorm_instance_norm_jvp(const equinorm_instance_norm_options* options, const equinorm_tensor* x,
                                           const equinorm_tensor* residual, const equinorm_tangents* tangents,
                                           const void* gamma, const void* beta, const double* mean,
                                           const double* variance, const equinorm_tensor* y_tangent,
                                           const equinorm_execution* execution) {
  return run("instance_norm_jvp", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return instance_norm_jvp<T>(options_of(options), a.in(x, "x"), a.in(residual, "residual"), a.tangents(tangents),
                                  a.affine(gamma, beta), read_only(mean, variance), a.out(y_tangent, "y_tangent"), how);
    });
  });
}
