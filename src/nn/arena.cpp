#include "nn/arena.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <string>

#include "equinorm/status.hpp"

namespace equinorm::nn {

Packing pack(std::span<const Lifetime> lifetimes) {
  Packing packing{std::vector<std::size_t>(lifetimes.size()), 0};
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order,
                           [&](std::size_t a, std::size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  std::vector<std::size_t> placed;  // in ascending offset
  for (const std::size_t item : order) {
    const Lifetime& life = lifetimes[item];
    const std::size_t bytes = (life.bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      if (lifetimes[other].last < life.first || life.last < lifetimes[other].first) continue;
      if (offset + bytes <= packing.offsets[other]) break;
      offset = std::max(offset,
                        packing.offsets[other] + (lifetimes[other].bytes + kAlignment - 1) / kAlignment * kAlignment);
    }
    packing.offsets[item] = offset;
    packing.bytes = std::max(packing.bytes, offset + bytes);
    const auto at = std::ranges::upper_bound(placed, offset, {}, [&](std::size_t i) { return packing.offsets[i]; });
    placed.insert(at, item);
  }
  return packing;
}

Arena::Arena(std::size_t bytes) {
  // Asking for more than there is would not fail: the machine would begin to swap or kill.
  const auto machine =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (bytes > machine) {
    throw Error("a net of this size needs " + std::to_string(bytes >> 20) + " MiB; the machine has " +
                std::to_string(machine >> 20) + " MiB");
  }
  constexpr std::size_t huge = std::size_t{1} << 21;
  const std::size_t alignment = bytes >= huge ? huge : kAlignment;
  const std::size_t size = std::max(bytes + alignment - 1, alignment) / alignment * alignment;
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, size)));
  if (memory_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (alignment == huge) madvise(memory_.get(), size, MADV_HUGEPAGE);  // a hint: fewer TLB misses where it is heeded
#endif
  std::memset(memory_.get(), 0, size);
}

}  // namespace equinorm::nn
