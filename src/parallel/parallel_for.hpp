// parallel_for: the one place that knows threads. Blocks are fixed by the caller from the shape alone; threads only
// decide who computes a block, never what a block is, so no result depends on their number.
#pragma once

#include <cstddef>

namespace equinorm {

namespace parallel_detail {
using RangeFunction = void (*)(const void* context, std::size_t begin, std::size_t end);
void run(std::size_t blocks, int threads, RangeFunction function, const void* context);
}  // namespace parallel_detail

/// Calls body(begin, end) for disjoint ranges that cover the blocks 0 … blocks−1, on at most `threads` threads; returns
/// when all are done. The same (blocks, threads) gives a thread the same range again: it finds it in its caches. body
/// must not throw.
template <class Body>
void parallel_ranges(std::size_t blocks, int threads, const Body& body) {
  parallel_detail::run(
      blocks, threads,
      [](const void* context, std::size_t begin, std::size_t end) { (*static_cast<const Body*>(context))(begin, end); },
      &body);
}

/// Calls body(block) once for each block in 0 … blocks−1, each thread going up its range.
template <class Body>
void parallel_for(std::size_t blocks, int threads, const Body& body) {
  parallel_ranges(blocks, threads, [&body](std::size_t begin, std::size_t end) {
    for (std::size_t block = begin; block < end; ++block) body(block);
  });
}

/// How many threads a library that runs on OpenMP by itself (oneDNN) may use when called from this thread. Without
/// OpenMP in this build it is left to the library.
void set_openmp_threads(int threads);

}  // namespace equinorm
