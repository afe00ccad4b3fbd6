// The command line of the equinorm program.
#pragma once

namespace equinorm::app {

/// Runs the command that the arguments ask for; what the command throws passes through. Returns the exit status: 2 if
/// the arguments are wrong, which is told, or if the command was interrupted.
int run_command_line(int argc, char** argv);

}  // namespace equinorm::app
