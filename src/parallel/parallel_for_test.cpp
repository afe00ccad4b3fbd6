#include "parallel/parallel_for.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <initializer_list>
#include <vector>

#include "parallel/executors.hpp"

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

TEST(ParallelFor, RunsOnTheCallersThreads) {
  for (const std::size_t blocks : {0U, 1U, 2U, 7U, 100U}) {
    for (const int threads : {0, 1, 2, 8}) {
      BackwardsExecutor backwards;
      ThreadsExecutor own_threads;
      for (CountingExecutor* executor : std::initializer_list<CountingExecutor*>{&backwards, &own_threads}) {
        std::vector<std::atomic<int>> visits(blocks);
        parallel_for(blocks, Workers(Execution{.threads = threads, .executor = executor}),
                     [&](std::size_t block) { ++visits[block]; });
        for (std::size_t block = 0; block < blocks; ++block) EXPECT_EQ(visits[block], 1) << "block " << block;
        // One task stays with the caller: there is nobody to share with.
        const std::size_t tasks = std::min<std::size_t>(blocks, static_cast<std::size_t>(std::max(threads, 1)));
        EXPECT_EQ(executor->tasks_run, tasks > 1 ? tasks : 0) << blocks << " blocks on " << threads << " threads";
      }
    }
  }
}

TEST(ParallelFor, LeavesTheOrderToTheExecutor) {
  BackwardsExecutor executor;
  std::vector<std::size_t> order;
  parallel_for(6, Workers(Execution{.threads = 3, .executor = &executor}),
               [&](std::size_t block) { order.push_back(block); });
  EXPECT_EQ(order, (std::vector<std::size_t>{4, 5, 2, 3, 0, 1}));
}

TEST(ParallelFor, MayBeNested) {
  std::atomic<int> visits = 0;
  parallel_for(4, 2, [&](std::size_t) { parallel_for(5, 2, [&](std::size_t) { ++visits; }); });
  EXPECT_EQ(visits, 20);
}

}  // namespace
}  // namespace equinorm
