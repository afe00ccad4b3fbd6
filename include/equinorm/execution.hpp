// How an operation runs: threads, scratch memory, instruction set. None of the three ever changes a bit of a result.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "equinorm/status.hpp"

namespace equinorm {

/// Passed last to every operation.
struct Execution {
  int threads = 1;                  ///< at most this many threads work; small tensors use fewer
  void* workspace = nullptr;        ///< scratch, aligned to 64 bytes; nullptr lets the operation allocate its own
  std::size_t workspace_bytes = 0;  ///< must be at least what the operation's *_workspace_bytes() says
};

/// The instruction sets that this build has and this machine can run, best first: "AVX3", "AVX2", "SSE4", …
std::vector<std::string> simd_targets();

/// The instruction set in use.
std::string simd_target();

/// Forces an instruction set by its name in simd_targets() (any case); "" returns to the best. An unknown or
/// unsupported name is an error and changes nothing. Not to be called while operations run.
Status set_simd_target(std::string_view name);

}  // namespace equinorm
