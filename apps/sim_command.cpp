// zz sim: the simulator over seeds.

#include <memory>

#include "apps/commands.hpp"
#include "tests/sim/run.hpp"

namespace zz::apps {

void add_sim(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<sim::SimOptions>();
  CLI::App* command = app.add_subcommand("sim", "runs the protocol in a simulated, faulty world, seed by seed");
  sim::add_sim_options(*command, *options);
  command->callback([options, &exit_code] { exit_code = sim::run_sim(*options); });
}

}  // namespace zz::apps
