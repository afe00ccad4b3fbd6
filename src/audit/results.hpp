// results.json: everything that an audit found. The report is made from it alone, and --resume goes on from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "audit/claim.hpp"
#include "audit/outcome.hpp"

namespace equinorm::audit {

/// One measured claim, with the words it had when it was measured.
struct Result {
  std::string id, title, section, kind, statement, quote, method, rule;
  std::string rerun;  ///< the command that measures it again
  std::vector<std::uint64_t> seeds;
  double seconds = 0;  ///< by the clock
  Outcome outcome{};
};

struct Machine {
  std::string processor, simd, compiler;
  int cores = 0, threads = 0;
};

struct Results {
  Machine machine{};
  Mode mode = Mode::quick;
  std::vector<Result> claims;
};

/// The result of a measured claim.
Result result_of(const Claim& claim, const Context& context, double seconds, Outcome outcome);

/// What this machine is, with so many trials at a time.
Machine this_machine(int threads);

std::string to_json(const Results& results);

/// Reads what to_json wrote. The text is not trusted: a missing or wrong field, a number out of its range, or a verdict
/// that does not follow from its own numbers is an Error that names it; `source` names the file.
Results from_json(std::string_view text, std::string_view source);

Results read_results(const std::filesystem::path& path);

}  // namespace equinorm::audit
