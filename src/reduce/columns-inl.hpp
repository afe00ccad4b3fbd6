// Reductions over the columns of a matrix [rows, columns] of floats, in double: moments, and the two sums of a
// normalization's backward pass. Pure functions of one block of rows; the callers fix the blocks from the shape alone
// and take their results in index order.
#if defined(EQUINORM_COLUMNS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_COLUMNS_INL_HPP
#undef EQUINORM_COLUMNS_INL_HPP
#else
#define EQUINORM_COLUMNS_INL_HPP
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstddef>

#include "reduce/moments.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Vectors of doubles side by side in a strip of columns: eight chains hide the latency of an addition where there are
/// 32 registers.
inline constexpr std::size_t kColumnStrip = HWY_TARGET <= HWY_AVX3 ? 8 : 4;

/// One column without vectors and without float: for values so large that a difference of two overflows a float.
inline Moments CarefulColumnMoments(const float* HWY_RESTRICT x, std::size_t rows, std::size_t stride) {
  Moments result{static_cast<double>(rows), 0, 0};
  for (std::size_t r = 0; r < rows; ++r) result.mean += static_cast<double>(x[r * stride]);
  result.mean /= result.count;
  for (std::size_t r = 0; r < rows; ++r) {
    const double difference = static_cast<double>(x[r * stride]) - result.mean;
    result.m2 += difference * difference;
  }
  return result;
}

/// Takes the moments of x: [rows ≥ 1, columns], rows `stride` floats apart, into mean and m2 ([columns]), which hold
/// those of `count` rows before. The first pass finds a shift near the mean; the second, over the same block in cache,
/// sums differences from it. A difference is exact where the mean is large (Sterbenz), and rounded relative to σ
/// elsewhere.
inline void AccumulateColumnMoments(const float* HWY_RESTRICT x, std::size_t rows, std::size_t stride,
                                    std::size_t columns, std::size_t count, double* HWY_RESTRICT mean,
                                    double* HWY_RESTRICT m2) {
  const auto n = static_cast<double>(rows), before = static_cast<double>(count), total = n + before;
  const double inverse = 1.0 / n, mean_weight = n / total, m2_weight = n * before / total;
  ForEachStrip<kColumnStrip>(F64(), columns, [&](auto d64, auto vectors, std::size_t column) HWY_ATTR {
    constexpr std::size_t kVectors = vectors;
    const hn::Rebind<float, decltype(d64)> d32;
    const std::size_t lanes = hn::Lanes(d64);
    hn::Vec<decltype(d32)> shift[kVectors];
    hn::Vec<decltype(d64)> sum[kVectors], squares[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      shift[v] = hn::Zero(d32);
      sum[v] = squares[v] = hn::Zero(d64);
    }
    // Scaled before it is summed, so that the shift of huge values does not overflow.
    const auto weight = hn::Set(d32, static_cast<float>(inverse));
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = x + r * stride + column;
      for (std::size_t v = 0; v < kVectors; ++v) {
        shift[v] = hn::Add(shift[v], hn::Mul(hn::LoadU(d32, row + v * lanes), weight));
      }
    }
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = x + r * stride + column;
      for (std::size_t v = 0; v < kVectors; ++v) {
        const auto difference = hn::PromoteTo(d64, hn::Sub(hn::LoadU(d32, row + v * lanes), shift[v]));
        sum[v] = hn::Add(sum[v], difference);
        squares[v] = hn::MulAdd(difference, difference, squares[v]);
      }
    }
    Moments overflow[hn::MaxLanes(d64)];
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = column + v * lanes;
      const bool careful = !hn::AllTrue(d64, hn::IsFinite(squares[v]));
      if (careful) {
        // Lane by lane: which columns take this path must not depend on how many lanes a vector has.
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          overflow[lane] = {before, count > 0 ? mean[at + lane] : 0, count > 0 ? m2[at + lane] : 0};
        }
      }
      const auto offset = hn::Mul(sum[v], hn::Set(d64, inverse));
      auto block_mean = hn::Add(hn::PromoteTo(d64, shift[v]), offset);
      auto block_m2 = hn::Sub(squares[v], hn::Mul(sum[v], offset));
      block_m2 = hn::Max(block_m2, hn::Zero(d64));
      if (count > 0) {
        const auto old_mean = hn::LoadU(d64, mean + at);
        const auto delta = hn::Sub(block_mean, old_mean);
        block_mean = hn::Add(old_mean, hn::Mul(delta, hn::Set(d64, mean_weight)));
        const auto between = hn::Mul(hn::Mul(delta, delta), hn::Set(d64, m2_weight));
        block_m2 = hn::Add(hn::LoadU(d64, m2 + at), hn::Add(block_m2, between));
      }
      hn::StoreU(block_mean, d64, mean + at);
      hn::StoreU(block_m2, d64, m2 + at);
      for (std::size_t lane = 0; careful && lane < lanes; ++lane) {
        if (std::isfinite(hn::ExtractLane(squares[v], lane))) continue;
        overflow[lane].merge(CarefulColumnMoments(x + at + lane, rows, stride));
        mean[at + lane] = overflow[lane].mean;
        m2[at + lane] = overflow[lane].m2;
      }
    }
  });
}

/// Takes the moments (mean, m2: [columns]) of `other_count` rows into those of `count` rows.
inline void MergeColumnMoments(std::size_t columns, std::size_t count, double* HWY_RESTRICT mean,
                               double* HWY_RESTRICT m2, std::size_t other_count, const double* HWY_RESTRICT other_mean,
                               const double* HWY_RESTRICT other_m2) {
  const auto a = static_cast<double>(count), b = static_cast<double>(other_count);
  ForEachStrip<1>(F64(), columns, [&](auto d, auto, std::size_t c) HWY_ATTR {
    const auto old_mean = hn::LoadU(d, mean + c);
    const auto delta = hn::Sub(hn::LoadU(d, other_mean + c), old_mean);
    hn::StoreU(hn::Add(old_mean, hn::Mul(delta, hn::Set(d, b / (a + b)))), d, mean + c);
    const auto between = hn::Mul(hn::Mul(delta, delta), hn::Set(d, a * b / (a + b)));
    hn::StoreU(hn::Add(hn::LoadU(d, m2 + c), hn::Add(hn::LoadU(d, other_m2 + c), between)), d, m2 + c);
  });
}

/// Adds Σ g and Σ g·d to sum and dot ([columns]), where d = x − mean and g = gradient(d32, index, column, d) is what
/// the activation let through. index counts floats from x; mean is a pair hi + lo.
template <class Gradient>
HWY_INLINE void AccumulateColumnDots(const float* HWY_RESTRICT x, std::size_t rows, std::size_t stride,
                                     std::size_t columns, const float* HWY_RESTRICT mean_hi,
                                     const float* HWY_RESTRICT mean_lo, const Gradient& gradient,
                                     double* HWY_RESTRICT sum, double* HWY_RESTRICT dot) {
  constexpr std::size_t kStrip = kColumnStrip / 2;
  ForEachStrip<kStrip>(F64(), columns, [&](auto d64, auto vectors, std::size_t column) HWY_ATTR {
    constexpr std::size_t kVectors = vectors;
    const hn::Rebind<float, decltype(d64)> d32;
    const std::size_t lanes = hn::Lanes(d64);
    hn::Vec<decltype(d64)> sums[kVectors], dots[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      sums[v] = hn::LoadU(d64, sum + column + v * lanes);
      dots[v] = hn::LoadU(d64, dot + column + v * lanes);
    }
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        const std::size_t c = column + v * lanes;
        const std::size_t index = r * stride + c;
        const auto difference =
            hn::Sub(hn::Sub(hn::LoadU(d32, x + index), hn::LoadU(d32, mean_hi + c)), hn::LoadU(d32, mean_lo + c));
        const auto g = hn::PromoteTo(d64, gradient(d32, index, c, difference));
        sums[v] = hn::Add(sums[v], g);
        dots[v] = hn::MulAdd(g, hn::PromoteTo(d64, difference), dots[v]);
      }
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[v], d64, sum + column + v * lanes);
      hn::StoreU(dots[v], d64, dot + column + v * lanes);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
