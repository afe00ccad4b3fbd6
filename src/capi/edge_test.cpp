#include "capi/edge.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>

namespace equinorm::capi {
namespace {

/// What comes out of the edge if `body` is the operation.
std::pair<equinorm_status, std::string> outcome(const std::function<Status()>& body) {
  char message[100] = "left from before";
  equinorm_execution execution;
  equinorm_execution_init(&execution, sizeof execution);
  execution.message = message;
  execution.message_bytes = sizeof message;
  const equinorm_status status = run("op", &execution, [&](const Execution&) { return body(); });
  EXPECT_EQ(run("op", nullptr, [&](const Execution&) { return body(); }), status);  // and with nowhere to say it
  return {status, message};
}

using Outcome = std::pair<equinorm_status, std::string>;

TEST(Edge, NoExceptionGetsOut) {
  EXPECT_EQ(outcome([]() -> Status { throw std::bad_alloc(); }),
            Outcome(EQUINORM_OUT_OF_MEMORY, "[op] no memory; expected enough for scratch, or a workspace"));
  EXPECT_EQ(outcome([]() -> Status { throw std::runtime_error("the pool is closed"); }),
            Outcome(EQUINORM_INTERNAL_ERROR, "[op] the pool is closed"));
  EXPECT_EQ(outcome([]() -> Status { throw 7; }),
            Outcome(EQUINORM_INTERNAL_ERROR, "[op] an exception of unknown type"));
  EXPECT_EQ(outcome([]() -> Status { refuse("x is 3", "4"); }),
            Outcome(EQUINORM_INVALID_ARGUMENT, "[op] x is 3; expected 4"));
}

TEST(Edge, StatusesPassUnchanged) {
  EXPECT_EQ(outcome([] { return Status(); }), Outcome(EQUINORM_OK, ""));
  EXPECT_EQ(outcome([] { return Status(StatusCode::too_few_values, "[op] x is one"); }),
            Outcome(EQUINORM_TOO_FEW_VALUES, "[op] x is one"));
}

TEST(Edge, AnExecutionOfTheWrongSizeIsRefusedUnread) {
  equinorm_execution execution{};
  execution.size = 8;
  execution.threads = 2;
  EXPECT_EQ(run("op", &execution, [](const Execution&) { return Status(); }), EQUINORM_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace equinorm::capi
