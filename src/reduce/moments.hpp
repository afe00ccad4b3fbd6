// Moments that merge: (count, mean, M2 = Σ(x − mean)²) of two disjoint sets give those of their union
// (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979, eq. 2.1).
#pragma once

#include <cstddef>

namespace equinorm {

struct Moments {
  double count = 0;
  double mean = 0;
  double m2 = 0;

  /// Takes in the moments of another set.
  void merge(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    const double total = count + other.count;
    const double delta = other.mean - mean;
    mean += delta * (other.count / total);
    m2 += other.m2 + delta * delta * (count * other.count / total);
    count = total;
  }

  double variance() const { return m2 / count; }
};

}  // namespace equinorm
