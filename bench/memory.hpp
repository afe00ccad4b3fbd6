// Memory for benchmarks: 64-byte aligned, every page touched, kept until the end.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace equinorm::bench {

class Memory {
 public:
  /// `count` zeros.
  template <class T>
  T* take(std::size_t count) {
    const std::size_t bytes = count * sizeof(T) + 64;
    pieces_.emplace_back(new (std::align_val_t{64}) std::byte[bytes]);
    std::memset(pieces_.back().get(), 0, bytes);
    return reinterpret_cast<T*>(pieces_.back().get());
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::vector<std::unique_ptr<std::byte, Free>> pieces_;
};

}  // namespace equinorm::bench
