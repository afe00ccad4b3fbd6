// Builders of IDX files and gzip streams for the tests.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace equinorm::data {

using Bytes = std::vector<std::uint8_t>;

/// An IDX file of unsigned bytes with these extents, true or not.
inline Bytes idx(const std::vector<std::uint32_t>& extents, const Bytes& values) {
  Bytes file{0, 0, 0x08, static_cast<std::uint8_t>(extents.size())};
  for (const std::uint32_t extent : extents) {
    for (const int shift : {24, 16, 8, 0}) file.push_back(static_cast<std::uint8_t>(extent >> shift));
  }
  file.insert(file.end(), values.begin(), values.end());
  return file;
}

/// `memory_level` is zlib's: 1 packs worse but needs no fresh pages, which are all that a fuzzer would wait for.
inline Bytes gzip(Bytes content, int memory_level = 8) {
  z_stream stream{};
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  if (deflateInit2(&stream, 9, Z_DEFLATED, kGzipOnly, memory_level, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("zlib");
  Bytes packed(deflateBound(&stream, static_cast<uLong>(content.size())));
  stream.next_in = content.data();
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  const int code = deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  if (code != Z_STREAM_END) throw std::runtime_error("zlib");
  return packed;
}

}  // namespace equinorm::data
