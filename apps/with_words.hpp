#pragma once

// Commands that take another program's command line after "--". main splits it off before options are parsed,
// since its words may look like options of ours.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace zz::apps {

void add_init(CLI::App& app, int& exit_code, const std::vector<std::string>& words);
void add_up(CLI::App& app, int& exit_code, const std::vector<std::string>& words);

}  // namespace zz::apps
