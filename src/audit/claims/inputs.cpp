#include "audit/claims/inputs.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/philox.hpp"

namespace equinorm::audit {
namespace {

// What a stream of random numbers is for.
enum Stream : std::uint64_t { kWeights = 1, kGamma = 2, kBeta = 3, kValues = 4 };

std::size_t channel_axis(const Shape& shape, Layout layout) {
  return layout == Layout::channels_last ? shape.rank() - 1 : 1;
}

/// γ about 1 and β about 0, both signs of β and some small γ among them.
void draw_parameters(Input& input, std::uint64_t seed) {
  input.gamma = random_normal(input.channels(), seed, kGamma);
  input.beta = random_normal(input.channels(), seed, kBeta);
  for (float& gamma : input.gamma) gamma = 1 + 0.5F * gamma;
}

struct Hostile {
  const char* name;
  Shape shape;
  Layout layout;
  double mean, deviation;
};

constexpr Layout kLast = Layout::channels_last, kFirst = Layout::channels_first;

// Each row says what it is there to break.
const Hostile kHostile[] = {
    {"mean 1e3 σ", {2048, 16}, kLast, 1e3, 1},              // one-pass E[x²] − E[x]² in float
    {"mean 1e6 σ", {2048, 16}, kLast, 1e6, 1},              // a mean kept in one float
    {"mean 1e6 σ, NCHW", {8, 16, 16, 16}, kFirst, 1e6, 1},  // the same, other loop
    {"constant channel", {64, 8}, kLast, 3.7, 0},           // σ = 0: only ε is under the root
    {"one element", {1, 8}, kLast, 0, 1},                   // σ = 0 again, m = 1
    {"two elements", {2, 8}, kLast, 0, 1},                  // x̂ = ±1
    {"odd sizes, NCHW", {3, 7, 5, 3}, kFirst, 1, 2},        // tails of vectors
    {"huge (1e37)", {256, 8}, kLast, 0, 1e37},              // σ² overflows a float
    {"mean 1e37, σ 1e33", {256, 8}, kLast, 1e37, 1e33},     // both
    {"tiny (1e-30)", {256, 8}, kLast, 0, 1e-30},            // σ² underflows a float
    {"denormal (1e-41)", {256, 8}, kLast, 0, 1e-41},        // inputs themselves are denormal
};

}  // namespace

std::size_t Input::channels() const {
  return shape[channel_axis(shape, layout)];
}

std::size_t Input::at(std::size_t c, std::size_t i) const {
  std::size_t inner = 1;
  for (std::size_t axis = channel_axis(shape, layout) + 1; axis < shape.rank(); ++axis) inner *= shape[axis];
  return (i / inner * channels() + c) * inner + i % inner;
}

std::vector<float> random_normal(std::size_t n, std::uint64_t seed, std::uint64_t stream) {
  const Philox random(seed, stream);
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(random.normal(i));
  return values;
}

std::vector<float> digit(const data::Dataset& digits, std::size_t i) {
  std::vector<float> pixels(kPixels);
  for (std::size_t k = 0; k < kPixels; ++k) {
    pixels[k] = static_cast<float>(digits.images[i % digits.count * kPixels + k]) / 255.0F;
  }
  return pixels;
}

std::vector<double> widen(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

double ulp_at(double scale) {
  return std::max(std::ldexp(1.0, std::ilogb(std::max(std::abs(scale), 1e-300)) - 23), 0x1p-149);
}

BatchNormOptions audit_options() {
  BatchNormOptions options;
  options.single_value = SingleValuePolicy::allow;
  return options;
}

Forward run_forward(const BatchNormOps& ops, const Input& input) {
  Forward result{std::vector<float>(input.x.size()), std::vector<double>(input.channels()),
                 std::vector<double>(input.channels())};
  throw_if_error(ops.forward(audit_options(), input.view(), input.affine(), {},
                             {result.y.data(), input.shape, input.layout}, {result.mean.data(), result.variance.data()},
                             nullptr, {}));
  return result;
}

Input linear_activations(const data::Dataset& digits, std::size_t first, std::size_t rows, std::size_t units,
                         std::uint64_t seed) {
  const auto weights = random_normal(kPixels * units, seed, kWeights);
  const double deviation = std::sqrt(2.0 / kPixels);
  Input input{"digits, linear", {rows, units}, Layout::channels_last, {}, {}, {}};
  input.x.resize(rows * units);
  std::vector<double> sums(units);
  for (std::size_t row = 0; row < rows; ++row) {
    const auto image = digit(digits, first + row);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::size_t k = 0; k < kPixels; ++k) {
      if (image[k] == 0) continue;
      for (std::size_t u = 0; u < units; ++u) sums[u] += static_cast<double>(image[k]) * weights[k * units + u];
    }
    for (std::size_t u = 0; u < units; ++u) input.x[row * units + u] = static_cast<float>(deviation * sums[u]);
  }
  draw_parameters(input, seed);
  return input;
}

Input conv_activations(const data::Dataset& digits, std::size_t first, std::size_t images, std::size_t filters,
                       Layout layout, std::uint64_t seed) {
  const auto weights = random_normal(9 * filters, seed, kWeights);
  const double deviation = std::sqrt(2.0 / 9);
  const bool last = layout == Layout::channels_last;
  Input input{last ? "digits, conv" : "digits, conv, NCHW",
              last ? Shape{images, kSide, kSide, filters} : Shape{images, filters, kSide, kSide},
              layout,
              {},
              {},
              {}};
  input.x.resize(images * filters * kPixels);
  for (std::size_t n = 0; n < images; ++n) {
    const auto image = digit(digits, first + n);
    for (std::size_t f = 0; f < filters; ++f) {
      for (std::size_t p = 0; p < kPixels; ++p) {
        double sum = 0;
        for (std::size_t k = 0; k < 9; ++k) {
          // Zero padding: rows and columns −1 and 28 wrap round to huge numbers and fall out of the comparison.
          const std::size_t row = p / kSide + k / 3 - 1, column = p % kSide + k % 3 - 1;
          if (row < kSide && column < kSide)
            sum += static_cast<double>(image[row * kSide + column]) * weights[k * filters + f];
        }
        input.x[input.at(f, n * kPixels + p)] = static_cast<float>(deviation * sum);
      }
    }
  }
  draw_parameters(input, seed);
  return input;
}

Input normal_input(std::string name, Shape shape, Layout layout, double mean, double deviation, std::uint64_t seed) {
  Input input{std::move(name), shape, layout, random_normal(shape.elements(), seed, kValues), {}, {}};
  for (float& x : input.x) x = static_cast<float>(mean + deviation * static_cast<double>(x));
  draw_parameters(input, seed);
  return input;
}

Input samples_of(const Input& input, std::size_t first, std::size_t count) {
  const auto stride = static_cast<std::ptrdiff_t>(input.x.size() / input.shape[0]);
  const auto begin = input.x.begin() + static_cast<std::ptrdiff_t>(first) * stride;
  Input part{input.name,  input.shape, input.layout, {begin, begin + static_cast<std::ptrdiff_t>(count) * stride},
             input.gamma, input.beta};
  part.shape[0] = count;
  return part;
}

double differing(std::span<const float> a, std::span<const float> b) {
  double count = 0;
  const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
  for (std::size_t i = 0; i < a.size(); ++i) count += bits(a[i]) != bits(b[i]) ? 1 : 0;
  return count;
}

std::vector<Input> exact_inputs(const data::Dataset& digits, std::uint64_t seed) {
  const std::size_t first = seed * 1000;
  std::vector<Input> inputs{linear_activations(digits, first, 256, 100, seed),
                            conv_activations(digits, first, 16, 8, Layout::channels_last, seed),
                            conv_activations(digits, first, 16, 8, Layout::channels_first, seed)};
  for (const Hostile& row : kHostile) {
    inputs.push_back(normal_input(row.name, row.shape, row.layout, row.mean, row.deviation, seed));
  }
  return inputs;
}

}  // namespace equinorm::audit
