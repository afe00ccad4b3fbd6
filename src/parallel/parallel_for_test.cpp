#include "parallel/parallel_for.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace equinorm {
namespace {

TEST(ParallelFor, VisitsEveryBlockOnce) {
  for (const std::size_t blocks : {0U, 1U, 2U, 3U, 7U, 8U, 100U}) {
    for (const int threads : {-1, 0, 1, 2, 3, 8, 200}) {
      std::vector<std::atomic<int>> visits(blocks);
      parallel_for(blocks, threads, [&](std::size_t block) { ++visits[block]; });
      for (std::size_t block = 0; block < blocks; ++block) {
        EXPECT_EQ(visits[block], 1) << "block " << block << " of " << blocks << " on " << threads << " threads";
      }
    }
  }
}

TEST(ParallelFor, MayBeNested) {
  std::atomic<int> visits = 0;
  parallel_for(4, 2, [&](std::size_t) { parallel_for(5, 2, [&](std::size_t) { ++visits; }); });
  EXPECT_EQ(visits, 20);
}

}  // namespace
}  // namespace equinorm
