#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "apps/commands.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"
#include "vmpool/host_daemon.hpp"
#include "vmpool/host_files.hpp"
#include "vmpool/process/process_backend.hpp"

namespace zz::apps {
namespace {

// Guests that are not gone by then are left to the warden.
constexpr std::chrono::seconds kStopTimeout{15};

struct Options {
  std::string dir;
  std::uint16_t id = 0;
  std::string freezer;
};

Result<std::optional<vmpool::FreezerKind>> parse_freezer(const std::string& name) {
  using vmpool::FreezerKind;
  if (name.empty()) return std::optional<FreezerKind>();
  for (const FreezerKind kind : {FreezerKind::kCgroupV2, FreezerKind::kCgroupV1, FreezerKind::kSignals}) {
    if (vmpool::to_string(kind) == name) return std::optional(kind);
  }
  return Error{"unknown freezer \"" + name + "\" (cgroup-v2, cgroup-v1, signals)"};
}

Result<crypto::SecretKey> load_host_key(const crypto::ClusterFile& cluster, const Options& options) {
  const std::string name = "host-" + std::to_string(options.id);
  auto key = crypto::load_secret_key(options.dir + "/keys/" + name + ".key");
  if (key && key->public_key() != cluster.hosts[options.id].key) {
    return Error{options.dir + "/keys/" + name + ".key is not the key that cluster.toml names for host " +
                 std::to_string(options.id)};
  }
  return key;
}

// Serves until a signal or a fatal error.
Result<void> serve(boost::asio::io_context& loop, vmpool::HostDaemon& daemon,
                   const std::shared_ptr<std::string>& fatal) {
  boost::asio::signal_set signals(loop, SIGINT, SIGTERM);
  boost::asio::steady_timer limit(loop);
  daemon.set_on_fatal([&loop, fatal](const std::string& why) {
    *fatal = why;
    loop.stop();
  });
  if (auto started = daemon.start(); !started) return started;
  signals.async_wait([&](const boost::system::error_code& error, int) {
    if (error) return;
    spdlog::info("stopping");
    daemon.stop([&loop] { loop.stop(); });
    limit.expires_after(kStopTimeout);
    const auto give_up = [&loop, fatal] {
      *fatal = "not every guest could be destroyed in time";
      loop.stop();
    };
    limit.async_wait([give_up](const boost::system::error_code& late) {
      if (!late) give_up();
    });
    // Whoever asks twice does not want to wait.
    signals.async_wait([give_up](const boost::system::error_code& twice, int) {
      if (!twice) give_up();
    });
  });
  spdlog::info("ready");
  loop.run();
  if (!fatal->empty()) return Error{*fatal};
  return {};
}

Result<void> run(const Options& options) {
  if (auto ready = crypto::init(); !ready) return ready;
  const auto freezer = parse_freezer(options.freezer);
  if (!freezer) return Error{freezer.error()};
  const auto cluster = crypto::load_cluster(options.dir + "/cluster.toml");
  if (!cluster) return Error{cluster.error()};
  if (options.id >= cluster->hosts.size()) {
    return Error{options.dir + "/cluster.toml has no host " + std::to_string(options.id) + " (0.." +
                 std::to_string(cluster->hosts.size() - 1) + ")"};
  }
  const HostId host{options.id};
  const auto lock = vmpool::HostLock::take(options.dir, host);
  if (!lock) return Error{lock.error()};
  std::error_code unreadable;
  const auto binary = std::filesystem::read_symlink("/proc/self/exe", unreadable);
  if (unreadable) return Error{"/proc/self/exe: " + unreadable.message()};

  boost::asio::io_context loop(1);
  const auto fatal = std::make_shared<std::string>();
  auto process = vmpool::process_options(*cluster, host, options.dir, binary.string());
  process.freezer = *freezer;
  process.keep_fd = lock->fd();
  process.on_fatal = [&loop, fatal](const std::string& why) {
    *fatal = why;
    loop.stop();
  };
  // Before the key is read: the warden, a copy of this process, must not hold it.
  auto backend = vmpool::ProcessBackend::make(loop, std::move(process));
  if (!backend) return Error{backend.error()};
  const auto key = load_host_key(*cluster, options);
  if (!key) return Error{key.error()};
  spdlog::info("guests sleep by {}", vmpool::to_string((*backend)->freezer()));
  vmpool::HostDaemon daemon(loop, *cluster, {host, options.dir}, *key, **backend);
  return serve(loop, daemon, fatal);
}

}  // namespace

void add_host(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("host", "run the daemon of one host: its replicas sleep, wake and are replaced");
  command->add_option("--dir", options->dir, "cluster directory made by zz init")->required();
  command->add_option("--id", options->id, "which host of cluster.toml this is")->required();
  command->add_option("--freezer", options->freezer,
                      "how replicas sleep: cgroup-v2, cgroup-v1 or signals (default: the best that works)");
  command->callback([options, &exit_code] {
    if (auto result = run(*options); !result) {
      std::cerr << "zz host: " << result.error() << "\n";
      exit_code = 1;
    }
  });
}

}  // namespace zz::apps
