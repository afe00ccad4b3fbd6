// Which instruction set the dynamic dispatch of Highway takes: listed, queried, forced.
#include <hwy/highway.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <vector>

#include "equinorm/execution.hpp"

namespace equinorm {
namespace {

/// What the CPU can run of what this build holds, whatever is forced at the moment; best first.
const std::vector<std::int64_t>& available() {
  static const std::vector<std::int64_t> targets = hwy::SupportedAndGeneratedTargets();
  return targets;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const std::int64_t target : available()) names.emplace_back(hwy::TargetName(target));
  return names;
}

std::string simd_target() {
  const std::int64_t enabled = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(enabled & -enabled);  // the lowest bit is the best
}

Status set_simd_target(std::string_view name) {
  available();              // must be read before anything is forced
  std::int64_t chosen = 0;  // 0: the best
  if (!name.empty()) {
    std::string known;
    for (const std::int64_t target : available()) {
      if (same_name(hwy::TargetName(target), name)) chosen = target;
      known += (known.empty() ? "" : ", ") + std::string(hwy::TargetName(target));
    }
    if (chosen == 0) {
      return {StatusCode::unsupported, "[set_simd_target] unknown or unsupported instruction set '" +
                                           std::string(name) + "'; expected one of " + known};
    }
  }
  hwy::SetSupportedTargetsForTest(chosen);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return {};
}

}  // namespace equinorm
