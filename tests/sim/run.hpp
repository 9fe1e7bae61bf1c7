#pragma once

// Many runs of the simulator: seeds over processes, progress, the report, and the options of `zz sim` and zz_sim_run.
//
// Each worker is a process, so that a run which ends it (an assertion) or never ends is a failure of its seed and
// nothing else. What comes out does not depend on how many workers there are.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace zz::sim {

struct SimOptions {
  std::string program = "zz sim";  // in the command that replays a failure
  std::string seeds = "1..100";    // A..B, or one
  std::string file;                // instead of seeds: lines of "seed f g requests  # why"
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::uint32_t requests = 300;
  std::uint32_t jobs = 2;
  bool trace = false;
  bool json = false;
  bool first_failure = false;  // stop there
  bool require_sometimes = false;
};

void add_sim_options(CLI::App& command, SimOptions& options);

// 0: no failures; 1: some, or something that must happen did not; 2: the options make no sense.
int run_sim(const SimOptions& options);

}  // namespace zz::sim
