// Runs claims one after another, and keeps results.json and report.html up to date after each.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <vector>

#include "audit/claim.hpp"
#include "audit/results.hpp"

namespace equinorm::audit {

struct AuditSpec {
  Mode mode = Mode::quick;
  std::vector<const Claim*> claims;  ///< in the order of the table
  std::size_t seeds = 0;             ///< 0: the mode's number
  int threads = 0;                   ///< trials at a time; 0: as many as the machine has cores
  std::filesystem::path out = "report";
  bool resume = false;  ///< keep what is finished in out/results.json
};

/// How many seeds a mode takes at least, and how many by itself.
struct Seeds {
  std::size_t least, usual;
};
Seeds seeds_of(Mode mode);

/// What happens, for whoever shows it. All functions are called by one thread at a time.
struct AuditObserver {
  std::function<void(const Result&)> kept;  ///< finished in an earlier run
  std::function<void(const Claim&)> begins;
  std::function<void(const Claim&, double fraction, double seconds)> progresses;
  std::function<void(const Result&)> finished;
};

/// Audits. When *stop becomes true, the claim at work is dropped and the others are kept: Interrupted is thrown once
/// results.json and report.html are written. Throws Error for a spec or an earlier results.json that does not fit.
Results run_audit(const AuditSpec& spec, const data::DataPair& digits, const std::atomic<bool>& stop,
                  const AuditObserver& observer);

}  // namespace equinorm::audit
