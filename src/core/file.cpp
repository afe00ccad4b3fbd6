#include "core/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "equinorm/status.hpp"

namespace equinorm {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

// Closes on every way out of read_file.
struct Descriptor {
  int value;
  ~Descriptor() { close(value); }
};

// A link is followed, so that the file it points to is replaced and not the link.
std::filesystem::path resolve(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto resolved = std::filesystem::canonical(path, ignored);
  return ignored ? path : resolved;
}

}  // namespace

std::vector<std::uint8_t> read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const auto fail = [&path](const std::string& why) { throw Error(path.string() + ": " + why); };
  // O_NONBLOCK: opening a named pipe must not wait for a writer; on regular files it means nothing.
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.value < 0) fail("cannot open: " + reason(errno));
  struct stat status {};
  if (fstat(file.value, &status) != 0) fail("cannot read: " + reason(errno));
  if (!S_ISREG(status.st_mode)) fail("expected a regular file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > max_bytes) {
    fail("holds " + std::to_string(size) + " bytes; expected at most " + std::to_string(max_bytes));
  }
  std::vector<std::uint8_t> bytes(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = read(file.value, bytes.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read: " + reason(errno));
    if (got == 0) fail("became shorter while it was read");
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : target_(resolve(path)) {
  struct stat status {};
  if (stat(target_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    throw Error("cannot write " + target_.string() + ": it exists and is not a regular file");
  }
  // O_EXCL with a counter instead of mkstemp, which would make the file private whatever the umask says.
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    temporary_ = target_;
    temporary_ += ".";
    temporary_ += std::to_string(getpid()) + "-" + std::to_string(attempt) + ".tmp";
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST && errno != EINTR) fail("create", errno);
  }
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  // fsync before the rename: after a crash the name must not stand for a file whose content never reached the disk.
  if (fsync(descriptor_) != 0) fail("flush", errno);
  const int closed = close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int error = errno;
    unlink(temporary_.c_str());
    fail(closed != 0 ? "close" : "rename", error);
  }
}

void AtomicFile::fail(const char* action, int error) const {
  throw Error(std::string("cannot ") + action + " " + target_.string() + ": " + reason(error));
}

void AtomicFile::discard() noexcept {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink(temporary_.c_str());
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace equinorm
