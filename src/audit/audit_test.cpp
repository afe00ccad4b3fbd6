#include "audit/audit.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "audit/claims.hpp"
#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {

/// A directory of its own for each test, gone afterwards.
class Audit : public testing::Test {
 protected:
  Audit() : out_(std::filesystem::temp_directory_path() / ("equinorm-audit-" + std::to_string(getpid()))) {}
  ~Audit() override { std::filesystem::remove_all(out_); }

  AuditSpec spec(std::vector<const Claim*> claims) const {
    AuditSpec spec;
    spec.claims = std::move(claims);
    spec.out = out_;
    spec.threads = 2;
    spec.seeds = 3;
    return spec;
  }

  /// Runs, and says which claims were measured and which kept.
  static std::string run(const AuditSpec& spec, const char* stop_after = "") {
    static const data::DataPair digits = data::load("mnist");
    std::atomic<bool> stop = false;
    std::string log;
    const AuditObserver observer{[&](const Result& r) { log += " kept:" + r.id; }, [](const Claim&) {},
                                 [](const Claim&, double, double) {},
                                 [&](const Result& r) {
                                   log += " measured:" + r.id;
                                   stop = r.id == stop_after;
                                 }};
    try {
      run_audit(spec, digits, stop, observer);
    } catch (const Interrupted&) {
      log += " interrupted";
    }
    return log;
  }

  static std::string error_of(const AuditSpec& spec) {
    try {
      run(spec);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  std::vector<std::string> ids_on_disk() const {
    std::vector<std::string> ids;
    for (const Result& result : read_results(out_ / "results.json").claims) ids.push_back(result.id);
    return ids;
  }

  void replace_on_disk(const std::string& from, const std::string& to) const {
    std::stringstream text;
    text << std::ifstream(out_ / "results.json").rdbuf();
    std::string changed = text.str();
    ASSERT_NE(changed.find(from), std::string::npos);
    changed.replace(changed.find(from), from.size(), to);
    std::ofstream(out_ / "results.json") << changed;
  }

  const std::filesystem::path out_;
};

TEST_F(Audit, GoesOnWhereItWasStopped) {
  AuditSpec all = spec({&kIdentity, &kGradient, &kRunning});
  EXPECT_EQ(run(all, "identity"), " measured:identity interrupted");
  EXPECT_EQ(ids_on_disk(), (std::vector<std::string>{"identity"}));
  EXPECT_TRUE(std::filesystem::exists(out_ / "report.html"));
  all.resume = true;
  EXPECT_EQ(run(all), " kept:identity measured:gradient measured:running");
  EXPECT_EQ(ids_on_disk(), (std::vector<std::string>{"identity", "gradient", "running"}));
}

TEST_F(Audit, ReportsInTheOrderOfTheTable) {
  EXPECT_EQ(run(spec({&kGradient})), " measured:gradient");
  AuditSpec more = spec({&kIdentity});
  more.resume = true;
  EXPECT_EQ(run(more), " kept:gradient measured:identity");
  EXPECT_EQ(ids_on_disk(), (std::vector<std::string>{"identity", "gradient"}));
}

TEST_F(Audit, RefusesToGoOnFromAnotherAudit) {
  AuditSpec one = spec({&kIdentity});
  one.resume = true;
  EXPECT_NE(error_of(one).find("there is no"), std::string::npos);
  one.resume = false;
  run(one);
  one.resume = true;
  AuditSpec other = one;
  other.mode = Mode::full;
  other.seeds = 5;
  EXPECT_NE(error_of(other).find("was measured in quick mode, this is full"), std::string::npos) << error_of(other);
  other = one;
  other.seeds = 4;
  EXPECT_NE(error_of(other).find("measured with 3 seeds, this run has 4"), std::string::npos) << error_of(other);
  replace_on_disk(R"("rule": "Holds)", R"("rule": "Always holds)");
  EXPECT_NE(error_of(one).find("the rule of another version"), std::string::npos) << error_of(one);
  replace_on_disk(R"("id": "identity")", R"("id": "miracle")");
  EXPECT_NE(error_of(one).find("unknown claim 'miracle'"), std::string::npos) << error_of(one);
  replace_on_disk("{", "");
  EXPECT_NE(error_of(one).find("not JSON"), std::string::npos) << error_of(one);
}

TEST_F(Audit, RefusesTooFewAndTooManySeeds) {
  AuditSpec few = spec({&kIdentity});
  few.seeds = 2;
  EXPECT_NE(error_of(few).find("--seeds is 2; expected 3 to 100 in quick mode"), std::string::npos) << error_of(few);
  few.mode = Mode::full;
  few.seeds = 4;
  EXPECT_NE(error_of(few).find("expected 5 to 100 in full mode"), std::string::npos) << error_of(few);
  few.seeds = 101;
  EXPECT_NE(error_of(few).find("--seeds is 101"), std::string::npos) << error_of(few);
}

TEST_F(Audit, LeavesNothingWhereItCannotWrite) {
  std::ofstream(out_) << "a file, not a directory";
  EXPECT_THROW(run(spec({&kIdentity})), std::exception);
}

}  // namespace
}  // namespace equinorm::audit
