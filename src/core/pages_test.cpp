#include "core/pages.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace equinorm {
namespace {

std::size_t distance(const void* from, const void* to) {
  return (reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from)) % kPageBytes;
}

TEST(Pages, ArraysLieFiveEighthsOfAPageBehindAnOutput) {
  alignas(kLineBytes) static std::byte memory[4 * kPageBytes];
  for (std::size_t room = 0; room <= kPageBytes; room += kLineBytes) {
    for (std::size_t out = 0; out <= kPageBytes; out += 4) {
      const std::byte* found = beside(memory + out, memory + room);
      ASSERT_GE(found, memory + room);
      ASSERT_LE(found, memory + room + kPageBytes - kLineBytes) << "the page to spare is enough";
      ASSERT_EQ(distance(memory, found) % kLineBytes, 0U) << "a line of the room's";
      const std::size_t behind = distance(memory + out, found), wanted = kPageBytes * 5 / 8;
      ASSERT_LE(behind, wanted);
      ASSERT_GT(behind + kLineBytes, wanted) << "out + " << out << ", room + " << room;
    }
  }
}

TEST(Pages, AnOutputThatIsAbsentPlacesNothingBeyondTheRoom) {
  std::vector<double> room(kPageBytes / sizeof(double) + 8);
  const double* found = beside(nullptr, room.data());
  EXPECT_GE(found, room.data());
  EXPECT_LT(found, room.data() + kPageBytes / sizeof(double));
}

}  // namespace
}  // namespace equinorm
