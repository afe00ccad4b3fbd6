#include "audit/claims.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "equinorm/status.hpp"

namespace equinorm::audit {
namespace {
constexpr std::array kClaims{&kForward,  &kIdentity, &kGradient, &kRunning,   &kInference, &kMoments,    &kInstanceNorm,
                             &kGradNorm, &kCost,     &kInit,     &kLayerNorm, &kGroupNorm, &kSmallBatch, &kFaster};
}  // namespace

std::string_view name(Mode mode) {
  return mode == Mode::quick ? "quick" : "full";
}

std::span<const Claim* const> claims() {
  return kClaims;
}

const Claim& claim_named(std::string_view id) {
  const auto* const found =
      std::find_if(kClaims.begin(), kClaims.end(), [&](const Claim* claim) { return claim->id == id; });
  if (found != kClaims.end()) return **found;
  std::string known;
  for (const Claim* claim : kClaims) known += (known.empty() ? "" : ", ") + std::string(claim->id);
  throw Error("unknown claim '" + std::string(id) + "'; the claims are: " + known);
}

}  // namespace equinorm::audit
