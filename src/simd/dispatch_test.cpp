#include <gtest/gtest.h>

#include "equinorm/execution.hpp"

namespace equinorm {
namespace {

TEST(Dispatch, ForcesEveryListedTargetAndReturnsToTheBest) {
  const auto targets = simd_targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_EQ(simd_target(), targets.front());
  for (const std::string& target : targets) {
    ASSERT_TRUE(set_simd_target(target).ok());
    EXPECT_EQ(simd_target(), target);
  }
  ASSERT_TRUE(set_simd_target("").ok());
  EXPECT_EQ(simd_target(), targets.front());
}

TEST(Dispatch, AnUnknownTargetIsAnErrorThatNamesItAndChangesNothing) {
  const Status status = set_simd_target("abacus");
  EXPECT_EQ(status.code(), StatusCode::unsupported);
  EXPECT_NE(status.message().find("'abacus'"), std::string::npos);
  EXPECT_NE(status.message().find(simd_targets().front()), std::string::npos);
  EXPECT_EQ(simd_target(), simd_targets().front());
}

}  // namespace
}  // namespace equinorm
