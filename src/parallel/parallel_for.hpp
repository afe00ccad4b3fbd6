// parallel_for: the one place that knows threads. Blocks are fixed by the caller from the shape alone; threads only
// decide who computes a block, never what a block is, so no result depends on their number.
#pragma once

#include <cstddef>

#include "equinorm/execution.hpp"

namespace equinorm {

/// How many threads work, and whose they are: the executor's, or OpenMP's if there is none.
struct Workers {
  Workers(int count) : threads(count) {}  // NOLINT(google-explicit-constructor): a number of threads says it all
  explicit Workers(const Execution& execution) : threads(execution.threads), executor(execution.executor) {}

  int threads;
  Executor* executor = nullptr;
};

/// For an elementwise operation: under this many elements a second thread costs more than it brings.
inline Workers workers_for(std::size_t elements, const Execution& execution) {
  constexpr std::size_t kSingleThreadElements = 16 << 10;
  return elements < kSingleThreadElements ? Workers(1) : Workers(execution);
}

namespace parallel_detail {
using RangeFunction = void (*)(const void* context, std::size_t begin, std::size_t end);
void run(std::size_t blocks, const Workers& who, RangeFunction function, const void* context);
}  // namespace parallel_detail

/// Calls body(begin, end) for disjoint ranges that cover the blocks 0 … blocks−1, one range a worker; returns when all
/// are done. The same (blocks, threads) gives a worker the same range again: it finds it in its caches. body must not
/// throw.
template <class Body>
void parallel_ranges(std::size_t blocks, const Workers& workers, const Body& body) {
  parallel_detail::run(
      blocks, workers,
      [](const void* context, std::size_t begin, std::size_t end) { (*static_cast<const Body*>(context))(begin, end); },
      &body);
}

/// Calls body(block) once for each block in 0 … blocks−1, each worker going up its range.
template <class Body>
void parallel_for(std::size_t blocks, const Workers& workers, const Body& body) {
  parallel_ranges(blocks, workers, [&body](std::size_t begin, std::size_t end) {
    for (std::size_t block = begin; block < end; ++block) body(block);
  });
}

/// How many threads a library that runs on OpenMP by itself (oneDNN) may use when called from this thread. Without
/// OpenMP in this build it is left to the library.
void set_openmp_threads(int threads);

}  // namespace equinorm
