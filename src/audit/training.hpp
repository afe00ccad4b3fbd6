// Trained trials: one net on one thread, from a specification and a seed, until it reaches an accuracy or its steps
// end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "audit/claim.hpp"
#include "audit/outcome.hpp"
#include "data/dataset.hpp"
#include "nn/spec.hpp"

namespace equinorm::audit {

/// One side of a comparison. Both sides of a pair draw the same initial weights and see the same digits in the same
/// order for a seed.
struct Arm {
  std::string name;
  nn::NormSpec norm{};
};

/// The arm with the norm of that name, as nn::parse_norm has them; batch norm takes a batch of one digit as well as it
/// can.
Arm arm(std::string_view norm);

/// Without normalization, and with batch norm.
std::vector<Arm> arms();

/// The digits of a claim: rates are chosen on the validation digits, results measured on the test digits.
struct Split {
  data::Dataset train, validation, test;
};

/// `train` of the first 50,000 training digits; `held_out` of the last 10,000 for validation, and of the test digits.
Split make_split(const data::DataPair& digits, std::size_t train, std::size_t held_out);

struct TrialSpec {
  nn::ModelSpec model{};
  std::size_t batch = 64;
  double rate = 0.1;  ///< of plain stochastic gradient descent
  std::uint64_t steps = 1000, seed = 1;
  double target = 2;              ///< stop at this accuracy; above 1: never
  std::uint64_t check_every = 0;  ///< steps between two looks at the accuracy; 0: only at the end
};

struct TrialResult {
  bool diverged = false, reached = false;
  double steps = 0;    ///< taken until the accuracy was there; all of them if it never was, or the trial diverged
  double seconds = 0;  ///< of this thread for them, looks at the accuracy excluded; for all steps if it never was there
  double error = 1;    ///< at the end, share of the digits; 1 if the trial diverged
};

/// Trains on `train` and looks at the accuracy on `held_out`. Throws Interrupted when asked to stop.
TrialResult run_trial(const TrialSpec& spec, const data::Dataset& train, const data::Dataset& held_out,
                      const Progress& progress);

/// What a trial or trials cost, in units of their own: for Progress.
double work_of(const TrialSpec& spec);
double work_of(std::span<const TrialSpec> specs);

/// Rates in equal ratios, from the lowest.
std::vector<double> rate_grid(double lowest, double ratio, std::size_t count);

/// The rate that a variant does best with.
struct Tuned {
  double rate = 0;
  bool at_edge = false;  ///< the best is the first or last of the grid: there may be better beyond
};

/// The rate with the lowest score.
Tuned choose_rate(std::span<const double> grid, std::span<const double> scores);

/// For each variant the rate with the lowest mean score on the tuning seeds and the validation digits.
std::vector<Tuned> tune(const Context& context, const Split& split, const std::vector<TrialSpec>& variants,
                        std::span<const double> grid, double (*score)(const TrialResult&));

/// Every variant on the measured seeds and the test digits: [variant][seed].
std::vector<std::vector<TrialResult>> measure_trials(const Context& context, const Split& split,
                                                     const std::vector<TrialSpec>& variants);

/// One number of each trial: [seed].
std::vector<double> column(const std::vector<TrialResult>& trials, double (*number)(const TrialResult&));

/// "batch norm 0.32, none 0.1 (the grid's edge)": for the notes of a claim.
std::string in_words(const std::string& name, const Tuned& tuned);

/// One net with several norms over several batch sizes: all learn from the same number of digits, each at the rate that
/// is best for it.
class BatchSweep {
 public:
  /// norms: as for arm(). model: but for its norm.
  BatchSweep(std::span<const char* const> norms, std::span<const std::size_t> batches, const nn::ModelSpec& model,
             std::size_t images, std::vector<double> rates);

  /// For Progress::expect.
  double work(const Context& context) const;
  void run(const Context& context, const Split& split);

  // Of a sweep that has run:

  /// Test errors in %: [seed].
  std::vector<double> errors(std::size_t norm, std::size_t batch) const;
  /// The rates chosen: a note for each norm.
  std::vector<std::string> notes() const;

 private:
  std::span<const char* const> norms_;
  std::span<const std::size_t> batches_;
  std::vector<double> rates_;
  std::vector<TrialSpec> variants_;  ///< [norm][batch], as all that follows
  std::vector<Tuned> tuned_;
  std::vector<std::vector<TrialResult>> measured_;
};

/// Geometric mean of a[i] / b[i] with its 95 % interval, from the paired differences of logarithms.
Estimate paired_ratio(std::span<const double> a, std::span<const double> b);

}  // namespace equinorm::audit
