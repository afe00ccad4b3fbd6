// The kernels of batch norm: pure functions of one block, dispatched to the best instruction set of the machine.
//
// Two families. Columns: a matrix [rows, columns], rows `stride` floats apart, coefficients per column. Segments: the
// planes of one channel, `segments` of `length` floats, `stride` apart, coefficients common to all.
//   d = (x − mean_hi) − mean_lo        y  = act(d·scale + shift (+ residual))
//   g = dy where the activation let x pass, else 0        dx = ((g − g_hi) − g_lo − d·slope)·scale
#pragma once

#include <cstddef>

#include "reduce/moments.hpp"

namespace equinorm::batch_norm {

/// What a channel's values are normalized with, as pointers to one value per column (or to the one of a channel).
struct Coefficients {
  const float* mean_hi = nullptr;  ///< mean_hi + mean_lo is the mean to 48 bits
  const float* mean_lo = nullptr;
  const float* scale = nullptr;  ///< γ/√(σ² + ε)
  const float* shift = nullptr;  ///< β
  // Backward alone:
  const float* g_hi = nullptr;  ///< g_hi + g_lo is Σg/m
  const float* g_lo = nullptr;
  const float* slope = nullptr;  ///< Σ(g·d)/(m·(σ² + ε))

  Coefficients at(std::size_t i) const {
    const auto move = [i](const float* p) { return p == nullptr ? nullptr : p + i; };
    return {mean_hi + i, mean_lo + i, scale + i, shift + i, move(g_hi), move(g_lo), move(slope)};
  }
};

struct Block {
  std::size_t rows, stride, columns;
};

/// `channels` ≤ kMaxPlaneChannels.
struct PlaneBlock {
  std::size_t samples, stride, channels, length;
};
inline constexpr std::size_t kMaxPlaneChannels = 32;

struct ForwardTensors {
  const float* x;
  const float* residual;  ///< or nullptr
  float* y;
  bool relu;
  bool stream;  ///< write around the caches; y and stride are multiples of 64 bytes

  ForwardTensors at(std::size_t i) const {
    return {x + i, residual == nullptr ? nullptr : residual + i, y + i, relu, stream};
  }
};

/// Where the mask of the activation comes from.
enum class Mask { none, input, output };

struct BackwardTensors {
  const float* x;
  const float* y;  ///< read under Mask::output
  const float* dy;
  float* dx;
  float* dresidual;  ///< or nullptr
  Mask mask;
  bool stream;

  BackwardTensors at(std::size_t i) const {
    return {x + i, y == nullptr ? nullptr : y + i, dy + i, dx + i, dresidual == nullptr ? nullptr : dresidual + i, mask,
            stream};
  }
};

// Columns.
void column_moments(const float* x, const Block& block, std::size_t count, double* mean, double* m2);
void merge_column_moments(std::size_t columns, std::size_t count, double* mean, double* m2, std::size_t other_count,
                          const double* other_mean, const double* other_m2);
void normalize_columns(const ForwardTensors& tensors, const Block& block, const Coefficients& coefficients);
/// Adds Σg and Σ g·(x − mean_hi) per column to sum and dot.
void column_dots(const BackwardTensors& tensors, const Block& block, const Coefficients& coefficients, double* sum,
                 double* dot);
void gradient_columns(const BackwardTensors& tensors, const Block& block, const Coefficients& coefficients);

// Segments. Results and coefficients are [channels].
void plane_moments(const float* x, const PlaneBlock& block, Moments* moments);
void normalize_planes(const ForwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients);
/// Adds Σg and Σ g·(x − mean_hi) per channel to sum and dot.
void plane_dots(const BackwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients, double* sum,
                double* dot);
void gradient_planes(const BackwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients);

}  // namespace equinorm::batch_norm
