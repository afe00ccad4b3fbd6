#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/activation_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "simd/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// act(z) and 1·act'(z) of `count` values, a multiple of the lanes.
template <class T>
void Run(Activation activation, const T* z, std::size_t count, T* value, T* slope) {
  const hn::ScalableTag<T> d;
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto v = hn::LoadU(d, z + i);
    hn::StoreU(Activate(d, activation, v), d, value + i);
    hn::StoreU(ActivationGradient(d, activation, hn::Set(d, T{1}), v), d, slope + i);
  }
}
void RunFloat(Activation activation, const float* z, std::size_t count, float* value, float* slope) {
  Run(activation, z, count, value, slope);
}
void RunDouble(Activation activation, const double* z, std::size_t count, double* value, double* slope) {
  Run(activation, z, count, value, slope);
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "core/activation.hpp"
#include "core/philox.hpp"
#include "equinorm/execution.hpp"

namespace equinorm {
namespace {
HWY_EXPORT(RunFloat);
HWY_EXPORT(RunDouble);

constexpr std::size_t kLanes = 64;  // a multiple of any vector's

void run(Activation activation, const float* z, std::size_t count, float* value, float* slope) {
  HWY_DYNAMIC_DISPATCH(RunFloat)(activation, z, count, value, slope);
}
void run(Activation activation, const double* z, std::size_t count, double* value, double* slope) {
  HWY_DYNAMIC_DISPATCH(RunDouble)(activation, z, count, value, slope);
}

/// Both signs of: every exponent, densely where the functions bend, the ends.
template <class T>
std::vector<T> sweep() {
  using Limits = std::numeric_limits<T>;
  std::vector<T> z = {0, Limits::denorm_min(), Limits::min(), Limits::max(), Limits::infinity(), Limits::epsilon()};
  const Philox random(3, 1);
  for (std::uint64_t i = 0; i < 200'000; ++i) {
    const double u = static_cast<double>(random.word(i)) * 0x1p-32;
    z.push_back(static_cast<T>(std::exp2(u * 2 * Limits::max_exponent - Limits::max_exponent)));
    z.push_back(static_cast<T>(u * 8));
    z.push_back(static_cast<T>(u * 50));
    z.push_back(static_cast<T>(u * (std::is_same_v<T, float> ? 130 : 850)));
  }
  const std::size_t count = z.size();
  for (std::size_t i = 0; i < count; ++i) z.push_back(-z[i]);
  z.resize((z.size() + kLanes - 1) / kLanes * kLanes, T{1});
  return z;
}

struct Exact {
  long double value, slope;
  long double slope_scale;  ///< the magnitudes that the slope is the sum of
};

Exact exact(Activation activation, long double z) {
  if (activation == Activation::silu) {
    // 1 − sigmoid(z) is sigmoid(−z).
    const long double s = 1 / (1 + std::exp(-z)), rest = 1 / (1 + std::exp(z));
    const long double product = std::isinf(z) ? 0 : z * s * rest;
    return {s == 0 ? s : z * s, s + product, s + std::abs(product)};
  }
  const long double cdf = std::erfc(-z / std::sqrt(2.0L)) / 2;
  const long double density = std::exp(-z * z / 2) / std::sqrt(2 * std::acos(-1.0L));
  const long double product = std::isinf(z) ? 0 : z * density;
  return {cdf == 0 ? cdf : z * cdf, cdf + product, cdf + std::abs(product)};
}

/// In roundings (half an ulp of 1 each). exp: one of r, whose error the power hands on in full, one or two within the
/// polynomial, one of the last sum; 1 + e and its inverse, and two products: 8. The tail adds a polynomial whose
/// terms are up to five times its value, evaluated at a rounded t, and two products: 16. A slope has one more sum and
/// two more products. Denormal results are rounded to one of their steps, on top of what e itself is rounded to.
template <class T>
void expect_close(Activation activation) {
  const long double unit = std::numeric_limits<T>::epsilon() / 2, step = std::numeric_limits<T>::denorm_min();
  const long double bound = activation == Activation::silu ? 8 : 16;
  const std::vector<T> z = sweep<T>();
  std::vector<T> value(z.size()), slope(z.size());
  run(activation, z.data(), z.size(), value.data(), slope.data());
  long double worst = 0, worst_slope = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const Exact want = exact(activation, static_cast<long double>(z[i]));
    if (std::isinf(z[i])) {
      ASSERT_EQ(value[i], z[i] > 0 ? z[i] : T{0});
      ASSERT_EQ(slope[i], z[i] > 0 ? T{1} : T{0});
      continue;
    }
    const long double error = std::abs(static_cast<long double>(value[i]) - want.value);
    const long double slope_error = std::abs(static_cast<long double>(slope[i]) - want.slope);
    ASSERT_LE(error, bound * unit * std::abs(want.value) + step) << "z = " << z[i];
    ASSERT_LE(slope_error, (bound + 3) * unit * want.slope_scale + step) << "z = " << z[i];
    ASSERT_EQ(std::signbit(value[i]), std::signbit(z[i])) << "z = " << z[i];
    if (std::abs(want.value) > std::numeric_limits<T>::min()) {
      worst = std::max(worst, error / (unit * std::abs(want.value)));
    }
    worst_slope = std::max(worst_slope, (slope_error - step) / (unit * want.slope_scale));
  }
  testing::Test::RecordProperty("worst_value_roundings", std::to_string(worst));
  testing::Test::RecordProperty("worst_slope_roundings", std::to_string(worst_slope));
}

TEST(Activation, FloatsAreRightToAFewUlpOverTheirWholeRange) {
  expect_close<float>(Activation::silu);
  expect_close<float>(Activation::gelu);
}

TEST(Activation, DoublesAreRightToAFewUlpOverTheirWholeRange) {
  expect_close<double>(Activation::silu);
  expect_close<double>(Activation::gelu);
}

class ActivationOnEveryTarget : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }

  template <class T>
  static void expect_same_bits() {
    const std::vector<T> z = sweep<T>();
    for (const auto activation :
         {Activation::none, Activation::relu, Activation::leaky_relu, Activation::silu, Activation::gelu}) {
      std::vector<T> first_value(z.size()), first_slope(z.size()), value(z.size()), slope(z.size());
      run(activation, z.data(), z.size(), first_value.data(), first_slope.data());
      for (const std::string& target : simd_targets()) {
        ASSERT_TRUE(set_simd_target(target).ok());
        run(activation, z.data(), z.size(), value.data(), slope.data());
        ASSERT_EQ(std::memcmp(value.data(), first_value.data(), z.size() * sizeof(T)), 0) << target;
        ASSERT_EQ(std::memcmp(slope.data(), first_slope.data(), z.size() * sizeof(T)), 0) << target;
      }
      ASSERT_TRUE(set_simd_target("").ok());
    }
  }
};

TEST_F(ActivationOnEveryTarget, GivesTheSameBits) {
  expect_same_bits<float>();
  expect_same_bits<double>();
}

TEST(Activation, AgreesWithTheScalarFormsThatCarefulPathsTake) {
  for (const auto activation :
       {Activation::none, Activation::relu, Activation::leaky_relu, Activation::silu, Activation::gelu}) {
    std::vector<double> z, value(kLanes), slope(kLanes);
    for (std::size_t i = 0; i < kLanes; ++i)
      z.push_back((static_cast<double>(i) - static_cast<double>(kLanes) / 2) * 0.25);
    run(activation, z.data(), kLanes, value.data(), slope.data());
    for (std::size_t i = 0; i < kLanes; ++i) {
      EXPECT_NEAR(value[i], activate(activation, z[i]), 1e-15 * (1 + std::abs(z[i]))) << z[i];
      EXPECT_NEAR(slope[i], activation_slope(activation, z[i]), 1e-15 * (1 + std::abs(z[i]))) << z[i];
    }
    const double infinity = std::numeric_limits<double>::infinity();
    for (const double end : {-infinity, infinity}) {
      z.assign(kLanes, end);
      run(activation, z.data(), kLanes, value.data(), slope.data());
      EXPECT_EQ(value[0], activate(activation, end));
      EXPECT_EQ(slope[0], activation_slope(activation, end));
    }
  }
}

TEST(Activation, NanStaysNan) {
  for (const auto activation : {Activation::relu, Activation::leaky_relu, Activation::silu, Activation::gelu}) {
    std::vector<float> z(kLanes, std::numeric_limits<float>::quiet_NaN()), value(kLanes), slope(kLanes);
    run(activation, z.data(), kLanes, value.data(), slope.data());
    EXPECT_TRUE(std::isnan(value[0])) << static_cast<int>(activation);
    EXPECT_TRUE(std::isnan(activate(activation, static_cast<double>(z[0]))));
  }
}

}  // namespace
}  // namespace equinorm
#endif
