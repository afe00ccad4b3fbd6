// a·b + c rounds once on every instruction set: std::fma is the reference.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/mul_add_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "simd/simd-inl.hpp"

#ifndef EQUINORM_MUL_ADD_TEST_RESULTS
#define EQUINORM_MUL_ADD_TEST_RESULTS
namespace equinorm {

struct MulAddResults {
  float *sum, *difference, *negated;  ///< a·b + c, a·b − c, c − a·b
};

}  // namespace equinorm
#endif

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Whole vectors, then single lanes.
void Compute(const float* a, const float* b, const float* c, std::size_t count, const MulAddResults& results) {
  ForEachStrip<1>(hn::ScalableTag<float>(), count, [&](auto d, auto, std::size_t i) HWY_ATTR {
    const auto x = hn::LoadU(d, a + i), y = hn::LoadU(d, b + i), z = hn::LoadU(d, c + i);
    hn::StoreU(MulAdd(d, x, y, z), d, results.sum + i);
    hn::StoreU(MulSub(d, x, y, z), d, results.difference + i);
    hn::StoreU(NegMulAdd(d, x, y, z), d, results.negated + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/philox.hpp"
#include "equinorm/execution.hpp"

namespace equinorm {
namespace {
HWY_EXPORT(Compute);

struct Triples {
  std::vector<float> a, b, c;
  void add(float x, float y, float z) { a.push_back(x), b.push_back(y), c.push_back(z); }
};

/// Every exponent against every other comes up, ties, what cancels but for the last digits, and what is not finite.
Triples triples() {
  Triples t;
  const Philox random(1, 1);
  constexpr std::size_t kRandom = 200'000;
  for (std::size_t i = 0; i < kRandom; ++i) {
    const auto bits = [&](std::size_t k) { return random.word(3 * i + k); };
    t.add(std::bit_cast<float>(bits(0)), std::bit_cast<float>(bits(1)), std::bit_cast<float>(bits(2)));
    // As large as the product, which is near one; then less and less.
    const float x = 1 + std::ldexp(static_cast<float>(bits(0) >> 9), -23),
                y = 1 - std::ldexp(static_cast<float>(bits(1) >> 9), -24);
    const int shift = static_cast<int>(i % 60);
    t.add(x, y, std::ldexp(-x * y, -shift));
    t.add(x, y, std::ldexp(static_cast<float>(bits(2) % 8 + 1), -shift));
    // The product lies half way between two floats; c, which a double has no place for beside it, decides.
    const auto half_way = [&](std::size_t k) {
      return 1 + std::ldexp(static_cast<float>(bits(k) % 2048 * 2 + 1), -12);
    };
    t.add(half_way(0), half_way(1), std::ldexp(bits(2) % 2 == 0 ? 1.0F : -1.0F, -54 - shift));
    // So among denormal results: c, and half of the least float but for 2⁻⁴⁶ of it.
    t.add(std::ldexp(1 + 0x1p-23F, -75), std::ldexp(1 - 0x1p-23F, bits(0) % 2 == 0 ? -75 : -76),
          std::ldexp(static_cast<float>((1 << 21) + bits(2) % (1 << 22)), -149));
    // Near the least: results are denormal.
    t.add(std::ldexp(x, -70), std::ldexp(y, -60 - static_cast<int>(i % 30)),
          std::ldexp(static_cast<float>(bits(2) % 64) - 32, -149));
  }
  const float huge = std::numeric_limits<float>::max(), infinity = std::numeric_limits<float>::infinity();
  const float special[] = {
      0,       -0.0F,   1,    -1,    0x1p-149F, -0x1p-149F, 0x1p-126F,    0x1.000002p0F, 0x1.FFFFFEp-1F,
      0x1p24F, 0x1p25F, huge, -huge, infinity,  -infinity,  std::nanf("")};
  for (const float x : special) {
    for (const float y : special) {
      for (const float z : special) t.add(x, y, z);
    }
  }
  return t;
}

TEST(MulAdd, OfFloatsRoundsOnceOnEveryTarget) {
  const Triples t = triples();
  const std::size_t count = t.a.size();
  const auto same = [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b));
  };
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    std::vector<float> sum(count), difference(count), negated(count);
    HWY_DYNAMIC_DISPATCH(Compute)
    (t.a.data(), t.b.data(), t.c.data(), count, {sum.data(), difference.data(), negated.data()});
    for (std::size_t i = 0; i < count; ++i) {
      const float a = t.a[i], b = t.b[i], c = t.c[i];
      const std::string what = target + ": " + std::to_string(i);
      ASSERT_TRUE(same(sum[i], std::fma(a, b, c))) << what << ", " << a << "·" << b << " + " << c << " is " << sum[i];
      ASSERT_TRUE(same(difference[i], std::fma(a, b, -c)))
          << what << ", " << a << "·" << b << " − " << c << " is " << difference[i];
      ASSERT_TRUE(same(negated[i], std::fma(-a, b, c)))
          << what << ", " << c << " − " << a << "·" << b << " is " << negated[i];
    }
  }
  ASSERT_TRUE(set_simd_target("").ok());
}

}  // namespace
}  // namespace equinorm
#endif
