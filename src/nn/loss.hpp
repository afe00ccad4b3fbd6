// Softmax cross-entropy: loss = mean over rows of log Σ_k e^(z_k − z_label), its gradient (softmax(z) − onehot)/rows.
#pragma once

#include <cstdint>

#include "nn/net.hpp"

namespace equinorm::nn {

/// logits: [rows, classes]; labels: [rows], each less than classes (else Error); gradient: like logits, or nullptr. In
/// double and with the largest logit taken out, so that it neither overflows nor loses small losses. Logits that are
/// not finite make the loss not finite.
Outcome softmax_cross_entropy(const float* logits, const std::uint8_t* labels, std::size_t rows, std::size_t classes,
                              float* gradient);

}  // namespace equinorm::nn
