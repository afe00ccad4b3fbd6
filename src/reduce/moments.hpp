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

/// Σd² of values may be at most so many times their M2, where d = x − K: else K, from a sample, was far from their
/// mean.
inline constexpr double kMostShifted = 4;
/// So of Σd² what is n·(K − μ)² may be this share.
inline constexpr double kMostOfShift = 1 - 1 / kMostShifted;

/// Whether the sample misled, as Σd and Σd² tell.
inline bool is_misled(double sum, double squares, double inverse_count) {
  return sum * (sum * inverse_count) > squares * kMostOfShift;
}

/// Takes others into the mean and M2 of `count` values, which are unread if that is 0.
inline void merge_moments(std::size_t count, double& mean, double& m2, const Moments& other) {
  Moments all;
  if (count > 0) all = {static_cast<double>(count), mean, m2};
  all.merge(other);
  mean = all.mean;
  m2 = all.m2;
}

/// The same for [columns] of them at once: those of `other_count` rows go into those of `count` rows.
inline void merge_moments(std::size_t columns, std::size_t count, double* mean, double* m2, std::size_t other_count,
                          const double* other_mean, const double* other_m2) {
  const auto a = static_cast<double>(count), b = static_cast<double>(other_count);
  const double mean_weight = b / (a + b), m2_weight = a * b / (a + b);
  for (std::size_t c = 0; c < columns; ++c) {
    const double delta = other_mean[c] - mean[c];
    mean[c] += delta * mean_weight;
    m2[c] += other_m2[c] + delta * delta * m2_weight;
  }
}

}  // namespace equinorm
