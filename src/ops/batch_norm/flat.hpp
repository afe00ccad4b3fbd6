// Planes of a few vectors each (7×7 behind a net's last stage) would be mostly beginnings and ends. Side by side in
// memory they are the columns of a matrix [samples, channels · inner], for the kernels of columns; a channel is the sum
// of its columns, and its coefficients stand once for each of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "core/pages.hpp"
#include "kernels/kernels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "reduce/moments.hpp"

namespace equinorm::batch_norm {

template <class T>
class FlatPlanes {
 public:
  // As the kernels of planes of the same names:

  void plane_moments(const T* x, const PlaneBlock& planes, std::size_t count, double* mean, double* m2) const {
    double column_mean[kMostColumns], column_m2[kMostColumns];
    run_.column_moments(x, flat(planes), 0, column_mean, column_m2);
    const std::size_t length = planes.length;
    const auto samples = static_cast<double>(planes.samples), columns = static_cast<double>(length);
    for (std::size_t c = 0; c < planes.channels; ++c) {
      const double *means = column_mean + c * length, *m2s = column_m2 + c * length, origin = means[0];
      const double center = origin + sum_of(length, [&](std::size_t i) { return means[i] - origin; }) / columns;
      const double m2_of_all =
          sum_of(length, [&](std::size_t i) { return m2s[i] + samples * (means[i] - center) * (means[i] - center); });
      merge_moments(count, mean[c], m2[c], {samples * columns, center, m2_of_all});
    }
  }

  void normalize_planes(const kernels::Forward<T>& t, const PlaneBlock& planes,
                        const kernels::Coefficients<T>& k) const {
    const Repeated repeated({k.mean, k.scale, k.shift}, planes, t.y);
    run_.normalize_columns(t, flat(planes), repeated.coefficients());
  }

  void plane_dots(const kernels::Backward<T>& t, const PlaneBlock& planes, const kernels::Coefficients<T>& k,
                  double* sum, double* dot) const {
    const std::size_t length = planes.length;
    double sums[kMostColumns], dots[kMostColumns];
    for (double* column : {sums, dots}) std::fill_n(column, planes.channels * length, 0.0);
    const Repeated repeated({k.mean, k.scale, k.shift, k.unit}, planes, t.g);
    run_.column_dots(t, flat(planes), repeated.coefficients(), sums, dots);
    for (std::size_t c = 0; c < planes.channels; ++c) {
      sum[c] += sum_of(length, [&](std::size_t i) { return sums[c * length + i]; });
      dot[c] += sum_of(length, [&](std::size_t i) { return dots[c * length + i]; });
    }
  }

  void gradient_planes(const kernels::Backward<T>& t, const PlaneBlock& planes,
                       const kernels::Coefficients<T>& k) const {
    const Repeated repeated({k.mean, k.scale, k.shift, k.unit, k.offset, k.slope}, planes, t.dx);
    run_.gradient_columns(t, flat(planes), repeated.coefficients());
  }

 private:
  using P = Parameter<T>;
  static constexpr std::size_t kMostColumns = SegmentPlan::kFlatGroup * SegmentPlan::kFlatInner;

  static Block flat(const PlaneBlock& planes) {
    return {planes.samples, planes.stride, planes.channels * planes.length};
  }

  /// Four sums at a time: an addition need not wait for the one before.
  template <class Term>
  static double sum_of(std::size_t count, const Term& term) {
    double sums[4] = {};
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
      for (std::size_t j = 0; j < 4; ++j) sums[j] += term(i + j);
    }
    for (; i < count; ++i) sums[0] += term(i);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  /// Each channel's coefficients, once for each element of its plane.
  class Repeated {
   public:
    /// arrays: those that the pass reads, the first of Coefficients; out: what it writes with them.
    Repeated(std::initializer_list<const P*> arrays, const PlaneBlock& planes, const T* out)
        : values_(beside(out, memory_)) {
      P* values = values_;
      for (const P* from : arrays) {
        for (std::size_t c = 0; c < planes.channels; ++c) {
          std::fill_n(values + c * planes.length, planes.length, from[c]);
        }
        values += kMostColumns;
      }
    }
    kernels::Coefficients<T> coefficients() const {
      const auto at = [this](std::size_t i) { return values_ + i * kMostColumns; };
      return {at(0), at(1), at(2), at(3), at(4), at(5)};
    }

   private:
    alignas(kLineBytes) P memory_[6 * kMostColumns + kPageBytes / sizeof(P)];
    P* values_;
  };

  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

}  // namespace equinorm::batch_norm
