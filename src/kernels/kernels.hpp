// The kernels of all normalizations: pure functions of (arguments, one block) in three families, for every element
// type, dispatched to the best instruction set of the machine.
//
//   z  = (x − mean)·scale + shift (+ residual)       y  = act(z)
//   g  = dy·act'(z)                                  dx = (g·scale − offset) − (x − mean)·slope
//
// mean is the statistic's upper part in the type of computing; what it lacks to the double lies in shift and offset.
// Columns: one set of coefficients for each column of a matrix. Planes: one for each channel's segments. Rows:
// statistics for each row, γ and β for each column. What makes the coefficients of many channels is here too.
#pragma once

#include <cstddef>
#include <type_traits>

#include "core/activation.hpp"
#include "equinorm/norm.hpp"
#include "reduce/blocks.hpp"
#include "reduce/moments.hpp"

namespace equinorm::kernels {

/// Pointers to one value per column or channel.
template <class T>
struct Coefficients {
  using P = Parameter<T>;
  const P* mean = nullptr;
  const P* scale = nullptr;  ///< γ/√(σ² + ε)
  const P* shift = nullptr;  ///< β − (μ − mean)·scale
  // Backward alone:
  const P* unit = nullptr;  ///< a power of two near 1/√(σ² + ε): see AccumulateColumnDots
  const P* offset = nullptr;
  const P* slope = nullptr;

  Coefficients at(std::size_t i) const {
    const auto move = [i](const P* p) { return p == nullptr ? nullptr : p + i; };
    return {mean + i, scale + i, shift + i, move(unit), move(offset), move(slope)};
  }
};

template <class T>
struct Forward {
  const T* x;
  const T* residual;  ///< or nullptr
  T* y;
  Activation activation;
  bool stream;                    ///< write around the caches; y and stride are multiples of 64 bytes
  std::size_t ahead = kAhead<T>;  ///< from where inputs are fetched meanwhile; 0: nowhere
  bool claim = false;             ///< of columns: fetch the lines of y before they are written

  Forward at(std::size_t i) const {
    return {x + i, residual == nullptr ? nullptr : residual + i, y + i, activation, stream, ahead, claim};
  }
};

template <class T>
struct Backward {
  /// Of y and residual, forward's and each maybe absent, takes the one that the activation's slope is told by sooner.
  static Backward of(Activation activation, const T* x, const T* y, const T* residual, const T* dy, T* dx,
                     T* dresidual) {
    const bool by_sign = y != nullptr && has_slope_of_sign(activation);
    return {x, by_sign ? y : nullptr, by_sign ? nullptr : residual, dy, dx, dresidual, activation, false};
  }

  const T* x;
  const T* y;         ///< act(z), whose sign is z's: or nullptr, and z is computed again
  const T* residual;  ///< a part of z that is computed again; or nullptr
  const T* dy;
  T* dx;
  T* dresidual;  ///< g; or nullptr
  Activation activation;
  bool stream;
  std::size_t ahead = kAhead<T>;
  bool claim = false;  ///< of columns: fetch the lines of dx before they are written
  T* g = nullptr;      ///< where the sums leave g: see gate_first(); or nullptr

  Backward at(std::size_t i) const {
    const auto move = [i](auto* p) { return p == nullptr ? nullptr : p + i; };
    return {x + i, move(y), move(residual), dy + i, dx + i, move(dresidual), activation, stream, ahead, claim, move(g)};
  }

  /// Whether g takes little arithmetic. The activation alone says so: sums are cut by this, and their bits may not
  /// depend on whether y or the residual tells the slope.
  bool is_short() const { return activation == Activation::none || activation == Activation::relu; }

  /// Has g written with its sums, where dx then finds it: in dresidual, which it is, or if that is not wanted in dx
  /// (not behind a relu, for it is read as slowly as asked again). Only where g is one of T's values: behind a relu, or
  /// if what is computed in is T. Not for a channel that needs care: its g may be lost in floats.
  ///
  /// (Measured: of silu that saves a quarter to a half of the time. A slope that is told by a sign is soon asked again:
  /// there it saves 8 to 38 % if dx reads far memory again, and up to 18 % if all stays in the caches; but where dx
  /// goes around them, of what is still there, it took up to 2.3 times as long. cheap_too: it does not.)
  void gate_first(bool cheap_too) {
    const bool relu = activation == Activation::relu, cheap = has_slope_of_sign(activation);
    const bool exact = relu || std::is_same_v<T, Parameter<T>>;
    if (activation == Activation::none || !exact || (cheap && !cheap_too)) return;
    if (dresidual != nullptr) {
      g = dresidual;
    } else if (!relu && dx != x) {
      g = dx;
    }
  }
  /// What there is to do when the sums are taken: with g, which is the dy of a norm without an activation. near: it is
  /// still in the caches; then dx, which takes its place, is not written around them (measured: of silu 6 to 19 % less;
  /// where it has to come from far, up to a quarter more).
  Backward after_sums(bool near) const {
    if (g == nullptr) return *this;
    const bool around = stream && !(near && g == dx);
    return {x, nullptr, nullptr, g, dx, nullptr, Activation::none, around, ahead, claim};
  }
};

/// A matrix whose rows lie `stride` elements apart.
template <class T>
struct Rows {
  T* data = nullptr;  ///< nullptr: absent
  std::size_t stride = 0;

  T* at(std::size_t r) const { return data == nullptr ? nullptr : row(r); }
  /// The same of a matrix that is known to be there.
  T* row(std::size_t r) const { return data + r * stride; }
};

/// What forward and backward of a row norm share.
template <class T>
struct RowNorm {
  std::size_t features;
  const Parameter<T>*gamma, *beta;  ///< [features]; or nullptr
  double epsilon;
  Activation activation;
  bool stream;  ///< write around the caches; the rows of y or dx begin at multiples of 64 bytes
};

/// y = act(x̂·γ + β), x̂ = (s − mean)·inverse, s = x (+ residual). mean and variance, [rows], may be absent; of RMS norm
/// there is no mean, and variance is the mean square.
template <class T>
struct RowForward : RowNorm<T> {
  double *mean, *variance;
  Rows<const T> x, residual;
  Rows<T> sum;  ///< s, where there is a residual; may be absent if aside
  Rows<T> y;
  /// With a residual: s of the rows under way is kept in a buffer, and sum too is written around the caches; its rows
  /// begin at multiples of 64 bytes.
  bool aside;
};

/// Longer rows (bytes) are not kept aside.
inline constexpr std::size_t kMostAside = 16 << 10;

/// h = g·γ, dx = (h − mean(h) − x̂·mean(h·x̂))·inverse (+ dsum).
template <class T>
struct RowBackward : RowNorm<T> {
  const double *mean, *variance;
  Rows<const T> x, dy, dsum;
  Rows<T> dx;
};

/// What the coefficients of channels are made of, [channels] each.
template <class T>
struct ChannelStatistics {
  const double *mean, *variance;
  const Parameter<T>*gamma, *beta;  ///< or nullptr: ones, zeros
  double epsilon;
  double* inverse_deviation;  ///< 1/√(σ² + ε), which prepare_channels writes
};

/// And those of backward.
template <class T>
struct ChannelGradients {
  double values;                ///< of a channel
  double *sum, *dot;            ///< Σg and Σ g·(x − the mean's upper part), which becomes Σ g·(x − mean)
  bool exact;                   ///< dot is that already
  Parameter<T>*dgamma, *dbeta;  ///< or nullptr: not wanted
};

template <class T>
struct CoefficientArrays;

/// The kernels for elements of T, in one instruction set.
template <class T>
struct Kernels {
  /// Takes the moments of a block into mean and m2 ([columns]), those of `count` rows before it.
  void (*column_moments)(const T* x, const Block& block, std::size_t count, double* mean, double* m2);
  void (*normalize_columns)(const Forward<T>& tensors, const Block& block, const Coefficients<T>& coefficients);
  /// Adds Σg and Σ g·(x − mean) per column to sum and dot.
  void (*column_dots)(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients, double* sum,
                      double* dot);
  void (*gradient_columns)(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients);

  // The same for planes, where `count` is of values; results and coefficients are [channels].
  void (*plane_moments)(const T* x, const PlaneBlock& block, std::size_t count, double* mean, double* m2);
  void (*normalize_planes)(const Forward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients);
  void (*plane_dots)(const Backward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients,
                     double* sum, double* dot);
  void (*gradient_planes)(const Backward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients);

  /// Writes what forward needs of channels begin … end − 1 (and `unit`); says whether one of them needs care.
  bool (*prepare_channels)(const ChannelStatistics<T>& statistics, const CoefficientArrays<T>& coefficients,
                           std::size_t begin, std::size_t end);
  /// And what backward needs besides; says whether one needs care, or has sums that are not finite.
  bool (*finish_channels)(const ChannelStatistics<T>& statistics, const ChannelGradients<T>& gradients,
                          const CoefficientArrays<T>& coefficients, std::size_t begin, std::size_t end);

  /// Rows begin … end − 1, statistics included: layer norm, and RMS norm, which takes no mean.
  void (*layer_forward)(const RowForward<T>& norm, std::size_t begin, std::size_t end);
  void (*rms_forward)(const RowForward<T>& norm, std::size_t begin, std::size_t end);
  /// Adds the rows' Σ g·x̂ and Σ g, in double, to dgamma and dbeta ([features]; nullptr: not wanted,
  /// and Σ g never without the other).
  void (*layer_backward)(const RowBackward<T>& norm, std::size_t begin, std::size_t end, double* dgamma, double* dbeta);
  void (*rms_backward)(const RowBackward<T>& norm, std::size_t begin, std::size_t end, double* dgamma, double* dbeta);
};

/// The kernels for T in the instruction set of this machine, or the one that is forced.
template <class T>
const Kernels<T>& get();
template <>
const Kernels<float>& get<float>();
template <>
const Kernels<double>& get<double>();
template <>
const Kernels<bfloat16>& get<bfloat16>();
template <>
const Kernels<float16>& get<float16>();

}  // namespace equinorm::kernels
