// Files, all or nothing: a read is bounded, a write appears under its name only when every byte of it is on the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace equinorm {

/// The whole of a regular file. Throws Error if it cannot be read or holds more than max_bytes.
std::vector<std::uint8_t> read_file(const std::filesystem::path& path, std::size_t max_bytes);

/// A file in the making, under a temporary name in the directory of its target. commit() gives it its name; without
/// commit, or when anything fails, nothing is left behind and an earlier file of that name is untouched. Every failure
/// is an Error that names the target and the system's reason. A target that exists must be a regular file (renaming
/// over /dev/null would replace the device); a symbolic link is followed.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  AtomicFile(AtomicFile&&) = delete;
  AtomicFile& operator=(AtomicFile&&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// Flushes to the disk and renames. Nothing may be written afterwards.
  void commit();

 private:
  [[noreturn]] void fail(const char* action, int error) const;
  void discard() noexcept;

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

/// The whole file in one call.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace equinorm
