// What the tests of the normalizations share, for tensors of every element type. For tests alone.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <limits>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/elements.hpp"
#include "core/fingerprint.hpp"
#include "core/pages.hpp"
#include "core/value_cases.hpp"
#include "equinorm/execution.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm::testing_tools {

/// The four element types, and their names, for TYPED_TEST_SUITE.
using ElementTypes = testing::Types<float, double, bfloat16, float16>;
class ElementNames {
 public:
  template <class T>
  static std::string GetName(int) {
    return std::is_same_v<T, float>      ? "float32"
           : std::is_same_v<T, double>   ? "float64"
           : std::is_same_v<T, bfloat16> ? "bfloat16"
                                         : "float16";
  }
};

/// Says which instruction sets there are to run tests on, in the log and in GoogleTest's XML: where one is missing, "on
/// every target" is less than it sounds.
class Targets : public testing::Environment {
  void SetUp() override {
    std::string names;
    for (const std::string& target : simd_targets()) names += (names.empty() ? "" : " ") + target;
    std::cout << "instruction sets: " << names << std::endl;
    testing::Test::RecordProperty("instruction_sets", names);
  }
};
inline const testing::Environment* const kTargets = testing::AddGlobalTestEnvironment(new Targets);

/// The error of one rounding to T, relative, and at the bottom of its range.
template <class T>
inline constexpr double kUnit = std::is_same_v<T, double>     ? 0x1p-53
                                : std::is_same_v<T, float>    ? 0x1p-24
                                : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                              : 0x1p-11;
template <class T>
inline constexpr double kTiny = std::is_same_v<T, double>     ? 0x1p-1074
                                : std::is_same_v<T, float>    ? 0x1p-149
                                : std::is_same_v<T, bfloat16> ? 0x1p-133
                                                              : 0x1p-24;

/// How many roundings a sum of `terms` may add up to, relative to the sum of their magnitudes (Higham, "Accuracy and
/// stability of numerical algorithms", 2nd ed., eq. 4.4): of doubles one a term, whatever the order. Of floats eight
/// are added as such, of some up to four such sums and four of those, and these in double: to the rounding of each term
/// come up to thirteen, of random sign and small beside those of the elementwise passes (Higham & Mary 2019,
/// doi:10.1137/18M1226312). StatisticsRoundings counts the worst.
template <class T>
double roundings_of_sum(double terms) {
  return std::is_same_v<T, double> ? terms + 1 : 1;
}

/// The most that statistics may be off by, in roundings of σ and of σ². They come from sums about a shift K: d = x − K
/// has one rounding, d² two of d's and its own, and a sum of eight floats seven, of four such sums ten, of four of
/// those thirteen (of n doubles n). All that is relative to E|d| ≤ √E d² and to E d² = σ² + (K − μ)². K is the mean of
/// some of the values: of values without outliers within σ of μ, of others at most √3·σ (is_misled,
/// reduce/moments.hpp). `excess` is the ratio of E d² to σ².
struct StatisticsRoundings {
  static constexpr double kNoOutlier = 2, kOutlier = 4;
  static double excess(const cases::ValueCase& value) { return value.outlier == 0 ? kNoOutlier : kOutlier; }

  static constexpr double kOfFour = 10, kOfMany = 13;  ///< of sums of floats: of four of eight, and the most of any

  template <class T>
  static StatisticsRoundings of(double terms, double excess = kNoOutlier, double of_floats = kOfMany) {
    const double sums = std::is_same_v<T, double> ? terms : of_floats;
    return {(sums + 1) * std::sqrt(excess), (sums + 3) * excess};
  }
  double mean, variance;
};

/// Normal values of any mean and deviation, rounded to V.
template <class V>
std::vector<V> normals(std::size_t count, double mean, double sigma, std::uint64_t seed, std::uint64_t stream) {
  return cases::make<V>({"", mean, sigma, ""}, count, seed, stream);
}

template <class V>
std::vector<double> widen(const std::vector<V>& v) {
  std::vector<double> result;
  result.reserve(v.size());
  for (const V& value : v) result.push_back(to_double(value));
  return result;
}

inline std::string describe(const Shape& shape, Layout layout) {
  std::string text = layout == Layout::channels_last ? "channels-last" : "channels-first";
  for (std::size_t i = 0; i < shape.rank(); ++i) text += " " + std::to_string(shape[i]);
  return text;
}

inline constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::leaky_relu,
                                              Activation::silu, Activation::gelu};

/// How many elements a small tensor has, and an ordinary one: for the time that tests take.
inline constexpr std::size_t kSmall = 20'000, kLarge = 200'000;

/// Whether a tensor of these values is held against the reference. Small ones are with every activation, plain values
/// with a residual and without; others once with what most of them are and at the largest mean that leaves T digits,
/// and if they are not very large, with what leaves the ordinary path.
template <class T>
bool is_tried(const cases::ValueCase& value, std::size_t elements, Activation activation, bool add) {
  const std::string name = value.name;
  const bool has_add = activation == Activation::relu || activation == Activation::gelu;
  if (elements <= kSmall) return add == has_add || name == "normal" || name == "mean_1e3";
  if (name == "normal") return activation == Activation::relu && add;
  if (name == (sizeof(T) == 2 ? "mean_1e3" : "mean_1e6")) return activation == Activation::none && !add;
  if (name == "outlier") return elements <= kLarge && activation == Activation::none && !add;
  return elements <= kLarge && name == "huge" && activation == Activation::silu && !add;
}

/// All tensors that forward and backward take and give; outputs hold −7 until they are written.
template <class T>
struct Tensors {
  using P = Parameter<T>;

  Tensors(const Shape& of_shape, Layout of_layout, std::size_t statistics, double mean_of_x, double sigma_of_x,
          std::uint64_t seed)
      : Tensors(of_shape, of_layout, statistics, {"", mean_of_x, sigma_of_x, ""}, seed) {}
  Tensors(const Shape& of_shape, Layout of_layout, std::size_t statistics, const cases::ValueCase& value,
          std::uint64_t seed)
      : shape(of_shape), layout(of_layout) {
    channels = shape[layout == Layout::channels_last ? shape.rank() - 1 : 1];
    const std::size_t count = shape.elements();
    x = cases::make<T>(value, count, seed, 1);
    residual = normals<T>(count, 0, 1, seed, 2);
    dy = normals<T>(count, 0, 1, seed, 3);
    gamma = normals<P>(channels, 0, 1, seed, 4);
    beta = normals<P>(channels, 0, 1, seed, 5);
    y = dx = dresidual = std::vector<T>(count, to_element<T>(-7));
    dgamma = dbeta = std::vector<P>(channels, -7);
    mean = variance = std::vector<double>(statistics, -7);
  }

  template <class U>
  TensorView<U> view(U* data) const {
    return {data, shape, layout};
  }
  TensorView<const T> in(const std::vector<T>& v) const { return view<const T>(v.data()); }
  TensorView<const T> given(const std::vector<T>& v, bool is_given) const {
    return view<const T>(is_given ? v.data() : nullptr);
  }
  Affine<T> affine() const { return {gamma.data(), beta.data()}; }
  AffineGradients<T> gradients() { return {dgamma.data(), dbeta.data()}; }
  Statistics statistics() { return {mean.data(), variance.data()}; }

  std::size_t channel_of(std::size_t i) const {
    const std::size_t positions = x.size() / shape[0] / channels;
    return layout == Layout::channels_last ? i % channels : i / positions % channels;
  }

  /// Of all outputs, and of all inputs.
  std::uint64_t fingerprint() const { return hash_of(y, dx, dresidual, dgamma, dbeta, mean, variance); }
  std::uint64_t fingerprint_of_inputs() const { return hash_of(x, residual, dy, gamma, beta); }

  Shape shape;
  Layout layout;
  std::size_t channels;
  std::vector<T> x, residual, dy, y, dx, dresidual;
  std::vector<P> gamma, beta, dgamma, dbeta;
  std::vector<double> mean, variance;
};

/// Room for elements that begins a cache line, or one element behind it. Large outputs that begin lines go around the
/// caches; those of a std::vector hardly ever do.
template <class T>
class Room {
 public:
  Room(std::size_t count, bool of_a_line) : count_(count), storage_(count + 1 + kLine) {
    const std::size_t behind = reinterpret_cast<std::uintptr_t>(storage_.data()) / sizeof(T) % kLine;
    begin_ = (kLine - behind) % kLine + (of_a_line ? 0 : 1);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  T* data() { return storage_.data() + begin_; }
  std::vector<T> copy() { return {data(), data() + count_}; }

 private:
  static constexpr std::size_t kLine = 64 / sizeof(T);
  std::size_t count_, begin_;
  std::vector<T> storage_;
};

/// Memory for a workspace of `bytes`, a multiple of 64, behind which nothing may be read or written: there a page
/// begins that faults.
class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes) : size_((bytes + kPageBytes - 1) / kPageBytes * kPageBytes + kPageBytes) {
    base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    std::byte* const end = static_cast<std::byte*>(base_) + size_ - kPageBytes;
    if (mprotect(end, kPageBytes, PROT_NONE) != 0) throw std::runtime_error("mprotect failed");
    begin_ = end - bytes;
    std::memset(begin_, 0xAB, bytes);
  }
  ~GuardedMemory() { munmap(base_, size_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  std::byte* data() const { return begin_; }

 private:
  std::size_t size_;
  void* base_;
  std::byte* begin_;
};

/// Samples of unequal length, padded to [N, positions, channels] or [N, channels, positions].
struct Padding {
  std::vector<std::size_t> lengths;
  Layout layout;
  std::size_t channels, positions;

  Shape shape() const {
    const std::size_t n = lengths.size();
    if (positions % 2 == 1) {
      return layout == Layout::channels_last ? Shape{n, positions, channels} : Shape{n, channels, positions};
    }
    return layout == Layout::channels_last ? Shape{n, positions / 2, 2, channels}
                                           : Shape{n, channels, positions / 2, 2};
  }
  std::size_t values() const { return std::accumulate(lengths.begin(), lengths.end(), std::size_t{0}); }

  /// A padded tensor with the elements of one without padding, [values, channels], and NaN wherever padding lies.
  template <class T>
  std::vector<T> scatter(const std::vector<T>& dense) const {
    std::vector<T> padded(shape().elements(), to_element<T>(std::numeric_limits<double>::quiet_NaN()));
    for_each([&](std::size_t i, std::size_t at) { padded[at] = dense[i]; });
    return padded;
  }
  /// Back to [values, channels]; padding must be 0.
  template <class T>
  std::vector<T> gather(std::vector<T> padded) const {
    std::vector<T> dense(values() * channels);
    for_each([&](std::size_t i, std::size_t at) { dense[i] = std::exchange(padded[at], T{}); });
    for (const T& rest : padded) EXPECT_TRUE(rest == T{}) << "padding";
    return dense;
  }

 private:
  /// Calls body(index in [values, channels], index in the padded tensor) for every valid element.
  template <class Body>
  void for_each(const Body& body) const {
    std::size_t i = 0;
    for (std::size_t n = 0; n < lengths.size(); ++n) {
      for (std::size_t p = 0; p < lengths[n]; ++p) {
        for (std::size_t c = 0; c < channels; ++c) {
          const std::size_t sample = n * positions * channels;
          body(i++, sample + (layout == Layout::channels_last ? p * channels + c : c * positions + p));
        }
      }
    }
  }
};

/// A call on [values, channels], on padded tensors instead. Keep the padding as long as the call.
template <class Call>
Call pad(const Call& dense, const Padding& padding) {
  Call call = dense;
  call.shape = padding.shape();
  call.layout = padding.layout;
  for (const auto tensor : {&Call::x, &Call::residual, &Call::dy}) call.*tensor = padding.scatter(dense.*tensor);
  call.y = call.dx = call.dresidual = decltype(call.y)(call.x.size(), dense.y.at(0));  // not written yet
  call.options.lengths = padding.lengths.data();
  return call;
}

/// Such a call, done, with the tensors of outputs as they would be for `dense`; in them padding must be 0.
template <class Call>
Call without_padding(const Call& call, const Call& dense, const Padding& padding) {
  Call result = call;
  result.shape = dense.shape;
  result.layout = dense.layout;
  result.options.lengths = nullptr;
  for (const auto tensor : {&Call::x, &Call::residual, &Call::dy}) result.*tensor = dense.*tensor;
  for (const auto tensor : {&Call::y, &Call::dx}) result.*tensor = padding.gather(call.*tensor);
  result.dresidual = call.add ? padding.gather(call.dresidual) : dense.dresidual;
  return result;
}

}  // namespace equinorm::testing_tools
