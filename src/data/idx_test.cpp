// IDX files as they should be, and what is said of those that lie.
#include "data/idx.hpp"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "data/idx_bytes.hpp"
#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

TEST(Idx, PlainAndGzipAgree) {
  const Bytes values{1, 2, 3, 4, 5, 6, 7, 8};
  for (const std::vector<std::uint32_t>& extents :
       std::vector<std::vector<std::uint32_t>>{{8}, {4, 2}, {2, 2, 2}, {1, 2, 2, 2}}) {
    for (const Bytes& file : {idx(extents, values), gzip(idx(extents, values))}) {
      const IdxArray array = parse_idx(file, "file");
      EXPECT_EQ(array.extents, std::vector<std::size_t>(extents.begin(), extents.end()));
      EXPECT_EQ(array.values, values);
    }
  }
}

// A million equal bytes pack a thousandfold: the bound on what a file can hold must not refuse them.
TEST(Idx, TheBestCompressionPasses) {
  const Bytes zeros(10'000'000);
  const Bytes packed = gzip(idx({10'000'000}, zeros));
  EXPECT_LT(packed.size() * 1000, zeros.size());
  EXPECT_EQ(parse_idx(packed, "file").values, zeros);
}

Bytes without_end(const Bytes& file, std::ptrdiff_t bytes) {
  return {file.begin(), file.end() - bytes};
}
Bytes with_end(Bytes file, const Bytes& end) {
  file.insert(file.end(), end.begin(), end.end());
  return file;
}
Bytes with_flipped(Bytes file, std::size_t from_end) {
  file[file.size() - 1 - from_end] ^= 1;
  return file;
}

struct Hostile {
  const char* reason;
  Bytes file;
  const char* expected;
};
void PrintTo(const Hostile& hostile, std::ostream* out) {
  *out << hostile.reason;
}  // in the names of the tests

class HostileIdx : public testing::TestWithParam<Hostile> {};

TEST_P(HostileIdx, IsRefusedByName) {
  try {
    parse_idx(GetParam().file, "the file");
    FAIL() << GetParam().reason;
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), std::string("the file: ") + GetParam().expected) << GetParam().reason;
  }
}

const Bytes kGood = idx({2, 2}, {1, 2, 3, 4});

INSTANTIATE_TEST_SUITE_P(
    Table, HostileIdx,
    testing::Values(
        Hostile{"empty", {}, "ends within its header, after 0 bytes"},
        Hostile{"cut in the magic", {0, 0, 8}, "ends within its header, after 3 bytes"},
        Hostile{"cut in an extent", {0, 0, 8, 1, 0, 0}, "ends within its header, in extent 0"},
        Hostile{"a picture", {0x89, 'P', 'N', 'G'}, "starts with 8950; an IDX file starts with 0000"},
        Hostile{"floats",
                {0, 0, 0x0D, 1, 0, 0, 0, 1, 0, 0, 0, 0},
                "values of type 0x0d (32-bit float); expected 0x08 (unsigned byte)"},
        Hostile{"no type of IDX", {0, 0, 0x42, 1}, "values of type 0x42 (unknown); expected 0x08 (unsigned byte)"},
        Hostile{"rank 0", {0, 0, 8, 0}, "rank 0; expected 1 to 4"},
        Hostile{"rank 255", {0, 0, 8, 255}, "rank 255; expected 1 to 4"},
        Hostile{"nothing in it", idx({2, 0}, {}), "extent 1 is 0"},
        Hostile{"fewer values than promised", idx({2, 2}, {1, 2, 3}),
                "extents [2, 2] promise 4 values; the rest of the file cannot hold more than 3"},
        Hostile{"more values than promised", idx({2, 2}, {1, 2, 3, 4, 5}),
                "holds more values than its header promises"},
        // 65536⁴ is 0 in 64 bits.
        Hostile{"a product that wraps to 0", idx({65536, 65536, 65536, 65536}, {}),
                "extents [65536, 65536] hold more than 4294967295 values"},
        Hostile{"extents near 2^32", idx({0xFFFFFFFF, 0xFFFFFFFF}, {}),
                "extents [4294967295, 4294967295] hold more than 4294967295 values"},
        Hostile{"4 GB promised by 12 bytes", idx({0xFFFFFFFF}, {1, 2, 3, 4}),
                "extents [4294967295] promise 4294967295 values; the rest of the file cannot hold more than 4"},
        Hostile{"gzip of nothing", gzip({}), "ends within its header, after 0 bytes"},
        Hostile{"gzip of too little", gzip(idx({2, 2}, {1, 2, 3})), "extents [2, 2] promise 4 values; it holds 3"},
        Hostile{"gzip of too much", gzip(idx({2, 2}, {1, 2, 3, 4, 5})), "holds more values than its header promises"},
        Hostile{"gzip magic alone", {0x1F, 0x8B}, "the gzip stream is cut short: it ends after 0 unpacked bytes"},
        Hostile{"gzip cut before its checksum", without_end(gzip(kGood), 8),
                "the gzip stream is cut short: it ends after 16 unpacked bytes"},
        Hostile{"gzip cut in its length", without_end(gzip(kGood), 1),
                "the gzip stream is cut short: it ends after 16 unpacked bytes"},
        Hostile{"wrong checksum", with_flipped(gzip(kGood), 4), "corrupt gzip stream: incorrect data check"},
        Hostile{"wrong length", with_flipped(gzip(kGood), 0), "corrupt gzip stream: incorrect length check"},
        Hostile{"garbage behind", with_end(gzip(kGood), {1, 2, 3}), "3 bytes follow the end of the gzip stream"},
        Hostile{"a second member behind", with_end(gzip(kGood), gzip({})),
                "20 bytes follow the end of the gzip stream"},
        Hostile{"an unknown method",
                {0x1F, 0x8B, 9, 0, 0, 0, 0, 0, 0, 3},
                "corrupt gzip stream: unknown compression method"}));

// A bomb: 10 MB of zeros in 10 kB, behind a header that promises 4 bytes. Only the promised bytes are unpacked.
TEST(Idx, ABombIsNotUnpacked) {
  const Bytes bomb = gzip(idx({4}, Bytes(10'000'000)));
  try {
    parse_idx(bomb, "bomb");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "bomb: holds more values than its header promises");
  }
}

}  // namespace
}  // namespace equinorm::data
