// oneDNN as a peer: the same tensors, every scratch and workspace allocated beforehand.
#pragma once

#include <optional>

#include "problem.hpp"

namespace equinorm::bench {

/// Batch norm and layer norm of f32 and bf16, where this oneDNN has them on this machine; nothing elsewhere. It fuses
/// ReLU; an add before it is a pass of its own, and has no backward.
template <class T>
std::optional<Passes> onednn(const Problem& problem, const Tensors<T>& tensors);

}  // namespace equinorm::bench
