// Views of tensors: a pointer, a shape, a layout. Views own nothing and copy nothing.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>

namespace equinorm {

inline constexpr std::size_t kMaxRank = 5;

/// The extents of a tensor in the order they lie in memory, slowest first. At most kMaxRank of them; more are kept
/// as a rank that every operation refuses.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::size_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::size_t> extents) : rank_(extents.size()) {
    for (std::size_t i = 0; i < rank_ && i < kMaxRank; ++i) extents_[i] = extents[i];
  }

  std::size_t rank() const { return rank_; }
  std::size_t operator[](std::size_t axis) const { return extents_[axis]; }
  std::size_t& operator[](std::size_t axis) { return extents_[axis]; }

  /// Number of elements: the product of the extents (1 for rank 0).
  std::size_t elements() const {
    std::size_t product = 1;
    for (std::size_t i = 0; i < rank_ && i < kMaxRank; ++i) product *= extents_[i];
    return product;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    bool same = a.rank_ == b.rank_;
    for (std::size_t i = 0; i < kMaxRank; ++i) same = same && a.extents_[i] == b.extents_[i];
    return same;
  }

 private:
  std::array<std::size_t, kMaxRank> extents_{};
  std::size_t rank_ = 0;
};

/// Where the channels lie. A matrix [rows, channels] is channels-last.
enum class Layout {
  channels_last,   ///< [N, spatial…, C]: channels vary fastest
  channels_first,  ///< [N, C, spatial…]: PyTorch's default
};

/// A tensor of rank 1–5 in one of the two layouts. data == nullptr means "absent" where an argument is optional.
/// Layer and RMS norm take rows with a stride; the other operations dense tensors, and refuse another row_stride.
template <class T>
struct TensorView {
  T* data = nullptr;
  Shape shape{};
  Layout layout = Layout::channels_last;
  std::size_t row_stride = 0;  ///< elements from one row of a matrix to the next; 0: dense
};

}  // namespace equinorm
