// From a graph to memory: which tensors share storage, how long each storage lives, where it lies.
#pragma once

#include <cstddef>
#include <vector>

#include "nn/arena.hpp"
#include "nn/graph.hpp"

namespace equinorm::nn {

/// Everything that the net will need, placed in one arena.
///
/// Time: forward of node i is i, the loss is L = number of nodes, backward of node i is 2L − i.
struct MemoryPlan {
  static constexpr std::size_t kNone = ~std::size_t{0};

  std::vector<Lifetime> storages;
  Packing packing;
  std::vector<std::size_t> values, gradients;  ///< storage of each value of the graph, or kNone
  struct NodeStorage {
    std::size_t parameters = kNone, parameter_gradients = kNone, saved = kNone, state = kNone;
  };
  std::vector<NodeStorage> nodes;
  std::size_t labels = kNone, workspace = kNone;
  Memory memory;
};

MemoryPlan plan_memory(const Graph& graph, bool training);

/// Bytes of a parameter in its storage: parameters begin at multiples of kAlignment.
std::size_t parameter_bytes(const Shape& shape);

}  // namespace equinorm::nn
