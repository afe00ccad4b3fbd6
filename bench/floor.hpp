// The floor under a problem: what passes over memory like ours take without arithmetic. A norm reads its input twice,
// once for the statistics and once to apply them; it may find it in a cache the second time, but not apply what it does
// not know yet.
#pragma once

#include <functional>

#include "problem.hpp"

namespace equinorm::bench {

/// The same tensors visited as our kernels do, or better where that is simple: units that are normalized together (all
/// of a batch, a channel, a sample or group, some rows) are read, then read again and written, last things first;
/// inference goes along memory. One thread. The floor is the fastest way of fetching.
template <class T>
std::function<void()> floor(const Problem& problem, const Tensors<T>& tensors, Fetch fetch);

}  // namespace equinorm::bench
