// Names of random streams: what for, for which layer or parameter, at which step.
#pragma once

#include <cstdint>
#include <string_view>

namespace equinorm::nn {

/// FNV-1a over both names; steps are spread by the golden ratio. Two nets share the stream of a name they have in
/// common.
inline std::uint64_t stream_of(std::string_view purpose, std::string_view name, std::uint64_t step = 0) {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const std::string_view part : {purpose, std::string_view("/"), name}) {
    for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return hash + step * 0x9E3779B97F4A7C15;
}

}  // namespace equinorm::nn
