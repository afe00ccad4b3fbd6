// equinorm: normalization for neural networks, audited. One file a subcommand.
#include <fmt/core.h>

#include <exception>

#include "commands.hpp"

// What may escape is the failure to set the options up or to print the message itself.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  CLI::App app{"Normalization for neural networks: kernels, a CPU trainer, and an audit of the claims about them."};
  app.require_subcommand(1);
  equinorm::app::add_audit(app);
  equinorm::app::add_train(app);
  equinorm::app::add_eval(app);
  equinorm::app::add_bench(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {  // a command or a file is missing: show what there is
    const auto chosen = app.get_subcommands();
    fmt::print(stderr, "{}", chosen.empty() ? app.help() : chosen.front()->help());
    fmt::print(stderr, "\nequinorm: {}\n", error.what());
    return 2;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "equinorm: {}\n", error.what());
    return 1;
  }
  return 0;
}
