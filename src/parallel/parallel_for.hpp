// parallel_for: the one place that knows threads. Blocks are fixed by the caller from the shape alone; threads only
// decide who computes a block, never what a block is, so no result depends on their number.
#pragma once

#include <cstddef>

namespace equinorm {

namespace parallel_detail {
using BlockFunction = void (*)(const void* context, std::size_t block);
void run(std::size_t blocks, int threads, BlockFunction function, const void* context);
}  // namespace parallel_detail

/// Calls body(block) once for each block in 0 … blocks−1, on at most `threads` threads, each taking a contiguous range
/// in ascending order; returns when all are done. body must not throw.
template <class Body>
void parallel_for(std::size_t blocks, int threads, const Body& body) {
  parallel_detail::run(
      blocks, threads, [](const void* context, std::size_t block) { (*static_cast<const Body*>(context))(block); },
      &body);
}

}  // namespace equinorm
