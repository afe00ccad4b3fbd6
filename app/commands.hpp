// The subcommands of the equinorm program: each adds itself, with its options and what it runs, to the parser.
#pragma once

#include <CLI/CLI.hpp>

namespace equinorm::app {}  // namespace equinorm::app
