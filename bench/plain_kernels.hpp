// The passes over memory that plain.cpp puts together: plain floats, in vectors, with fused multiply-adds.
#pragma once

#include <cstddef>

#include "problem.hpp"

namespace equinorm::bench {

template <class T>
struct Data {
  const T *x, *dy, *gate, *residual;
  T *out, *dresidual;
  std::size_t ahead;  ///< elements fetched ahead; 0: none
  bool far;           ///< while sums are taken the beginnings of pages are fetched too
  bool second;        ///< fetched into the second cache
  bool stream;        ///< write around the caches
  bool claim;         ///< claim what columns are written to, a page at a time
  bool gate_first;    ///< backward, gated, with a residual: its gradient is written while sums are taken
};

/// out = a·x + b forward, a·g + (b·x + c) backward. Behind a relu without a residual z = scale·x + shift has the sign
/// that lets g through.
template <class T>
struct Coefficients {
  const Parameter<T>*a, *b, *c, *scale, *shift;

  Coefficients at(std::size_t i) const { return {a + i, b + i, c + i, scale + i, shift + i}; }
};

/// Rows that forward keeps aside with a residual.
inline constexpr std::size_t kRowsAside = 3;

template <class T>
struct RowData : Data<T> {
  T* sum;    ///< forward: x + residual
  T* aside;  ///< of which this is room for some rows
  const Parameter<T>*gamma, *beta, *mean, *variance;
  Parameter<T>*dgamma, *dbeta;
  std::size_t features;
  bool centered;  ///< layer norm; RMS norm has neither beta nor dbeta
};

/// What a problem's passes over memory are made of.
template <class T>
struct PlainKernels {
  /// Add Σv and Σ v·x, v = x forward, g backward. Of a line the first of the coefficients are meant.
  void (*sum_line)(Data<T> t, std::size_t begin, std::size_t length, Coefficients<T> k, Parameter<T>* sum,
                   Parameter<T>* product);
  void (*sum_columns)(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                      Coefficients<T> k, Parameter<T>* sum, Parameter<T>* product);
  void (*apply_line)(Data<T> t, std::size_t begin, std::size_t length, Coefficients<T> k);
  void (*apply_columns)(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                        Coefficients<T> k);
  void (*run_rows)(RowData<T> t, std::size_t rows);  ///< or nullptr
};

/// The passes of one kind, for the best instruction set of this processor. Gated: behind a relu, whose backward goes by
/// the sign of z, or with a residual by that of y. Add: forward reads a residual, backward writes its gradient. All
/// null where there are none: of f64, of bf16 and f16 with anything fused, and for processors without fused
/// multiply-adds.
template <class T>
PlainKernels<T> plain_kernels(bool backward, bool gated, bool add);

}  // namespace equinorm::bench
