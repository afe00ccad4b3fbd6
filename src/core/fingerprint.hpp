// Hashes of tensors, for what must be equal to the bit. For tests alone.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace equinorm::testing_tools {

/// Of the bytes of these vectors, one after the other: as FNV-1a, but eight bytes at a time, and folded, as a product's
/// high bits know all of a word and its low ones little.
template <class... V>
std::uint64_t hash_of(const std::vector<V>&... vectors) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&hash](const auto& v) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(v.data());
    const std::size_t size = v.size() * sizeof v[0];
    for (std::size_t i = 0; i < size; i += sizeof hash) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes + i, std::min(sizeof word, size - i));
      hash = (hash ^ word) * 0x9e3779b97f4a7c15;
      hash ^= hash >> 32;
    }
  };
  (mix(vectors), ...);
  return hash;
}

/// All that the running test has seen, as two properties of it in GoogleTest's XML, which cmake/same_bits compares
/// between compilers and processors. That of the inputs tells a kernel that differs from a log or cos of libm that
/// does.
class SeenBits {
 public:
  /// Adds one call, by the hashes of its inputs and of its outputs; gives back the latter.
  std::uint64_t add(std::uint64_t inputs, std::uint64_t outputs) {
    inputs_ = hash_of(std::vector{inputs_, inputs});
    outputs_ = hash_of(std::vector{outputs_, outputs});
    testing::Test::RecordProperty("inputs", std::to_string(inputs_));
    testing::Test::RecordProperty("outputs", std::to_string(outputs_));
    return outputs;
  }

 private:
  std::uint64_t inputs_ = 0, outputs_ = 0;
};

}  // namespace equinorm::testing_tools
