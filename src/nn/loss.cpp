#include "nn/loss.hpp"

#include <algorithm>
#include <cmath>

#include "equinorm/status.hpp"

namespace equinorm::nn {

Outcome softmax_cross_entropy(const float* logits, const std::uint8_t* labels, std::size_t rows, std::size_t classes,
                              float* gradient) {
  Outcome outcome{0, 0, rows};
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t label = labels[row];
    if (label >= classes) {
      throw Error("label " + std::to_string(label) + " in row " + std::to_string(row) +
                  " of the batch; expected less than " + std::to_string(classes));
    }
    const float* z = logits + row * classes;
    const float* largest = std::max_element(z, z + classes);
    const double peak = *largest;
    double sum = 0;
    for (std::size_t k = 0; k < classes; ++k) sum += std::exp(static_cast<double>(z[k]) - peak);
    outcome.loss += std::log(sum) + (peak - static_cast<double>(z[label]));
    outcome.correct += static_cast<std::size_t>(largest - z) == label ? 1 : 0;
    if (gradient == nullptr) continue;
    const double share = 1.0 / static_cast<double>(rows);
    for (std::size_t k = 0; k < classes; ++k) {
      const double probability = std::exp(static_cast<double>(z[k]) - peak) / sum;
      gradient[row * classes + k] = static_cast<float>((probability - (k == label ? 1.0 : 0.0)) * share);
    }
  }
  outcome.loss /= static_cast<double>(std::max<std::size_t>(rows, 1));
  return outcome;
}

}  // namespace equinorm::nn
