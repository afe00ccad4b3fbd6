// Trials: independent pieces of work, several at once, each on one thread. What a trial returns depends on its
// specification and seed alone, never on how many run beside it.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <vector>

namespace equinorm::audit {

/// Thrown out of a claim when the user asked to stop.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

/// How far a claim is, and whether it should go on. One for each claim that runs; shared by its workers.
class Progress {
 public:
  using Show = std::function<void(double fraction)>;
  Progress() = default;
  Progress(const std::atomic<bool>* stop, Show show) : stop_(stop), show_(std::move(show)) {}

  /// Work that lies ahead, in any unit; may be called again as more is known.
  void expect(double work) { expected_ = expected_ + work; }
  /// Work done. Called by one worker at a time.
  void done(double work);

  bool stopped() const { return stop_ != nullptr && stop_->load(std::memory_order_relaxed); }
  void throw_if_stopped() const {
    if (stopped()) throw Interrupted();
  }

 private:
  const std::atomic<bool>* stop_ = nullptr;
  Show show_;
  double expected_ = 0, done_ = 0;
};

/// Processor time of the calling thread in seconds: what a trial costs whatever runs beside it.
double thread_seconds();

/// Calls trial(0) … trial(count − 1), at most `workers` at a time; `work(i)` is what trial i counts for in `progress`.
/// The first failure (in index order) is thrown again once all workers have stopped.
void run_trials(std::size_t count, int workers, Progress& progress, const std::function<void(std::size_t)>& trial,
                const std::function<double(std::size_t)>& work = {});

/// One result per specification, in their order.
template <class Spec, class Trial>
auto map_trials(const std::vector<Spec>& specs, int workers, Progress& progress, const Trial& trial,
                const std::function<double(std::size_t)>& work = {}) {
  std::vector<decltype(trial(specs[0]))> results(specs.size());
  run_trials(
      specs.size(), workers, progress, [&](std::size_t i) { results[i] = trial(specs[i]); }, work);
  return results;
}

}  // namespace equinorm::audit
