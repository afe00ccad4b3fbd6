// The IDX format of MNIST (yann.lecun.com/exdb/mnist): two zero bytes, a type, a rank, the extents as big-endian 32-bit
// numbers, then the values with the last index fastest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace equinorm::data {

/// Files and their unpacked values are refused above this size: it bounds memory, and zlib counts in 32 bits.
inline constexpr std::size_t kMaxIdxBytes = 0xFFFFFFFF;

/// An array of bytes, of rank 1–4 and with no extent of 0.
struct IdxArray {
  std::vector<std::size_t> extents;
  std::vector<std::uint8_t> values;
};

/// Parses a whole IDX file of unsigned bytes, plain or gzip'd. `name` is what messages call it. Throws Error unless
/// the file is exactly what its header promises. Memory is taken only for what the file can really hold.
IdxArray parse_idx(std::span<const std::uint8_t> file, const std::string& name);

}  // namespace equinorm::data
