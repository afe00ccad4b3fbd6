// What the C interface has besides operations: version, defaults of execution, instruction sets.
#include <cstdio>

#include "capi/edge.hpp"

namespace {

std::size_t write_text(const std::string& text, char* out, std::size_t bytes) {
  if (out != nullptr) std::snprintf(out, bytes, "%s", text.c_str());
  return text.size() + 1;
}

}  // namespace

const char* equinorm_version() {
  return EQUINORM_VERSION;
}

void equinorm_execution_init(equinorm_execution* execution, size_t size) {
  equinorm_execution defaults{};
  defaults.threads = 1;
  equinorm::capi::initialize(execution, size, defaults);
}

size_t equinorm_simd_targets(char* names, size_t bytes) {
  std::string all;
  for (const std::string& name : equinorm::simd_targets()) all += (all.empty() ? "" : " ") + name;
  return write_text(all, names, bytes);
}

size_t equinorm_simd_target(char* name, size_t bytes) {
  return write_text(equinorm::simd_target(), name, bytes);
}

equinorm_status equinorm_set_simd_target(const char* name, char* message, size_t message_bytes) {
  equinorm_execution execution{};
  equinorm_execution_init(&execution, sizeof execution);
  execution.message = message;
  execution.message_bytes = message_bytes;
  return equinorm::capi::run("set_simd_target", &execution, [name](const equinorm::Execution&) {
    if (name == nullptr) equinorm::capi::refuse("name is null", "the name of an instruction set");
    return equinorm::set_simd_target(name);
  });
}
