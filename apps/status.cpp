#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "apps/commands.hpp"
#include "apps/demo_status.hpp"
#include "apps/local_cluster.hpp"
#include "apps/status_client.hpp"

namespace zz::apps {
namespace {

using nlohmann::json;

struct StatusFlags {
  std::string dir;
  bool as_json = false;
};

struct HostAnswer {
  HostId host;
  json answer;  // null when it did not answer
  std::string error;
};

// What nodes and hosts say is theirs: members may be missing or of any type.
std::string shown(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end()) return "?";
  if (found->is_string()) return found->get<std::string>();
  return found->is_primitive() ? found->dump() : "?";
}

const json& list(const json& object, const char* key) {
  static const json kNone = json::array();
  if (!object.is_object()) return kNone;
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? *found : kNone;
}

// The member of `services` that speaks of this one, or null.
json service_in(const json& answer, const std::string& name) {
  for (const json& service : list(answer, "services")) {
    if (shown(service, "service") == name) return service;
  }
  return json(nullptr);
}

std::vector<HostAnswer> ask_hosts(const std::string& dir, const crypto::ClusterFile& cluster) {
  std::vector<HostAnswer> out;
  for (const crypto::HostEntry& host : cluster.hosts) {
    const auto here = [&](const crypto::SlotEntry& slot) { return slot.host == host.id; };
    const bool has_slots = std::any_of(cluster.services.begin(), cluster.services.end(), [&](const auto& service) {
      return std::any_of(service.slots.begin(), service.slots.end(), here);
    });
    if (!has_slots) continue;
    Result<json> answer = query_host_socket(host_socket_path(dir, host.id), {{"cmd", "status"}}, kStatusTimeoutMs);
    if (answer) {
      out.push_back({host.id, std::move(answer).value(), ""});
    } else {
      out.push_back({host.id, nullptr, answer.error()});
    }
  }
  return out;
}

void print_node_line(const json& service, std::uint32_t node, const json& answer, std::string& out) {
  if (answer.is_null()) {
    out += fmt::format("  {:<6}{}\n", node, "does not answer");
    return;
  }
  std::string slots;
  for (const json& slot : list(service, "slots")) {
    const bool active = shown(slot, "active") == "true";
    const bool connected = shown(slot, "connected") == "true";
    const std::string quarantine = shown(slot, "quarantine_ms");
    const bool kept_out = quarantine != "0" && quarantine != "?";
    slots += fmt::format(" {}:{}{}", shown(slot, "slot"),
                         active     ? "active"
                         : kept_out ? "quarantine"
                                    : "asleep",
                         active == connected ? "" : (connected ? "+connected" : "-lost"));
  }
  const std::string view = shown(service, "view") + (shown(service, "changing") == "true" ? "?" : "");
  out += fmt::format("  {:<6}{:>5}{:>9}{:>9}{:>9}{:>9}{:>7}{:>13}{:>7}{:>11} {}{}\n", node, view,
                     shown(service, "primary"), shown(service, "ordered"), shown(service, "closed"),
                     shown(service, "stable"), shown(service, "epoch"), shown(service, "divergences"),
                     shown(service, "wakes"), shown(service, "evictions"), slots,
                     shown(service, "learner") == "true" ? "  LEARNER: lost its log, does not vote yet" : "");
}

void print_slots(const crypto::ServiceEntry& service, const ClusterStatus& status, const std::vector<HostAnswer>& hosts,
                 std::string& out) {
  for (const crypto::SlotEntry& slot : service.slots) {
    std::string state = "host did not answer";
    for (const HostAnswer& host : hosts) {
      if (host.host != slot.host || host.answer.is_null()) continue;
      state = "unknown";
      for (const HostSlot& told : read_host(host.answer, service.id.value)) {
        if (told.slot == slot.id.value) state = fmt::format("{} (incarnation {})", told.state, told.incarnation);
      }
    }
    const SlotStatus* const agreed = status.find(slot.id.value);
    out += fmt::format("  slot {} on host {}: {}; agreed: {}\n", slot.id.value, slot.host.value, state,
                       agreed == nullptr ? "nothing"
                                         : fmt::format("{}, incarnation {}{}", agreed->active ? "active" : "asleep",
                                                       agreed->incarnation, agreed->connected ? ", connected" : ""));
  }
}

void print_refusals(const std::vector<json>& answers, std::string& out) {
  for (const json& answer : answers) {
    const auto refusals = answer.find("refusals");
    if (refusals == answer.end() || !refusals->is_object() || refusals->empty()) continue;
    for (const auto& [peer, reasons] : refusals->items()) {
      if (!reasons.is_object()) continue;
      std::string text;
      for (const auto& [reason, number] : reasons.items()) {
        text += fmt::format(" {} {}", reason, number.is_primitive() ? number.dump() : "?");
      }
      out += fmt::format("  node {} refused of {}:{}\n", shown(answer, "node"), peer, text);
    }
  }
}

std::string table(const std::string& dir, const crypto::ClusterFile& cluster, const std::vector<json>& answers,
                  const std::vector<HostAnswer>& hosts) {
  std::string out;
  out += fmt::format("cluster \"{}\" in {}: {} of {} agreement nodes answer (f = {}){}\n", cluster.name, dir,
                     answers.size(), cluster.nodes.size(), cluster.f,
                     cluster.local ? "; LOCAL: hosts are processes of one machine" : "");
  for (const crypto::ServiceEntry& service : cluster.services) {
    const ClusterStatus status = combine(answers, service.name, cluster.f);
    out += fmt::format("\nservice \"{}\" ({}, g = {}){}\n", service.name, service.adapter, service.g,
                       service.gateway.port == 0 ? "" : " at http://" + crypto::to_string(service.gateway) + "/");
    if (status.not_deterministic > 0) {
      out += fmt::format(
          "  ALARM: not deterministic, or too many replicas lie ({} times; zz explain says which replies differed)\n",
          status.not_deterministic);
    }
    out += "  node   view  primary  ordered   closed   stable  epoch  divergences  wakes  evictions  slots\n";
    for (const crypto::NodeEntry& node : cluster.nodes) {
      const auto same = [&](const json& answer) { return shown(answer, "node") == std::to_string(node.id.value); };
      const auto found = std::find_if(answers.begin(), answers.end(), same);
      const json answer = found == answers.end() ? json(nullptr) : *found;
      print_node_line(service_in(answer, service.name), node.id.value, answer, out);
    }
    print_slots(service, status, hosts, out);
  }
  out += '\n';
  print_refusals(answers, out);
  for (const HostAnswer& host : hosts) {
    if (host.answer.is_null()) out += fmt::format("  host {}: {}\n", host.host.value, host.error);
  }
  // Whatever was told, a terminal gets only text.
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return (c < 32 && c != '\n') || c == 127; }, '?');
  return out;
}

Result<void> run(const StatusFlags& flags) {
  const Result<crypto::ClusterFile> cluster = crypto::load_cluster(cluster_path(flags.dir));
  if (!cluster) return Error{cluster.error()};
  const Result<std::vector<json>> answers = query_status(flags.dir);
  if (!answers) return Error{answers.error()};
  const std::vector<HostAnswer> hosts = ask_hosts(flags.dir, *cluster);
  if (!flags.as_json) {
    std::cout << table(flags.dir, *cluster, *answers, hosts);
    return {};
  }
  json host_list = json::array();
  for (const HostAnswer& host : hosts) {
    host_list.push_back(host.answer.is_null() ? json{{"host", host.host.value}, {"error", host.error}} : host.answer);
  }
  std::cout << json{{"cluster", cluster->name}, {"f", cluster->f}, {"nodes", *answers}, {"hosts", host_list}}.dump(
                   -1, ' ', false, json::error_handler_t::replace)
            << '\n';
  return {};
}

}  // namespace

void add_status(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* const command = app.add_subcommand("status", "what nodes and hosts say about the cluster");
  command->add_option("--dir", flags->dir, "cluster directory")->required();
  command->add_flag("--json", flags->as_json, "print one JSON object");
  command->callback([flags, &exit_code] {
    const Result<void> done = run(*flags);
    if (done) return;
    std::cerr << "zz status: " << done.error() << '\n';
    exit_code = 1;
  });
}

}  // namespace zz::apps
