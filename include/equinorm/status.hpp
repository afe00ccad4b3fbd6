// Errors. Every public operation returns a Status and neither prints nor throws; throw_if_error() is the layer above.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "equinorm/export.h"

namespace equinorm {

enum class StatusCode {
  ok,
  invalid_argument,  ///< a null pointer, a shape that does not fit, an option out of its range
  too_few_values,    ///< one element per channel: its variance says nothing (BatchNormOptions::single_value)
  non_finite,        ///< NaN or infinity in a batch, under the policy that refuses them
  unsupported,       ///< an instruction set, type or layout that this build or machine lacks
};

/// The outcome of an operation. The message names the operator, the argument, what was found and what was expected.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

/// What the layers above the operations throw: bad files, bad arguments, failed system calls.
class EQUINORM_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Turns a failed Status into an Error with the same message.
inline void throw_if_error(const Status& status) {
  if (!status.ok()) throw Error(status.message());
}

}  // namespace equinorm
