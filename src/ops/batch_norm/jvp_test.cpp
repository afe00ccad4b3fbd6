#include "ops/jvp/jvp_test.hpp"

#include <limits>

#include "equinorm/batch_norm.hpp"
#include "ops/batch_norm/cases.hpp"
#include "ops/batch_norm/reference.hpp"

namespace equinorm {
namespace {

using jvp_test::Call;
using jvp_test::Case;

struct BatchNorm {
  static constexpr const char* kName = "batch_norm";
  static constexpr bool kResidual = true, kCentered = true;
  using Options = BatchNormOptions;

  static const std::vector<Case>& cases() {
    static const std::vector<Case> table = [] {
      std::vector<Case> result;
      for (const auto& c : cases::shapes()) result.push_back({c.shape, c.layout});
      return result;
    }();
    return table;
  }
  static std::size_t channels(const Case& c) {
    return c.shape[c.layout == Layout::channels_last ? c.shape.rank() - 1 : 1];
  }
  static std::size_t sets(const Case& c) { return channels(c); }
  static std::size_t set_of(const Case& c, std::size_t i) {
    if (c.layout == Layout::channels_last) return i % channels(c);
    return i / (c.shape.elements() / c.shape[0] / channels(c)) % channels(c);
  }
  static Options options(const Case&) { return {}; }

  template <class T>
  static Status forward(Call<BatchNorm, T>& c) {
    return batch_norm_forward<T>(c.options, c.in(c.x), c.affine(), c.added(), c.view(c.y.data()), c.statistics(),
                                 nullptr);
  }
  template <class T>
  static Status backward(Call<BatchNorm, T>& c) {
    return batch_norm_backward<T>(c.options, c.in(c.x), c.output(), c.added(), c.in(c.dy), c.affine(), c.statistics(),
                                  c.view(c.dx.data()), c.dadded(), c.gradients());
  }
  template <class T>
  static Status jvp(Call<BatchNorm, T>& c, const Tangents<T>& tangents, const TensorView<T>& y_tangent,
                    const Execution& execution) {
    return batch_norm_jvp<T>(c.options, c.in(c.x), c.added(), tangents, c.affine(), c.statistics(), y_tangent,
                             execution);
  }
  static std::vector<double> z(const Case& c, const std::vector<double>& x, const std::vector<double>& gamma,
                               const std::vector<double>& beta, const std::vector<double>& residual, double epsilon) {
    return reference::batch_norm_forward(x, c.shape, c.layout, gamma, beta, residual, false, epsilon).y;
  }
};

}  // namespace

namespace jvp_test {
INSTANTIATE_TYPED_TEST_SUITE_P(BatchNorm, Jvp, EveryType<BatchNorm>);
INSTANTIATE_TYPED_TEST_SUITE_P(BatchNorm, JvpInDouble, BatchNorm);
}  // namespace jvp_test

namespace {

/// Samples of unequal length: the bits of the same rows without padding, which may hold anything and is 0 in ẏ.
TEST(BatchNormJvp, LeavesPaddingOut) {
  const std::vector<std::size_t> lengths{3, 0, 5, 1};
  constexpr std::size_t kPositions = 5, kChannels = 6;
  Call<BatchNorm, double> dense({{9, kChannels}}, Activation::gelu, true);
  ASSERT_TRUE(BatchNorm::forward(dense).ok());
  ASSERT_TRUE(dense.jvp().ok());

  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const bool last = layout == Layout::channels_last;
    const Shape shape =
        last ? Shape{lengths.size(), kPositions, kChannels} : Shape{lengths.size(), kChannels, kPositions};
    Call<BatchNorm, double> padded({shape, layout}, Activation::gelu, true);
    const auto spread = [&](const std::vector<double>& from, double padding) {
      std::vector<double> to(padded.x.size(), padding);
      std::size_t row = 0;
      for (std::size_t n = 0; n < lengths.size(); ++n) {
        for (std::size_t p = 0; p < lengths[n]; ++p, ++row) {
          for (std::size_t c = 0; c < kChannels; ++c) {
            to[last ? (n * kPositions + p) * kChannels + c : (n * kChannels + c) * kPositions + p] =
                from[row * kChannels + c];
          }
        }
      }
      return to;
    };
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    padded.x = spread(dense.x, kNaN);
    padded.residual = spread(dense.residual, kNaN);
    padded.x_tangent = spread(dense.x_tangent, kNaN);
    padded.residual_tangent = spread(dense.residual_tangent, kNaN);
    padded.gamma = dense.gamma;
    padded.beta = dense.beta;
    padded.gamma_tangent = dense.gamma_tangent;
    padded.beta_tangent = dense.beta_tangent;
    padded.mean = dense.mean;
    padded.variance = dense.variance;
    padded.options.lengths = lengths.data();
    ASSERT_TRUE(padded.jvp().ok());
    EXPECT_EQ(padded.y_tangent, spread(dense.y_tangent, 0));
  }
}

TEST(BatchNormJvp, OfNothingIsNothing) {
  Call<BatchNorm, float> empty({{0, 3}});
  EXPECT_TRUE(empty.jvp().ok());
  const std::size_t none[] = {0, 0};
  Call<BatchNorm, float> padding({{2, 3, 4}});
  padding.options.lengths = none;
  EXPECT_TRUE(padding.jvp().ok());
  EXPECT_EQ(padding.y_tangent, std::vector<float>(24));
}

}  // namespace
}  // namespace equinorm
