#include "ops/rows/jvp_test.hpp"

#include "equinorm/layer_norm.hpp"
#include "ops/layer_norm/reference.hpp"

namespace equinorm {
namespace {

using jvp_test::Call;
using jvp_test::Case;

struct LayerNorm : jvp_test::OfRows<LayerNormOptions> {
  static constexpr const char* kName = "layer_norm";
  static constexpr bool kCentered = true;

  template <class T>
  static Status forward(Call<LayerNorm, T>& c) {
    return layer_norm_forward<T>(c.options, c.in(c.x), c.affine(), {}, {}, c.view(c.y.data()), c.statistics());
  }
  template <class T>
  static Status backward(Call<LayerNorm, T>& c) {
    return layer_norm_backward<T>(c.options, c.in(c.x), c.in(c.dy), c.affine(), c.statistics(), {}, c.view(c.dx.data()),
                                  c.gradients());
  }
  template <class T>
  static Status jvp(Call<LayerNorm, T>& c, const Tangents<T>& tangents, const TensorView<T>& y_tangent,
                    const Execution& execution) {
    return layer_norm_jvp<T>(c.options, c.in(c.x), tangents, c.affine(), c.statistics(), y_tangent, execution);
  }
  static std::vector<double> z(const Case& c, const std::vector<double>& x, const std::vector<double>& gamma,
                               const std::vector<double>& beta, const std::vector<double>&, double epsilon) {
    return narrow(reference::layer_norm(widen(x), c.shape[1], widen(gamma), widen(beta), Activation::none, epsilon).y);
  }
};

}  // namespace

namespace jvp_test {
INSTANTIATE_TYPED_TEST_SUITE_P(LayerNorm, Jvp, EveryType<LayerNorm>);
INSTANTIATE_TYPED_TEST_SUITE_P(LayerNorm, JvpInDouble, LayerNorm);
INSTANTIATE_TYPED_TEST_SUITE_P(LayerNorm, RowJvp, LayerNorm);
}  // namespace jvp_test
}  // namespace equinorm
