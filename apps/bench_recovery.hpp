#pragma once

// zz bench recovery: how soon a faulty replica of a large state is made up for. See its --help.

#include <CLI/CLI.hpp>

namespace zz::apps {

void add_bench_recovery(CLI::App& bench, int& exit_code);

}  // namespace zz::apps
