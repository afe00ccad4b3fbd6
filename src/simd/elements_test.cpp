#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/elements_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "simd/elements-inl.hpp"

#ifndef EQUINORM_ELEMENTS_TEST_TABLE
#define EQUINORM_ELEMENTS_TEST_TABLE
namespace equinorm {

/// Ways to read and to write `count` elements, in one instruction set.
template <class T>
struct ElementsOf {
  using Reader = void (*)(const T* in, std::size_t count, Parameter<T>* out);
  using Writer = void (*)(const Parameter<T>* in, std::size_t count, T* out);
  Reader read;
  Writer write, stream, write_pairs, stream_pairs;
};

}  // namespace equinorm
#endif

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// How many elements a vector holds.
std::size_t Width() {
  return hn::Lanes(hn::ScalableTag<float>());
}

template <class T>
void Read(const T* in, std::size_t count, Parameter<T>* out) {
  const Tag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(LoadElements(d, in + i), d, out + i);
  if (i == count) return;
  HWY_ALIGN Parameter<T> rest[hn::MaxLanes(d)];
  hn::Store(LoadFirst(d, in + i, count - i), d, rest);
  for (std::size_t j = 0; j < lanes; ++j) {  // behind the last element are zeros
    if (i + j < count) {
      out[i + j] = rest[j];
    } else if (rest[j] != 0) {
      out[count - 1] = Parameter<T>{-77};
    }
  }
}

template <class T>
void Write(const Parameter<T>* in, std::size_t count, T* out) {
  const Tag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) StoreElements<false>(hn::LoadU(d, in + i), d, out + i);
  if (i < count) StoreFirst(LoadFirst(d, in + i, count - i), d, out + i, count - i);
}

/// Whole vectors around the caches; out is aligned.
template <class T>
void Stream(const Parameter<T>* in, std::size_t count, T* out) {
  const Tag<T> d;
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) StoreElements<true>(hn::LoadU(d, in + i), d, out + i);
}

/// Two whole vectors at a time.
template <bool kStream, class T>
void WritePairs(const Parameter<T>* in, std::size_t count, T* out) {
  const Tag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < count; i += 2 * lanes) {
    StorePair<kStream>(hn::LoadU(d, in + i), hn::LoadU(d, in + i + lanes), d, out + i);
  }
}

template <class T>
const ElementsOf<T>* TableOf() {
  static constexpr ElementsOf<T> table{Read<T>, Write<T>, Stream<T>, WritePairs<false, T>, WritePairs<true, T>};
  return &table;
}
const ElementsOf<double>* Double() {
  return TableOf<double>();
}
const ElementsOf<float>* Float() {
  return TableOf<float>();
}
const ElementsOf<bfloat16>* BFloat16() {
  return TableOf<bfloat16>();
}
const ElementsOf<float16>* Float16() {
  return TableOf<float16>();
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "core/elements.hpp"
#include "equinorm/execution.hpp"

namespace equinorm {
namespace {
HWY_EXPORT(Width);
HWY_EXPORT(Double);
HWY_EXPORT(Float);
HWY_EXPORT(BFloat16);
HWY_EXPORT(Float16);

/// Those of the instruction set in use.
template <class T>
const ElementsOf<T>& elements() {
  if constexpr (std::is_same_v<T, double>) {
    return *HWY_DYNAMIC_DISPATCH(Double)();
  } else if constexpr (std::is_same_v<T, float>) {
    return *HWY_DYNAMIC_DISPATCH(Float)();
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return *HWY_DYNAMIC_DISPATCH(BFloat16)();
  } else {
    return *HWY_DYNAMIC_DISPATCH(Float16)();
  }
}

template <class T>
class Elements : public testing::Test {
 protected:
  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }

  /// Calls body(target) with each instruction set in use.
  template <class Body>
  static void on_every_target(const Body& body) {
    for (const std::string& target : simd_targets()) {
      ASSERT_TRUE(set_simd_target(target).ok());
      body(target);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
};

template <class T>
class NarrowElements : public Elements<T> {};

using All = testing::Types<double, float, bfloat16, float16>;
using Narrow = testing::Types<bfloat16, float16>;
TYPED_TEST_SUITE(Elements, All);
TYPED_TEST_SUITE(NarrowElements, Narrow);

template <class T>
bool same(T a, T b) {  // bits; NaN equals NaN
  return std::bit_cast<std::array<char, sizeof(T)>>(a) == std::bit_cast<std::array<char, sizeof(T)>>(b) ||
         (std::isnan(to_double(a)) && std::isnan(to_double(b)));
}

template <class T>
std::vector<T> every_pattern() {
  std::vector<T> all;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) all.push_back({static_cast<std::uint16_t>(bits)});
  return all;
}

TYPED_TEST(NarrowElements, OfEveryBitPatternAreReadExactly) {
  using T = TypeParam;
  const std::vector<T> in = every_pattern<T>();
  this->on_every_target([&](const std::string& target) {
    std::vector<float> out(in.size());
    elements<T>().read(in.data(), in.size(), out.data());
    for (std::size_t i = 0; i < in.size(); ++i) {
      ASSERT_TRUE(same(out[i], static_cast<float>(to_double(in[i])))) << target << " bits " << i << ": " << out[i];
    }
  });
}

/// Floats that are hard to round to T: each value of T, the ties between neighbours and what lies just beside them;
/// then floats of every exponent with fractions of all sorts, infinities and NaNs of either sign.
template <class T>
std::vector<float> hard_to_round() {
  std::vector<float> values;
  const float infinity = std::numeric_limits<float>::infinity();
  const auto around = [&](float v) {
    for (const float side : {v, std::nextafter(v, -infinity), std::nextafter(v, infinity)}) values.push_back(side);
  };
  for (std::uint32_t bits = 0; bits < 65535; ++bits) {
    const double a = to_double(T{static_cast<std::uint16_t>(bits)});
    const double b = to_double(T{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(a)) continue;
    around(static_cast<float>(a));
    if (std::isfinite(b)) around(static_cast<float>((a + b) / 2));
  }
  for (const double largest : {65504.0, 65520.0, 0x1.FEp127, 0x1.FFp127}) {
    around(static_cast<float>(largest));
    around(static_cast<float>(-largest));
  }
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 10007) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  for (const std::uint32_t bits : {0x7F800001U, 0x7FC00000U, 0x7FFFFFFFU, 0xFF800001U, 0xFFFFFFFFU, 0x7FBFFFFFU}) {
    values.push_back(std::bit_cast<float>(bits));
  }
  while (values.size() % 64 != 0) values.push_back(1);
  return values;
}

TYPED_TEST(NarrowElements, AreRoundedToNearestEvenWithTheSameBitsOnEveryTarget) {
  using T = TypeParam;
  const std::vector<float> in = hard_to_round<T>();
  std::vector<T> want;
  want.reserve(in.size());
  for (const float v : in) want.push_back(to_element<T>(static_cast<double>(v)));
  std::vector<T> first(in.size());
  elements<T>().write(in.data(), in.size(), first.data());
  this->on_every_target([&](const std::string& target) {
    std::vector<T> out(in.size());
    elements<T>().write(in.data(), in.size(), out.data());
    for (std::size_t i = 0; i < in.size(); ++i) {
      ASSERT_TRUE(same(out[i], want[i])) << target << " " << in[i] << ": " << out[i].bits << " not " << want[i].bits;
      ASSERT_EQ(out[i].bits, first[i].bits) << target << " " << in[i];  // also those of NaN
    }
  });
}

TYPED_TEST(NarrowElements, AreRoundedInPairsAsAlone) {
  using T = TypeParam;
  std::vector<float> in = hard_to_round<T>();
  for (float& v : in) {  // no arithmetic leaves a signalling NaN
    if (std::isnan(v)) v = std::bit_cast<float>(std::bit_cast<std::uint32_t>(v) | 0x400000U);
  }
  std::vector<T> want(in.size());
  elements<T>().write(in.data(), in.size(), want.data());
  this->on_every_target([&](const std::string& target) {
    std::vector<T> out(in.size());
    elements<T>().write_pairs(in.data(), in.size(), out.data());
    for (std::size_t i = 0; i < in.size(); ++i) {
      ASSERT_EQ(out[i].bits, want[i].bits) << target << " " << in[i];  // also those of NaN
    }
  });
}

TYPED_TEST(Elements, AreReadAndWrittenToTheLastAndNotBeyond) {
  using T = TypeParam;
  this->on_every_target([&](const std::string& target) {
    const std::size_t most = 3 * HWY_DYNAMIC_DISPATCH(Width)();
    for (std::size_t count = 1; count <= most; ++count) {
      // Exactly as long as is read: AddressSanitizer sees one element more.
      const std::unique_ptr<T[]> in(new T[count]);
      for (std::size_t i = 0; i < count; ++i) in[i] = to_element<T>(static_cast<double>(i) + 0.5);
      std::vector<Parameter<T>> values(count);
      elements<T>().read(in.get(), count, values.data());
      for (std::size_t i = 0; i < count; ++i) {
        ASSERT_EQ(static_cast<double>(values[i]), static_cast<double>(i) + 0.5) << target << " " << count;
      }
      const T sentinel = to_element<T>(-99);
      std::vector<T> out(count + most, sentinel);
      elements<T>().write(values.data(), count, out.data());
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(to_double(out[i]), i < count ? static_cast<double>(i) + 0.5 : -99) << target << " " << count;
      }
    }
  });
}

TYPED_TEST(Elements, AreTheSameAroundTheCachesAndInPairs) {
  using T = TypeParam;
  constexpr std::size_t kCount = 256;
  std::vector<Parameter<T>> values;
  for (std::size_t i = 0; i < kCount; ++i) values.push_back(static_cast<Parameter<T>>(i) / 7);
  struct alignas(64) Aligned {
    T out[kCount] = {};
  } aligned;
  std::vector<T> want(kCount);
  elements<T>().write(values.data(), kCount, want.data());
  this->on_every_target([&](const std::string& target) {
    const ElementsOf<T>& with = elements<T>();
    for (const auto& writer : {with.stream, with.write_pairs, with.stream_pairs}) {
      aligned = {};
      writer(values.data(), kCount, aligned.out);
      for (std::size_t i = 0; i < kCount; ++i) ASSERT_EQ(aligned.out[i], want[i]) << target << " " << i;
    }
  });
}

}  // namespace
}  // namespace equinorm
#endif
