// equinorm: normalization for neural networks, audited. One file a command; the options of all in command_line.cpp.
#include <fmt/core.h>

#include <exception>

#include "command_line.hpp"

int main(int argc, char** argv) {
  try {
    return equinorm::app::run_command_line(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "equinorm: {}\n", error.what());
    return 1;
  }
}
