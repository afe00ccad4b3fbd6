// The claims of the audit, in the order in which it measures and reports them.
#pragma once

#include <span>
#include <string_view>

#include "audit/claim.hpp"

namespace equinorm::audit {

extern const Claim kForward, kIdentity, kGradient, kRunning, kInference, kMoments, kInstanceNorm, kGradNorm, kCost,
    kInit, kLayerNorm, kGroupNorm, kSmallBatch, kFaster;

/// All of them: exact ones first, so that the first verdict is there within seconds.
std::span<const Claim* const> claims();

/// The claim of that id; an unknown one is an Error that lists the known ones.
const Claim& claim_named(std::string_view id);

}  // namespace equinorm::audit
