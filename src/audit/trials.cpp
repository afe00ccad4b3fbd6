#include "audit/trials.hpp"

#include <algorithm>
#include <ctime>
#include <exception>
#include <mutex>

#include "parallel/parallel_for.hpp"

namespace equinorm::audit {

void Progress::done(double work) {
  done_ += work;
  if (show_ && expected_ > 0) show_(std::min(done_ / expected_, 1.0));
}

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void run_trials(std::size_t count, int workers, Progress& progress, const std::function<void(std::size_t)>& trial,
                const std::function<double(std::size_t)>& work) {
  // Trials differ in length, so that whoever is free takes the next one; a trial knows nothing of who runs it.
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  std::vector<std::exception_ptr> errors(count);
  std::mutex mutex;
  const std::size_t team = std::min(count, static_cast<std::size_t>(std::max(workers, 1)));
  parallel_for(team, static_cast<int>(team), [&](std::size_t) {
    while (!failed) {  // asked before an index is taken: one that is taken runs, so the first failure is always found
      const std::size_t i = next++;
      if (i >= count) break;
      try {
        progress.throw_if_stopped();
        trial(i);
        const std::scoped_lock lock(mutex);
        progress.done(work ? work(i) : 1.0);
      } catch (...) {
        errors[i] = std::current_exception();
        failed = true;
      }
    }
  });
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace equinorm::audit
