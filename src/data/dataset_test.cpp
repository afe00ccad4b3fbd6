// MNIST as it lies in the tree, folders of users, and batches.
#include "data/dataset.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/file.hpp"
#include "data/idx_bytes.hpp"
#include "data/sampler.hpp"
#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

namespace fs = std::filesystem;

const DataPair& mnist() {
  static const DataPair pair = load("mnist");
  return pair;
}

TEST(Mnist, HasItsKnownShapeAndStatistics) {
  const auto& [train, test] = mnist();
  EXPECT_EQ(train.count, 60'000U);
  EXPECT_EQ(test.count, 10'000U);
  for (const Dataset* half : {&train, &test}) {
    EXPECT_EQ(half->images.size(), half->count * 28 * 28);
    EXPECT_EQ(half->labels.size(), half->count);
    EXPECT_EQ(half->height, 28U);
    EXPECT_EQ(half->width, 28U);
    EXPECT_EQ(half->channels, 1U);
    EXPECT_EQ(half->classes, 10U);
    // The well-known figures of the training set, to the four digits everybody quotes.
    EXPECT_NEAR(half->normalization.mean[0], 0.1307, 5e-5);
    EXPECT_NEAR(half->normalization.deviation[0], 0.3081, 5e-5);
  }
  EXPECT_EQ(std::vector<std::uint8_t>(train.labels.begin(), train.labels.begin() + 5),
            (std::vector<std::uint8_t>{5, 0, 4, 1, 9}));
  EXPECT_EQ(test.labels[0], 7);
}

TEST(Mnist, ChecksumsCoverAllFourFiles) {
  const auto bytes = read_file(fs::path(EQUINORM_SOURCE_DIR) / "data/mnist/SHA256SUMS", 10'000);
  const std::string sums(bytes.begin(), bytes.end());
  for (const char* name : {"train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"}) {
    EXPECT_NE(sums.find(std::string("  ") + name + "-ubyte.gz\n"), std::string::npos) << name;
  }
}

// Training images after normalization: mean 0, deviation 1, up to the rounding of 47 million floats to 24 bits.
TEST(Mnist, ATrainingEpochIsNormalized) {
  const Dataset& train = mnist().train;
  Batches batches(all_rows(train.count), 1000, LastBatch::keep);
  std::vector<float> images(1000 * train.image_size());
  std::vector<std::uint8_t> labels(1000);
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    gather(train, batches[i], images, labels);
    for (const float x : images) {
      sum += x;
      squares += double{x} * double{x};
    }
  }
  const auto n = static_cast<double>(train.images.size());
  EXPECT_NEAR(sum / n, 0, 1e-7);
  EXPECT_NEAR(squares / n, 1, 1e-6);
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "equinorm-data-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
    put("train-images", idx({3, 1, 2}, {0, 10, 20, 30, 40, 50}));
    put("train-labels", idx({3}, {0, 1, 2}));
    put("test-images", gzip(idx({2, 1, 2}, {1, 2, 3, 4})));
    put("test-labels.gz", gzip(idx({2}, {2, 0})));
  }
  void TearDown() override { fs::remove_all(path_); }

  void put(const std::string& name, const Bytes& bytes) const {
    write_file_atomically(path_ / name, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  std::string failure() const {
    try {
      load(path_.string());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  fs::path path_;
};

TEST_F(Folder, LoadsPlainAndGzip) {
  const auto [train, test] = load(path_.string());
  EXPECT_EQ(train.images, (Bytes{0, 10, 20, 30, 40, 50}));
  EXPECT_EQ(test.images, (Bytes{1, 2, 3, 4}));
  EXPECT_EQ(test.labels, (Bytes{2, 0}));
  EXPECT_EQ(test.classes, 3U);
  EXPECT_EQ(test.width, 2U);
}

TEST_F(Folder, NormalizesEachChannelByTheTrainingSet) {
  // Two channels: 10, 30 and the constant 7; the test set's own statistics play no part.
  put("train-images", idx({2, 1, 1, 2}, {10, 7, 30, 7}));
  put("train-labels", idx({2}, {0, 1}));
  put("test-images", idx({2, 1, 1, 2}, {20, 7, 40, 9}));
  put("test-labels.gz", idx({2}, {1, 0}));
  const auto [train, test] = load(path_.string());
  EXPECT_EQ(test.channels, 2U);
  EXPECT_DOUBLE_EQ(test.normalization.mean[0], 20.0 / 255);
  EXPECT_DOUBLE_EQ(test.normalization.deviation[0], 10.0 / 255);
  std::vector<float> images(4);
  std::vector<std::uint8_t> labels(2);
  gather(test, std::array{1U, 0U}, images, labels);
  EXPECT_EQ(images, (std::vector<float>{2, 0, 0, 0}));
  EXPECT_EQ(labels, (std::vector<std::uint8_t>{0, 1}));
}

TEST_F(Folder, ABatchChecksRoomAndRows) {
  const Dataset train = load(path_.string()).train;
  std::vector<float> images(4);
  std::vector<std::uint8_t> labels(2);
  EXPECT_THROW(gather(train, std::array{0U, 3U}, images, labels), Error);
  EXPECT_THROW(gather(train, std::array{0U, 1U, 2U}, images, labels), Error);
  EXPECT_THROW(take(train, std::array{3U}), Error);
}

TEST_F(Folder, TakeCopiesRowsAndKeepsTheNormalization) {
  const Dataset train = load(path_.string()).train;
  const Dataset taken = take(train, std::array{2U, 0U});
  EXPECT_EQ(taken.count, 2U);
  EXPECT_EQ(taken.images, (Bytes{40, 50, 0, 10}));
  EXPECT_EQ(taken.labels, (Bytes{2, 0}));
  EXPECT_EQ(taken.classes, 3U);
  EXPECT_EQ(taken.normalization.values, train.normalization.values);
}

// What is wrong with a folder, and what the message must say.
TEST_F(Folder, BadFoldersAreNamed) {
  struct Case {
    const char* reason;
    std::function<void()> spoil;
    std::string expected;
  };
  const std::string name = path_.string();
  const auto at = [this](const char* file) { return (path_ / file).string(); };
  const std::vector<Case> cases = {
      {"no such file", [this] { fs::remove(path_ / "test-labels.gz"); },
       name + ": no test labels: looked for *t10k-labels* or *test-labels* (IDX, plain or gzip'd) among 3 files: "
              "test-images, train-images, train-labels"},
      {"two candidates", [this] { put("emnist-train-images.gz", {}); },
       name +
           ": expected one file for the training images (*train-images*), found emnist-train-images.gz, train-images"},
      {"counts disagree",
       [this] {
         put("train-labels", idx({2}, {0, 1}));
       },
       name + ", training: 3 images but 2 labels"},
      {"labels where images belong",
       [this] {
         put("train-images", idx({3}, {0, 1, 2}));
       },
       name + ", training: images of extents [3]; expected [n, height, width] or [n, height, width, channels]"},
      {"images where labels belong",
       [this] {
         put("train-labels", idx({3, 1}, {0, 1, 2}));
       },
       name + ", training: labels of extents [3, 1]; expected [n]"},
      {"halves of different sizes",
       [this] {
         put("test-images", idx({2, 2, 1}, {1, 2, 3, 4}));
       },
       name + ": training images are [1, 2, 1], test images [2, 1, 1]"},
      {"test label out of range",
       [this] {
         put("test-labels.gz", idx({2}, {2, 9}));
       },
       name + ", test: label 9 of row 1; the labels of the training set end at 2"},
      {"empty file", [this] { put("train-labels", {}); },
       at("train-labels") + ": ends within its header, after 0 bytes"},
      {"file missing from the checksums", [this] { put("SHA256SUMS", {}); },
       at("train-images") + ": not listed in SHA256SUMS beside it"},
      {"checksums that are none",
       [this] {
         put("SHA256SUMS", {'x', '\n'});
       },
       at("SHA256SUMS") + ": not a line of sha256sum: x"},
      // Found: what sha256sum says of these 19 bytes. Listed: the checksum of the empty message (FIPS 180-4).
      {"checksum disagrees",
       [this] {
         put("train-images", idx({3, 1, 1}, {0, 0, 0}));
         const std::string line = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  train-images\n";
         put("SHA256SUMS", Bytes(line.begin(), line.end()));
       },
       at("train-images") +
           ": its SHA-256 is 83fbb90740153d064690818730b135012116db3ce75ac68495dce6bc4bc980f3; SHA256SUMS says "
           "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
  };
  for (const Case& c : cases) {
    TearDown();
    SetUp();
    // The folder has a new name each time; compare what follows it.
    const std::string fresh = path_.string();
    c.spoil();
    std::string message = failure();
    for (std::size_t at_name; (at_name = message.find(fresh)) != std::string::npos;) {
      message.replace(at_name, fresh.size(), name);
    }
    EXPECT_EQ(message, c.expected) << c.reason;
  }
}

TEST(Load, NamesWhatItDoesNotKnow) {
  try {
    load("no-such-data");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "data set no-such-data: expected mnist or a directory");
  }
}

}  // namespace
}  // namespace equinorm::data
