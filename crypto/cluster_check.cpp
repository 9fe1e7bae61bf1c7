// Judges a cluster file as a whole: every rule that more than one value takes part in.

#include "crypto/cluster_check.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <map>
#include <regex>

#include "crypto/cluster_fields.hpp"

namespace zz::crypto {
namespace {

constexpr std::uint64_t kVoteDigestsMax = 1u << 18;

constexpr std::size_t kNameBytesMax = 64;
constexpr std::size_t kCommandWordsMax = 1'024;
constexpr std::size_t kCommandBytesMax = 64u << 10;
constexpr std::size_t kPatternsMax = 64;
constexpr std::size_t kPatternBytesMax = 1'024;
// What a frame holds besides the bytes of the requests in it.
constexpr std::uint64_t kBytesPerRequest = 256;
constexpr std::uint64_t kBytesPerFrame = 16u << 10;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kNameBytesMax && text.front() != '.' && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), is_name_char);
}

// RFC 9110 token.
bool is_header_name(const std::string& text) {
  const auto allowed = [](char c) {
    return is_name_char(c) || std::string_view("!#$%&'*+^`|~").find(c) != std::string_view::npos;
  };
  return !text.empty() && text.size() <= kNameBytesMax && std::all_of(text.begin(), text.end(), allowed);
}

class Checker {
 public:
  Checker(const ClusterFile& cluster, const std::string& path, const ClusterLines& lines)
      : cluster_(cluster), path_(path), lines_(lines) {}

  Result<void> run() {
    check_header();
    check_nodes();
    check_hosts();
    check_clients();
    check_services();
    check_ranges();
    check_limits();
    check_timing();
    if (problem_) return Error{std::move(*problem_)};
    return {};
  }

 private:
  template <class... Args>
  void fail(std::uint32_t line, fmt::format_string<Args...> format, Args&&... args) {
    if (problem_) return;
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    problem_ = line == 0 ? fmt::format("{}: {}", path_, text) : fmt::format("{}:{}: {}", path_, line, text);
  }

  static std::uint32_t at(const std::vector<std::uint32_t>& lines, std::size_t i) {
    return i < lines.size() ? lines[i] : 0;
  }

  void key(std::uint32_t line, const std::string& owner, const PublicKey& key) {
    if (crypto_core_ed25519_is_valid_point(key.bytes.data()) == 0) {
      fail(line, "{}: key is not an Ed25519 public key", owner);
    }
    const auto [it, fresh] = keys_.emplace(key, owner);
    if (!fresh) fail(line, "{} has the same key as {}; every party needs its own", owner, it->second);
  }

  void address(std::uint32_t line, const std::string& owner, const Address& address) {
    const auto [it, fresh] = addresses_.emplace(address, owner);
    if (!fresh) fail(line, "{} has the same address as {}: {}", owner, it->second, to_string(address));
  }

  void check_header() {
    if (!is_name(cluster_.name))
      fail(lines_.cluster, "[cluster] name = \"{}\" must be {}", printable(cluster_.name), kNameRule);
    if (cluster_.f < 1 || cluster_.f > kFaultsMax) {
      fail(lines_.cluster, "[cluster] f = {} is out of range (1 to {})", cluster_.f, kFaultsMax);
    }
  }

  void check_nodes() {
    if (cluster_.nodes.size() != cluster_.n()) {
      fail(lines_.cluster, "f = {} needs {} [[node]] entries (3f+1), the file has {}", cluster_.f, cluster_.n(),
           cluster_.nodes.size());
    }
    std::map<HostId, std::size_t> taken;
    for (std::size_t i = 0; i < cluster_.nodes.size(); ++i) {
      const NodeEntry& node = cluster_.nodes[i];
      const std::uint32_t line = at(lines_.nodes, i);
      if (node.id.value != i) fail(line, "[[node]] id = {} is out of order, expected {}", node.id.value, i);
      if (node.host.value >= cluster_.hosts.size()) {
        fail(line, "node {} is on host {}, which has no [[host]] entry", i, node.host.value);
      }
      const auto [it, fresh] = taken.emplace(node.host, i);
      if (!fresh)
        fail(line, "nodes {} and {} are on one host ({}); each node needs its own", it->second, i, node.host.value);
      if (node.address.port == 0) fail(line, "node {}: address needs a port", i);
      key(line, fmt::format("node {}", i), node.key);
      address(line, fmt::format("node {}", i), node.address);
    }
  }

  void check_hosts() {
    if (cluster_.hosts.size() > kHostsMax) fail(lines_.cluster, "more than {} [[host]] entries", kHostsMax);
    for (std::size_t i = 0; i < cluster_.hosts.size(); ++i) {
      const std::uint32_t line = at(lines_.hosts, i);
      if (cluster_.hosts[i].id.value != i) {
        fail(line, "[[host]] id = {} is out of order, expected {}", cluster_.hosts[i].id.value, i);
      }
      key(line, fmt::format("host {}", i), cluster_.hosts[i].key);
    }
  }

  void check_clients() {
    if (cluster_.clients.size() > kClientsMax) fail(lines_.cluster, "more than {} [[client]] entries", kClientsMax);
    std::map<std::string, std::size_t> names;
    for (std::size_t i = 0; i < cluster_.clients.size(); ++i) {
      const ClientEntry& client = cluster_.clients[i];
      const std::uint32_t line = at(lines_.clients, i);
      if (client.id.value != i) fail(line, "[[client]] id = {} is out of order, expected {}", client.id.value, i);
      if (!is_name(client.name))
        fail(line, "client {}: name = \"{}\" must be {}", i, printable(client.name), kNameRule);
      const auto [it, fresh] = names.emplace(client.name, i);
      if (!fresh) fail(line, "clients {} and {} have one name: {}", it->second, i, client.name);
      key(line, fmt::format("client {}", i), client.key);
    }
  }

  void check_services() {
    if (cluster_.services.empty()) fail(lines_.cluster, "no [[service]] entry");
    if (cluster_.services.size() > kServicesMax) fail(lines_.cluster, "more than {} [[service]] entries", kServicesMax);
    std::map<std::string, std::size_t> names;
    for (std::size_t i = 0; i < cluster_.services.size() && !problem_; ++i) {
      const ServiceEntry& service = cluster_.services[i];
      const std::uint32_t line = at(lines_.services, i);
      if (service.id.value != i) fail(line, "[[service]] id = {} is out of order, expected {}", service.id.value, i);
      if (!is_name(service.name))
        fail(line, "service {}: name = \"{}\" must be {}", i, printable(service.name), kNameRule);
      const auto [it, fresh] = names.emplace(service.name, i);
      if (!fresh) fail(line, "services {} and {} have one name: {}", it->second, i, service.name);
      check_slots(i);
      check_adapter(line, service);
      if (service.gateway.port != 0) {
        address(line, fmt::format("the gateway of service \"{}\"", service.name), service.gateway);
      }
    }
  }

  void check_slots(std::size_t index) {
    const ServiceEntry& service = cluster_.services[index];
    const std::uint32_t line = at(lines_.services, index);
    if (service.g < 1 || service.g > kFaultsMax) {
      fail(line, "[[service]] g = {} is out of range (1 to {})", service.g, kFaultsMax);
    }
    const std::size_t wanted = 2 * std::size_t{service.g} + 1;
    if (service.slots.size() != wanted) {
      fail(line, "service \"{}\": g = {} needs {} slots (2g+1), the file has {}", service.name, service.g, wanted,
           service.slots.size());
    }
    std::map<HostId, std::size_t> taken;
    for (std::size_t i = 0; i < service.slots.size(); ++i) {
      const SlotEntry& slot = service.slots[i];
      const std::uint32_t slot_line = index < lines_.slots.size() ? at(lines_.slots[index], i) : 0;
      if (slot.id.value != i) {
        fail(slot_line, "service \"{}\": slot id = {} is out of order, expected {}", service.name, slot.id.value, i);
      }
      if (slot.host.value >= cluster_.hosts.size()) {
        fail(slot_line, "service \"{}\": slot {} is on host {}, which has no [[host]] entry", service.name, i,
             slot.host.value);
      }
      const auto [it, fresh] = taken.emplace(slot.host, i);
      if (!fresh) {
        fail(slot_line, "service \"{}\": slots {} and {} are on one host ({}); each slot needs its own", service.name,
             it->second, i, slot.host.value);
      }
    }
  }

  void check_adapter(std::uint32_t line, const ServiceEntry& service) {
    if (service.adapter != "kv" && service.adapter != "http") {
      fail(line, "service \"{}\": adapter = \"{}\" is not known (kv, http)", service.name, printable(service.adapter));
    }
    if (service.adapter == "kv") {
      if (!service.command.empty()) fail(line, "service \"{}\": the kv adapter takes no command", service.name);
      if (!service.initial_state.empty())
        fail(line, "service \"{}\": the kv adapter takes no initial_state", service.name);
      if (service.gateway.port != 0)
        fail(line, "service \"{}\": only the http adapter can have a gateway", service.name);
      if (service.http != HttpOptions{})
        fail(line, "service \"{}\": the kv adapter takes no [service.http]", service.name);
      return;
    }
    if (service.command.empty() || service.command.front().empty()) {
      fail(line, "service \"{}\": the http adapter needs a command", service.name);
    }
    check_command(line, service, "command", service.command);
    check_command(line, service, "reload", service.http.reload);
    if (service.http.on_wake == OnWake::kReload && (service.http.reload.empty() || service.http.reload.front().empty()))
      fail(line, "service \"{}\": on_wake = \"reload\" needs a reload command", service.name);
    if (service.http.on_wake != OnWake::kReload && !service.http.reload.empty())
      fail(line, "service \"{}\": a reload command is for on_wake = \"reload\" only", service.name);
    if (service.initial_state.find('\0') != std::string::npos) {
      fail(line, "service \"{}\": initial_state holds a zero byte", service.name);
    }
    check_http(line, service);
  }

  void check_command(std::uint32_t line, const ServiceEntry& service, std::string_view key,
                     const std::vector<std::string>& command) {
    std::size_t bytes = 0;
    for (const std::string& word : command) {
      bytes += word.size() + 1;
      if (word.find('\0') != std::string::npos) fail(line, "service \"{}\": {} holds a zero byte", service.name, key);
    }
    if (bytes > kCommandBytesMax || command.size() > kCommandWordsMax) {
      fail(line, "service \"{}\": {} is longer than {} bytes or {} words", service.name, key, kCommandBytesMax,
           kCommandWordsMax);
    }
  }

  void check_http(std::uint32_t line, const ServiceEntry& service) {
    if (service.http.reply_headers.size() > kPatternsMax || service.http.drop_body_patterns.size() > kPatternsMax) {
      fail(line, "service \"{}\": [service.http] lists are limited to {} entries", service.name, kPatternsMax);
    }
    for (const std::string& header : service.http.reply_headers) {
      if (!is_header_name(header)) {
        fail(line, "service \"{}\": reply_headers: \"{}\" is not a header name", service.name, printable(header));
      }
    }
    for (const std::string& pattern : service.http.drop_body_patterns) {
      if (pattern.size() > kPatternBytesMax) {
        fail(line, "service \"{}\": drop_body_patterns: longer than {} bytes", service.name, kPatternBytesMax);
        continue;
      }
      try {
        const std::regex compiled(pattern, std::regex::ECMAScript);
      } catch (const std::regex_error& error) {
        fail(line, "service \"{}\": drop_body_patterns: \"{}\" is not a regular expression: {}", service.name,
             printable(pattern), error.what());
      }
    }
  }

  // For values that were not read from a text; the reader has said so with the line already.
  void check_ranges() {
    const auto check = [this](std::string_view table, std::uint32_t line) {
      return [this, table, line](std::string_view name, auto value, NumberRange range, std::string_view) {
        if (value < range.min || value > range.max) {
          fail(line, "{} {} = {} is out of range ({} to {})", table, name, value, range.min, range.max);
        }
      };
    };
    each_limit(cluster_.limits, check("[limits]", lines_.limits));
    each_timing(cluster_.timing, check("[timing]", lines_.timing));
    for (std::size_t i = 0; i < cluster_.services.size(); ++i) {
      each_http_number(cluster_.services[i].http, check("[service.http]", at(lines_.services, i)));
      each_rejuvenation(cluster_.services[i], check("[[service]]", at(lines_.services, i)));
    }
  }

  void check_limits() {
    const Limits& l = cluster_.limits;
    const std::uint64_t frame = l.frame_bytes_max;
    if (l.op_bytes_max + kBytesPerRequest + kBytesPerFrame > frame) {
      fail(lines_.limits, "[limits] op_bytes_max = {} does not fit a frame of frame_bytes_max = {}", l.op_bytes_max,
           l.frame_bytes_max);
    }
    if (l.batch_bytes_max + kBytesPerRequest * l.batch_requests_max + kBytesPerFrame > frame) {
      fail(lines_.limits,
           "[limits] batch_bytes_max = {} with batch_requests_max = {} ({} bytes more each) does not fit a "
           "frame of "
           "frame_bytes_max = {}",
           l.batch_bytes_max, l.batch_requests_max, kBytesPerRequest, l.frame_bytes_max);
    }
    if (l.checkpoint_batches > l.window_batches / 2) {
      fail(lines_.limits, "[limits] checkpoint_batches = {} is more than half of window_batches = {}",
           l.checkpoint_batches, l.window_batches);
    }
    // The votes for one window have to fit what executors and nodes keep for a node that comes back.
    if (std::uint64_t{l.window_batches} * l.batch_requests_max > kVoteDigestsMax) {
      fail(lines_.limits, "[limits] window_batches = {} times batch_requests_max = {} is more than {}",
           l.window_batches, l.batch_requests_max, kVoteDigestsMax);
    }
    if (l.send_queue_bytes_max < frame) {
      fail(lines_.limits, "[limits] send_queue_bytes_max = {} is less than frame_bytes_max = {}",
           l.send_queue_bytes_max, l.frame_bytes_max);
    }
    if (std::uint64_t{l.gateway_body_bytes_max} + l.gateway_header_bytes_max + kBytesPerFrame > l.op_bytes_max) {
      fail(lines_.limits,
           "[limits] gateway_body_bytes_max = {} with gateway_header_bytes_max = {} does not fit a request of "
           "op_bytes_max = {}",
           l.gateway_body_bytes_max, l.gateway_header_bytes_max, l.op_bytes_max);
    }
    // Else one client's sessions could push out another's.
    const std::uint64_t sessions = std::uint64_t{cluster_.clients.size()} * l.client_sessions_max;
    if (l.sessions_max < sessions) {
      fail(lines_.limits,
           "[limits] sessions_max = {} is less than {} clients with client_sessions_max = {} each; raise sessions_max "
           "to at least {}, or lower client_sessions_max",
           l.sessions_max, cluster_.clients.size(), l.client_sessions_max, sessions);
    }
    if (l.history_bytes_max < frame) {
      fail(lines_.limits, "[limits] history_bytes_max = {} is less than frame_bytes_max = {}", l.history_bytes_max,
           l.frame_bytes_max);
    }
  }

  void check_timing() {
    const Timing& t = cluster_.timing;
    if (t.view_timeout_ms > t.view_timeout_max_ms) {
      fail(lines_.timing, "[timing] view_timeout_ms = {} is more than view_timeout_max_ms = {}", t.view_timeout_ms,
           t.view_timeout_max_ms);
    }
    if (t.overdue_floor_ms > t.overdue_ceiling_ms) {
      fail(lines_.timing, "[timing] overdue_floor_ms = {} is more than overdue_ceiling_ms = {}", t.overdue_floor_ms,
           t.overdue_ceiling_ms);
    }
  }

  // Errors are one line whatever the value holds.
  static std::string printable(const std::string& text) {
    std::string out = text.substr(0, 2 * kNameBytesMax);
    std::replace_if(
        out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }, '?');
    return out;
  }

  static constexpr std::string_view kNameRule = "1 to 64 of A-Z a-z 0-9 . _ - and not begin with . or -";

  const ClusterFile& cluster_;
  const std::string& path_;
  const ClusterLines& lines_;
  std::map<PublicKey, std::string> keys_;
  std::map<Address, std::string> addresses_;
  std::optional<std::string> problem_;
};

}  // namespace

Result<void> check_cluster(const ClusterFile& cluster, const std::string& path, const ClusterLines& lines) {
  return Checker(cluster, path, lines).run();
}

Result<void> validate(const ClusterFile& cluster, const std::string& path_for_errors) {
  return check_cluster(cluster, path_for_errors, ClusterLines{});
}

}  // namespace zz::crypto
