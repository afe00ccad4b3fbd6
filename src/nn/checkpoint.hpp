// Checkpoints: safetensors with PyTorch's parameter names and weight order (models.hpp), so that the same net in
// PyTorch loads them; what the net is and how its images were normalized stands in the file's metadata.
#pragma once

#include <filesystem>

#include "data/dataset.hpp"
#include "nn/net.hpp"

namespace equinorm::nn {

struct Checkpoint {
  Net net;  ///< planned for inference
  data::Normalization normalization;
};

/// Writes the file atomically: parameters, running_mean, running_var and num_batches_tracked of norms. Throws Error if
/// it cannot, and leaves nothing behind then.
void save_checkpoint(const std::filesystem::path& path, const Net& net, const data::Normalization& normalization);

/// Reads a file that may be damaged or hostile. Throws Error naming the file, the entry, what was found and expected,
/// unless the tensors are exactly those of the model, in type and shape, with finite values.
Checkpoint load_checkpoint(const std::filesystem::path& path, int threads);

}  // namespace equinorm::nn
