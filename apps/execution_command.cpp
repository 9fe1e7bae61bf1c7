#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "apps/commands.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"
#include "execution/agent.hpp"

namespace zz::apps {

namespace {

struct Options {
  std::string dir;
  std::string service;
  std::uint16_t slot = 0;
  std::uint64_t incarnation = 0;
  int control_fd = -1;
  std::string work_dir;
  std::string store_dir;
};

// By name or by number.
const crypto::ServiceEntry* find_service(const crypto::ClusterFile& cluster, const std::string& wanted) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), number);
  const bool is_number = error == std::errc() && end == wanted.data() + wanted.size();
  for (const crypto::ServiceEntry& service : cluster.services) {
    if (service.name == wanted || (is_number && service.id.value == number)) return &service;
  }
  return nullptr;
}

Result<execution::AgentOptions> check(const Options& options, const crypto::ClusterFile& cluster) {
  const crypto::ServiceEntry* service = find_service(cluster, options.service);
  if (service == nullptr) return Error{options.dir + "/cluster.toml has no service \"" + options.service + "\""};
  if (options.slot >= service->slots.size())
    return Error{"service \"" + service->name + "\" has no slot " + std::to_string(options.slot)};
  if (options.incarnation == 0) return Error{"--incarnation: incarnations count from 1"};
  std::error_code error;
  const std::string work_dir = std::filesystem::canonical(options.work_dir, error).string();
  if (error) return Error{"--work " + options.work_dir + ": " + error.message()};
  const std::string store_dir = std::filesystem::absolute(options.store_dir, error).string();
  if (error) return Error{"--store " + options.store_dir + ": " + error.message()};
  return execution::AgentOptions{
      service->id, SlotId{options.slot}, Incarnation{options.incarnation}, options.control_fd, work_dir, store_dir};
}

Result<void> run(const Options& options) {
  if (auto ready = crypto::init(); !ready) return ready;
  auto cluster = crypto::load_cluster(options.dir + "/cluster.toml");
  if (!cluster) return Error{cluster.error()};
  auto checked = check(options, *cluster);
  if (!checked) return Error{checked.error()};
  boost::asio::io_context loop(1);
  std::string failure;
  execution::Agent agent(loop, *cluster, std::move(*checked), [&](const std::string& why) {
    failure = why;
    loop.stop();
  });
  boost::asio::signal_set signals(loop, SIGINT, SIGTERM);
  signals.async_wait([&loop](const boost::system::error_code&, int) { loop.stop(); });
  agent.start();
  loop.run();
  if (!failure.empty()) return Error{failure};
  return {};
}

}  // namespace

void add_execution(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("execution", "run one execution slot (started by the host daemon)");
  command->add_option("--dir", options->dir, "cluster directory made by zz init")->required();
  command->add_option("--service", options->service, "name or number of the service in cluster.toml")->required();
  command->add_option("--slot", options->slot, "which slot of the service this is")->required();
  command->add_option("--incarnation", options->incarnation, "which life of the slot this is")->required();
  command->add_option("--control-fd", options->control_fd, "inherited stream socket to the host daemon")->required();
  command->add_option("--work", options->work_dir, "empty directory of this incarnation")->required();
  command->add_option("--store", options->store_dir, "directory of the slot, for the state that lives of it leave")
      ->required();
  command->callback([options, &exit_code] {
    if (auto result = run(*options); !result) {
      std::cerr << "zz execution: " << result.error() << "\n";
      exit_code = 1;
    }
  });
}

}  // namespace zz::apps
