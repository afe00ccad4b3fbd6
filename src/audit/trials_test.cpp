#include "audit/trials.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace equinorm::audit {
namespace {

TEST(Trials, ReturnResultsInOrderForAnyNumberOfWorkers) {
  const std::vector<int> specs{5, 3, 8, 1, 9, 2, 7};
  for (const int workers : {-1, 0, 1, 2, 5, 50}) {
    Progress progress;
    EXPECT_EQ(map_trials(specs, workers, progress, [](int spec) { return spec * spec; }),
              (std::vector<int>{25, 9, 64, 1, 81, 4, 49}));
  }
}

TEST(Trials, ThrowTheFirstFailureAgain) {
  Progress progress;
  try {
    run_trials(20, 3, progress, [](std::size_t i) {
      if (i >= 4) throw std::runtime_error("trial " + std::to_string(i));
    });
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "trial 4");
  }
}

TEST(Trials, StopWhenAsked) {
  std::atomic<bool> stop = false;
  std::atomic<int> ran = 0;
  Progress progress(&stop, {});
  EXPECT_THROW(run_trials(1000, 2, progress,
                          [&](std::size_t) {
                            if (++ran == 5) stop = true;
                          }),
               Interrupted);
  EXPECT_LT(ran, 10);
}

TEST(Trials, ReportProgressByWork) {
  std::vector<double> shown;
  Progress progress(nullptr, [&](double fraction) { shown.push_back(fraction); });
  progress.expect(4);
  run_trials(
      2, 1, progress, [](std::size_t) {}, [](std::size_t i) { return i == 0 ? 1.0 : 3.0; });
  EXPECT_EQ(shown, (std::vector<double>{0.25, 1.0}));
}

TEST(Trials, MeasureTheTimeOfTheirOwnThread) {
  const double before = thread_seconds();
  double sum = 0;
  while (thread_seconds() - before < 0.01) sum += 1;
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace equinorm::audit
