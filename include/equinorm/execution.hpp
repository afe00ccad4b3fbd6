// How an operation runs: threads, scratch memory, instruction set. None of these ever changes a bit of a result.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "equinorm/export.h"
#include "equinorm/status.hpp"

namespace equinorm {

/// The caller's own threads, in place of OpenMP's.
class EQUINORM_API Executor {
 public:
  using Task = void (*)(void* context, std::size_t index);

  virtual ~Executor() = default;
  /// Calls task(context, i) once for each i in 0 … tasks − 1, on any threads, in any order, one after another or at
  /// once; returns when all have returned. Operations that run at the same time may call it at the same time.
  virtual void run(std::size_t tasks, Task task, void* context) = 0;
};

/// Passed last to every operation.
struct Execution {
  int threads = 1;            ///< work is cut into at most this many tasks, one a thread; small tensors into fewer
  void* workspace = nullptr;  ///< scratch, aligned to 64 bytes; nullptr lets the operation allocate its own
  std::size_t workspace_bytes = 0;  ///< must be at least what the operation's *_workspace_bytes() says
  Executor* executor = nullptr;     ///< runs the tasks where there are several; nullptr: OpenMP
};

/// The instruction sets that this build has and this machine can run, best first: "AVX3", "AVX2", "SSE4", …
EQUINORM_API std::vector<std::string> simd_targets();

/// The instruction set in use.
EQUINORM_API std::string simd_target();

/// Forces an instruction set by its name in simd_targets() (any case); "" returns to the best. An unknown or
/// unsupported name is an error and changes nothing. Not to be called while operations run.
EQUINORM_API Status set_simd_target(std::string_view name);

}  // namespace equinorm
