// What is asked of the JVP of norms of rows alone, and what their tests share.
#pragma once

#include "ops/jvp/jvp_test.hpp"
#include "ops/rows/cases.hpp"

namespace equinorm::jvp_test {

template <class Options_>
struct OfRows {
  static constexpr bool kResidual = false;  // it comes before the norm
  using Options = Options_;

  static const std::vector<Case>& cases() {
    static const std::vector<Case> table = [] {
      std::vector<Case> result;
      for (const auto& c : cases::row_shapes()) result.push_back({{c.rows, c.features}});
      return result;
    }();
    return table;
  }
  static std::size_t sets(const Case& c) { return c.shape[0]; }
  static std::size_t set_of(const Case& c, std::size_t i) { return i / c.shape[1]; }
  static Options options(const Case&) { return {}; }

  static std::vector<long double> widen(const std::vector<double>& values) { return {values.begin(), values.end()}; }
  static std::vector<double> narrow(const std::vector<long double>& values) {
    std::vector<double> result;
    for (const long double value : values) result.push_back(static_cast<double>(value));
    return result;
  }
};

template <class Op>
class RowJvp : public testing::Test {};
TYPED_TEST_SUITE_P(RowJvp);

TYPED_TEST_P(RowJvp, TakesRowsWithStridesAndAnyLastAxes) {
  using Op = TypeParam;
  Call<Op, float> dense({{6, 20}});
  ASSERT_TRUE(Op::forward(dense).ok());
  ASSERT_TRUE(dense.jvp().ok());

  Call<Op, float> spread = dense;
  constexpr std::size_t kStride = 23;
  std::vector<float> y_tangent(6 * kStride, -7);
  std::vector<float> x_tangent(6 * 31);
  for (std::size_t i = 0; i < 120; ++i) x_tangent[i / 20 * 31 + i % 20] = dense.x_tangent[i];
  Tangents<float> tangents = spread.tangents();
  tangents.x = {x_tangent.data(), dense.shape, dense.layout, 31};
  ASSERT_TRUE(Op::jvp(spread, tangents, {y_tangent.data(), dense.shape, dense.layout, kStride}, {}).ok());
  for (std::size_t i = 0; i < y_tangent.size(); ++i) {
    const std::size_t row = i / kStride, at = i % kStride;
    EXPECT_EQ(y_tangent[i], at < 20 ? dense.y_tangent[row * 20 + at] : -7.0F) << i;
  }

  Call<Op, float> deep = dense;
  deep.shape = {2, 3, 5, 4};
  deep.options.normalized_axes = 2;
  deep.y_tangent.assign(120, -7);
  ASSERT_TRUE(deep.jvp().ok());
  EXPECT_EQ(deep.y_tangent, dense.y_tangent);
}

/// The valid rows' bits are those of a call on nothing else; padding, of NaN, is not read, and 0 in the outcome.
TYPED_TEST_P(RowJvp, LeavesPaddingOut) {
  using Op = TypeParam;
  const testing_tools::Padding padding{{5, 0, 9, 1, 7}, Layout::channels_last, 20, 11};
  Call<Op, float> dense({{padding.values(), 20}});
  ASSERT_TRUE(Op::forward(dense).ok());
  ASSERT_TRUE(dense.jvp().ok());
  Call<Op, float> padded = dense;
  padded.shape = padding.shape();
  padded.options.lengths = padding.lengths.data();
  padded.mean = padded.variance = std::vector<double>(5 * 11);
  using C = Call<Op, float>;
  for (const auto tensor : {&C::x, &C::y, &C::dx}) padded.*tensor = padding.scatter(dense.*tensor);
  padded.x_tangent = padding.scatter(dense.x_tangent);
  ASSERT_TRUE(Op::forward(padded).ok());
  for (const int threads : {1, 3}) {
    padded.y_tangent.assign(padded.x.size(), -7);
    ASSERT_TRUE(padded.jvp({threads}).ok());
    EXPECT_EQ(padding.gather(padded.y_tangent), dense.y_tangent);
  }
  ASSERT_TRUE(Op::jvp(padded, padded.tangents(), padded.view(padded.x_tangent.data()), {}).ok());
  EXPECT_EQ(padded.x_tangent, padded.y_tangent) << "in place";
}

TYPED_TEST_P(RowJvp, OfNoRowsIsNothing) {
  Call<TypeParam, float> empty({{0, 3}});
  EXPECT_TRUE(empty.jvp().ok());
}

REGISTER_TYPED_TEST_SUITE_P(RowJvp, TakesRowsWithStridesAndAnyLastAxes, LeavesPaddingOut, OfNoRowsIsNothing);

}  // namespace equinorm::jvp_test
