#include "nn/checkpoint.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/number.hpp"
#include "data/safetensors.hpp"
#include "equinorm/status.hpp"

namespace equinorm::nn {
namespace {

using data::NamedTensor;
using Metadata = std::map<std::string, std::string>;

// Metadata. Keys begin with the program's name; "format" is what PyTorch's tools look for.

std::string text_of(double value) {
  char digits[32];
  // The shortest that reads back the same.
  return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
}

std::string text_of(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) text += (text.empty() ? "" : ",") + text_of(value);
  return text;
}

Metadata describe(const Net& net, const data::Normalization& normalization) {
  const ModelSpec& spec = net.spec();
  return {{"format", "pt"},
          {"equinorm.model", spec.model},
          {"equinorm.norm", name_of(spec.norm)},
          {"equinorm.norm_epsilon", text_of(spec.norm.epsilon)},
          {"equinorm.activation", spec.activation},
          {"equinorm.height", std::to_string(spec.height)},
          {"equinorm.width", std::to_string(spec.width)},
          {"equinorm.channels", std::to_string(spec.channels)},
          {"equinorm.classes", std::to_string(spec.classes)},
          {"equinorm.mean", text_of(normalization.mean)},
          {"equinorm.deviation", text_of(normalization.deviation)}};
}

class MetadataReader {
 public:
  explicit MetadataReader(const Metadata& metadata) : metadata_(metadata) {}

  const std::string& text(const std::string& key) const {
    const auto found = metadata_.find("equinorm." + key);
    if (found == metadata_.end()) throw Error("its metadata has no equinorm." + key + ": not a checkpoint of equinorm");
    return found->second;
  }
  template <class Number>
  Number number(const std::string& key) const {
    return number<Number>(key, text(key));
  }
  std::vector<double> numbers(const std::string& key) const {
    std::vector<double> values;
    std::string_view rest = text(key);
    for (;;) {
      const std::size_t comma = rest.find(',');
      values.push_back(number<double>(key, rest.substr(0, comma)));
      if (comma == std::string_view::npos) return values;
      rest.remove_prefix(comma + 1);
    }
  }

 private:
  template <class Number>
  static Number number(const std::string& key, std::string_view text) {
    Number value{};
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    if (result.ec != std::errc() || result.ptr != text.data() + text.size()) {
      throw Error("its metadata has equinorm." + key + " = \"" + std::string(text) + "\"; expected a number");
    }
    return value;
  }

  const Metadata& metadata_;
};

ModelSpec spec_of(const MetadataReader& metadata) {
  ModelSpec spec;
  spec.model = metadata.text("model");
  spec.norm = parse_norm(metadata.text("norm"));
  spec.norm.epsilon = metadata.number<double>("norm_epsilon");
  spec.activation = metadata.text("activation");
  spec.height = metadata.number<std::size_t>("height");
  spec.width = metadata.number<std::size_t>("width");
  spec.channels = metadata.number<std::size_t>("channels");
  spec.classes = metadata.number<std::size_t>("classes");
  return validated(spec);
}

data::Normalization normalization_of(const MetadataReader& metadata, std::size_t channels) {
  auto mean = metadata.numbers("mean"), deviation = metadata.numbers("deviation");
  const auto bad = [](double value) { return !std::isfinite(value) || value < 0; };
  if (mean.size() != channels || deviation.size() != channels || std::ranges::any_of(mean, bad) ||
      std::ranges::any_of(deviation, bad)) {
    throw Error("its metadata has equinorm.mean = \"" + metadata.text("mean") + "\" and equinorm.deviation = \"" +
                metadata.text("deviation") + "\"; expected " + std::to_string(channels) + " numbers each, 0 or more");
  }
  return data::Normalization::with(std::move(mean), std::move(deviation));
}

/// A net's tensors, each with the memory that it lives in.
struct Slot {
  std::string name;
  std::vector<std::size_t> shape;
  std::span<float> values{};
  std::uint64_t* count = nullptr;  // instead of values: num_batches_tracked
  bool of_variance = false;
};

std::vector<Slot> slots(const Net& net) {
  std::vector<Slot> slots;
  for (const Parameter& parameter : net.parameters()) {
    std::vector<std::size_t> shape;
    for (std::size_t axis = 0; axis < parameter.shape.rank(); ++axis) shape.push_back(parameter.shape[axis]);
    slots.push_back({parameter.name, std::move(shape), parameter.values});
  }
  for (const NormState& norm : net.norms()) {
    const std::vector<std::size_t> shape{norm.running_mean.size()};
    slots.push_back({norm.name + ".running_mean", shape, norm.running_mean});
    slots.push_back({norm.name + ".running_var", shape, norm.running_variance, nullptr, true});
    slots.push_back({norm.name + ".num_batches_tracked", {}, {}, &norm.running->batches});
  }
  return slots;
}

std::string text_of(const std::vector<std::size_t>& shape) {
  std::string text;
  for (const std::size_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

void load(const NamedTensor& tensor, const Slot& slot) {
  const data::Dtype wanted = slot.count != nullptr ? data::Dtype::i64 : data::Dtype::f32;
  if (tensor.dtype != wanted) {
    throw Error("tensor " + slot.name + " is of another type; expected " + (slot.count != nullptr ? "I64" : "F32"));
  }
  if (tensor.shape != slot.shape) {
    throw Error("tensor " + slot.name + " has shape " + text_of(tensor.shape) + "; expected " + text_of(slot.shape));
  }
  if (slot.count != nullptr) {
    std::int64_t count = 0;
    tensor.copy_to(std::span(&count, 1));
    if (count < 0) throw Error("tensor " + slot.name + " is " + std::to_string(count) + "; expected 0 or more");
    *slot.count = static_cast<std::uint64_t>(count);
    return;
  }
  tensor.copy_to(slot.values);
  for (const float value : slot.values) {
    if (!std::isfinite(value) || (slot.of_variance && value < 0)) {
      throw Error("tensor " + slot.name + " holds " + text_of(value) + "; expected " +
                  (slot.of_variance ? "variances" : "finite numbers"));
    }
  }
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Net& net, const data::Normalization& normalization) {
  const std::vector<Slot> all = slots(net);
  std::vector<std::int64_t> counts;
  counts.reserve(all.size());  // tensors point into it
  std::vector<NamedTensor> tensors;
  for (const Slot& slot : all) {
    if (slot.count != nullptr) {
      counts.push_back(static_cast<std::int64_t>(*slot.count));
      tensors.push_back(NamedTensor::of<std::int64_t>(slot.name, {}, std::span(&counts.back(), 1)));
    } else {
      tensors.push_back(NamedTensor::of<float>(slot.name, slot.shape, slot.values));
    }
  }
  data::write_safetensors(path, tensors, describe(net, normalization));
}

Checkpoint load_checkpoint(const std::filesystem::path& path, int threads) {
  const data::SafeTensors file = data::SafeTensors::read(path);
  try {
    const MetadataReader metadata(file.metadata());
    const ModelSpec spec = spec_of(metadata);
    Checkpoint checkpoint{Net(spec, {.batch = 1, .training = false, .threads = threads, .seed = 0}),
                          normalization_of(metadata, spec.channels)};
    std::set<std::string> known;
    for (const Slot& slot : slots(checkpoint.net)) {
      load(file.at(slot.name), slot);
      known.insert(slot.name);
    }
    for (const NamedTensor& tensor : file.tensors()) {
      if (!known.contains(tensor.name)) throw Error("tensor " + tensor.name + " is none of the model " + spec.model);
    }
    return checkpoint;
  } catch (const Error& error) {
    const std::string message = error.what();
    // What the file itself says of a missing tensor names it already.
    if (message.find(path.string()) != std::string::npos) throw;
    throw Error(path.string() + ": " + message);
  }
}

}  // namespace equinorm::nn
