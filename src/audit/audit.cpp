#include "audit/audit.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "audit/claims.hpp"
#include "audit/report/report.hpp"
#include "core/file.hpp"
#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

// Measured trials have seeds of their own, trials that choose rates have others. The claims were developed, and their
// rules revised, on seeds 1 to 60, 301 to 305 and 401 to 403: what a user measures starts elsewhere.
constexpr std::uint64_t kFirstSeed = 2001, kFirstTuningSeed = 1001;
constexpr std::size_t kMostSeeds = 100;

std::vector<std::uint64_t> seeds_from(std::uint64_t first, std::size_t count) {
  std::vector<std::uint64_t> seeds(count);
  for (std::size_t i = 0; i < count; ++i) seeds[i] = first + i;
  return seeds;
}

std::size_t checked_seeds(const AuditSpec& spec) {
  const auto [least, usual] = seeds_of(spec.mode);
  const std::size_t seeds = spec.seeds == 0 ? usual : spec.seeds;
  if (seeds < least || seeds > kMostSeeds) {
    throw Error("--seeds is " + std::to_string(seeds) + "; expected " + std::to_string(least) + " to " +
                std::to_string(kMostSeeds) + " in " + std::string(name(spec.mode)) + " mode");
  }
  return seeds;
}

/// What an earlier run left, if it is a part of this one.
std::vector<Result> earlier_results(const AuditSpec& spec, const std::vector<std::uint64_t>& seeds) {
  const auto path = spec.out / "results.json";
  if (!std::filesystem::exists(path)) throw Error("--resume: there is no " + path.string() + " to go on from");
  Results earlier = read_results(path);
  const auto refuse = [&](const std::string& what) {
    throw Error("--resume: " + path.string() + " " + what + "; run without --resume, or with another --out");
  };
  if (earlier.mode != spec.mode) {
    refuse("was measured in " + std::string(name(earlier.mode)) + " mode, this is " + std::string(name(spec.mode)));
  }
  for (const Result& result : earlier.claims) {
    const Claim& claim = claim_named(result.id);
    if (result.seeds != seeds) {
      refuse("has '" + result.id + "' measured with " + std::to_string(result.seeds.size()) + " seeds, this run has " +
             std::to_string(seeds.size()));
    }
    if (result.statement != claim.statement || result.rule != claim.rule) {
      refuse("has '" + result.id + "' by the rule of another version of this program");
    }
    const auto same =
        std::count_if(earlier.claims.begin(), earlier.claims.end(), [&](const Result& r) { return r.id == result.id; });
    if (same > 1) refuse("has '" + result.id + "' more than once");
  }
  return std::move(earlier.claims);
}

/// Both files, from the results alone.
void write_results(const AuditSpec& spec, Results& results) {
  const auto position = [](const Result& result) {
    const auto all = claims();
    return std::find_if(all.begin(), all.end(), [&](const Claim* claim) { return claim->id == result.id; }) -
           all.begin();
  };
  std::sort(results.claims.begin(), results.claims.end(),
            [&](const Result& a, const Result& b) { return position(a) < position(b); });
  write_file_atomically(spec.out / "results.json", to_json(results));
  write_file_atomically(spec.out / "report.html", report_html(results));
}

}  // namespace

Seeds seeds_of(Mode mode) {
  return mode == Mode::quick ? Seeds{3, 5} : Seeds{5, 10};
}

Results run_audit(const AuditSpec& spec, const data::DataPair& digits, const std::atomic<bool>& stop,
                  const AuditObserver& observer) {
  const auto seeds = seeds_from(kFirstSeed, checked_seeds(spec));
  const auto tuning_seeds = seeds_from(kFirstTuningSeed, spec.mode == Mode::quick ? 1 : 2);
  const int workers =
      spec.threads > 0 ? spec.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  Results results{this_machine(workers), spec.mode, {}};
  if (spec.resume) results.claims = earlier_results(spec, seeds);
  std::filesystem::create_directories(spec.out);
  for (const Result& result : results.claims) observer.kept(result);
  for (const Claim* claim : spec.claims) {
    if (std::any_of(results.claims.begin(), results.claims.end(), [&](const Result& r) { return r.id == claim->id; }))
      continue;
    const auto begin = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    Progress progress(&stop, [&](double fraction) { observer.progresses(*claim, fraction, elapsed()); });
    progress.throw_if_stopped();
    const Context context{digits, spec.mode, seeds, tuning_seeds, workers, progress, {}};
    observer.begins(*claim);
    Outcome outcome = claim->measure(context);
    Result result = result_of(*claim, context, elapsed(), std::move(outcome));
    observer.finished(result);
    results.claims.push_back(std::move(result));
    write_results(spec, results);
  }
  if (results.claims.empty()) throw Error("no claim was asked for");
  write_results(spec, results);
  return results;
}

}  // namespace equinorm::audit
