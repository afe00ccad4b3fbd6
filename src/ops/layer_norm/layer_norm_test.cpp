#include "equinorm/layer_norm.hpp"

#include "ops/layer_norm/reference.hpp"
#include "ops/rows/ragged_test.hpp"
#include "ops/rows/rows_test.hpp"

namespace equinorm {
namespace {

using rows_test::Real;
using rows_test::Reals;

struct LayerNorm {
  static constexpr const char* kName = "layer_norm";
  static constexpr bool kCentered = true;
  using Options = LayerNormOptions;

  template <class T>
  static Status forward(const Options& options, const TensorView<const T>& x, const Affine<T>& affine,
                        const TensorView<const T>& residual, const TensorView<T>& sum, const TensorView<T>& y,
                        const Statistics& statistics, const Execution& execution) {
    return layer_norm_forward<T>(options, x, affine, residual, sum, y, statistics, execution);
  }
  template <class T>
  static Status backward(const Options& options, const TensorView<const T>& x, const TensorView<const T>& dy,
                         const Affine<T>& affine, const Statistics& statistics, const TensorView<const T>& dsum,
                         const TensorView<T>& dx, const AffineGradients<T>& gradients, const Execution& execution) {
    return layer_norm_backward<T>(options, x, dy, affine, statistics, dsum, dx, gradients, execution);
  }
  template <class T>
  static std::size_t workspace_bytes(const Options& options, const Shape& shape) {
    return layer_norm_workspace_bytes<T>(options, shape);
  }
  static rows_test::Expected reference(const Reals& x, std::size_t features, const Reals& gamma, const Reals& beta,
                                       Activation activation, Real epsilon, const Reals& dy, const Reals& dsum) {
    const auto r = reference::layer_norm(x, features, gamma, beta, activation, epsilon, dy, dsum);
    return {r.y, r.mean, r.variance, r.dx, r.dgamma, r.dbeta};
  }
};

}  // namespace

namespace rows_test {
INSTANTIATE_TYPED_TEST_SUITE_P(LayerNorm, RowNorm, EveryType<LayerNorm>);
INSTANTIATE_TYPED_TEST_SUITE_P(LayerNorm, RowLengths, EveryType<LayerNorm>);
}  // namespace rows_test

namespace {

TEST(LayerNorm, GradientsOfARowSumToZero) {
  rows_test::Call<LayerNorm, float> call({20, 300, ""}, cases::values()[0]);
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  for (std::size_t r = 0; r < call.rows; ++r) {
    double sum = 0, parts = 0;
    for (std::size_t i = r * call.features; i < (r + 1) * call.features; ++i) {
      sum += static_cast<double>(call.dx[i]);
      parts += std::abs(static_cast<double>(call.dx[i]));
    }
    // Of each dx a few roundings of its parts, which are about as large as itself.
    EXPECT_NEAR(sum, 0, 16 * 0x1p-24 * parts) << r;
  }
}

TEST(LayerNorm, ShiftedInputsGiveTheSameOutput) {
  // x and x + 2^20 are both exact: so must what comes out be, but for the rounding of mean's lower part.
  rows_test::Call<LayerNorm, float> call({4, 256, ""}, cases::values()[0]);
  for (float& x : call.x) x = std::nearbyint(x * 8);
  rows_test::Call<LayerNorm, float> shifted = call;
  for (float& x : shifted.x) x += 0x1p20F;
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(shifted.forward().ok());
  for (std::size_t i = 0; i < call.y.size(); ++i) EXPECT_NEAR(call.y[i], shifted.y[i], 16 * 0x1p-24 * 4);
}

}  // namespace
}  // namespace equinorm
