#include "equinorm/rms_norm.hpp"

#include "ops/rms_norm/reference.hpp"
#include "ops/rows/ragged_test.hpp"
#include "ops/rows/rows_test.hpp"

namespace equinorm {
namespace {

using rows_test::Real;
using rows_test::Reals;

struct RmsNorm {
  static constexpr const char* kName = "rms_norm";
  static constexpr bool kCentered = false;
  using Options = RmsNormOptions;

  template <class T>
  static Status forward(const Options& options, const TensorView<const T>& x, const Affine<T>& affine,
                        const TensorView<const T>& residual, const TensorView<T>& sum, const TensorView<T>& y,
                        const Statistics& statistics, const Execution& execution) {
    return rms_norm_forward<T>(options, x, affine, residual, sum, y, statistics.variance, execution);
  }
  template <class T>
  static Status backward(const Options& options, const TensorView<const T>& x, const TensorView<const T>& dy,
                         const Affine<T>& affine, const Statistics& statistics, const TensorView<const T>& dsum,
                         const TensorView<T>& dx, const AffineGradients<T>& gradients, const Execution& execution) {
    return rms_norm_backward<T>(options, x, dy, affine, statistics.variance, dsum, dx, gradients, execution);
  }
  template <class T>
  static std::size_t workspace_bytes(const Options& options, const Shape& shape) {
    return rms_norm_workspace_bytes<T>(options, shape);
  }
  static rows_test::Expected reference(const Reals& x, std::size_t features, const Reals& gamma, const Reals& beta,
                                       Activation activation, Real epsilon, const Reals& dy, const Reals& dsum) {
    const auto r = reference::rms_norm(x, features, gamma, beta, activation, epsilon, dy, dsum);
    return {r.y, Reals(r.mean_square.size()), r.mean_square, r.dx, r.dgamma, r.dbeta};
  }
};

}  // namespace

namespace rows_test {
INSTANTIATE_TYPED_TEST_SUITE_P(RmsNorm, RowNorm, EveryType<RmsNorm>);
INSTANTIATE_TYPED_TEST_SUITE_P(RmsNorm, RowLengths, EveryType<RmsNorm>);
}  // namespace rows_test

namespace {

TEST(RmsNorm, GradientsAreOrthogonalToTheirRow) {
  // y does not change with the scale of x (but for ε): dx·x = 0.
  rows_test::Call<RmsNorm, float> call({20, 300, ""}, cases::values()[0]);
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  for (std::size_t r = 0; r < call.rows; ++r) {
    double sum = 0, parts = 0;
    for (std::size_t i = r * call.features; i < (r + 1) * call.features; ++i) {
      sum += static_cast<double>(call.dx[i]) * static_cast<double>(call.x[i]);
      parts += std::abs(static_cast<double>(call.dx[i]) * static_cast<double>(call.x[i]));
    }
    // A few roundings of the parts, and what ε takes away: a share of ε/(q + ε).
    EXPECT_NEAR(sum, 0, (16 * 0x1p-24 + 4e-6) * parts) << r;
  }
}

}  // namespace
}  // namespace equinorm
