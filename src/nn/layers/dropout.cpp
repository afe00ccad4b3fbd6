#include "nn/layers/dropout.hpp"

#include <algorithm>
#include <cmath>

#include "core/philox.hpp"
#include "nn/blocks.hpp"
#include "nn/stream.hpp"

namespace equinorm::nn {

Dropout::Dropout(std::string name, double rate, bool training) : Layer(std::move(name), "dropout"), rate_(rate) {
  // Not over its input in training: the layer before may need its output for its own backward.
  plan_.placement = training ? Placement::own : Placement::same;
  plan_.gradient_shares = 0;
}

void Dropout::mask(const Call& call, const float* from, float* to) const {
  const Philox random(call.seed, stream_of("dropout", name(), call.step));
  const auto threshold = static_cast<std::uint32_t>(std::lround(rate_ * 0x1p31)) * 2U;  // a word below it: dropped
  const auto scale = static_cast<float>(1.0 / (1.0 - rate_));
  for_each_block(in().elements(), call.threads, [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; i += 4) {  // blocks begin at multiples of 4
      const auto words = random.block(i / 4);
      for (std::size_t k = 0; k < std::min<std::size_t>(4, begin + count - i); ++k) {
        to[i + k] = words[k] < threshold ? 0.0F : from[i + k] * scale;
      }
    }
  });
}

void Dropout::forward(const Call& call) {
  if (call.training) {
    mask(call, in().values, out().values);
  } else if (out().values != in().values) {
    std::copy_n(in().values, in().elements(), out().values);
  }
}

void Dropout::backward(const Call& call) {
  mask(call, out().gradient, in().gradient);
}

}  // namespace equinorm::nn
