// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random numbers as a pure
// function of (key, counter), so that a result depends on (seed, stream, index) and never on order or threads.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace equinorm {

/// The four 32-bit words of block `counter` under `key`.
inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// Random access into the stream named by (seed, stream): `stream` is what the numbers are for (a layer, a step).
class Philox {
 public:
  Philox(std::uint64_t seed, std::uint64_t stream)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}, stream_(stream) {}

  /// The four words of block `index`.
  std::array<std::uint32_t, 4> block(std::uint64_t index) const {
    return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                       static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                      key_);
  }

  /// Number `index` of the stream, uniform in 0 … 2³²−1.
  std::uint32_t word(std::uint64_t index) const { return block(index / 4)[index % 4]; }

  /// Uniform in [0, 1), 24 bits: every value is a float.
  float uniform(std::uint64_t index) const { return static_cast<float>(word(index) >> 8) * 0x1p-24F; }

  /// Standard normal by Box–Muller, in double; each index has a block of its own.
  double normal(std::uint64_t index) const {
    const auto w = block(index);
    const double u = (static_cast<double>(w[0]) + 0.5) * 0x1p-32;  // in (0, 1): its logarithm is finite
    const double v = (static_cast<double>(w[1]) + 0.5) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint64_t stream_;
};

}  // namespace equinorm
