// The zz binary: one subcommand per role and tool.

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.hpp"
#include "apps/with_words.hpp"

namespace zz::apps {
namespace {

// One line, whatever the text holds.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 32; }, ' ');
  return text;
}

int fail(const std::string& command, const std::string& text) {
  std::cerr << one_line(command.empty() ? fmt::format("zz: {}", text) : fmt::format("zz {}: {}", command, text))
            << '\n';
  return 2;
}

void add_commands(CLI::App& app, int& exit_code, const std::vector<std::string>& words) {
  add_init(app, exit_code, words);
  add_up(app, exit_code, words);
  add_agreement(app, exit_code);
  add_execution(app, exit_code);
  add_host(app, exit_code);
  add_gateway(app, exit_code);
  add_status(app, exit_code);
  add_explain(app, exit_code);
  add_call(app, exit_code);
  add_bench(app, exit_code);
  add_fault(app, exit_code);
  add_demo(app, exit_code);
  add_sim(app, exit_code);
}

std::string command_names(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands({})) names += (names.empty() ? "" : ", ") + command->get_name();
  return names;
}

bool is_command(const CLI::App& app, const std::string& name) {
  const auto named = [&](const CLI::App* command) { return command->get_name() == name; };
  return !app.get_subcommands(named).empty();
}

int run(std::vector<std::string> arguments) {
  const auto dashes = std::find(arguments.begin(), arguments.end(), "--");
  std::vector<std::string> words;
  if (dashes != arguments.end()) words.assign(std::next(dashes), arguments.end());
  const bool has_words = dashes != arguments.end();
  arguments.erase(dashes, arguments.end());

  CLI::App app("Byzantine fault tolerance for replicated services at the cost of f+1 executing replicas.", "zz");
  app.set_version_flag("--version", fmt::format("zz {}", ZZ_VERSION));
  app.require_subcommand(1);
  int exit_code = 0;
  add_commands(app, exit_code, words);

  const std::string name = arguments.empty() ? "" : arguments.front();
  const bool chosen = is_command(app, name);
  if (name.empty()) return fail("", fmt::format("which command? ({}; zz --help says more)", command_names(app)));
  if (!chosen && name.front() != '-') {
    return fail("", fmt::format("unknown command \"{}\" ({})", name, command_names(app)));
  }
  if (has_words && name != "up" && name != "init") return fail(name, "takes no words after --");
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants a vector
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    if (!chosen) return fail("", error.what());
    return fail(name, fmt::format("{} (zz {} --help says more)", error.what(), name));
  }
  return exit_code;
}

}  // namespace
}  // namespace zz::apps

int main(int argc, char** argv) {
  // Results go to stdout, what happens to stderr.
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("zz", std::make_shared<spdlog::sinks::stderr_sink_st>()));
  try {
    return zz::apps::run(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  } catch (const std::exception& error) {
    return zz::apps::fail("", error.what());
  }
}
