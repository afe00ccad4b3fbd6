#include "ops/rows/jvp_test.hpp"

#include "equinorm/rms_norm.hpp"
#include "ops/rms_norm/reference.hpp"

namespace equinorm {
namespace {

using jvp_test::Call;
using jvp_test::Case;

struct RmsNorm : jvp_test::OfRows<RmsNormOptions> {
  static constexpr const char* kName = "rms_norm";
  static constexpr bool kCentered = false;

  template <class T>
  static Status forward(Call<RmsNorm, T>& c) {
    return rms_norm_forward<T>(c.options, c.in(c.x), c.affine(), {}, {}, c.view(c.y.data()), c.variance.data());
  }
  template <class T>
  static Status backward(Call<RmsNorm, T>& c) {
    return rms_norm_backward<T>(c.options, c.in(c.x), c.in(c.dy), c.affine(), c.variance.data(), {},
                                c.view(c.dx.data()), c.gradients());
  }
  template <class T>
  static Status jvp(Call<RmsNorm, T>& c, const Tangents<T>& tangents, const TensorView<T>& y_tangent,
                    const Execution& execution) {
    return rms_norm_jvp<T>(c.options, c.in(c.x), tangents, c.affine(), c.variance.data(), y_tangent, execution);
  }
  static std::vector<double> z(const Case& c, const std::vector<double>& x, const std::vector<double>& gamma,
                               const std::vector<double>& beta, const std::vector<double>&, double epsilon) {
    return narrow(reference::rms_norm(widen(x), c.shape[1], widen(gamma), widen(beta), Activation::none, epsilon).y);
  }
};

}  // namespace

namespace jvp_test {
INSTANTIATE_TYPED_TEST_SUITE_P(RmsNorm, Jvp, EveryType<RmsNorm>);
INSTANTIATE_TYPED_TEST_SUITE_P(RmsNorm, JvpInDouble, RmsNorm);
INSTANTIATE_TYPED_TEST_SUITE_P(RmsNorm, RowJvp, RmsNorm);
}  // namespace jvp_test
}  // namespace equinorm
