#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>

#include "agreement/node.hpp"
#include "apps/commands.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::apps {

namespace {

Result<void> run(const std::string& dir, std::uint16_t id) {
  if (auto ready = crypto::init(); !ready) return ready;
  auto cluster = crypto::load_cluster(dir + "/cluster.toml");
  if (!cluster) return Error{cluster.error()};
  if (id >= cluster->nodes.size()) {
    return Error{dir + "/cluster.toml has no node " + std::to_string(id) + " (0.." +
                 std::to_string(cluster->nodes.size() - 1) + ")"};
  }
  auto key = crypto::load_secret_key(dir + "/keys/node-" + std::to_string(id) + ".key");
  if (!key) return Error{key.error()};
  if (key->public_key() != cluster->nodes[id].key) {
    return Error{dir + "/keys/node-" + std::to_string(id) + ".key is not the key that cluster.toml names for node " +
                 std::to_string(id)};
  }
  boost::asio::io_context loop(1);
  boost::asio::signal_set signals(loop, SIGINT, SIGTERM);
  signals.async_wait([&loop](const boost::system::error_code&, int) { loop.stop(); });
  agreement::Node node(loop, *cluster, NodeId{id}, *key);
  if (auto started = node.start(); !started) return started;
  spdlog::info("ready");
  loop.run();
  return {};
}

}  // namespace

void add_agreement(CLI::App& app, int& exit_code) {
  struct Options {
    std::string dir;
    std::uint16_t id = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("agreement", "run one agreement node");
  command->add_option("--dir", options->dir, "cluster directory made by zz init")->required();
  command->add_option("--id", options->id, "which node of cluster.toml this is")->required();
  command->callback([options, &exit_code] {
    if (auto result = run(options->dir, options->id); !result) {
      std::cerr << "zz agreement: " << result.error() << "\n";
      exit_code = 1;
    }
  });
}

}  // namespace zz::apps
