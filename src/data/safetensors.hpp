// Safetensors (github.com/huggingface/safetensors, README, "Format"): 8 bytes of little-endian header length N, N bytes
// of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}, then the
// tensors' bytes, which the offsets must cover without hole or overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace equinorm::data {

enum class Dtype { f32, i64, u64 };

template <class T>
inline constexpr Dtype kDtypeOf = std::is_same_v<T, float>          ? Dtype::f32
                                  : std::is_same_v<T, std::int64_t> ? Dtype::i64
                                                                    : Dtype::u64;

/// A named tensor whose bytes lie somewhere else: in the caller's memory when written, in SafeTensors when read.
struct NamedTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<std::size_t> shape;  ///< [] is a scalar
  std::span<const std::byte> bytes;

  /// A view of values of type float, std::int64_t or std::uint64_t.
  template <class T>
  static NamedTensor of(std::string name, std::vector<std::size_t> shape, std::span<const T> values) {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::int64_t> || std::is_same_v<T, std::uint64_t>);
    return {std::move(name), kDtypeOf<T>, std::move(shape), std::as_bytes(values)};
  }

  /// Copies the values out. Throws Error unless type and number of elements are exactly those of the tensor.
  template <class T>
  void copy_to(std::span<T> values) const {
    copy_bytes(kDtypeOf<T>, std::as_writable_bytes(values));
  }

 private:
  void copy_bytes(Dtype wanted, std::span<std::byte> out) const;
};

/// A file in memory. Its tensors point into it: it can be moved, not copied.
class SafeTensors {
 public:
  /// Reads a file of at most 4 GiB. Throws Error naming the file and what is wrong with it.
  static SafeTensors read(const std::filesystem::path& path);

  /// Parses the bytes of a file, which may be hostile. `name` is what messages call it.
  static SafeTensors parse(std::vector<std::uint8_t> file, std::string name);

  SafeTensors(SafeTensors&&) = default;
  SafeTensors& operator=(SafeTensors&&) = default;
  SafeTensors(const SafeTensors&) = delete;
  SafeTensors& operator=(const SafeTensors&) = delete;
  ~SafeTensors() = default;

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<NamedTensor>& tensors() const { return tensors_; }  ///< in the order of their bytes

  /// The tensor of that name. Throws Error, naming the file, if there is none.
  const NamedTensor& at(std::string_view name) const;

 private:
  SafeTensors() = default;

  std::string name_;
  std::vector<std::uint8_t> file_;
  std::map<std::string, std::string> metadata_;
  std::vector<NamedTensor> tensors_;
};

/// Writes the file atomically. The 8-byte types come first, so that every tensor is aligned to its type. Throws Error
/// if names repeat, a shape does not fit its bytes, or the file cannot be written.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace equinorm::data
