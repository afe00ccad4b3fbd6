// Equinorm's side of a problem.
#pragma once

#include "memory.hpp"
#include "problem.hpp"

namespace equinorm::bench {

/// Statistics and workspace come from `memory`, which must outlive the passes. threads, which must too, is read
/// whenever they run; if it is null they use as many as the problem says. Errors of the operations are thrown.
template <class T>
Passes ours(const Problem& problem, const Tensors<T>& tensors, Memory& memory, const int* threads = nullptr);

}  // namespace equinorm::bench
