#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/commands.hpp"
#include "apps/status_client.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"
#include "vmpool/hypervisor.hpp"

namespace zz::apps {
namespace {

struct Options {
  std::string dir;
  std::string service;
  std::uint16_t slot = 0;
  std::string kind;
};

Result<crypto::ServiceEntry> find_service(const crypto::ClusterFile& cluster, const Options& options) {
  if (options.service.empty() && cluster.services.size() == 1) return cluster.services.front();
  std::string names;
  for (const crypto::ServiceEntry& service : cluster.services) {
    if (service.name == options.service) return service;
    names += (names.empty() ? "" : ", ") + service.name;
  }
  if (options.service.empty()) return Error{"which service? --service is one of: " + names};
  return Error{"no service \"" + options.service + "\" in " + options.dir + "/cluster.toml (" + names + ")"};
}

Result<void> run(const Options& options) {
  if (!vmpool::parse_fault(options.kind))
    return Error{"unknown fault \"" + options.kind + "\" (wrong-reply, silent, slow, crash)"};
  if (auto ready = crypto::init(); !ready) return ready;
  const auto cluster = crypto::load_cluster(options.dir + "/cluster.toml");
  if (!cluster) return Error{cluster.error()};
  if (!cluster->allow_faults) {
    return Error{options.dir + ": this cluster does not allow faults; make a test cluster with " +
                 "`zz init --allow-faults` or `zz up --allow-faults`"};
  }
  const auto service = find_service(*cluster, options);
  if (!service) return Error{service.error()};
  const auto slot = std::find_if(service->slots.begin(), service->slots.end(),
                                 [&](const crypto::SlotEntry& s) { return s.id.value == options.slot; });
  if (slot == service->slots.end()) {
    return Error{"service " + service->name + " has no slot " + std::to_string(options.slot) + " (0.." +
                 std::to_string(service->slots.size() - 1) + ")"};
  }
  const nlohmann::json command = {
      {"cmd", "fault"}, {"service", service->id.value}, {"slot", options.slot}, {"kind", options.kind}};
  const auto answer = query_host_socket(host_socket_path(options.dir, slot->host), command);
  if (!answer) return Error{answer.error()};
  if (answer->value("ok", false)) return {};
  return Error{"host " + std::to_string(slot->host.value) + ": " +
               answer->value("error", std::string("no reason given"))};
}

}  // namespace

void add_fault(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("fault", "make one replica of a test cluster misbehave");
  command->add_option("--dir", options->dir, "cluster directory")->required();
  command->add_option("--service", options->service, "name of the service (default: the only one)");
  command->add_option("slot", options->slot, "which slot of the service")->required();
  command->add_option("kind", options->kind, "wrong-reply, silent, slow or crash")->required();
  command->callback([options, &exit_code] {
    try {
      if (auto result = run(*options); !result) {
        std::cerr << "zz fault: " << result.error() << "\n";
        exit_code = 1;
      }
    } catch (const nlohmann::json::exception&) {
      std::cerr << "zz fault: the host daemon's answer makes no sense\n";
      exit_code = 1;
    }
  });
}

}  // namespace zz::apps
