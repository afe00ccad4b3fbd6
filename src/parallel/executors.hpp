// Executors for tests: what a caller might bring. Each counts its tasks, so that a test knows that it was asked.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "equinorm/execution.hpp"

namespace equinorm {

struct CountingExecutor : Executor {
  std::atomic<std::size_t> tasks_run = 0;
};

/// One after another in the thread that calls, the last first.
struct BackwardsExecutor final : CountingExecutor {
  void run(std::size_t tasks, Task task, void* context) override {
    tasks_run += tasks;
    for (std::size_t i = tasks; i-- > 0;) task(context, i);
  }
};

/// A thread of its own for each task; the caller's only waits.
struct ThreadsExecutor final : CountingExecutor {
  void run(std::size_t tasks, Task task, void* context) override {
    tasks_run += tasks;
    std::vector<std::thread> team;
    for (std::size_t i = 0; i < tasks; ++i) team.emplace_back(task, context, i);
    for (std::thread& thread : team) thread.join();
  }
};

/// Calls body(executor) with each of them.
template <class Body>
void for_each_executor(const Body& body) {
  BackwardsExecutor backwards;
  body(backwards);
  ThreadsExecutor threads;
  body(threads);
}

}  // namespace equinorm
