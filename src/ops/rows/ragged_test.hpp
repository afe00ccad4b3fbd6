// What is asked of norms of rows over samples of unequal length. An op names itself as for rows_test.hpp.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/length_cases.hpp"
#include "ops/rows/rows_test.hpp"

namespace equinorm::rows_test {

using testing_tools::Padding;

/// The channels of a case are the features of its rows.
inline const std::vector<cases::LengthCase>& row_lengths() {
  static const std::vector<cases::LengthCase> table = [] {
    std::vector<cases::LengthCase> rows = cases::lengths();
    rows.push_back({{700, 0, 401, 13}, 64, 700, "two chunks of rows, of which one goes on in the next sample"});
    rows.push_back({{1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0}, 33, 1, "samples of one row: a mask"});
    rows.push_back({{9, 9, 9}, 33, 9, "no padding between samples unless there is more"});
    return rows;
  }();
  return table;
}

/// Samples of rows: channels-last, whatever the layout is called.
inline Padding padding_of(const cases::LengthCase& c, std::size_t more) {
  return {c.lengths, Layout::channels_last, c.channels, c.longest + more};
}
/// The same of their statistics, one a row.
inline Padding of_statistics(Padding padding) {
  padding.channels = 1;
  return padding;
}

/// The valid rows alone, of which a padded call is made.
template <class C>
C dense_call(const cases::LengthCase& c, const cases::ValueCase& value, Activation activation) {
  C call({padding_of(c, 0).values(), c.channels, ""}, value);
  call.add = true;
  call.options.activation = activation;
  return call;
}

/// A call on dense rows, on padded tensors instead, NaN in padding. Keep the padding as long as the call.
template <class C>
C padded(const C& dense, const Padding& padding) {
  C call = dense;
  call.shape = padding.shape();
  call.rows = padding.lengths.size() * padding.positions;
  call.options.lengths = padding.lengths.data();
  for (const auto tensor : {&C::x, &C::residual, &C::dy, &C::dsum}) call.*tensor = padding.scatter(dense.*tensor);
  for (const auto tensor : {&C::sum, &C::y, &C::dx}) (call.*tensor).assign(call.x.size(), dense.y.at(0));
  for (const auto statistic : {&C::mean, &C::variance}) (call.*statistic).assign(call.rows, -7);
  return call;
}

/// Such a call, done, as one on dense rows; where there is padding, its outputs must be 0.
template <class Op, class T>
Call<Op, T> without_padding(const Call<Op, T>& call, const Call<Op, T>& dense, const Padding& padding) {
  using C = Call<Op, T>;
  C result = dense;
  result.dgamma = call.dgamma;
  result.dbeta = call.dbeta;
  for (const auto tensor : {&C::y, &C::dx}) result.*tensor = padding.gather(call.*tensor);
  if (call.add) result.sum = padding.gather(call.sum);
  if (Op::kCentered) result.mean = of_statistics(padding).gather(call.mean);
  result.variance = of_statistics(padding).gather(call.variance);
  return result;
}

template <class Pair>
class RowLengths : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }
};
TYPED_TEST_SUITE_P(RowLengths);

/// A valid row's results are its own: the bits of a call on nothing but such rows. Sums over them may be cut otherwise.
TYPED_TEST_P(RowLengths, RowsAreThoseOfADenseCallAndGradientsWithinTheirBounds) {
  EQUINORM_ROW_TYPES;
  for (const auto& c : row_lengths()) {
    for (const char* name : {"normal", "mean_1e3", "huge"}) {
      const auto& value = *std::find_if(cases::values().begin(), cases::values().end(),
                                        [&](const auto& v) { return v.name == std::string(name); });
      for (const Activation activation : testing_tools::kActivations) {
        if (c.longest > 100 && (activation != Activation::gelu || name != std::string("normal"))) continue;  // slow
        C dense = dense_call<C>(c, value, activation);
        dense.add = activation != Activation::none;
        const std::string what =
            std::string(c.why) + ", " + name + ", activation " + std::to_string(static_cast<int>(activation));
        ASSERT_TRUE(dense.forward().ok()) << what;
        if (activation == Activation::relu || activation == Activation::leaky_relu) {
          const Bounds<Op, T> bounds(dense);
          for (std::size_t i = 0; i < dense.x.size(); ++i) {
            if (std::abs(bounds.z[i]) <= bounds.z_error[i]) dense.dy[i] = T{};  // either side of 0 would be right
          }
        }
        ASSERT_TRUE(dense.backward().ok()) << what;
        const Padding padding = padding_of(c, 2);
        C call = padded(dense, padding);
        for (const Status& status : {call.forward({2}), call.backward({2})}) {
          ASSERT_TRUE(status.ok()) << what << ": " << status.message();
        }
        const C result = without_padding(call, dense, padding);
        ASSERT_EQ(testing_tools::hash_of(result.y, result.sum, result.dx, result.mean, result.variance),
                  testing_tools::hash_of(dense.y, dense.sum, dense.dx, dense.mean, dense.variance))
            << what;
        Bounds<Op, T>(result).check_backward(what);
        if (this->HasFailure()) return;
      }
    }
  }
}

TYPED_TEST_P(RowLengths, TheAmountOfPaddingChangesNoBitOnAnyTargetOrThread) {
  EQUINORM_ROW_TYPES;
  testing_tools::SeenBits seen;
  for (const auto& c : row_lengths()) {
    const C dense = dense_call<C>(c, cases::values()[1], Activation::silu);
    std::optional<std::uint64_t> first;
    for (const std::string& target : simd_targets()) {
      ASSERT_TRUE(set_simd_target(target).ok());
      for (const std::size_t more : {0U, 1U, 60U}) {
        for (const int threads : {1, 2, 3, 8}) {
          const Padding padding = padding_of(c, more);
          C call = padded(dense, padding);
          ASSERT_TRUE(call.forward({threads}).ok());
          ASSERT_TRUE(call.backward({threads}).ok());
          const std::uint64_t bits = fingerprint(without_padding(call, dense, padding));
          if (!first) first = seen.add(fingerprint_of_inputs(dense), bits);
          ASSERT_EQ(bits, *first) << c.why << " " << more << " " << target << " " << threads;
        }
      }
    }
  }
}

/// So much of it that a cut of all rows would come out otherwise.
TYPED_TEST_P(RowLengths, MuchPaddingChangesNoBitOfTheGradients) {
  EQUINORM_ROW_TYPES;
  const cases::LengthCase c{{700, 0, 401, 13}, 64, 700, ""};
  const C dense = dense_call<C>(c, cases::values()[0], Activation::none);
  std::optional<std::uint64_t> first;
  for (const std::size_t more : {0U, 12'000U}) {
    const Padding padding = padding_of(c, more);
    C call = padded(dense, padding);
    ASSERT_TRUE(call.forward({2}).ok());
    ASSERT_TRUE(call.backward({2}).ok());
    const std::uint64_t bits = testing_tools::hash_of(call.dgamma, call.dbeta);
    if (!first) first = bits;
    ASSERT_EQ(bits, *first) << more;
  }
}

TYPED_TEST_P(RowLengths, InPlaceAndInACallersWorkspaceGiveTheSameBits) {
  EQUINORM_ROW_TYPES;
  for (const auto& c : row_lengths()) {
    const Padding padding = padding_of(c, 1);
    C apart = padded(dense_call<C>(c, cases::values()[0], Activation::gelu), padding);
    const C before = apart;
    ASSERT_TRUE(apart.forward().ok());
    ASSERT_TRUE(apart.backward().ok());
    const std::size_t bytes = Op::template workspace_bytes<T>(apart.options, apart.shape);
    const GuardedMemory workspace(bytes);
    BackwardsExecutor executor;
    const Execution execution{3, workspace.data(), bytes, &executor};
    C call = before;
    ASSERT_TRUE(Op::template forward<T>(call.options, call.in(call.x), call.affine(), call.in(call.residual),
                                        call.view(call.residual.data()), call.view(call.x.data()), call.statistics(),
                                        execution)
                    .ok());
    ASSERT_EQ(call.x, apart.y) << c.why;
    ASSERT_EQ(call.residual, apart.sum) << c.why;
    for (std::vector<T> C::*place : {&C::dy, &C::dsum, &C::sum}) {
      call = before;
      call.sum = padding.scatter(padding.gather(apart.sum));  // NaN behind the samples again
      call.mean = apart.mean;
      call.variance = apart.variance;
      ASSERT_TRUE(Op::template backward<T>(call.options, call.in(call.sum), call.in(call.dy), call.affine(),
                                           call.statistics(), call.in(call.dsum), call.view((call.*place).data()),
                                           {call.dgamma.data(), call.dbeta.data()}, execution)
                      .ok());
      ASSERT_EQ(call.*place, apart.dx) << c.why;
      ASSERT_EQ(call.dgamma, apart.dgamma) << c.why;
    }
    // Without gradients of the parameters dx is another way through the rows.
    call = before;
    call.mean = apart.mean;
    call.variance = apart.variance;
    ASSERT_TRUE(Op::template backward<T>(call.options, call.in(apart.sum), call.in(call.dy), call.affine(),
                                         call.statistics(), call.in(call.dsum), call.view(call.dx.data()), {},
                                         execution)
                    .ok());
    ASSERT_EQ(call.dx, apart.dx) << c.why;
  }
}

TYPED_TEST_P(RowLengths, OfRowsThatLieApartGiveTheSameBitsAndLeaveTheGaps) {
  EQUINORM_ROW_TYPES;
  const auto& c = row_lengths()[2];
  const Padding padding = padding_of(c, 2);
  const C before = padded(dense_call<C>(c, cases::values()[0], Activation::relu), padding);
  C dense = before;
  ASSERT_TRUE(dense.forward().ok());
  ASSERT_TRUE(dense.backward().ok());
  const T gap = to_element<T>(12345);
  const std::size_t stride = c.channels + 3;
  const auto spread = [&](const std::vector<T>& v) {
    std::vector<T> apart(dense.rows * stride, gap);
    for (std::size_t i = 0; i < v.size(); ++i) apart[i / c.channels * stride + i % c.channels] = v[i];
    return apart;
  };
  const auto view = [&]<class E>(E* data) { return TensorView<E>{data, dense.shape, Layout::channels_last, stride}; };
  const std::vector<T> x = spread(before.x), residual = spread(before.residual), dy = spread(before.dy),
                       dsum = spread(before.dsum);
  std::vector<T> sum = spread(before.sum), y = sum, dx = sum;
  C call = before;
  ASSERT_TRUE(Op::template forward<T>(call.options, view(x.data()), call.affine(), view(residual.data()),
                                      view(sum.data()), view(y.data()), call.statistics(), {})
                  .ok());
  const std::vector<T> total = sum;
  ASSERT_TRUE(Op::template backward<T>(call.options, view(total.data()), view(dy.data()), call.affine(),
                                       call.statistics(), view(dsum.data()), view(dx.data()),
                                       {call.dgamma.data(), call.dbeta.data()}, {})
                  .ok());
  EXPECT_EQ(sum, spread(dense.sum));
  EXPECT_EQ(y, spread(dense.y));
  EXPECT_EQ(dx, spread(dense.dx));
  EXPECT_EQ(call.dgamma, dense.dgamma);
  EXPECT_EQ(call.variance, dense.variance);
}

TYPED_TEST_P(RowLengths, OfNothingButPaddingGiveZeros) {
  EQUINORM_ROW_TYPES;
  const cases::LengthCase c{{0, 0, 0}, 5, 4, ""};
  const Padding padding = padding_of(c, 0);
  C call(12, 5, std::vector<T>(60, to_element<T>(std::nan(""))));
  call.shape = padding.shape();
  call.options.lengths = padding.lengths.data();
  call.add = true;
  EXPECT_EQ(Op::template workspace_bytes<T>(call.options, call.shape), 0U);
  ASSERT_TRUE(call.forward().ok());
  ASSERT_TRUE(call.backward().ok());
  for (const std::vector<T>& v : {call.sum, call.y, call.dx}) EXPECT_EQ(v, std::vector<T>(60));
  EXPECT_EQ(call.mean, std::vector<double>(12, Op::kCentered ? 0 : -7));
  EXPECT_EQ(call.variance, std::vector<double>(12));
  EXPECT_EQ(call.dgamma, std::vector<Parameter<T>>(5));
  EXPECT_EQ(call.dbeta, call.dgamma);
}

TYPED_TEST_P(RowLengths, BadOnesAreNamedAndNothingIsWritten) {
  EQUINORM_ROW_TYPES;
  const std::vector<std::size_t> lengths = {5, 0, 12, 1, 7, 13, 3};
  C call({7 * 11, 4, ""}, cases::values()[0]);
  call.options.lengths = lengths.data();
  const auto expect = [&](const Shape& shape, std::size_t axes, const std::string& message) {
    call.shape = shape;
    call.options.normalized_axes = axes;
    EXPECT_EQ(call.forward().message(), "[" + std::string(Op::kName) + "_forward] " + message);
    EXPECT_EQ(call.backward().message(), "[" + std::string(Op::kName) + "_backward] " + message);
    EXPECT_EQ(call.y, std::vector<T>(call.x.size(), to_element<T>(-7)));
    EXPECT_EQ(call.dx, call.y);
  };
  expect({7, 11, 4}, 1, "lengths[2] is 12; expected at most the 11 positions of a sample");
  expect({7, 11, 2, 2}, 2, "lengths[2] is 12; expected at most the 11 positions of a sample");
  expect({7, 44}, 1, "lengths[0] is 5; expected at most the 1 positions of a sample");
  expect({308}, 1, "lengths are given where all axes of x are normalized; expected none: there are no samples");
  EXPECT_EQ(Op::template workspace_bytes<T>(call.options, {308}), Op::template workspace_bytes<T>({}, {308}));
}

REGISTER_TYPED_TEST_SUITE_P(RowLengths, RowsAreThoseOfADenseCallAndGradientsWithinTheirBounds,
                            TheAmountOfPaddingChangesNoBitOnAnyTargetOrThread, MuchPaddingChangesNoBitOfTheGradients,
                            InPlaceAndInACallersWorkspaceGiveTheSameBits,
                            OfRowsThatLieApartGiveTheSameBitsAndLeaveTheGaps, OfNothingButPaddingGiveZeros,
                            BadOnesAreNamedAndNothingIsWritten);

}  // namespace equinorm::rows_test
