// Runs a libFuzzer target without libFuzzer, so that every compiler and sanitizer sees some of it: each seed as it is,
// then RUNS mutations of seeds. The same inputs every time.
//
//   some_fuzz SEEDS RUNS
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "core/file.hpp"
#include "core/philox.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

// A few edits of one seed. All choices come from the stream of this run.
Bytes mutate(const std::vector<Bytes>& seeds, const equinorm::Philox& random) {
  std::uint64_t drawn = 0;
  const auto below = [&](std::size_t n) { return n == 0 ? std::size_t{0} : random.word(drawn++) % n; };
  const auto at = [](Bytes& bytes, std::size_t i) { return bytes.begin() + static_cast<std::ptrdiff_t>(i); };
  // Where sizes and signs tip over, and what JSON is made of.
  static constexpr std::uint8_t kTelling[] = {0, 1, 4, 8, 0x7F, 0x80, 0xFF, '"', '[', ']', '{', '}', ',', '-', '9'};

  Bytes bytes = seeds[below(seeds.size())];
  for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
    const std::size_t i = below(bytes.size() + 1);
    switch (below(6)) {
      case 0:
        if (i < bytes.size()) bytes[i] ^= static_cast<std::uint8_t>(1U << below(8));
        break;
      case 1:
        if (i < bytes.size()) bytes[i] = kTelling[below(std::size(kTelling))];
        break;
      case 2:
        bytes.insert(at(bytes, i), kTelling[below(std::size(kTelling))]);
        break;
      case 3:
        bytes.erase(at(bytes, i), at(bytes, i + below(bytes.size() - i + 1)));
        break;
      case 4:
        bytes.resize(i);
        break;
      default: {
        const Bytes& other = seeds[below(seeds.size())];
        const auto from = other.begin() + static_cast<std::ptrdiff_t>(below(other.size() + 1));
        bytes.insert(at(bytes, i), from, other.end());
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s SEEDS RUNS\n", argv[0]);
    return 2;
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> seeds;
  seeds.reserve(paths.size());
  for (const auto& path : paths) seeds.push_back(equinorm::read_file(path, 1 << 20));
  if (seeds.empty()) {
    std::fprintf(stderr, "%s: no seeds\n", argv[1]);
    return 2;
  }
  const std::uint64_t runs = std::strtoull(argv[2], nullptr, 10);
  for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  for (std::uint64_t run = 0; run < runs; ++run) {
    const Bytes bytes = mutate(seeds, equinorm::Philox(1, run));
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%zu seeds, %llu mutations\n", seeds.size(), static_cast<unsigned long long>(runs));
  return 0;
}
