#include "core/number.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace equinorm {
namespace {

TEST(Number, IsWrittenAsShortAsItReadsBack) {
  EXPECT_EQ(text_of(1e-31), "1e-31");
  EXPECT_EQ(text_of(-1e-9F), "-1e-09");
  EXPECT_EQ(text_of(0.1F), "0.1") << "of a float no digits of the double";
  EXPECT_EQ(text_of(1.5), "1.5");
  EXPECT_EQ(text_of(0.0), "0");
  EXPECT_EQ(text_of(std::nan("")), "nan");
  EXPECT_EQ(text_of(-HUGE_VAL), "-inf");
  EXPECT_EQ(text_of(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
}

TEST(Number, ReadsBack) {
  using Limits = std::numeric_limits<double>;
  for (const double value : {Limits::denorm_min(), -Limits::max(), -Limits::min() / 3, 1.0 / 3, 0x1.0000000000001p0}) {
    EXPECT_EQ(std::strtod(text_of(value).c_str(), nullptr), value);
  }
}

}  // namespace
}  // namespace equinorm
