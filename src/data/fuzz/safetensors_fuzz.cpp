// Safetensors: whatever the bytes, tensors that lie in the file one after the other, or an Error.
#include <cstdlib>

#include "data/safetensors.hpp"
#include "equinorm/status.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using equinorm::data::SafeTensors;
  try {
    const SafeTensors file = SafeTensors::parse({data, data + size}, "fuzz");
    std::size_t covered = 0;
    for (const auto& tensor : file.tensors()) {
      std::size_t bytes = tensor.dtype == equinorm::data::Dtype::f32 ? 4 : 8;
      for (const std::size_t extent : tensor.shape) bytes *= extent;
      if (bytes != tensor.bytes.size() || &file.at(tensor.name) != &tensor) std::abort();
      std::vector<std::byte> copy(tensor.bytes.begin(), tensor.bytes.end());  // the sanitizers watch these reads
      covered += copy.size();
    }
    if (covered > size) std::abort();
  } catch (const equinorm::Error&) {
    // What a hostile file deserves; anything else that is thrown is a finding.
  }
  return 0;
}
