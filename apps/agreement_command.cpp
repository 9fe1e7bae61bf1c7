#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "agreement/node.hpp"
#include "apps/commands.hpp"
#include "apps/local_cluster.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::apps {

namespace {

Result<void> run(const std::string& dir, std::uint16_t id, const std::string& data) {
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
  std::optional<std::string> failure;
  agreement::NodeOptions options;
  options.data = data.empty() ? node_data_path(dir, NodeId{id}) : data;
  options.on_failure = [&](const std::string& why) {
    failure = why;
    loop.stop();
  };
  agreement::Node node(loop, *cluster, NodeId{id}, *key, std::move(options));
  if (auto started = node.start(); !started) return started;
  spdlog::info("ready");
  loop.run();
  if (failure) return Error{*failure};
  return {};
}

}  // namespace

void add_agreement(CLI::App& app, int& exit_code) {
  struct Options {
    std::string dir;
    std::uint16_t id = 0;
    std::string data;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("agreement", "run one agreement node");
  command->add_option("--dir", options->dir, "cluster directory made by zz init")->required();
  command->add_option("--id", options->id, "which node of cluster.toml this is")->required();
  command->add_option("--data", options->data, "directory of its durable log (default: DIR/data/node-<id>)");
  command->callback([options, &exit_code] {
    if (auto result = run(options->dir, options->id, options->data); !result) {
      std::cerr << "zz agreement: " << result.error() << "\n";
      exit_code = 1;
    }
  });
}

}  // namespace zz::apps
