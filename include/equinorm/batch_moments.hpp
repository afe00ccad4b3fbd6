// Statistics that merge: the moments of batch norm's channels over more than one call sees. Micro-batches of gradient
// accumulation, ghost and uneven batches, the shards of several machines, or a whole data set for recalibration are
// taken in one by one, in any grouping, and committed to the running statistics once; and the running statistics of
// several models are pooled into those of their mixture.
//
//   (n, μ, M2) of two disjoint sets give those of their union:  μ = μ_a + δ·n_b/n,  M2 = M2_a + M2_b + δ²·n_a·n_b/n,
//   δ = μ_b − μ_a  (Chan, Golub & LeVeque 1979, eq. 2.1). No digit is lost to cancellation, whatever the means.
#pragma once

#include <cstddef>
#include <span>

#include "equinorm/batch_norm.hpp"

namespace equinorm {

/// Of each of `channels` channels, the moments of `count` values. Zero count: nothing yet, mean and m2 are unread.
struct BatchMoments {
  std::size_t channels = 0;
  double count = 0;        ///< values a channel
  double* mean = nullptr;  ///< [channels]
  double* m2 = nullptr;    ///< [channels]: Σ(x − mean)²
};

/// Scratch that batch_moments_accumulate needs, in bytes.
template <class T>
EQUINORM_API std::size_t batch_moments_workspace_bytes(const Shape& shape, Layout layout,
                                                       const BatchNormOptions& options = {});

/// Takes x into the moments. Of the options, `lengths` (padding) is heeded. An x without values changes nothing.
template <class T>
EQUINORM_API Status batch_moments_accumulate(const BatchNormOptions& options, TensorView<const T> x,
                                             BatchMoments& moments, const Execution& execution = {});

/// Takes `other` into `moments`, of as many channels.
EQUINORM_API Status batch_moments_merge(const BatchMoments& other, BatchMoments& moments);

/// The mean and the biased variance of each channel, [channels] each, as forward would save them.
EQUINORM_API Status batch_moments_statistics(const BatchMoments& moments, const Statistics& statistics);

/// Takes the moments into the running statistics as ONE batch, as forward does (options.non_finite and single_value are
/// heeded). To recalibrate on a whole data set, accumulate it and commit with a running weight of 1.
template <class T>
EQUINORM_API Status batch_moments_commit(const BatchNormOptions& options, const BatchMoments& moments,
                                         RunningStatistics<T>& running);

/// The running statistics of the mixture of several models' inputs, [channels] each, to pooled.mean and
/// pooled.variance: mean = Σ w·mean_i, variance = Σ w·(variance_i + (mean_i − mean)²). weights are divided by their
/// sum; none: equal ones. pooled.batches becomes the sum of theirs. pooled may be one of the models.
template <class T>
EQUINORM_API Status pool_running_statistics(std::span<const RunningStatistics<T>> models,
                                            std::span<const double> weights, std::size_t channels,
                                            RunningStatistics<T>& pooled);

}  // namespace equinorm
