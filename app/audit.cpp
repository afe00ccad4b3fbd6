// equinorm audit: measures the claims about batch normalization and reports a verdict on each.
#include "audit/audit.hpp"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "audit/claims.hpp"
#include "audit/format.hpp"
#include "commands.hpp"
#include "data/dataset.hpp"
#include "equinorm/status.hpp"

namespace equinorm::app {
namespace {

using audit::Claim;
using audit::Result;
using audit::Verdict;

std::atomic<bool> stop = false;
static_assert(std::atomic<bool>::is_always_lock_free, "written by a signal handler");

/// The first Ctrl-C asks the audit to end, the second ends the program.
void stop_on_interrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop = true; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
}

/// How a verdict looks in a terminal.
struct Look {
  Verdict verdict;
  const char* sign;
  const char* color;
};
constexpr std::array kLooks{Look{Verdict::supported, "✓", "\x1b[32m"}, Look{Verdict::conditional, "◐", "\x1b[33m"},
                            Look{Verdict::refuted, "✕", "\x1b[31m"}, Look{Verdict::not_shown, "○", "\x1b[36m"}};

const Look& look_of(Verdict verdict) {
  return *std::find_if(kLooks.begin(), kLooks.end(), [&](const Look& look) { return look.verdict == verdict; });
}

std::string measured(const Result& result) {
  const audit::Finding& headline = result.outcome.headline();
  return audit::format_value(headline) + " (wanted " + audit::format_threshold(headline) + ")";
}

/// The first `columns` characters of UTF-8 text, so that no line of the table wraps.
std::string clipped(const std::string& text, std::size_t columns) {
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
    if (starts && ++seen > columns) return text.substr(0, i);
  }
  return text;
}

/// The claims with their verdicts: a table that is redrawn in place on a terminal, one line per verdict elsewhere.
class Table {
 public:
  explicit Table(const std::vector<const Claim*>& claims) : live_(isatty(STDOUT_FILENO) == 1) {
    for (const Claim* claim : claims) rows_.push_back({claim, {}, {}});
    color_ = live_ && std::getenv("NO_COLOR") == nullptr;
    draw();
  }

  void begins(const Claim& claim) {
    row(claim.id).text = "measuring";
    draw();
  }

  void progresses(const Claim& claim, double fraction, double seconds) {
    const auto now = std::chrono::steady_clock::now();
    if (!live_ || now - drawn_ < std::chrono::milliseconds(100)) return;
    constexpr int kCells = 20;
    std::string bar;
    for (int i = 0; i < kCells; ++i) bar += i < static_cast<int>(fraction * kCells) ? "█" : "░";
    row(claim.id).text =
        fmt::format("{} {:3.0f} %, {} left", bar, 100 * fraction, audit::format_seconds(seconds / fraction - seconds));
    draw();
  }

  void finished(const Result& result, const char* remark = "") {
    Row& r = row(result.id);
    r.look = &look_of(result.outcome.verdict());
    r.text = fmt::format("{:<11}  {}, {}{}", audit::name(r.look->verdict), measured(result),
                         audit::format_seconds(result.seconds), remark);
    live_ ? draw() : print(r);
  }

 private:
  struct Row {
    const Claim* claim;
    const Look* look;
    std::string text;
  };

  Row& row(std::string_view id) {
    const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const Row& r) { return r.claim->id == id; });
    if (found != rows_.end()) return *found;
    rows_.push_back({&audit::claim_named(id), nullptr, {}});  // kept from an earlier run that asked for more
    return rows_.back();
  }

  void print(const Row& r) const {
    winsize window{};
    const bool known = live_ && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    const std::string line = fmt::format("{} {:<12} {}",
                                         r.look != nullptr ? r.look->sign
                                         : r.text.empty()  ? " "
                                                           : "▸",
                                         r.claim->id, r.text);
    const std::string text = known ? clipped(line, window.ws_col - 1U) : line;
    if (color_ && r.look != nullptr) {
      fmt::print("{}{}\x1b[0m\n", r.look->color, text);
    } else {
      fmt::print("{}\n", text);
    }
    std::fflush(stdout);
  }

  void draw() {
    if (!live_) return;
    if (drawn_rows_ > 0) fmt::print("\x1b[{}A", drawn_rows_);
    for (const Row& r : rows_) {
      fmt::print("\x1b[2K");
      print(r);
    }
    drawn_rows_ = rows_.size();
    drawn_ = std::chrono::steady_clock::now();
  }

  bool live_, color_ = false;
  std::vector<Row> rows_;
  std::size_t drawn_rows_ = 0;
  std::chrono::steady_clock::time_point drawn_;
};

void list_claims() {
  for (const Claim* claim : audit::claims()) {
    fmt::print("{:<12}  § {:<4}  {:<7}  {}\n", claim->id, claim->section,
               claim->kind == audit::Kind::exact ? "exact" : "trained", claim->title);
  }
}

audit::AuditSpec spec_of(const AuditOptions& options) {
  audit::AuditSpec spec{options.full ? audit::Mode::full : audit::Mode::quick,
                        {},
                        options.seeds,
                        options.threads,
                        options.out,
                        options.resume};
  for (const std::string& id : options.claims) audit::claim_named(id);  // an unknown one is an error
  for (const Claim* claim : audit::claims()) {
    const bool wanted = options.claims.empty() ||
                        std::find(options.claims.begin(), options.claims.end(), claim->id) != options.claims.end();
    if (wanted) spec.claims.push_back(claim);
  }
  return spec;
}

}  // namespace

bool run(const AuditOptions& options) {
  if (options.list) {
    list_claims();
    return true;
  }
  const audit::AuditSpec spec = spec_of(options);
  const data::DataPair digits = data::load("mnist");
  fmt::print("equinorm audit: {} {} about batch normalization, {} mode\n", spec.claims.size(),
             spec.claims.size() == 1 ? "claim" : "claims", audit::name(spec.mode));
  std::fflush(stdout);
  stop_on_interrupt();
  Table table(spec.claims);
  const audit::AuditObserver observer{
      [&](const Result& result) { table.finished(result, ", kept"); },
      [&](const Claim& claim) { table.begins(claim); },
      [&](const Claim& claim, double fraction, double seconds) { table.progresses(claim, fraction, seconds); },
      [&](const Result& result) { table.finished(result); },
  };
  try {
    const audit::Results results = audit::run_audit(spec, digits, stop, observer);
    std::string counts;
    for (const Look& look : kLooks) {
      const auto count = std::count_if(results.claims.begin(), results.claims.end(),
                                       [&](const Result& r) { return r.outcome.verdict() == look.verdict; });
      if (count > 0) counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, audit::name(look.verdict));
    }
    fmt::print("{}. The report: {}/report.html\n", counts, options.out);
    return true;
  } catch (const audit::Interrupted&) {
    fmt::print(stderr, "equinorm: stopped; finished claims are kept in {}, --resume goes on with the rest\n",
               options.out);
    return false;
  }
}

}  // namespace equinorm::app
