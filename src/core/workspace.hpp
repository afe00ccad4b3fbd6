// Scratch memory of an operation: the caller's, or its own for the time of a call.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "equinorm/execution.hpp"

namespace equinorm {

/// Hands out aligned pieces of a workspace; with no workspace it only counts.
class Workspace {
 public:
  explicit Workspace(void* base = nullptr) : base_(static_cast<std::byte*>(base)) {}

  template <class T>
  T* take(std::size_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

/// The caller's workspace, or one of our own of `bytes`.
class Memory {
 public:
  Memory(const Execution& execution, std::size_t bytes) : base_(execution.workspace) {
    if (base_ != nullptr) return;
    own_.reset(new (std::align_val_t{64}) std::byte[bytes]);
    base_ = own_.get();
  }
  void* base() const { return base_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  void* base_;
  std::unique_ptr<std::byte, Free> own_;
};

}  // namespace equinorm
