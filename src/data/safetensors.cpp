#include "data/safetensors.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/file.hpp"
#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "values are copied as they lie, and the format is little-endian");

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 32;
constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the official reader's
constexpr std::size_t kMaxNameBytes = 1024;
constexpr const char* kMetadata = "__metadata__";

struct DtypeName {
  Dtype dtype;
  std::string_view name;
  std::size_t size;
};
constexpr std::array<DtypeName, 3> kDtypes{{{Dtype::f32, "F32", 4}, {Dtype::i64, "I64", 8}, {Dtype::u64, "U64", 8}}};

const DtypeName& entry(Dtype dtype) {
  return *std::find_if(kDtypes.begin(), kDtypes.end(), [dtype](const DtypeName& d) { return d.dtype == dtype; });
}

// The bytes of a tensor, or more than any file has if the product is too large to count.
std::size_t bytes_of(Dtype dtype, std::span<const std::size_t> shape) {
  if (std::find(shape.begin(), shape.end(), 0U) != shape.end()) return 0;
  std::size_t bytes = entry(dtype).size;
  for (const std::size_t extent : shape) {
    if (extent > kMaxFileBytes / bytes) return kMaxFileBytes + 1;
    bytes *= extent;
  }
  return bytes;
}

// Parses the header. nlohmann's parser alone keeps the last of several equal keys and nests without end.
json parse_header(std::string_view text) {
  constexpr int kDeepest = 2;  // header, tensor, array
  std::vector<std::set<std::string>> keys;
  const auto check = [&keys](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth > kDeepest) {
      throw Error("header nests deeper than a tensor's shape");
    }
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw Error(fmt::format("header has the key {} twice", parsed.dump()));
    }
    return true;
  };
  try {
    json header = json::parse(text.begin(), text.end(), check);
    if (!header.is_object()) throw Error("header is not a JSON object");
    return header;
  } catch (const json::exception& error) {
    throw Error(fmt::format("header is not JSON: {}", error.what()));
  }
}

const json& member(const json& object, const std::string& tensor, const char* key) {
  if (!object.is_object() || object.size() != 3 || !object.contains(key)) {
    throw Error(fmt::format("tensor {}: expected exactly dtype, shape and data_offsets", tensor));
  }
  return object[key];
}

std::vector<std::size_t> sizes(const json& array, const std::string& tensor, const char* key) {
  const auto is_size = [](const json& value) { return value.is_number_unsigned(); };
  if (!array.is_array() || !std::all_of(array.begin(), array.end(), is_size)) {
    throw Error(fmt::format("tensor {}: {} is not an array of sizes", tensor, key));
  }
  return array.get<std::vector<std::size_t>>();
}

// The tensor that one member of the header describes; `data`: the bytes after the header.
NamedTensor parse_tensor(const std::string& name, const json& description, std::span<const std::byte> data) {
  if (name.size() > kMaxNameBytes) {
    throw Error(fmt::format("a tensor's name has {} bytes; expected at most {}", name.size(), kMaxNameBytes));
  }
  const json& dtype = member(description, name, "dtype");
  const auto* const known =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&dtype](const DtypeName& d) { return dtype == d.name; });
  if (known == kDtypes.end())
    throw Error(fmt::format("tensor {}: dtype {}; expected F32, I64 or U64", name, dtype.dump()));
  NamedTensor tensor{name, known->dtype, sizes(member(description, name, "shape"), name, "shape"), {}};
  const std::vector<std::size_t> offsets = sizes(member(description, name, "data_offsets"), name, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) {
    throw Error(
        fmt::format("tensor {}: data_offsets {}; expected [begin, end] within {} bytes", name, offsets, data.size()));
  }
  tensor.bytes = data.subspan(offsets[0], offsets[1] - offsets[0]);
  if (tensor.bytes.size() != bytes_of(tensor.dtype, tensor.shape)) {
    throw Error(fmt::format("tensor {}: {} bytes do not hold {} of shape {}", name, tensor.bytes.size(), known->name,
                            tensor.shape));
  }
  return tensor;
}

}  // namespace

void NamedTensor::copy_bytes(Dtype wanted, std::span<std::byte> out) const {
  if (wanted != dtype || out.size() != bytes.size()) {
    throw Error(fmt::format("tensor {}: {} of shape {}; expected {} values of {}", name, entry(dtype).name, shape,
                            out.size() / entry(wanted).size, entry(wanted).name));
  }
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
}

SafeTensors SafeTensors::read(const std::filesystem::path& path) {
  return parse(read_file(path, kMaxFileBytes), path.string());
}

SafeTensors SafeTensors::parse(std::vector<std::uint8_t> file, std::string name) try {
  SafeTensors result;
  result.name_ = name;
  result.file_ = std::move(file);
  std::span<const std::byte> rest = std::as_bytes(std::span(result.file_));
  std::uint64_t header_bytes = 0;
  if (rest.size() < sizeof header_bytes) throw Error(fmt::format("{} bytes; expected at least 8", rest.size()));
  std::memcpy(&header_bytes, rest.data(), sizeof header_bytes);
  rest = rest.subspan(sizeof header_bytes);
  if (header_bytes > std::min(rest.size(), kMaxHeaderBytes)) {
    throw Error(
        fmt::format("a header of {} bytes; expected at most {}", header_bytes, std::min(rest.size(), kMaxHeaderBytes)));
  }
  const json header = parse_header({reinterpret_cast<const char*>(rest.data()), header_bytes});
  rest = rest.subspan(header_bytes);

  for (const auto& [key, value] : header.items()) {
    if (key != kMetadata) {
      result.tensors_.push_back(parse_tensor(key, value, rest));
      continue;
    }
    const auto is_string = [](const json& text) { return text.is_string(); };
    if (!value.is_object() || !std::all_of(value.begin(), value.end(), is_string)) {
      throw Error(fmt::format("{} is not an object of strings", kMetadata));
    }
    result.metadata_ = value.get<std::map<std::string, std::string>>();
  }

  // Empty tensors share their place with the next; by (begin, end) they come before it.
  std::sort(result.tensors_.begin(), result.tensors_.end(), [](const NamedTensor& a, const NamedTensor& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  const std::byte* end = rest.data();
  for (const NamedTensor& tensor : result.tensors_) {
    if (tensor.bytes.data() != end) {
      throw Error(fmt::format("tensor {}: begins at byte {}; the one before it ends at {}", tensor.name,
                              tensor.bytes.data() - rest.data(), end - rest.data()));
    }
    end += tensor.bytes.size();
  }
  if (end != rest.data() + rest.size()) {
    throw Error(fmt::format("tensors end at byte {} of {}", end - rest.data(), rest.size()));
  }
  return result;
} catch (const Error& error) {
  throw Error(fmt::format("{}: {}", name, error.what()));
}

const NamedTensor& SafeTensors::at(std::string_view name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [name](const NamedTensor& tensor) { return tensor.name == name; });
  if (found == tensors_.end()) throw Error(fmt::format("{}: no tensor {} among its {}", name_, name, tensors_.size()));
  return *found;
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return entry(a->dtype).size > entry(b->dtype).size;
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::size_t end = 0;
  for (const NamedTensor* tensor : order) {
    if (tensor->name == kMetadata || header.contains(tensor->name)) {
      throw Error(fmt::format("{}: two tensors of the name {}", path.string(), tensor->name));
    }
    if (tensor->bytes.size() != bytes_of(tensor->dtype, tensor->shape)) {
      throw Error(fmt::format("{}: tensor {}: {} bytes do not hold {} of shape {}", path.string(), tensor->name,
                              tensor->bytes.size(), entry(tensor->dtype).name, tensor->shape));
    }
    const std::size_t begin = std::exchange(end, end + tensor->bytes.size());
    header[tensor->name] = {
        {"dtype", entry(tensor->dtype).name}, {"shape", tensor->shape}, {"data_offsets", {begin, end}}};
  }
  // A path in the metadata may hold bytes that are not UTF-8; JSON cannot.
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const NamedTensor* tensor : order) file.write(tensor->bytes);
  file.commit();
}

}  // namespace equinorm::data
