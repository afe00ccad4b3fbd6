// The norms without what Equinorm promises: plain floats, fused where the processor can, in whatever order of sums is
// fastest here. Right for values like ours in a benchmark, wrong for a mean far from zero, and with other bits on other
// machines. How much slower we are is what accuracy and equal bits cost; a target that not even this meets is out of
// reach.
#pragma once

#include <functional>

#include "problem.hpp"

namespace equinorm::bench {

/// The pass of a problem on one thread, or no function where there is none: of f64, of activations but relu, of relu
/// behind norms of rows, of bf16 and f16 with anything fused. Units that are normalized together (all of a batch, a
/// channel, a sample or group, some rows) are read for the statistics, then read again and written, last things first.
/// The fastest way of fetching counts.
/// Backward, and batch norm's inference, take mean and variance from the tensors.
template <class T>
std::function<void()> plain(const Problem& problem, const Tensors<T>& tensors, Fetch fetch);

}  // namespace equinorm::bench
