// Atomic writes under failure: the message names the file and the reason, the old file survives, nothing else stays.
#include "core/file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "equinorm/status.hpp"

namespace equinorm {
namespace {

namespace fs = std::filesystem;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "equinorm-file-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::string content(const std::string& name) const {
    std::ifstream in(directory_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::ptrdiff_t entries() const { return std::distance(fs::directory_iterator(directory_), fs::directory_iterator()); }

  fs::path directory_;
};

TEST_F(FileTest, WritesAndReadsBack) {
  write_file_atomically(directory_ / "a", std::string("x\0y", 3));
  EXPECT_EQ(read_file(directory_ / "a", 3), (std::vector<std::uint8_t>{'x', 0, 'y'}));
  write_file_atomically(directory_ / "a", "");
  EXPECT_TRUE(read_file(directory_ / "a", 0).empty());
  EXPECT_EQ(entries(), 1);
}

TEST_F(FileTest, HonoursTheUmask) {
  const mode_t before = umask(027);
  write_file_atomically(directory_ / "a", "x");
  umask(before);
  EXPECT_EQ(fs::status(directory_ / "a").permissions(), fs::perms(0640));
}

TEST_F(FileTest, NothingAppearsWithoutCommit) {
  {
    AtomicFile file(directory_ / "a");
    file.write("half");
    EXPECT_FALSE(fs::exists(directory_ / "a"));
  }
  EXPECT_EQ(entries(), 0);
}

TEST_F(FileTest, TwoWritersOfOneNameDoNotMix) {
  AtomicFile first(directory_ / "a");
  AtomicFile second(directory_ / "a");
  first.write("first");
  second.write("second");
  second.commit();
  EXPECT_EQ(content("a"), "second");
  first.commit();
  EXPECT_EQ(content("a"), "first");
  EXPECT_EQ(entries(), 1);
}

TEST_F(FileTest, AFullDiskKeepsTheOldFile) {
  write_file_atomically(directory_ / "a", "old");
  // A limit on file size fails the same write() that a full disk fails, with EFBIG in place of ENOSPC.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      message_of([this] { write_file_atomically(directory_ / "a", std::string(100'000, 'x')); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(message, "cannot write " + (fs::canonical(directory_) / "a").string() + ": File too large");
  EXPECT_EQ(content("a"), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(FileTest, AMissingDirectoryIsNamed) {
  const auto path = directory_ / "missing" / "a";
  EXPECT_EQ(message_of([&path] { write_file_atomically(path, "x"); }),
            "cannot create " + path.string() + ": No such file or directory");
}

TEST_F(FileTest, AnUnwritableDirectoryIsNamed) {
  fs::permissions(directory_, fs::perms(0555));
  const auto path = directory_ / "a";
  // Root may write anywhere: it becomes somebody else for the call.
  const uid_t user = geteuid();
  if (user == 0) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  const std::string message = message_of([&path] { write_file_atomically(path, "x"); });
  ASSERT_EQ(seteuid(user), 0);
  EXPECT_EQ(message, "cannot create " + path.string() + ": Permission denied");
  fs::permissions(directory_, fs::perms(0755));
}

TEST_F(FileTest, ARenameThatFailsLeavesNothing) {
  AtomicFile file(directory_ / "a");
  file.write("x");
  fs::create_directory(directory_ / "a");
  EXPECT_EQ(message_of([&file] { file.commit(); }),
            "cannot rename " + (directory_ / "a").string() + ": Is a directory");
  EXPECT_EQ(entries(), 1);
}

TEST_F(FileTest, DevicesAndDirectoriesAreRefused) {
  EXPECT_EQ(message_of([] { write_file_atomically("/dev/full", "x"); }),
            "cannot write /dev/full: it exists and is not a regular file");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  EXPECT_NE(message_of([this] { write_file_atomically(directory_, "x"); }).find("is not a regular file"),
            std::string::npos);
  EXPECT_EQ(message_of([] { read_file("/dev/zero", 10); }), "/dev/zero: expected a regular file");
  EXPECT_EQ(message_of([this] { read_file(directory_, 10); }), directory_.string() + ": expected a regular file");
}

TEST_F(FileTest, ALinkIsFollowed) {
  write_file_atomically(directory_ / "a", "old");
  fs::create_symlink("a", directory_ / "link");
  write_file_atomically(directory_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(directory_ / "link"));
  EXPECT_EQ(content("a"), "new");
}

TEST_F(FileTest, ReadsAreBounded) {
  write_file_atomically(directory_ / "a", "12345");
  const auto path = directory_ / "a";
  EXPECT_EQ(message_of([&path] { read_file(path, 4); }), path.string() + ": holds 5 bytes; expected at most 4");
  EXPECT_EQ(message_of([this] { read_file(directory_ / "b", 4); }),
            (directory_ / "b").string() + ": cannot open: No such file or directory");
}

}  // namespace
}  // namespace equinorm
