#include "data/dataset.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "core/file.hpp"
#include "data/idx.hpp"
#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

namespace fs = std::filesystem;

// More is not a picture; it bounds the table of normalized values.
constexpr std::size_t kMaxChannels = 256;

struct Role {
  const char* what;
  std::array<std::string_view, 2> stems;  // how the name of its file may start, after any prefix
};
constexpr Role kTrainImages{"training images", {"train-images", "train-images"}};
constexpr Role kTrainLabels{"training labels", {"train-labels", "train-labels"}};
constexpr Role kTestImages{"test images", {"t10k-images", "test-images"}};
constexpr Role kTestLabels{"test labels", {"t10k-labels", "test-labels"}};

std::string hex(std::span<const std::uint8_t> bytes) {
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

// A directory of IDX files, and what its SHA256SUMS says of them.
class Folder {
 public:
  explicit Folder(fs::path path) : path_(std::move(path)) {
    for (const auto& entry : fs::directory_iterator(path_)) names_.push_back(entry.path().filename().string());
    std::sort(names_.begin(), names_.end());
    if (fs::exists(path_ / kSums)) read_checksums();
  }

  IdxArray read(const Role& role) const {
    const fs::path file = path_ / find(role);
    const std::vector<std::uint8_t> bytes = read_file(file, kMaxIdxBytes);
    if (checksums_) verify(file, bytes);
    return parse_idx(bytes, file.string());
  }

 private:
  static constexpr const char* kSums = "SHA256SUMS";

  // Lines of sha256sum: 64 hexadecimal digits, a space, a space or an asterisk, the name.
  void read_checksums() {
    const std::vector<std::uint8_t> bytes = read_file(path_ / kSums, std::size_t{1} << 20);
    std::istringstream lines(std::string(bytes.begin(), bytes.end()));
    checksums_.emplace();
    for (std::string line; std::getline(lines, line);) {
      if (line.size() < 67) throw Error(fmt::format("{}: not a line of sha256sum: {}", (path_ / kSums).string(), line));
      (*checksums_)[line.substr(66)] = line.substr(0, 64);
    }
  }

  void verify(const fs::path& file, std::span<const std::uint8_t> bytes) const {
    const auto expected = checksums_->find(file.filename().string());
    if (expected == checksums_->end()) throw Error(fmt::format("{}: not listed in {} beside it", file.string(), kSums));
    std::array<std::uint8_t, SHA256_DIGEST_LENGTH> digest{};
    SHA256(bytes.data(), bytes.size(), digest.data());
    if (hex(digest) != expected->second) {
      throw Error(
          fmt::format("{}: its SHA-256 is {}; {} says {}", file.string(), hex(digest), kSums, expected->second));
    }
  }

  std::string find(const Role& role) const {
    std::vector<std::string> found;
    for (const std::string& name : names_) {
      const auto in_name = [&name](std::string_view stem) { return name.find(stem) != std::string::npos; };
      if (name.front() != '.' && std::any_of(role.stems.begin(), role.stems.end(), in_name)) found.push_back(name);
    }
    if (found.size() == 1) return found.front();
    const auto [stem, other] = role.stems;
    const std::string pattern = stem == other ? fmt::format("*{}*", stem) : fmt::format("*{}* or *{}*", stem, other);
    if (found.empty()) {
      constexpr std::size_t kShown = 10;
      const std::span<const std::string> shown = std::span(names_).first(std::min(kShown, names_.size()));
      throw Error(fmt::format("{}: no {}: looked for {} (IDX, plain or gzip'd) among {} files{}{}{}", path_.string(),
                              role.what, pattern, names_.size(), shown.empty() ? "" : ": ", fmt::join(shown, ", "),
                              names_.size() > kShown ? ", …" : ""));
    }
    throw Error(fmt::format("{}: expected one file for the {} ({}), found {}", path_.string(), role.what, pattern,
                            fmt::join(found, ", ")));
  }

  fs::path path_;
  std::vector<std::string> names_;
  std::optional<std::map<std::string, std::string>> checksums_;
};

// Images and labels of one half, checked against each other. classes and normalization are filled in by load().
Dataset read_half(const Folder& folder, const std::string& name, const Role& images_role, const Role& labels_role) {
  IdxArray images = folder.read(images_role);
  IdxArray labels = folder.read(labels_role);
  const std::vector<std::size_t>& shape = images.extents;
  if (shape.size() != 3 && shape.size() != 4) {
    throw Error(fmt::format("{}: images of extents {}; expected [n, height, width] or [n, height, width, channels]",
                            name, shape));
  }
  if (labels.extents.size() != 1)
    throw Error(fmt::format("{}: labels of extents {}; expected [n]", name, labels.extents));
  if (labels.extents[0] != shape[0]) {
    throw Error(fmt::format("{}: {} images but {} labels", name, shape[0], labels.extents[0]));
  }
  Dataset half;
  half.name = name;
  half.images = std::move(images.values);
  half.labels = std::move(labels.values);
  half.count = shape[0];
  half.height = shape[1];
  half.width = shape[2];
  half.channels = shape.size() == 4 ? shape[3] : 1;
  if (half.channels > kMaxChannels) {
    throw Error(fmt::format("{}: {} channels; expected at most {}", name, half.channels, kMaxChannels));
  }
  return half;
}

DataPair load_directory(const std::string& name, const fs::path& directory) {
  const Folder folder(directory);
  DataPair pair;
  pair.train = read_half(folder, name + ", training", kTrainImages, kTrainLabels);
  pair.test = read_half(folder, name + ", test", kTestImages, kTestLabels);
  Dataset& train = pair.train;
  Dataset& test = pair.test;
  const auto extents = [](const Dataset& d) { return std::array{d.height, d.width, d.channels}; };
  if (extents(train) != extents(test)) {
    throw Error(fmt::format("{}: training images are {}, test images {}", name, extents(train), extents(test)));
  }
  train.classes = test.classes = *std::max_element(train.labels.begin(), train.labels.end()) + std::size_t{1};
  for (std::size_t row = 0; row < test.count; ++row) {
    if (test.labels[row] >= test.classes) {
      throw Error(fmt::format("{}: label {} of row {}; the labels of the training set end at {}", test.name,
                              test.labels[row], row, test.classes - 1));
    }
  }
  train.normalization = test.normalization = Normalization::of(train.images, train.channels);
  return pair;
}

DataPair load_mnist() {
  std::vector<fs::path> places;
  if (const char* data = std::getenv("EQUINORM_DATA"); data != nullptr) places.emplace_back(data);
  places.emplace_back(fs::path(EQUINORM_SOURCE_DIR) / "data");
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  places.push_back((program.parent_path() / "../../data").lexically_normal());
  std::vector<std::string> looked;
  for (const fs::path& place : places) {
    const fs::path directory = place / "mnist";
    if (fs::is_directory(directory, ignored)) return load_directory("mnist", directory);
    looked.push_back(directory.string());
  }
  throw Error(fmt::format("data set mnist: no such directory as {}; EQUINORM_DATA may name the one that holds mnist",
                          fmt::join(looked, ", ")));
}

}  // namespace

Normalization Normalization::of(std::span<const std::uint8_t> images, std::size_t channels) {
  std::vector<std::array<std::uint64_t, 256>> histograms(channels);
  for (std::size_t i = 0; i < images.size(); i += channels) {
    for (std::size_t c = 0; c < channels; ++c) ++histograms[c][images[i + c]];
  }
  std::vector<double> means, deviations;
  for (const auto& histogram : histograms) {
    // Sums of bytes are whole numbers below 2⁵³: exact in double.
    double n = 0, sum = 0;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      n += static_cast<double>(histogram[byte]);
      sum += static_cast<double>(histogram[byte] * byte);
    }
    const double mean = sum / n;
    double squares = 0;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const double distance = static_cast<double>(byte) - mean;
      squares += static_cast<double>(histogram[byte]) * distance * distance;
    }
    const double deviation = std::sqrt(squares / n);
    means.push_back(mean / 255);
    deviations.push_back(deviation / 255);
  }
  return with(std::move(means), std::move(deviations));
}

Normalization Normalization::with(std::vector<double> mean, std::vector<double> deviation) {
  Normalization normalization{std::move(mean), std::move(deviation), {}};
  for (std::size_t c = 0; c < normalization.mean.size(); ++c) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const double distance = static_cast<double>(byte) / 255 - normalization.mean[c];
      const double unit = normalization.deviation[c];
      normalization.values.push_back(unit > 0 ? static_cast<float>(distance / unit) : 0.0F);
    }
  }
  return normalization;
}

DataPair load(const std::string& name_or_directory) {
  if (name_or_directory == "mnist") return load_mnist();
  std::error_code ignored;
  if (!fs::is_directory(name_or_directory, ignored)) {
    throw Error(fmt::format("data set {}: expected mnist or a directory", name_or_directory));
  }
  return load_directory(name_or_directory, name_or_directory);
}

Dataset take(const Dataset& dataset, std::span<const std::uint32_t> rows) {
  Dataset taken = dataset;
  taken.count = rows.size();
  taken.labels.resize(rows.size());
  taken.images.resize(rows.size() * dataset.image_size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] >= dataset.count) throw Error(fmt::format("{}: row {} of {}", dataset.name, rows[i], dataset.count));
    taken.labels[i] = dataset.labels[rows[i]];
    std::copy_n(dataset.images.data() + rows[i] * dataset.image_size(), dataset.image_size(),
                taken.images.data() + i * dataset.image_size());
  }
  return taken;
}

void gather(const Dataset& dataset, std::span<const std::uint32_t> rows, std::span<float> images,
            std::span<std::uint8_t> labels) {
  const std::size_t size = dataset.image_size();
  if (images.size() < rows.size() * size || labels.size() < rows.size()) {
    throw Error(fmt::format("{}: a batch of {} rows needs {} pixels and {} labels; there is room for {} and {}",
                            dataset.name, rows.size(), rows.size() * size, rows.size(), images.size(), labels.size()));
  }
  const float* values = dataset.normalization.values.data();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] >= dataset.count) throw Error(fmt::format("{}: row {} of {}", dataset.name, rows[i], dataset.count));
    labels[i] = dataset.labels[rows[i]];
    const std::uint8_t* from = dataset.images.data() + rows[i] * size;
    float* to = images.data() + i * size;
    for (std::size_t pixel = 0; pixel < size; pixel += dataset.channels) {
      for (std::size_t c = 0; c < dataset.channels; ++c) to[pixel + c] = values[c * 256 + from[pixel + c]];
    }
  }
}

}  // namespace equinorm::data
