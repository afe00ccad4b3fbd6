// Elementwise work in blocks that fit the first-level cache's neighbourhood and depend on the size alone.
#pragma once

#include <algorithm>
#include <cstddef>

#include "parallel/parallel_for.hpp"

namespace equinorm::nn {

/// Calls body(begin, count) for consecutive blocks that cover 0 … elements−1.
template <class Body>
void for_each_block(std::size_t elements, int threads, const Body& body) {
  constexpr std::size_t block = 16384;  // 64 KiB of floats: far more than a thread's start costs
  parallel_for((elements + block - 1) / block, threads, [&](std::size_t index) {
    const std::size_t begin = index * block;
    body(begin, std::min(block, elements - begin));
  });
}

}  // namespace equinorm::nn
