#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>

#include "apps/cluster_flags.hpp"
#include "apps/commands.hpp"
#include "apps/free_ports.hpp"
#include "apps/local_cluster.hpp"
#include "apps/narrator.hpp"
#include "apps/status_client.hpp"
#include "apps/stop_signals.hpp"
#include "apps/supervisor.hpp"
#include "apps/with_words.hpp"

namespace zz::apps {
namespace {

constexpr std::uint16_t kUsualGatewayPort = 8080;
constexpr auto kLookEvery = std::chrono::milliseconds(50);
constexpr auto kAskEvery = std::chrono::milliseconds(250);
constexpr std::uint32_t kAskTimeoutMs = 1'000;

struct UpFlags {
  std::string dir = "./zz-local";
  ClusterFlags cluster;
  std::vector<const CLI::Option*> only_for_new;  // options that say how to make a cluster
};

void tell(std::string_view line) {
  std::cout << fmt::format("{:%H:%M:%S}  {}", fmt::localtime(std::time(nullptr)), line) << std::endl;
}

// What a cluster that is there already must agree with.
Result<void> check_against(const crypto::ClusterFile& cluster, const UpFlags& flags,
                           const std::vector<std::string>& words) {
  const auto clash = [&](std::string_view what) {
    return Error{fmt::format("{}: holds a cluster with another {}; run it as it is, or choose another directory",
                             flags.dir, what)};
  };
  const crypto::ServiceEntry& service = cluster.services[0];
  if (!words.empty() && words != service.command) return clash("command");
  for (const CLI::Option* option : flags.only_for_new) {
    if (option->count() == 0) continue;
    const std::string name = option->get_name();
    if (name == "--f" && flags.cluster.f == cluster.f) continue;
    if (name == "--g" && flags.cluster.g == service.g) continue;
    if (name == "--service" && flags.cluster.service == service.name) continue;
    if (name == "--listen" && flags.cluster.listen == crypto::to_string(service.gateway)) continue;
    if (name == "--allow-faults" && cluster.allow_faults) continue;
    if (name == "--durability" && flags.cluster.durability == crypto::to_string(cluster.durability)) continue;
    return clash(name);
  }
  return {};
}

Result<void> make_cluster(const UpFlags& flags, const std::vector<std::string>& words) {
  Result<LocalClusterOptions> options = to_options(flags.dir, flags.cluster, words);
  if (!options) return Error{options.error()};
  if (flags.cluster.listen.empty() && is_free_port(kUsualGatewayPort)) {
    options->gateway_address.port = kUsualGatewayPort;
  }
  const Result<crypto::ClusterFile> made = make_local_cluster(*options);
  if (!made) return Error{made.error()};
  tell(fmt::format("made {}: keys, certificates and cluster.toml", flags.dir));
  return {};
}

void tell_what_next(const crypto::ClusterFile& cluster, const std::string& dir) {
  tell("serving. LOCAL cluster: all hosts are processes of this machine.");
  for (const crypto::ServiceEntry& service : cluster.services) {
    if (service.gateway.port != 0) {
      const std::string url = fmt::format("http://{}/", crypto::to_string(service.gateway));
      tell(fmt::format("  service \"{}\": {}    try: curl -i {}", service.name, url, url));
    } else if (service.adapter == "kv") {
      tell(fmt::format("  service \"{}\": try: zz call --dir {} --service {} \"put greeting hello\"", service.name, dir,
                       service.name));
    }
  }
  tell(fmt::format("  zz status --dir {}", dir));
  if (cluster.allow_faults) tell(fmt::format("  zz fault --dir {} 0 wrong-reply    makes replica 0 lie", dir));
  tell(fmt::format("  logs are in {}/log; Ctrl-C stops everything", dir));
}

// What can still be served with these processes gone?
bool beyond_repair(LocalRun& run) {
  std::size_t nodes = 0;
  std::size_t hosts = 0;
  std::size_t gateways = 0;
  for (const LocalRun::Process& process : run.pids()) {
    if (process.running) continue;
    nodes += process.name.starts_with("node-") ? 1 : 0;
    hosts += process.name.starts_with("host-") ? 1 : 0;
    gateways += process.name.starts_with("gateway-") ? 1 : 0;
  }
  const crypto::ClusterFile& cluster = run.cluster();
  // Nodes are started again and remember, if there is anything to remember by.
  bool too_many = (cluster.durability == crypto::Durability::kNone && nodes > cluster.f) || gateways > 0;
  for (const crypto::ServiceEntry& service : cluster.services) too_many = too_many || hosts > service.g;
  return too_many;
}

Result<void> watch(LocalRun& run, const std::string& dir, StopSignals& signals) {
  boost::asio::io_context loop(1);
  Result<std::unique_ptr<StatusClient>> client = StatusClient::open(loop, dir);
  if (!client) return Error{client.error()};
  Narrator narrator(run.cluster());
  bool asked = false;
  auto ask_at = std::chrono::steady_clock::now();
  while (!signals.requested()) {
    if (!asked && std::chrono::steady_clock::now() >= ask_at) {
      asked = true;
      (*client)->ask(kAskTimeoutMs, [&](const StatusClient::Answers& answers) {
        asked = false;
        ask_at = std::chrono::steady_clock::now() + kAskEvery;
        for (const std::string& line : narrator.look(answers)) tell(line);
      });
    }
    loop.run_for(kLookEvery);
    loop.restart();
    const std::vector<std::string> deaths = run.poll();
    for (const std::string& death : deaths) tell(death);
    if (!deaths.empty() && beyond_repair(run)) {
      return Error{fmt::format("too many processes have ended: {}", deaths.back())};
    }
  }
  return {};
}

Result<void> run_cluster(const UpFlags& flags, const std::vector<std::string>& words) {
  StopSignals signals;
  if (auto ready = crypto::init(); !ready) return ready;
  if (holds_cluster(flags.dir)) {
    const Result<crypto::ClusterFile> cluster = crypto::load_cluster(cluster_path(flags.dir));
    if (!cluster) return Error{cluster.error()};
    if (auto fits = check_against(*cluster, flags, words); !fits) return fits;
    tell(fmt::format("using the cluster in {}", flags.dir));
  } else if (auto made = make_cluster(flags, words); !made) {
    return made;
  }
  LocalRunOptions options;
  options.dir = flags.dir;
  options.progress = tell;
  options.restart_nodes = true;
  options.cancelled = [&signals] { return signals.requested(); };
  Result<std::unique_ptr<LocalRun>> run = LocalRun::start(std::move(options));
  if (!run && signals.requested()) return {};
  if (!run) return Error{run.error()};
  tell_what_next((*run)->cluster(), flags.dir);
  Result<void> watched = watch(**run, flags.dir, signals);
  tell("stopping");
  (*run)->stop();
  if (watched) tell("stopped, nothing is left running");
  return watched;
}

}  // namespace

void add_up(CLI::App& app, int& exit_code, const std::vector<std::string>& words) {
  auto flags = std::make_shared<UpFlags>();
  CLI::App* const command = app.add_subcommand("up", "run a whole cluster on this machine around a web service");
  const CLI::Option* const dir = command->add_option("DIR", flags->dir, "cluster directory, made if missing");
  add_cluster_flags(*command, flags->cluster);
  for (const CLI::Option* option : command->get_options({})) {
    if (option != dir && option != command->get_help_ptr()) flags->only_for_new.push_back(option);
  }
  command->footer(
      "zz up [DIR] [-- CMD…]: CMD starts a web service that listens on $PORT and keeps its files in $STATE, for "
      "example: zz up -- python3 -m http.server '$PORT' --directory '$STATE'. Without CMD the built-in key-value "
      "service runs.");
  command->callback([flags, words, &exit_code] {
    const Result<void> done = run_cluster(*flags, words);
    if (done) return;
    std::cerr << "zz up: " << done.error() << '\n';
    exit_code = 1;
  });
}

void add_up(CLI::App& app, int& exit_code) { add_up(app, exit_code, {}); }

}  // namespace zz::apps
