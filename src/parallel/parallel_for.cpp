#include "parallel/parallel_for.hpp"

#include <algorithm>

#ifdef EQUINORM_OPENMP
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace equinorm::parallel_detail {

void run(std::size_t blocks, const Workers& who, RangeFunction function, const void* context) {
  const std::size_t workers = std::min(blocks, static_cast<std::size_t>(std::max(who.threads, 1)));
  auto work = [=](std::size_t worker) {
    function(context, blocks * worker / workers, blocks * (worker + 1) / workers);
  };
  if (workers <= 1) {
    if (blocks > 0) work(0);
    return;
  }
  if (who.executor != nullptr) {
    who.executor->run(
        workers, [](void* context_, std::size_t worker) { (*static_cast<decltype(work)*>(context_))(worker); }, &work);
    return;
  }
#ifdef EQUINORM_OPENMP
  // The team may come out smaller than asked for (OMP_THREAD_LIMIT, nesting): hand the workers' shares round.
#pragma omp parallel num_threads(static_cast <int>(workers))
  {
    const auto team = static_cast<std::size_t>(omp_get_num_threads());
    for (auto worker = static_cast<std::size_t>(omp_get_thread_num()); worker < workers; worker += team) work(worker);
  }
#else
  std::vector<std::thread> team;
  team.reserve(workers - 1);
  for (std::size_t worker = 1; worker < workers; ++worker) team.emplace_back(work, worker);
  work(0);
  for (std::thread& thread : team) thread.join();
#endif
}

}  // namespace equinorm::parallel_detail

namespace equinorm {

void set_openmp_threads([[maybe_unused]] int threads) {
#ifdef EQUINORM_OPENMP
  omp_set_num_threads(threads);  // of this thread alone: the setting belongs to the calling task
#endif
}

}  // namespace equinorm
