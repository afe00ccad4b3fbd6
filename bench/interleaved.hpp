// Timing of several ways to do one thing, in rounds of random order: whatever else the machine does falls on all of
// them alike, and so does what each leaves behind for the next, in the caches and in other threads. Times are medians,
// and so are ratios, of those of the same round.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace equinorm::bench {

struct Contender {
  std::string name;
  std::function<void()> run;
};

struct Timing {
  Timing(std::string name_, std::vector<double> rounds_) : name(std::move(name_)), rounds(std::move(rounds_)) {
    std::vector<double> sorted = rounds;
    std::sort(sorted.begin(), sorted.end());
    if (sorted.empty()) return;
    const auto quantile = [&](std::size_t quarters) { return sorted[(sorted.size() - 1) * quarters / 4]; };
    median_ms = quantile(2);
    best_ms = sorted.front();
    spread = (quantile(3) - quantile(1)) / median_ms;
  }

  std::string name;
  std::vector<double> rounds;  ///< milliseconds, round by round
  double median_ms = 0;
  double best_ms = 0;
  double spread = 0;  ///< (third quartile − first) / median
};

/// The median of a's times over b's of the same round, and its 95 % interval: that has the ranks n/2 ± 0.98·√n,
/// whatever the distribution (a binomial's two standard deviations).
struct Ratio {
  Ratio(const Timing& a, const Timing& b) {
    std::vector<double> ratios(std::min(a.rounds.size(), b.rounds.size()));
    for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] = a.rounds[i] / b.rounds[i];
    if (ratios.empty()) return;
    std::sort(ratios.begin(), ratios.end());
    const auto n = static_cast<double>(ratios.size()), reach = 0.98 * std::sqrt(n);
    const auto rank = [&](double r) { return static_cast<std::size_t>(std::clamp(r, 0.0, n - 1)); };
    low = ratios[rank(std::floor((n - 1) / 2 - reach))];
    median = ratios[(ratios.size() - 1) / 2];
    high = ratios[rank(std::ceil((n - 1) / 2 + reach))];
  }

  double low = 0, median = 0, high = 0;
};

/// Runs every contender a few times to warm up, then in rounds until `seconds` are spent (at least 5 rounds).
inline std::vector<Timing> interleaved(const std::vector<Contender>& contenders, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto milliseconds = [](Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); };
  const auto time = [&](const Contender& contender, int repeats) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) contender.run();
    return milliseconds(Clock::now() - start) / repeats;
  };
  // Short runs are repeated within a sample, behind one that is not timed: the clock and the cold start should not
  // show.
  std::vector<int> repeats;
  for (const Contender& contender : contenders) {
    contender.run();
    const double once = std::min({time(contender, 1), time(contender, 1), time(contender, 1)});
    repeats.push_back(std::clamp(static_cast<int>(1.0 / std::max(once, 1e-4)), 1, 1000));
  }
  std::vector<std::vector<double>> samples(contenders.size());
  std::vector<std::size_t> order(contenders.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937 random(1);
  const auto begin = Clock::now();
  while (samples[0].size() < 5 || milliseconds(Clock::now() - begin) < seconds * 1e3) {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) {
      if (repeats[i] > 1) contenders[i].run();
      samples[i].push_back(time(contenders[i], repeats[i]));
    }
  }
  std::vector<Timing> timings;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    timings.emplace_back(contenders[i].name, std::move(samples[i]));
  }
  return timings;
}

}  // namespace equinorm::bench
