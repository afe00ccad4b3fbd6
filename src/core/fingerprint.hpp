// Hashes of tensors, for what must be equal to the bit. For tests alone.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace equinorm::testing_tools {

/// FNV-1a over the bytes of these vectors, one after the other.
template <class... V>
std::uint64_t hash_of(const std::vector<V>&... vectors) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&hash](const auto& v) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(v.data());
    for (std::size_t i = 0; i < v.size() * sizeof v[0]; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
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
