#include "equinorm/rms_norm.hpp"

#include "capi/edge.hpp"

namespace equinorm::capi {
namespace {

RmsNormOptions options_of(const equinorm_rms_norm_options* given) {
  equinorm_rms_norm_options o{};
  equinorm_rms_norm_options_init(&o, sizeof o);
  o = read_sized(given, o, "options", offsetof(equinorm_rms_norm_options, lengths));
  return {o.epsilon, o.normalized_axes, read_enum(o.activation, Activation::gelu, "options.activation"), o.lengths};
}

}  // namespace
}  // namespace equinorm::capi

using namespace equinorm;
using namespace equinorm::capi;

void equinorm_rms_norm_options_init(equinorm_rms_norm_options* options, size_t size) {
  constexpr RmsNormOptions kDefaults;
  initialize(options, size,
             {0, kDefaults.epsilon, kDefaults.normalized_axes, static_cast<int32_t>(kDefaults.activation), 0, nullptr});
}

size_t equinorm_rms_norm_workspace_bytes(const equinorm_rms_norm_options* options, const equinorm_tensor* x) {
  return workspace_bytes(x, [&]<class T>(const Arguments<T>& a) {
    return rms_norm_workspace_bytes<T>(options_of(options), a.in(x, "x").shape);
  });
}

equinorm_status equinorm_rms_norm_forward(const equinorm_rms_norm_options* options, const equinorm_tensor* x,
                                          const void* gamma, const void* beta, const equinorm_tensor* residual,
                                          const equinorm_tensor* sum, const equinorm_tensor* y, double* mean_square,
                                          const equinorm_execution* execution) {
  return run("rms_norm_forward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return rms_norm_forward<T>(options_of(options), a.in(x, "x"), a.affine(gamma, beta), a.in(residual, "residual"),
                                 a.out(sum, "sum"), a.out(y, "y"), mean_square, how);
    });
  });
}

equinorm_status equinorm_rms_norm_backward(const equinorm_rms_norm_options* options, const equinorm_tensor* x,
                                           const equinorm_tensor* dy, const void* gamma, const void* beta,
                                           const double* mean_square, const equinorm_tensor* dsum,
                                           const equinorm_tensor* dx, void* dgamma, void* dbeta,
                                           const equinorm_execution* execution) {
  return run("rms_norm_backward", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return rms_norm_backward<T>(options_of(options), a.in(x, "x"), a.in(dy, "dy"), a.affine(gamma, beta), mean_square,
                                  a.in(dsum, "dsum"), a.out(dx, "dx"), a.gradients(dgamma, dbeta), how);
    });
  });
}

equinorm_status equinorm_rms_norm_jvp(const equinorm_rms_norm_options* options, const equinorm_tensor* x,
                                      const equinorm_tangents* tangents, const void* gamma, const void* beta,
                                      const double* mean_square, const equinorm_tensor* y_tangent,
                                      const equinorm_execution* execution) {
  return run("rms_norm_jvp", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return rms_norm_jvp<T>(options_of(options), a.in(x, "x"), a.tangents(tangents), a.affine(gamma, beta),
                             mean_square, a.out(y_tangent, "y_tangent"), how);
    });
  });
}
