#pragma once

// One function per subcommand of the zz binary: registers it and, when it is chosen, runs it and sets
// `exit_code` (0: it did what it says). Errors are one line on stderr, "zz <command>: …".

#include <CLI/CLI.hpp>

namespace zz::apps {

void add_init(CLI::App& app, int& exit_code);
void add_up(CLI::App& app, int& exit_code);
void add_agreement(CLI::App& app, int& exit_code);
void add_execution(CLI::App& app, int& exit_code);
void add_host(CLI::App& app, int& exit_code);
void add_gateway(CLI::App& app, int& exit_code);
void add_status(CLI::App& app, int& exit_code);
void add_explain(CLI::App& app, int& exit_code);
void add_call(CLI::App& app, int& exit_code);
void add_bench(CLI::App& app, int& exit_code);
void add_fault(CLI::App& app, int& exit_code);
void add_demo(CLI::App& app, int& exit_code);
void add_sim(CLI::App& app, int& exit_code);

}  // namespace zz::apps
