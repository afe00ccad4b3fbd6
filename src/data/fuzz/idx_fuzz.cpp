// IDX files, plain and gzip'd: whatever the bytes, an array that fits its extents or an Error.
#include <cstdlib>
#include <functional>
#include <numeric>
#include <optional>

#include "data/idx.hpp"
#include "data/idx_bytes.hpp"
#include "equinorm/status.hpp"

namespace {

using equinorm::data::IdxArray;

std::optional<IdxArray> parse(std::span<const std::uint8_t> file) {
  try {
    IdxArray array = equinorm::data::parse_idx(file, "fuzz");
    const std::size_t size =
        std::accumulate(array.extents.begin(), array.extents.end(), std::size_t{1}, std::multiplies<>());
    if (size != array.values.size()) std::abort();
    return array;
  } catch (const equinorm::Error&) {
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span file(data, size);
  const std::optional<IdxArray> plain = parse(file);
  // A mutated gzip stream rarely keeps its checksum; one made here does, and must say the same as the plain file.
  const std::optional<IdxArray> packed = parse(equinorm::data::gzip({file.begin(), file.end()}, 1));
  const bool is_gzip = size >= 2 && data[0] == 0x1F && data[1] == 0x8B;
  if (is_gzip) return 0;
  if (plain.has_value() != packed.has_value()) std::abort();
  if (plain && (plain->values != packed->values || plain->extents != packed->extents)) std::abort();
  return 0;
}
