#include "nn/arena.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "core/philox.hpp"

namespace equinorm::nn {
namespace {

TEST(Arena, LivesThatOverlapInTimeDoNotOverlapInSpace) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Philox random(seed, 0);
    std::vector<Lifetime> lives(40);
    std::size_t total = 0;
    for (std::size_t i = 0; i < lives.size(); ++i) {
      const std::size_t a = random.word(3 * i) % 30, b = random.word(3 * i + 1) % 30;
      lives[i] = {random.word(3 * i + 2) % 5000, std::min(a, b), std::max(a, b)};
      total += lives[i].bytes + kAlignment;
    }
    const Packing packing = pack(lives);
    EXPECT_LT(packing.bytes, total);
    for (std::size_t i = 0; i < lives.size(); ++i) {
      EXPECT_EQ(packing.offsets[i] % kAlignment, 0U);
      EXPECT_LE(packing.offsets[i] + lives[i].bytes, packing.bytes);
      for (std::size_t j = 0; j < i; ++j) {
        const bool apart_in_time = lives[i].last < lives[j].first || lives[j].last < lives[i].first;
        const bool apart_in_space = packing.offsets[i] + lives[i].bytes <= packing.offsets[j] ||
                                    packing.offsets[j] + lives[j].bytes <= packing.offsets[i];
        EXPECT_TRUE(apart_in_time || apart_in_space) << "seed " << seed << ": " << i << " and " << j;
      }
    }
  }
}

TEST(Arena, SpaceIsReusedWhenALifeEnds) {
  const std::vector<Lifetime> chain{{640, 0, 1}, {640, 1, 2}, {640, 2, 3}, {640, 3, 4}};
  EXPECT_EQ(pack(chain).bytes, 1280U);
}

}  // namespace
}  // namespace equinorm::nn
