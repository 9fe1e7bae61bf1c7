// zz gateway: the gateway of one HTTP service of a cluster, as a process.

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>

#include "apps/commands.hpp"
#include "apps/gateway.hpp"
#include "client/client.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::apps {

namespace {

struct GatewayFlags {
  std::string dir;
  std::string service;
  std::uint32_t client = 1;
};

// The named service, or the only one that has a gateway.
Result<const crypto::ServiceEntry*> choose_service(const crypto::ClusterFile& cluster, const GatewayFlags& flags) {
  const crypto::ServiceEntry* chosen = nullptr;
  for (const crypto::ServiceEntry& service : cluster.services) {
    const bool usable = service.adapter == "http" && service.gateway.port != 0;
    if (!flags.service.empty() && service.name != flags.service) continue;
    if (!usable && flags.service.empty()) continue;
    if (!usable) {
      return Error{fmt::format("{}/cluster.toml: service \"{}\" has no gateway address", flags.dir, service.name)};
    }
    if (chosen != nullptr) {
      return Error{fmt::format("{}/cluster.toml: several services have a gateway; name one (--service)", flags.dir)};
    }
    chosen = &service;
  }
  if (chosen != nullptr) return chosen;
  if (flags.service.empty()) return Error{fmt::format("{}/cluster.toml: no service has a gateway", flags.dir)};
  return Error{fmt::format("{}/cluster.toml: no service is called \"{}\"", flags.dir, flags.service)};
}

// Enough sessions that every connection can have its request in flight.
client::ClientOptions client_options(const crypto::Limits& limits) {
  const std::uint32_t window = std::max<std::uint32_t>(limits.client_window, 1);
  const std::uint32_t wanted = (limits.gateway_connections_max + window - 1) / window;
  client::ClientOptions options;
  options.sessions = std::clamp<std::uint32_t>(wanted, 1, std::max<std::uint32_t>(limits.client_sessions_max, 1));
  options.timeout = Micros{std::int64_t{kAnswerTimeoutMs} * 1'000};
  return options;
}

Result<void> run_gateway(const GatewayFlags& flags) {
  if (auto ready = crypto::init(); !ready) return ready;
  const auto cluster = crypto::load_cluster(flags.dir + "/cluster.toml");
  if (!cluster) return Error{cluster.error()};
  const auto service = choose_service(*cluster, flags);
  if (!service) return Error{service.error()};
  const auto key = crypto::load_secret_key(fmt::format("{}/keys/client-{}.key", flags.dir, flags.client));
  if (!key) return Error{key.error()};

  boost::asio::io_context loop(1);
  auto client = client::Client::open(loop, *cluster, *key, client_options(cluster->limits));
  if (!client) return Error{client.error()};
  Gateway gateway(loop, *cluster, **service,
                  [&core = **client, id = (*service)->id](SharedBytes op, client::Client::Done done) {
                    return core.submit(id, std::move(op), std::move(done));
                  });
  if (auto listening = gateway.listen(); !listening) return listening;
  boost::asio::signal_set signals(loop, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code error, int) {
    if (!error) loop.stop();
  });
  spdlog::info("ready: gateway of service \"{}\" on http://{}:{}", (*service)->name, (*service)->gateway.host,
               gateway.port());
  loop.run();
  gateway.stop();
  const GatewayStats& stats = gateway.stats();
  spdlog::info("stopped: {} connections, {} requests, {} replies, {} refused, {} unanswered", stats.connections,
               stats.requests, stats.replies, stats.refused, stats.unanswered);
  return {};
}

}  // namespace

void add_gateway(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<GatewayFlags>();
  CLI::App* command = app.add_subcommand("gateway", "serves plain HTTP/1.1 for one service of a cluster");
  command->add_option("--dir", flags->dir, "cluster directory")->required();
  command->add_option("--service", flags->service, "name of the service (default: the only one with a gateway)");
  command->add_option("--client", flags->client, "client identity to use")->capture_default_str();
  command->callback([flags, &exit_code] {
    const auto done = run_gateway(*flags);
    exit_code = done ? 0 : 1;
    if (!done) std::cerr << "zz gateway: " << done.error() << '\n';
  });
}

}  // namespace zz::apps
