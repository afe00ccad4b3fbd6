#include "audit/training.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nn/net.hpp"

namespace equinorm::audit {
namespace {

const Split& split() {
  static const Split made = make_split(data::load("mnist"), 500, 100);
  return made;
}

TrialSpec small_trial(const Arm& arm) {
  TrialSpec spec;
  spec.model.model = "mlp";
  spec.model.activation = "relu";
  spec.model.norm = arm.norm;
  spec.batch = 20;
  spec.steps = 60;
  return spec;
}

TEST(Training, DoesNotDependOnTheNumberOfWorkers) {
  std::vector<TrialSpec> variants;
  for (const Arm& arm : arms()) variants.push_back(small_trial(arm));
  const auto run = [&](int workers) {
    Progress progress;
    const data::DataPair none;
    const Context context{none, Mode::quick, {1, 2, 3}, {1001}, workers, progress, {}};
    std::vector<double> numbers;
    for (const auto& trials : measure_trials(context, split(), variants)) {
      for (const TrialResult& trial : trials) numbers.insert(numbers.end(), {trial.error, trial.steps});
    }
    const std::vector<double> grid{0.01, 0.1};
    for (const Tuned& tuned : tune(context, split(), variants, grid, [](const TrialResult& t) { return t.error; })) {
      numbers.push_back(tuned.rate);
    }
    return numbers;
  };
  const auto alone = run(1);
  EXPECT_EQ(run(2), alone);
  EXPECT_EQ(run(5), alone);
}

TEST(Training, ArmsOfAPairStartFromTheSameWeights) {
  std::vector<nn::Net> nets;
  for (const Arm& arm : arms()) nets.emplace_back(small_trial(arm).model, nn::NetOptions{.batch = 4, .seed = 7});
  for (const char* weight : {"fc1.weight", "fc2.weight", "fc4.weight"}) {
    EXPECT_TRUE(std::ranges::equal(nets[0].parameter(weight).values, nets[1].parameter(weight).values)) << weight;
  }
}

TEST(Training, DivergenceCountsAsTheWorst) {
  TrialSpec spec = small_trial(arms()[0]);
  spec.rate = 1e6;
  const TrialResult result = run_trial(spec, split().train, split().test, {});
  EXPECT_TRUE(result.diverged);
  EXPECT_FALSE(result.reached);
  EXPECT_EQ(result.error, 1);
  EXPECT_EQ(result.steps, 60);
}

TEST(Training, StopsAtTheTarget) {
  TrialSpec spec = small_trial(arms()[1]);
  spec.target = 0.3;
  spec.check_every = 5;
  const TrialResult result = run_trial(spec, split().train, split().test, {});
  EXPECT_TRUE(result.reached);
  EXPECT_LT(result.steps, 60);
  EXPECT_LE(result.error, 0.7);
  EXPECT_GT(result.seconds, 0);
}

TEST(Training, ABatchOfOneTrainsWithNormToo) {
  TrialSpec spec = small_trial(arms()[1]);
  spec.batch = 1;
  EXPECT_FALSE(run_trial(spec, split().train, split().test, {}).diverged);
}

TEST(Split, KeepsMeasuredDigitsOutOfTuning) {
  EXPECT_EQ(split().train.count, 500U);
  EXPECT_EQ(split().validation.count, 100U);
  EXPECT_EQ(split().test.count, 100U);
  EXPECT_NE(split().validation.images, split().test.images);
}

TEST(ChooseRate, TakesTheLowestScoreAndTellsTheEdge) {
  const double grid[] = {0.1, 1, 10};
  const double middle[] = {3, 1, 2}, edge[] = {3, 2, 1};
  EXPECT_EQ(choose_rate(grid, middle).rate, 1);
  EXPECT_FALSE(choose_rate(grid, middle).at_edge);
  EXPECT_EQ(choose_rate(grid, edge).rate, 10);
  EXPECT_TRUE(choose_rate(grid, edge).at_edge);
  EXPECT_EQ(in_words("none", choose_rate(grid, edge)), "none 10 (the grid's edge)");
}

TEST(PairedRatio, IsTheGeometricMean) {
  const double a[] = {2, 8, 4}, b[] = {1, 2, 2};  // ratios 2, 4, 2
  const Estimate estimate = paired_ratio(a, b);
  EXPECT_NEAR(estimate.value, std::cbrt(16.0), 1e-12);
  EXPECT_NEAR(estimate.interval.lo * estimate.interval.hi, estimate.value * estimate.value, 1e-9);
}

}  // namespace
}  // namespace equinorm::audit
