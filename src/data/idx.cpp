#include "data/idx.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <array>

#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

// Deflate codes 258 bytes in 2 bits at best: what a gzip'd file can hold at most, for each of its bytes.
constexpr std::size_t kDeflateRatio = 1032;

constexpr std::size_t kMaxIdxRank = 4;

const char* type_name(std::uint8_t type) {
  switch (type) {
    case 0x08:
      return "unsigned byte";
    case 0x09:
      return "signed byte";
    case 0x0B:
      return "16-bit integer";
    case 0x0C:
      return "32-bit integer";
    case 0x0D:
      return "32-bit float";
    case 0x0E:
      return "64-bit float";
    default:
      return "unknown";
  }
}

// The content of a file, in order: its bytes, or what they unpack to.
class Content {
 public:
  Content(std::span<const std::uint8_t> file, const std::string& name)
      : name_(name), rest_(file), gzip_(file.size() >= 2 && file[0] == 0x1F && file[1] == 0x8B) {
    if (file.size() > kMaxIdxBytes) fail(fmt::format("{} bytes; expected at most {}", file.size(), kMaxIdxBytes));
    if (!gzip_) return;
    // zlib reads only, but its pointer is not const unless ZLIB_CONST is defined before every include.
    stream_.next_in = const_cast<Bytef*>(file.data());
    stream_.avail_in = static_cast<uInt>(file.size());
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) fail("zlib cannot start");
  }
  ~Content() {
    if (gzip_) inflateEnd(&stream_);
  }
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  /// More bytes than this cannot follow.
  std::size_t at_most() const { return gzip_ ? stream_.avail_in * kDeflateRatio : rest_.size(); }

  /// Fills `out`; returns how many bytes there were, fewer only at the end.
  std::size_t read(std::span<std::uint8_t> out) {
    if (!gzip_) {
      const std::size_t n = std::min(out.size(), rest_.size());
      std::copy_n(rest_.begin(), n, out.begin());
      rest_ = rest_.subspan(n);
      return n;
    }
    stream_.next_out = out.data();
    stream_.avail_out = static_cast<uInt>(out.size());
    while (stream_.avail_out > 0 && !ended_) {
      const int code = inflate(&stream_, Z_NO_FLUSH);
      if (code == Z_STREAM_END) {
        ended_ = true;
      } else if (code == Z_BUF_ERROR) {
        fail(fmt::format("the gzip stream is cut short: it ends after {} unpacked bytes", stream_.total_out));
      } else if (code != Z_OK) {
        fail(fmt::format("corrupt gzip stream: {}", stream_.msg != nullptr ? stream_.msg : zError(code)));
      }
    }
    return out.size() - stream_.avail_out;
  }

  /// Nothing may follow. This also makes zlib read and compare the checksum at the end of a gzip stream.
  void expect_end() {
    std::array<std::uint8_t, 1> extra{};
    if (read(extra) != 0) fail("holds more values than its header promises");
    if (gzip_ && stream_.avail_in != 0)
      fail(fmt::format("{} bytes follow the end of the gzip stream", stream_.avail_in));
  }

  [[noreturn]] void fail(const std::string& why) const { throw Error(fmt::format("{}: {}", name_, why)); }

 private:
  const std::string& name_;
  std::span<const std::uint8_t> rest_;
  bool gzip_;
  bool ended_ = false;
  z_stream stream_{};
};

}  // namespace

IdxArray parse_idx(std::span<const std::uint8_t> file, const std::string& name) {
  Content content(file, name);
  std::array<std::uint8_t, 4> magic{};
  if (const std::size_t got = content.read(magic); got < magic.size()) {
    content.fail(fmt::format("ends within its header, after {} bytes", got));
  }
  const auto [zero0, zero1, type, rank] = magic;
  if (zero0 != 0 || zero1 != 0) {
    content.fail(fmt::format("starts with {:02x}{:02x}; an IDX file starts with 0000", zero0, zero1));
  }
  if (type != 0x08) {
    content.fail(fmt::format("values of type 0x{:02x} ({}); expected 0x08 (unsigned byte)", type, type_name(type)));
  }
  if (rank < 1 || rank > kMaxIdxRank) content.fail(fmt::format("rank {}; expected 1 to {}", rank, kMaxIdxRank));

  IdxArray array;
  std::size_t size = 1;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    std::array<std::uint8_t, 4> bytes{};
    if (content.read(bytes) < bytes.size()) content.fail(fmt::format("ends within its header, in extent {}", axis));
    std::size_t extent = 0;
    for (const std::uint8_t byte : bytes) extent = extent << 8 | byte;
    if (extent == 0) content.fail(fmt::format("extent {} is 0", axis));
    array.extents.push_back(extent);
    // Both factors are below 2³²: the product cannot overflow.
    size *= extent;
    if (size > kMaxIdxBytes) {
      content.fail(fmt::format("extents {} hold more than {} values", array.extents, kMaxIdxBytes));
    }
  }
  if (size > content.at_most()) {
    content.fail(fmt::format("extents {} promise {} values; the rest of the file cannot hold more than {}",
                             array.extents, size, content.at_most()));
  }
  array.values.resize(size);
  if (const std::size_t got = content.read(array.values); got < size) {
    content.fail(fmt::format("extents {} promise {} values; it holds {}", array.extents, size, got));
  }
  content.expect_end();
  return array;
}

}  // namespace equinorm::data
