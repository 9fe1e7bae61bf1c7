// Writes cluster.toml, with a comment for every key.

#include <fmt/format.h>

#include <iterator>

#include "crypto/cluster.hpp"
#include "crypto/cluster_fields.hpp"

namespace zz::crypto {
namespace {

// A TOML basic string. Bytes that are not UTF-8 stay as they are, and the reader refuses them.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (code < 32 || code == 127) {
      out += fmt::format("\\u{:04X}", code);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string quoted(const std::vector<std::string>& list) {
  std::string out = "[";
  for (std::size_t i = 0; i < list.size(); ++i) out += (i == 0 ? "" : ", ") + quoted(list[i]);
  return out + "]";
}

class Writer {
 public:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  void blank() { text_ += '\n'; }
  // visit() of cluster_fields.hpp.
  [[nodiscard]] auto numbers() {
    return [this](std::string_view key, auto value, NumberRange, std::string_view comment) {
      line("{:<36}# {}", fmt::format("{} = {}", key, value), comment);
    };
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void write_head(Writer& out, const ClusterFile& cluster) {
  out.line("# Cluster file of zz. Every party reads the same one; an unknown key is an error.");
  out.line(
      "# Secret keys are not in here: they are in keys/, one file for each party, readable by its user "
      "only.");
  if (cluster.local) {
    out.line("#");
    out.line(
        "# LOCAL: every \"host\" below is only a process on this one machine. That shows how zz works and "
        "protects from");
    out.line("# faults of single processes, not from the loss or takeover of the machine.");
  }
  out.blank();
  out.line("[cluster]");
  out.line("id = {}    # random; part of every signed message", quoted(to_hex(cluster.id.bytes)));
  out.line("name = {}", quoted(cluster.name));
  out.line("f = {}    # agreement nodes that may be faulty; needs 3f+1 = {} of them", cluster.f, cluster.n());
  out.line("local = {}", cluster.local);
  out.line("allow_faults = {}    # whether `zz fault` may make replicas misbehave; only for tests",
           cluster.allow_faults);
  out.line("durability = {}    # sync, async or none: whether promises are on disk before they are made",
           quoted(std::string(to_string(cluster.durability))));
}

void write_parties(Writer& out, const ClusterFile& cluster) {
  out.blank();
  out.line("# Agreement nodes. They order requests and compare the replicas' answers. Each on a host of its own.");
  for (const NodeEntry& node : cluster.nodes) {
    out.blank();
    out.line("[[node]]");
    out.line("id = {}", node.id.value);
    out.line("host = {}", node.host.value);
    out.line("address = {}    # listens here; every other party dials it", quoted(to_string(node.address)));
    out.line("key = {}", quoted(to_hex(node.key.bytes)));
  }
  out.blank();
  out.line("# Hosts. Each runs one `zz host`, which keeps the slots below that are placed on it.");
  for (const HostEntry& host : cluster.hosts) {
    out.blank();
    out.line("[[host]]");
    out.line("id = {}", host.id.value);
    out.line("key = {}", quoted(to_hex(host.key.bytes)));
  }
  out.blank();
  out.line("# Clients. Whoever holds one of these keys may send requests.");
  for (const ClientEntry& client : cluster.clients) {
    out.blank();
    out.line("[[client]]");
    out.line("id = {}", client.id.value);
    out.line("name = {}", quoted(client.name));
    out.line("key = {}", quoted(to_hex(client.key.bytes)));
    if (client.operator_role) out.line("operator = true    # may ask for status");
  }
}

void write_service(Writer& out, const ServiceEntry& service) {
  out.blank();
  out.line(
      "# A replicated application: g+1 of its 2g+1 slots execute, the others sleep until one is found "
      "faulty.");
  out.line("[[service]]");
  out.line("id = {}", service.id.value);
  out.line("name = {}", quoted(service.name));
  out.line("g = {}    # slots that may be faulty", service.g);
  out.line("adapter = {}    # \"http\": any web service; \"kv\": the built-in sample", quoted(service.adapter));
  if (service.adapter == "http") {
    out.line("# $PORT and $STATE are replaced in every word, and exported.");
    out.line("command = {}", quoted(service.command));
    out.line("# Directory copied into every fresh slot's $STATE; empty: start with nothing.");
    out.line("initial_state = {}", quoted(service.initial_state));
    out.line("# Where `zz gateway` listens; empty: no gateway.");
    out.line("gateway = {}", service.gateway.port == 0 ? quoted("") : quoted(to_string(service.gateway)));
  }
  out.line("wake = {}    # when replicas disagree: \"all\" sleepers at once, or \"one-by-one\"",
           quoted(to_string(service.wake)));
  each_rejuvenation(service, out.numbers());
  for (const SlotEntry& slot : service.slots) {
    out.blank();
    out.line("[[service.slot]]");
    out.line("id = {}", slot.id.value);
    out.line("host = {}", slot.host.value);
  }
  if (service.adapter == "http") {
    out.blank();
    out.line("[service.http]");
    out.line("# Reply headers that are compared and passed on besides the built-in ones.");
    out.line("reply_headers = {}", quoted(service.http.reply_headers));
    out.line(
        "# Regular expressions (ECMAScript) cut out of textual bodies: what differs between correct "
        "replicas.");
    out.line("drop_body_patterns = {}", quoted(service.http.drop_body_patterns));
    out.line("# When its machine was resumed: \"none\", \"reload\" (runs `reload`) or \"restart\".");
    out.line("on_wake = {}", quoted(to_string(service.http.on_wake)));
    out.line("# As command, and $PID is the service's process.");
    out.line("reload = {}", quoted(service.http.reload));
    out.line("# $STATE is a plain directory that each checkpoint copies: for all slots, if some have no FUSE.");
    out.line("copy_state = {}", service.http.copy_state);
    each_http_number(service.http, out.numbers());
  }
}

}  // namespace

std::string render_cluster(const ClusterFile& cluster) {
  Writer out;
  write_head(out, cluster);
  write_parties(out, cluster);
  for (const ServiceEntry& service : cluster.services) write_service(out, service);
  out.blank();
  out.line("# Bounds of every queue, table and message. All of these may be left out.");
  out.line("[limits]");
  each_limit(cluster.limits, out.numbers());
  out.blank();
  out.line("# Milliseconds, except overdue_factor. All of these may be left out.");
  out.line("[timing]");
  each_timing(cluster.timing, out.numbers());
  return out.take();
}

}  // namespace zz::crypto
