// Safetensors: agreement with an independent reader and writer, and what is said of files that lie.
#include "data/safetensors.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

namespace fs = std::filesystem;

class SafeTensorsFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "equinorm-safetensors-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    path_ = directory_ / "a.safetensors";
  }
  void TearDown() override { fs::remove_all(directory_); }

  int peer(const std::string& command) const {
    return std::system(
        (EQUINORM_PYTHON " " EQUINORM_SOURCE_DIR "/src/data/safetensors_peer.py " + command + " " + path_.string())
            .c_str());
  }

  fs::path directory_, path_;
};

// The same tensors as safetensors_peer.py.
const std::array<float, 6> kWeight{-1, -0.75F, -0.5F, -0.25F, 0, 0.25F};
const std::int64_t kTracked = -5;
const std::uint64_t kSeed = ~std::uint64_t{0};
const std::map<std::string, std::string> kMetadata{{"model", "cnn"}, {"note", "quotes \" and ünïcödé"}};

std::vector<NamedTensor> tensors() {
  return {NamedTensor::of<float>("conv1.weight", {2, 3}, kWeight),
          NamedTensor::of<std::int64_t>("bn1.num_batches_tracked", {}, std::span(&kTracked, 1)),
          NamedTensor::of<std::uint64_t>("seed", {1}, std::span(&kSeed, 1)),
          NamedTensor::of<float>("empty", {0, 3}, {})};
}

void expect_ours(const SafeTensors& file) {
  EXPECT_EQ(file.metadata(), kMetadata);
  ASSERT_EQ(file.tensors().size(), 4U);
  std::array<float, 6> weight{};
  file.at("conv1.weight").copy_to(std::span<float>(weight));
  EXPECT_EQ(weight, kWeight);
  EXPECT_EQ(file.at("conv1.weight").shape, (std::vector<std::size_t>{2, 3}));
  std::int64_t tracked = 0;
  file.at("bn1.num_batches_tracked").copy_to(std::span(&tracked, 1));
  EXPECT_EQ(tracked, kTracked);
  std::uint64_t seed = 0;
  file.at("seed").copy_to(std::span(&seed, 1));
  EXPECT_EQ(seed, kSeed);
  EXPECT_EQ(file.at("empty").shape, (std::vector<std::size_t>{0, 3}));
}

TEST_F(SafeTensorsFile, OursIsReadByThePeer) {
  write_safetensors(path_, tensors(), kMetadata);
  EXPECT_EQ(peer("check"), 0);
  expect_ours(SafeTensors::read(path_));
}

TEST_F(SafeTensorsFile, ThePeersIsReadByUs) {
  ASSERT_EQ(peer("make"), 0);
  expect_ours(SafeTensors::read(path_));
}

TEST_F(SafeTensorsFile, ABadTensorIsNotWritten) {
  auto two = tensors();
  two[1].name = two[0].name;
  EXPECT_THROW(write_safetensors(path_, two), Error);
  auto misshapen = tensors();
  misshapen[0].shape = {2, 4};
  EXPECT_THROW(write_safetensors(path_, misshapen), Error);
  auto reserved = tensors();
  reserved[0].name = "__metadata__";
  EXPECT_THROW(write_safetensors(path_, reserved), Error);
  EXPECT_TRUE(fs::is_empty(directory_));
}

TEST_F(SafeTensorsFile, WrongTypesSizesAndNamesAreErrors) {
  write_safetensors(path_, tensors());
  const SafeTensors file = SafeTensors::read(path_);
  std::array<float, 5> small{};
  std::array<std::int64_t, 3> other{};
  EXPECT_THROW(file.at("conv1.weight").copy_to(std::span<float>(small)), Error);
  EXPECT_THROW(file.at("conv1.weight").copy_to(std::span<std::int64_t>(other)), Error);
  EXPECT_THROW(file.at("conv2.weight"), Error);
}

// A file of this header, with as many bytes of data.
std::vector<std::uint8_t> file_of(const std::string& header, std::size_t data_bytes) {
  std::vector<std::uint8_t> file(8 + header.size() + data_bytes);
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  return file;
}

struct Hostile {
  const char* reason;
  std::vector<std::uint8_t> file;
  const char* expected;  // what the message must contain
};
void PrintTo(const Hostile& hostile, std::ostream* out) {
  *out << hostile.reason;
}  // in the names of the tests

class HostileSafeTensors : public testing::TestWithParam<Hostile> {};

TEST_P(HostileSafeTensors, IsRefusedByName) {
  try {
    SafeTensors::parse(GetParam().file, "the file");
    FAIL() << GetParam().reason;
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find("the file: "), 0U) << message;
    EXPECT_NE(message.find(GetParam().expected), std::string::npos) << GetParam().reason << ": " << message;
  }
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"t":)" + tensor(dtype, shape, offsets) + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Table, HostileSafeTensors,
    testing::Values(
        Hostile{"empty file", {}, "0 bytes; expected at least 8"},
        Hostile{"shorter than the length", {1, 0, 0}, "3 bytes; expected at least 8"},
        Hostile{"header longer than the file",
                {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'},
                "a header of 9 bytes; expected at most 2"},
        Hostile{"header length near 2^64", std::vector<std::uint8_t>(16, 0xFF),
                "a header of 18446744073709551615 bytes"},
        Hostile{"no header", file_of("", 0), "header is not JSON"},
        Hostile{"not JSON", file_of("{\"t\":", 0), "header is not JSON"},
        Hostile{"trailing garbage after JSON", file_of("{}x", 0), "header is not JSON"},
        Hostile{"invalid UTF-8 in a name", file_of("{\"\xFF\":1}", 0), "header is not JSON"},
        Hostile{"an array", file_of("[]", 0), "header is not a JSON object"},
        Hostile{"nesting that would exhaust a stack", file_of("{\"t\":" + std::string(1'000'000, '['), 0),
                "nests deeper"},
        Hostile{
            "the same tensor twice",
            file_of(R"({"t":)" + tensor("F32", "[1]", "[0,4]") + R"(,"t":)" + tensor("F32", "[1]", "[0,4]") + "}", 4),
            "header has the key \"t\" twice"},
        Hostile{"the same member twice",
                file_of(R"({"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
                "header has the key \"dtype\" twice"},
        Hostile{"a tensor that is a number", file_of(R"({"t":1})", 0), "tensor t: expected exactly dtype, shape"},
        Hostile{"a member missing", file_of(R"({"t":{"dtype":"F32","shape":[1]}})", 4), "tensor t: expected exactly"},
        Hostile{"a member too many", file_of(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":0}})", 4),
                "tensor t: expected exactly"},
        Hostile{"a name of a megabyte", file_of("{\"" + std::string(1 << 20, 'n') + "\":1}", 0),
                "name has 1048576 bytes; expected at most 1024"},
        Hostile{"a type that we do not read", file_of(one("BF16", "[2]", "[0,4]"), 4),
                "tensor t: dtype \"BF16\"; expected F32, I64 or U64"},
        Hostile{"a type that is a number", file_of(R"({"t":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", 4),
                "tensor t: dtype 1; expected"},
        Hostile{"a negative extent", file_of(one("F32", "[-1]", "[0,4]"), 4), "shape is not an array of sizes"},
        Hostile{"a fractional extent", file_of(one("F32", "[1.0]", "[0,4]"), 4), "shape is not an array of sizes"},
        Hostile{"an extent beyond 64 bits", file_of(one("F32", "[36893488147419103232]", "[0,4]"), 4),
                "shape is not an array of sizes"},
        Hostile{"a shape that is a number", file_of(one("F32", "1", "[0,4]"), 4), "shape is not an array of sizes"},
        // 2^32 · 2^32 · 4 bytes is 0 in 64 bits.
        Hostile{"a product that wraps to 0", file_of(one("F32", "[4294967296,4294967296]", "[0,0]"), 0),
                "0 bytes do not hold F32 of shape [4294967296, 4294967296]"},
        Hostile{"more values than bytes", file_of(one("F32", "[2]", "[0,4]"), 4),
                "4 bytes do not hold F32 of shape [2]"},
        Hostile{"an end past the data", file_of(one("F32", "[2]", "[0,8]"), 4),
                "data_offsets [0, 8]; expected [begin, end] within 4 bytes"},
        Hostile{"an end before the begin", file_of(one("F32", "[1]", "[4,0]"), 4), "data_offsets [4, 0]; expected"},
        Hostile{"three offsets", file_of(one("F32", "[1]", "[0,4,4]"), 4), "data_offsets [0, 4, 4]; expected"},
        Hostile{"negative offsets", file_of(one("F32", "[1]", "[-4,0]"), 4), "data_offsets is not an array of sizes"},
        Hostile{
            "overlapping tensors",
            file_of(R"({"a":)" + tensor("F32", "[2]", "[0,8]") + R"(,"b":)" + tensor("F32", "[1]", "[4,8]") + "}", 8),
            "tensor b: begins at byte 4; the one before it ends at 8"},
        Hostile{
            "a hole between tensors",
            file_of(R"({"a":)" + tensor("F32", "[1]", "[0,4]") + R"(,"b":)" + tensor("F32", "[1]", "[8,12]") + "}", 12),
            "tensor b: begins at byte 8; the one before it ends at 4"},
        Hostile{"data after the last tensor", file_of(one("F32", "[1]", "[0,4]"), 5), "tensors end at byte 4 of 5"},
        Hostile{"data and no tensor", file_of("{}", 1), "tensors end at byte 0 of 1"},
        Hostile{"metadata that is no object", file_of(R"({"__metadata__":1})", 0), "__metadata__ is not an object"},
        Hostile{"metadata of numbers", file_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__ is not an object"}));

}  // namespace
}  // namespace equinorm::data
