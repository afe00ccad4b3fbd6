#include "nn/spec.hpp"

#include <array>
#include <charconv>
#include <cmath>

#include "core/number.hpp"
#include "nn/models.hpp"
#include "nn/names.hpp"

namespace equinorm::nn {
namespace {

constexpr std::string_view kGroup = "group:";  // and a number
constexpr std::array kNorms{
    Named<NormKind>{"none", NormKind::none},         Named<NormKind>{"batch", NormKind::batch},
    Named<NormKind>{"layer", NormKind::layer},       Named<NormKind>{"rms", NormKind::rms},
    Named<NormKind>{"instance", NormKind::instance}, Named<NormKind>{"group:G", NormKind::group}};
constexpr std::array kInits{Named<Init>{"he", Init::he}, Named<Init>{"xavier", Init::xavier},
                            Named<Init>{"scaled", Init::scaled}};
constexpr std::array kNonlinearities{Named<Nonlinearity>{"relu", Nonlinearity::relu},
                                     Named<Nonlinearity>{"sigmoid", Nonlinearity::sigmoid},
                                     Named<Nonlinearity>{"tanh", Nonlinearity::tanh}};

/// min ≤ value ≤ max, or an Error.
template <class Number>
void expect_within(const char* what, Number value, Number min, Number max) {
  if (value >= min && value <= max) return;  // NaN is not
  throw Error(std::string(what) + " is " + text_of(value) + "; expected " + text_of(min) + " to " + text_of(max));
}

}  // namespace

NormSpec parse_norm(std::string_view text) {
  NormSpec norm;
  if (text.starts_with(kGroup)) {
    const char* const end = text.data() + text.size();
    const auto result = std::from_chars(text.data() + kGroup.size(), end, norm.groups);
    if (result.ec != std::errc() || result.ptr != end || norm.groups == 0) {
      throw Error("norm \"" + std::string(text) + "\" does not say how many groups; expected group:G, such as group:8");
    }
    norm.kind = NormKind::group;
    return norm;
  }
  norm.kind = parse_name<NormKind>("norm", text, kNorms);
  return norm;
}

std::string name_of(const NormSpec& norm) {
  if (norm.kind == NormKind::group) return std::string(kGroup) + std::to_string(norm.groups);
  return std::string(name_in<NormKind>(kNorms, norm.kind));
}

Init parse_init(std::string_view text) {
  return parse_name<Init>("init", text, kInits);
}

std::string_view name_of(Init init) {
  return name_in<Init>(kInits, init);
}

Nonlinearity parse_nonlinearity(std::string_view text) {
  return parse_name<Nonlinearity>("activation", text, kNonlinearities);
}

std::string_view name_of(Nonlinearity nonlinearity) {
  return name_in<Nonlinearity>(kNonlinearities, nonlinearity);
}

std::vector<std::string_view> model_names() {
  std::vector<std::string_view> names;
  for (const Model& model : models()) names.push_back(model.name);
  return names;
}

ModelSpec validated(ModelSpec spec) {
  const Model& model = find_model(spec.model);
  if (spec.activation.empty()) spec.activation = name_of(model.activation);
  parse_nonlinearity(spec.activation);
  constexpr std::size_t largest = 4096;
  expect_within("image height", spec.height, model.smallest, largest);
  expect_within("image width", spec.width, model.smallest, largest);
  expect_within<std::size_t>("image channels", spec.channels, 1, 1024);
  // A checkpoint may say anything: what it says must not make the first layer alone fill the memory.
  expect_within<std::size_t>("number of values per image", spec.height * spec.width * spec.channels, 1, 1U << 20U);
  expect_within<std::size_t>("number of classes", spec.classes, 2, 256);  // labels are bytes
  expect_within<std::size_t>("number of hidden layers", spec.hidden_layers, 1, 1000);
  expect_within("dropout rate", spec.dropout, 0.0, 0.99);
  expect_within("initial scale", spec.init_scale, 1e-6, 1e6);
  expect_within("norm epsilon", spec.norm.epsilon, 1e-30, 1.0);
  if (!spec.norm.running.cumulative) expect_within("norm running weight", spec.norm.running.running_weight, 0.0, 1.0);
  return spec;
}

}  // namespace equinorm::nn
