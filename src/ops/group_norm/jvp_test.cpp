#include "ops/jvp/jvp_test.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "equinorm/instance_norm.hpp"
#include "ops/group_norm/cases.hpp"
#include "ops/group_norm/reference.hpp"

namespace equinorm {
namespace {

using jvp_test::Call;
using jvp_test::Case;

struct GroupNorm {
  static constexpr const char* kName = "group_norm";
  static constexpr bool kResidual = true, kCentered = true;
  using Options = GroupNormOptions;

  static const std::vector<Case>& cases() {
    static const std::vector<Case> table = [] {
      std::vector<Case> result;
      for (const auto& c : cases::group_shapes()) result.push_back({c.shape, c.layout, c.groups});
      return result;
    }();
    return table;
  }
  static std::size_t sets(const Case& c) { return c.shape[0] * c.groups; }
  static std::size_t set_of(const Case& c, std::size_t i) {
    const bool last = c.layout == Layout::channels_last;
    const std::size_t channels = c.shape[last ? c.shape.rank() - 1 : 1], sample = c.shape.elements() / c.shape[0];
    const std::size_t channel = last ? i % channels : i % sample / (sample / channels);
    return i / sample * c.groups + channel / (channels / c.groups);
  }
  static Options options(const Case& c) { return {.groups = c.groups}; }

  template <class T>
  static Status forward(Call<GroupNorm, T>& c) {
    return group_norm_forward<T>(c.options, c.in(c.x), c.affine(), c.added(), c.view(c.y.data()), c.statistics());
  }
  template <class T>
  static Status backward(Call<GroupNorm, T>& c) {
    return group_norm_backward<T>(c.options, c.in(c.x), c.output(), c.added(), c.in(c.dy), c.affine(), c.statistics(),
                                  c.view(c.dx.data()), c.dadded(), c.gradients());
  }
  template <class T>
  static Status jvp(Call<GroupNorm, T>& c, const Tangents<T>& tangents, const TensorView<T>& y_tangent,
                    const Execution& execution) {
    return group_norm_jvp<T>(c.options, c.in(c.x), c.added(), tangents, c.affine(), c.statistics(), y_tangent,
                             execution);
  }
  static std::vector<double> z(const Case& c, const std::vector<double>& x, const std::vector<double>& gamma,
                               const std::vector<double>& beta, const std::vector<double>& residual, double epsilon) {
    return reference::group_norm_forward(x, c.shape, c.layout, c.groups, gamma, beta, residual, epsilon).z;
  }
};

}  // namespace

namespace jvp_test {
INSTANTIATE_TYPED_TEST_SUITE_P(GroupNorm, Jvp, EveryType<GroupNorm>);
INSTANTIATE_TYPED_TEST_SUITE_P(GroupNorm, JvpInDouble, GroupNorm);
}  // namespace jvp_test

namespace {

TEST(GroupNormJvp, OfInstanceNormIsThatOfAGroupForEveryChannel) {
  Call<GroupNorm, float> call({{2, 6, 5, 3}, Layout::channels_first, 6}, Activation::silu, true);
  ASSERT_TRUE(GroupNorm::forward(call).ok());
  ASSERT_TRUE(call.jvp().ok());
  std::vector<float> y_tangent(call.x.size());
  ASSERT_TRUE(instance_norm_jvp<float>({.activation = Activation::silu}, call.in(call.x), call.added(), call.tangents(),
                                       call.affine(), call.statistics(), call.view(y_tangent.data()))
                  .ok());
  EXPECT_EQ(y_tangent, call.y_tangent);
}

/// A padded sample gives what its valid positions alone give, in a batch of their own.
TEST(GroupNormJvp, LeavesPaddingOut) {
  const std::vector<std::size_t> lengths{3, 0, 5, 1};
  constexpr std::size_t kPositions = 5, kChannels = 6, kGroups = 2;
  for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
    const bool last = layout == Layout::channels_last;
    const auto shape = [&](std::size_t n, std::size_t positions) {
      return last ? Shape{n, positions, kChannels} : Shape{n, kChannels, positions};
    };
    const auto index = [&](std::size_t positions, std::size_t p, std::size_t c) {
      return last ? p * kChannels + c : c * positions + p;
    };
    Call<GroupNorm, double> padded({shape(lengths.size(), kPositions), layout, kGroups}, Activation::gelu, true);
    padded.options.lengths = lengths.data();
    std::vector<double> expected(padded.x.size());
    for (std::size_t n = 0; n < lengths.size(); ++n) {
      Call<GroupNorm, double> alone({shape(1, std::max<std::size_t>(lengths[n], 1)), layout, kGroups}, Activation::gelu,
                                    true);
      const auto for_each = [&](std::size_t from, std::size_t to, const auto& body) {
        for (std::size_t p = from; p < to; ++p) {
          for (std::size_t c = 0; c < kChannels; ++c) {
            body((n * kPositions * kChannels) + index(kPositions, p, c), index(lengths[n], p, c));
          }
        }
      };
      for_each(lengths[n], kPositions, [&](std::size_t at, std::size_t) {
        padded.x[at] = padded.residual[at] = padded.x_tangent[at] = padded.residual_tangent[at] =
            std::numeric_limits<double>::quiet_NaN();
      });
      for_each(0, lengths[n], [&](std::size_t at, std::size_t of_alone) {
        alone.x[of_alone] = padded.x[at];
        alone.residual[of_alone] = padded.residual[at];
        alone.x_tangent[of_alone] = padded.x_tangent[at];
        alone.residual_tangent[of_alone] = padded.residual_tangent[at];
      });
      alone.gamma = padded.gamma;
      alone.beta = padded.beta;
      alone.gamma_tangent = padded.gamma_tangent;
      alone.beta_tangent = padded.beta_tangent;
      ASSERT_TRUE(GroupNorm::forward(alone).ok());
      ASSERT_TRUE(alone.jvp().ok());
      std::copy_n(alone.mean.begin(), kGroups, padded.mean.begin() + static_cast<std::ptrdiff_t>(n * kGroups));
      std::copy_n(alone.variance.begin(), kGroups, padded.variance.begin() + static_cast<std::ptrdiff_t>(n * kGroups));
      for_each(0, lengths[n], [&](std::size_t at, std::size_t of_alone) { expected[at] = alone.y_tangent[of_alone]; });
    }
    ASSERT_TRUE(padded.jvp().ok());
    EXPECT_EQ(padded.y_tangent, expected);
  }
}

TEST(GroupNormJvp, OfNothingIsNothing) {
  Call<GroupNorm, float> empty({{0, 2, 6}, Layout::channels_last, 3});
  EXPECT_TRUE(empty.jvp().ok());
}

}  // namespace
}  // namespace equinorm
