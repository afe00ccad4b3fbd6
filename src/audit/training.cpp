#include "audit/training.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "audit/format.hpp"
#include "data/sampler.hpp"
#include "nn/train.hpp"

namespace equinorm::audit {
namespace {

constexpr std::size_t kTrainRows = 50000;  // the rest of the training digits are for validation
constexpr std::uint64_t kSplitSeed = 0;

data::Dataset rows_between(const data::Dataset& dataset, std::size_t begin, std::size_t end) {
  std::vector<std::uint32_t> rows(end - begin);
  std::iota(rows.begin(), rows.end(), static_cast<std::uint32_t>(begin));
  return data::take(dataset, rows);
}

data::Dataset some(const data::Dataset& dataset, std::size_t size) {
  const auto rows = data::subset(dataset, std::min(size, dataset.count), kSplitSeed, data::Strata::classes);
  return data::take(dataset, rows);
}

/// Looks at the accuracy of a net again and again, with one net for inference, planned once.
class Examiner {
 public:
  Examiner(const nn::ModelSpec& model, const data::Dataset& digits)
      : digits_(digits), rows_(data::all_rows(digits.count)), net_(model, options(digits.count)) {}

  /// Share of the digits that `net` gets right in inference.
  double accuracy(const nn::Net& net) {
    net_.copy_state(net);
    data::gather(digits_, rows_, net_.images(), net_.labels());
    return static_cast<double>(net_.infer(rows_.size()).correct) / static_cast<double>(rows_.size());
  }

 private:
  static nn::NetOptions options(std::size_t rows) {
    return {.batch = rows, .training = false, .threads = 1, .seed = 0};
  }

  const data::Dataset& digits_;
  std::vector<std::uint32_t> rows_;
  nn::Net net_;
};

}  // namespace

Arm arm(std::string_view norm) {
  nn::NormSpec spec = nn::parse_norm(norm);
  spec.single_value = SingleValuePolicy::allow;
  const std::string kind(norm.substr(0, norm.find(':')));
  return {spec.kind == nn::NormKind::none ? kind : kind + " norm", spec};
}

std::vector<Arm> arms() {
  return {arm("none"), arm("batch")};
}

Split make_split(const data::DataPair& digits, std::size_t train, std::size_t held_out) {
  return {some(rows_between(digits.train, 0, kTrainRows), train),
          some(rows_between(digits.train, kTrainRows, digits.train.count), held_out), some(digits.test, held_out)};
}

TrialResult run_trial(const TrialSpec& spec, const data::Dataset& train, const data::Dataset& held_out,
                      const Progress& progress) {
  nn::TrainSpec training;
  training.model = spec.model;
  training.optimizer.momentum = 0;
  training.optimizer.lr = spec.rate;
  training.batch = spec.batch;
  training.steps = spec.steps;
  training.seed = spec.seed;
  training.threads = 1;

  TrialResult result;
  Examiner examiner(spec.model, held_out);
  double looking = 0;  // seconds spent on looks at the accuracy
  const double begin = thread_seconds();
  const nn::TrainResult trained = nn::train(training, train, [&](const nn::StepReport& report, const nn::Net& net) {
    progress.throw_if_stopped();
    const std::uint64_t done = report.step + 1;
    if (spec.check_every == 0 || (done % spec.check_every != 0 && done != spec.steps)) return true;
    const double before = thread_seconds();
    result.reached = examiner.accuracy(net) >= spec.target;
    looking += thread_seconds() - before;
    return !result.reached;
  });
  result.seconds = thread_seconds() - begin - looking;
  result.diverged = trained.diverged;
  if (trained.diverged) {
    result.steps = static_cast<double>(spec.steps);
    result.seconds *= static_cast<double>(spec.steps) / static_cast<double>(std::max<std::uint64_t>(trained.steps, 1));
    return result;
  }
  result.steps = static_cast<double>(trained.steps);
  result.error = 1 - examiner.accuracy(trained.net);
  return result;
}

double work_of(const TrialSpec& spec) {
  return static_cast<double>(spec.steps) * static_cast<double>(16 + spec.batch);  // a step has a cost beside its rows'
}

double work_of(std::span<const TrialSpec> specs) {
  double work = 0;
  for (const TrialSpec& spec : specs) work += work_of(spec);
  return work;
}

std::vector<double> rate_grid(double lowest, double ratio, std::size_t count) {
  std::vector<double> grid(count);
  for (std::size_t i = 0; i < count; ++i) grid[i] = lowest * std::pow(ratio, static_cast<double>(i));
  return grid;
}

Tuned choose_rate(std::span<const double> grid, std::span<const double> scores) {
  const auto best = static_cast<std::size_t>(std::min_element(scores.begin(), scores.end()) - scores.begin());
  return {grid[best], best == 0 || best + 1 == grid.size()};
}

std::vector<Tuned> tune(const Context& context, const Split& split, const std::vector<TrialSpec>& variants,
                        std::span<const double> grid, double (*score)(const TrialResult&)) {
  std::vector<TrialSpec> trials;
  for (TrialSpec spec : variants) {
    for (const double rate : grid) {
      for (const std::uint64_t seed : context.tuning_seeds) {
        spec.rate = rate;
        spec.seed = seed;
        trials.push_back(spec);
      }
    }
  }
  const auto scores = map_trials(
      trials, context.workers, context.progress,
      [&](const TrialSpec& spec) { return score(run_trial(spec, split.train, split.validation, context.progress)); },
      [&](std::size_t i) { return work_of(trials[i]); });
  std::vector<Tuned> tuned;
  auto next = scores.begin();
  for (std::size_t v = 0; v < variants.size(); ++v) {
    std::vector<double> sums(grid.size(), 0);
    for (double& sum : sums) {
      for (std::size_t s = 0; s < context.tuning_seeds.size(); ++s) sum += *next++;
    }
    tuned.push_back(choose_rate(grid, sums));
  }
  return tuned;
}

std::vector<std::vector<TrialResult>> measure_trials(const Context& context, const Split& split,
                                                     const std::vector<TrialSpec>& variants) {
  std::vector<TrialSpec> trials;
  for (TrialSpec spec : variants) {
    for (const std::uint64_t seed : context.seeds) {
      spec.seed = seed;
      trials.push_back(spec);
    }
  }
  const auto results = map_trials(
      trials, context.workers, context.progress,
      [&](const TrialSpec& spec) { return run_trial(spec, split.train, split.test, context.progress); },
      [&](std::size_t i) { return work_of(trials[i]); });
  std::vector<std::vector<TrialResult>> by_variant;
  for (auto next = results.begin(); next != results.end(); next += static_cast<std::ptrdiff_t>(context.seeds.size())) {
    by_variant.emplace_back(next, next + static_cast<std::ptrdiff_t>(context.seeds.size()));
  }
  return by_variant;
}

std::vector<double> column(const std::vector<TrialResult>& trials, double (*number)(const TrialResult&)) {
  std::vector<double> numbers;
  numbers.reserve(trials.size());
  for (const TrialResult& trial : trials) numbers.push_back(number(trial));
  return numbers;
}

std::string in_words(const std::string& name, const Tuned& tuned) {
  return name + " " + format_number(tuned.rate) + (tuned.at_edge ? " (the grid's edge)" : "");
}

BatchSweep::BatchSweep(std::span<const char* const> norms, std::span<const std::size_t> batches,
                       const nn::ModelSpec& model, std::size_t images, std::vector<double> rates)
    : norms_(norms), batches_(batches), rates_(std::move(rates)) {
  for (const char* const norm : norms) {
    for (const std::size_t batch : batches) {
      TrialSpec spec{.model = model, .batch = batch, .steps = images / batch};
      spec.model.norm = arm(norm).norm;
      variants_.push_back(spec);
    }
  }
}

double BatchSweep::work(const Context& context) const {
  return work_of(variants_) * static_cast<double>(rates_.size() * context.tuning_seeds.size() + context.seeds.size());
}

void BatchSweep::run(const Context& context, const Split& split) {
  tuned_ = tune(context, split, variants_, rates_, [](const TrialResult& trial) { return trial.error; });
  for (std::size_t v = 0; v < variants_.size(); ++v) variants_[v].rate = tuned_[v].rate;
  measured_ = measure_trials(context, split, variants_);
}

std::vector<double> BatchSweep::errors(std::size_t norm, std::size_t batch) const {
  return column(measured_[norm * batches_.size() + batch], [](const TrialResult& trial) { return 100 * trial.error; });
}

std::vector<std::string> BatchSweep::notes() const {
  std::vector<std::string> notes;
  for (std::size_t n = 0; n < norms_.size(); ++n) {
    std::string rates;
    for (std::size_t b = 0; b < batches_.size(); ++b) {
      rates += (b == 0 ? "" : ", ") + in_words(std::to_string(batches_[b]) + ":", tuned_[n * batches_.size() + b]);
    }
    notes.push_back("Rates chosen on the validation digits for " + arm(norms_[n]).name + ", by batch: " + rates + ".");
  }
  return notes;
}

Estimate paired_ratio(std::span<const double> a, std::span<const double> b) {
  std::vector<double> log_a, log_b;
  for (const double value : a) log_a.push_back(std::log(value));
  for (const double value : b) log_b.push_back(std::log(value));
  const Estimate logs = paired_difference(log_a, log_b);
  return {std::exp(logs.value), {std::exp(logs.interval.lo), std::exp(logs.interval.hi)}};
}

}  // namespace equinorm::audit
