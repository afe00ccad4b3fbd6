// The floor under a problem: what passes over memory like ours take without arithmetic. A norm reads its input twice,
// once for the statistics and once to apply them; it may find it in a cache the second time, but not apply what it does
// not know yet.
#pragma once

#include <functional>

#include "problem.hpp"

namespace equinorm::bench {

/// The same tensors visited as our kernels do, or better where that is simple: units that are normalized together (all
/// of a batch, a channel, a sample or group, some rows) are read, then read again and written, last things first;
/// inference goes along memory. One thread. What is read next is fetched ahead, as our kernels do, or left to the
/// hardware: the floor is the faster of the two.
template <class T>
std::function<void()> floor(const Problem& problem, const Tensors<T>& tensors, bool fetch_ahead);

}  // namespace equinorm::bench
