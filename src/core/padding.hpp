// What lies behind the valid positions of samples of unequal length.
#pragma once

#include <algorithm>
#include <cstddef>

#include "equinorm/tensor.hpp"

namespace equinorm {

/// Writes 0 behind the first `length` positions of sample n of a tensor whose samples are [positions, channels] or,
/// channels-first, [channels, positions]. nullptr is a tensor that is absent.
template <class T>
void clear_padding(T* tensor, Layout layout, std::size_t channels, std::size_t positions, std::size_t n,
                   std::size_t length) {
  if (tensor == nullptr) return;
  T* const sample = tensor + n * channels * positions;
  if (layout == Layout::channels_last) {
    std::fill(sample + length * channels, sample + positions * channels, T{});
    return;
  }
  for (std::size_t c = 0; c < channels; ++c) {
    std::fill(sample + c * positions + length, sample + (c + 1) * positions, T{});
  }
}

}  // namespace equinorm
