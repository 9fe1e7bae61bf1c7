// zz_sim_run: `zz sim` on its own, without the rest of the program.

#include <exception>
#include <iostream>

#include "tests/sim/run.hpp"

int main(int argc, char** argv) {
  CLI::App app("runs the simulator over seeds", "zz_sim_run");
  zz::sim::SimOptions options;
  options.program = "zz_sim_run";
  zz::sim::add_sim_options(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    return zz::sim::run_sim(options);
  } catch (const std::exception& error) {
    std::cerr << "zz_sim_run: " << error.what() << '\n';
    return 2;
  }
}
