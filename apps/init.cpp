#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "apps/cluster_flags.hpp"
#include "apps/commands.hpp"
#include "apps/local_cluster.hpp"
#include "apps/with_words.hpp"

namespace zz::apps {
namespace {

struct InitFlags {
  std::string dir;
  std::uint16_t base_port = 0;
  ClusterFlags cluster;
};

Result<void> run(const InitFlags& flags, const std::vector<std::string>& words) {
  Result<LocalClusterOptions> options = to_options(flags.dir, flags.cluster, words);
  if (!options) return Error{options.error()};
  options->base_port = flags.base_port;
  const Result<crypto::ClusterFile> made = make_local_cluster(*options);
  if (!made) return Error{made.error()};
  const crypto::ServiceEntry& service = made->services[0];
  std::cout << fmt::format("{}: {} agreement nodes (f = {}), service \"{}\" ({}) on {} slots (g = {}), {} hosts\n",
                           flags.dir, made->nodes.size(), made->f, service.name, service.adapter, service.slots.size(),
                           service.g, made->hosts.size())
            << "Local: every host is only a process of this machine.\n"
            << fmt::format("Next: look at {0}/cluster.toml, then run: zz up {0}\n", flags.dir);
  return {};
}

}  // namespace

void add_cluster_flags(CLI::App& command, ClusterFlags& flags) {
  command.add_option("--f", flags.f, "agreement nodes that may be faulty, 1 to 5 (3f+1 are made)");
  command.add_option("--g", flags.g, "replicas that may be faulty, 1 to 5 (2g+1 are made, g+1 run)");
  command.add_option("--service", flags.service, "name of the service");
  command.add_option("--initial-state", flags.initial_state, "directory that every replica starts with a copy of");
  command.add_option("--clients", flags.clients, "keys for clients besides operator and gateway");
  command.add_option("--listen", flags.listen, "ADDRESS:PORT of the HTTP gateway (port 0: any free one)");
  command
      .add_option(
          "--durability", flags.durability,
          "sync: promises are on disk before they are made; async: a power cut may lose them; none: kept in memory")
      ->check(CLI::IsMember({"sync", "async", "none"}))
      ->capture_default_str();
  command.add_flag("--allow-faults", flags.allow_faults, "let `zz fault` make replicas misbehave (tests only)");
}

Result<LocalClusterOptions> to_options(const std::string& dir, const ClusterFlags& flags,
                                       const std::vector<std::string>& words) {
  LocalClusterOptions options;
  options.dir = dir;
  options.f = flags.f;
  options.g = flags.g;
  options.clients = flags.clients;
  options.allow_faults = flags.allow_faults;
  options.durability = crypto::parse_durability(flags.durability).value_or(crypto::Durability::kSync);
  options.adapter = words.empty() ? "kv" : "http";
  options.command = words;
  options.initial_state = flags.initial_state;
  options.service_name = !flags.service.empty() ? flags.service : words.empty() ? "kv" : "web";
  if (words.empty() && !flags.listen.empty()) return Error{"--listen needs a web service: give its command after --"};
  if (words.empty() && !flags.initial_state.empty()) {
    return Error{"--initial-state needs a web service: give its command after --"};
  }
  if (!flags.listen.empty()) {
    const std::optional<crypto::Address> address = crypto::parse_address(flags.listen);
    if (!address) return Error{fmt::format("--listen {} is not ADDRESS:PORT", flags.listen)};
    options.gateway_address = *address;
  }
  return options;
}

void add_init(CLI::App& app, int& exit_code, const std::vector<std::string>& words) {
  auto flags = std::make_shared<InitFlags>();
  CLI::App* const command = app.add_subcommand("init", "make keys and a commented cluster.toml for one machine");
  command->add_option("DIR", flags->dir, "directory to make")->required();
  command->add_option("--base-port", flags->base_port, "node i listens on this port + i (default: free ports)");
  add_cluster_flags(*command, flags->cluster);
  command->footer("zz init DIR [-- CMD…]: CMD starts a web service that listens on $PORT.");
  command->callback([flags, words, &exit_code] {
    const Result<void> done = run(*flags, words);
    if (done) return;
    std::cerr << "zz init: " << done.error() << '\n';
    exit_code = 1;
  });
}

void add_init(CLI::App& app, int& exit_code) { add_init(app, exit_code, {}); }

}  // namespace zz::apps
