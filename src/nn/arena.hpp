// One block of memory for a whole net, shared out by lifetime.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace equinorm::nn {

inline constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector

/// Memory that is needed from time `first` to time `last`, both included.
struct Lifetime {
  std::size_t bytes = 0;
  std::size_t first = 0, last = 0;
};

/// Offsets, multiples of kAlignment, such that no two that live at the same time overlap; and the size of it all. The
/// largest are placed first, each at the lowest offset that is free (Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by
/// size for offset calculation").
struct Packing {
  std::vector<std::size_t> offsets;
  std::size_t bytes = 0;
};
Packing pack(std::span<const Lifetime> lifetimes);

/// Zeroed memory, every page of it touched, aligned to huge pages where it is large.
class Arena {
 public:
  explicit Arena(std::size_t bytes);
  std::byte* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace equinorm::nn
