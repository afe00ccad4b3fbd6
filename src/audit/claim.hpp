// A claim of the note: its words, and the measurement that answers them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "audit/outcome.hpp"
#include "audit/trials.hpp"
#include "data/dataset.hpp"
#include "equinorm/batch_norm.hpp"
#include "equinorm/group_norm.hpp"
#include "equinorm/layer_norm.hpp"

namespace equinorm::audit {

/// The operations under audit. Claims call them through these pointers, so that a test can hand them a wrong one and
/// see the claim refuted.
struct BatchNormOps {
  decltype(&batch_norm_forward<float>) forward = &batch_norm_forward<float>;
  decltype(&batch_norm_inference<float>) inference = &batch_norm_inference<float>;
  decltype(&batch_norm_backward<float>) backward = &batch_norm_backward<float>;
  decltype(&batch_norm_jvp<float>) jvp = &batch_norm_jvp<float>;
};

/// Those that look at one sample at a time. Instance norm is group norm with a group for every channel.
struct SampleNormOps {
  decltype(&group_norm_forward<float>) group = &group_norm_forward<float>;
  decltype(&layer_norm_forward<float>) layer = &layer_norm_forward<float>;
  decltype(&layer_norm_backward<float>) layer_backward = &layer_norm_backward<float>;
};

enum class Mode {
  quick,  ///< fewer digits and steps; never fewer than 3 seeds
  full,
};

std::string_view name(Mode mode);

/// What a measurement is given.
struct Context {
  const data::DataPair& digits;
  Mode mode = Mode::quick;
  std::vector<std::uint64_t> seeds;         ///< of the measured trials
  std::vector<std::uint64_t> tuning_seeds;  ///< of the trials that choose rates: none of them is measured
  int workers = 1;                          ///< trials at a time
  Progress& progress;
  BatchNormOps ops{};
  SampleNormOps sample_ops{};

  bool quick() const { return mode == Mode::quick; }
  template <class T>
  T pick(T quick_value, T full_value) const {
    return quick() ? quick_value : full_value;
  }
};

enum class Kind {
  exact,    ///< checked in double precision against a reference; one counter-example refutes
  trained,  ///< paired seeds, rates tuned for each arm, 95 % intervals
};

struct Claim {
  std::string_view id;
  std::string_view title;
  std::string_view section;  ///< of the note
  Kind kind;
  std::string_view statement;  ///< the claim in our words
  std::string_view quote;      ///< the note's, in its own
  std::string_view method;     ///< arms, data and metric, in words
  std::string_view rule;       ///< what holds, what fails, and which condition there is, in words
  Outcome (*measure)(const Context&);
};

}  // namespace equinorm::audit
