// What exact claims are checked on: activations of real digits, and inputs that break careless kernels.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "audit/claim.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm::audit {

inline constexpr std::size_t kSide = 28, kPixels = kSide * kSide;

/// Digit i (from the beginning again after the last) as kPixels numbers in 0 … 1.
std::vector<float> digit(const data::Dataset& digits, std::size_t i);

/// A batch with its parameters.
struct Input {
  std::string name;
  Shape shape;
  Layout layout = Layout::channels_last;
  std::vector<float> x, gamma, beta;

  std::size_t channels() const;
  std::size_t values() const { return x.size() / channels(); }  ///< per channel
  /// Index in memory of value i of channel c.
  std::size_t at(std::size_t c, std::size_t i) const;
  TensorView<const float> view() const { return {x.data(), shape, layout}; }
  Affine<float> affine() const { return {gamma.data(), beta.data()}; }
};

/// Digits through a linear layer with He's initial weights: [rows, units], channels-last. First digit: `first`.
Input linear_activations(const data::Dataset& digits, std::size_t first, std::size_t rows, std::size_t units,
                         std::uint64_t seed);

/// Digits through a 3×3 convolution with He's initial weights: [images, filters, 28, 28] or [images, 28, 28, filters].
Input conv_activations(const data::Dataset& digits, std::size_t first, std::size_t images, std::size_t filters,
                       Layout layout, std::uint64_t seed);

/// Normal numbers: mean + deviation·N(0, 1); γ and β are drawn around 1 and 0.
Input normal_input(std::string name, Shape shape, Layout layout, double mean, double deviation, std::uint64_t seed);

/// Samples `first` … of a batch (the first axis of either layout), with the same parameters.
Input samples_of(const Input& input, std::size_t first, std::size_t count);

/// How many of the values have other bits.
double differing(std::span<const float> a, std::span<const float> b);

/// Both activations and every hostile input, for one seed.
std::vector<Input> exact_inputs(const data::Dataset& digits, std::uint64_t seed);

/// Normal random numbers of a named purpose.
std::vector<float> random_normal(std::size_t n, std::uint64_t seed, std::uint64_t stream);

std::vector<double> widen(const std::vector<float>& values);

/// The distance between neighbouring floats at |scale|.
double ulp_at(double scale);

/// The options with which the audit runs training forward and backward: the note's ε, one element allowed.
BatchNormOptions audit_options();

/// Training forward of the operation under audit; an error of it is thrown.
struct Forward {
  std::vector<float> y;
  std::vector<double> mean, variance;
};
Forward run_forward(const BatchNormOps& ops, const Input& input);

}  // namespace equinorm::audit
