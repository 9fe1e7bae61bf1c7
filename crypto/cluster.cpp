// Reads cluster.toml. What the values mean together is judged in cluster_check.cpp.

#include "crypto/cluster.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>

#include "crypto/cluster_check.hpp"
#include "crypto/cluster_fields.hpp"

namespace zz::crypto {
namespace {

std::uint32_t line_of(const toml::node& node) { return static_cast<std::uint32_t>(node.source().begin.line); }

// The first thing wrong with the text; later ones are not looked at.
struct Problem {
  std::string path;
  std::optional<std::string> text;

  void set(std::uint32_t line, std::string_view what) {
    if (!text) text = line == 0 ? fmt::format("{}: {}", path, what) : fmt::format("{}:{}: {}", path, line, what);
  }
};

// Takes keys out of one table and remembers which; finish() refuses the others.
class Reader {
 public:
  // `name` is how the file writes the table: "[limits]", "[[node]]".
  Reader(const toml::table& table, std::string name, Problem& problem)
      : table_(table), name_(std::move(name)), problem_(problem) {}

  [[nodiscard]] const toml::node* take(std::string_view key, bool required) {
    taken_.insert(std::string(key));
    const toml::node* node = table_.get(key);
    if (node == nullptr && required) problem_.set(line_of(table_), fmt::format("{} lacks \"{}\"", name_, key));
    return node;
  }

  template <class T>
  void number(std::string_view key, T& out, NumberRange range, bool required) {
    const toml::node* node = take(key, required);
    if (node == nullptr) return;
    const toml::value<std::int64_t>* value = node->as_integer();
    if (value == nullptr) return wrong_type(key, *node, "a whole number");
    const std::int64_t got = value->get();
    if (got < 0 || static_cast<std::uint64_t>(got) < range.min || static_cast<std::uint64_t>(got) > range.max) {
      return problem_.set(line_of(*node),
                          fmt::format("{} {} = {} is out of range ({} to {})", name_, key, got, range.min, range.max));
    }
    out = static_cast<T>(got);
  }

  template <class Tag, class Rep>
  void id(std::string_view key, Strong<Tag, Rep>& out) {
    number(key, out.value, NumberRange{0, 65'535}, true);
  }

  void flag(std::string_view key, bool& out) {
    const toml::node* node = take(key, false);
    if (node == nullptr) return;
    if (!node->is_boolean()) return wrong_type(key, *node, "true or false");
    out = node->as_boolean()->get();
  }

  void durability(std::string_view key, Durability& out) {
    std::string name{to_string(out)};
    string(key, name, false);
    if (const auto parsed = parse_durability(name)) {
      out = *parsed;
    } else {
      problem_.set(line_of(*table_.get(key)), fmt::format("{} {} must be sync, async or none", name_, key));
    }
  }

  void on_wake(std::string_view key, OnWake& out) {
    std::string name{to_string(out)};
    string(key, name, false);
    if (const auto parsed = parse_on_wake(name)) {
      out = *parsed;
    } else {
      problem_.set(line_of(*table_.get(key)), fmt::format("{} {} must be none, reload or restart", name_, key));
    }
  }

  void wake_policy(std::string_view key, WakePolicy& out) {
    std::string name{to_string(out)};
    string(key, name, false);
    if (const auto parsed = parse_wake_policy(name)) {
      out = *parsed;
    } else {
      problem_.set(line_of(*table_.get(key)), fmt::format("{} {} must be all or one-by-one", name_, key));
    }
  }

  void string(std::string_view key, std::string& out, bool required) {
    const toml::node* node = take(key, required);
    if (node == nullptr) return;
    if (!node->is_string()) return wrong_type(key, *node, "a string");
    out = node->as_string()->get();
  }

  void strings(std::string_view key, std::vector<std::string>& out) {
    const toml::node* node = take(key, false);
    if (node == nullptr) return;
    const toml::array* array = node->as_array();
    if (array == nullptr) return wrong_type(key, *node, "a list of strings");
    for (const toml::node& item : *array) {
      if (!item.is_string()) return wrong_type(key, item, "a list of strings");
      out.push_back(item.as_string()->get());
    }
  }

  void hex(std::string_view key, std::span<std::uint8_t> out) {
    std::string text;
    string(key, text, true);
    const toml::node* node = table_.get(key);
    if (node != nullptr && !from_hex(text, out)) {
      problem_.set(line_of(*node), fmt::format("{} {} must be {} hexadecimal digits", name_, key, 2 * out.size()));
    }
  }

  void address(std::string_view key, Address& out, bool required) {
    std::string text;
    string(key, text, required);
    if (text.empty() && !required) return;
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if (const auto parsed = parse_address(text)) {
      out = *parsed;
    } else {
      problem_.set(line_of(*node), fmt::format("{} {} = \"{}\" is not ADDRESS:PORT", name_, key, text));
    }
  }

  // The sub-table, or null.
  [[nodiscard]] const toml::table* table(std::string_view key, bool required) {
    const toml::node* node = take(key, required);
    if (node != nullptr && !node->is_table()) wrong_type(key, *node, "a table");
    return node == nullptr ? nullptr : node->as_table();
  }

  // Every [[key]], in order.
  [[nodiscard]] std::vector<const toml::table*> tables(std::string_view key) {
    std::vector<const toml::table*> out;
    const toml::node* node = take(key, true);
    if (node == nullptr) return out;
    const toml::array* array = node->as_array();
    if (array == nullptr) {
      wrong_type(key, *node, "a list of tables");
      return out;
    }
    for (const toml::node& item : *array) {
      if (!item.is_table()) {
        wrong_type(key, item, "a list of tables");
        return out;
      }
      out.push_back(item.as_table());
    }
    return out;
  }

  void finish() {
    for (const auto& [key, node] : table_) {
      if (taken_.contains(key.str())) continue;
      const auto line = static_cast<std::uint32_t>(key.source().begin.line);
      problem_.set(line, fmt::format("unknown key \"{}\" in {}", key.str(), name_));
    }
  }

 private:
  void wrong_type(std::string_view key, const toml::node& node, std::string_view wanted) {
    problem_.set(line_of(node), fmt::format("{} {} must be {}", name_, key, wanted));
  }

  const toml::table& table_;
  std::string name_;
  Problem& problem_;
  std::set<std::string, std::less<>> taken_;
};

void read_cluster(const toml::table& table, ClusterFile& out, Problem& problem) {
  Reader reader(table, "[cluster]", problem);
  reader.hex("id", out.id.bytes);
  reader.string("name", out.name, true);
  reader.number("f", out.f, NumberRange{1, kFaultsMax}, true);
  reader.flag("local", out.local);
  reader.flag("allow_faults", out.allow_faults);
  reader.durability("durability", out.durability);
  reader.finish();
}

NodeEntry read_node(const toml::table& table, Problem& problem) {
  NodeEntry node{};
  Reader reader(table, "[[node]]", problem);
  reader.id("id", node.id);
  reader.id("host", node.host);
  reader.address("address", node.address, true);
  reader.hex("key", node.key.bytes);
  reader.finish();
  return node;
}

HostEntry read_host(const toml::table& table, Problem& problem) {
  HostEntry host{};
  Reader reader(table, "[[host]]", problem);
  reader.id("id", host.id);
  reader.hex("key", host.key.bytes);
  reader.finish();
  return host;
}

ClientEntry read_client(const toml::table& table, Problem& problem) {
  ClientEntry client{};
  Reader reader(table, "[[client]]", problem);
  reader.id("id", client.id);
  reader.string("name", client.name, true);
  reader.hex("key", client.key.bytes);
  reader.flag("operator", client.operator_role);
  reader.finish();
  return client;
}

ServiceEntry read_service(const toml::table& table, std::vector<std::uint32_t>& slot_lines, Problem& problem) {
  ServiceEntry service{};
  Reader reader(table, "[[service]]", problem);
  reader.id("id", service.id);
  reader.string("name", service.name, true);
  reader.number("g", service.g, NumberRange{1, kFaultsMax}, true);
  reader.string("adapter", service.adapter, true);
  reader.strings("command", service.command);
  reader.string("initial_state", service.initial_state, false);
  reader.address("gateway", service.gateway, false);
  reader.wake_policy("wake", service.wake);
  each_rejuvenation(service, [&](std::string_view key, auto& member, NumberRange range, std::string_view) {
    reader.number(key, member, range, false);
  });
  for (const toml::table* entry : reader.tables("slot")) {
    SlotEntry slot{};
    Reader slot_reader(*entry, "[[service.slot]]", problem);
    slot_reader.id("id", slot.id);
    slot_reader.id("host", slot.host);
    slot_reader.finish();
    service.slots.push_back(slot);
    slot_lines.push_back(line_of(*entry));
  }
  if (const toml::table* http = reader.table("http", false)) {
    Reader http_reader(*http, "[service.http]", problem);
    http_reader.strings("reply_headers", service.http.reply_headers);
    http_reader.strings("drop_body_patterns", service.http.drop_body_patterns);
    http_reader.on_wake("on_wake", service.http.on_wake);
    http_reader.strings("reload", service.http.reload);
    http_reader.flag("copy_state", service.http.copy_state);
    each_http_number(service.http, [&](std::string_view key, auto& member, NumberRange range, std::string_view) {
      http_reader.number(key, member, range, false);
    });
    http_reader.finish();
  }
  reader.finish();
  return service;
}

template <class Settings, class Each>
std::uint32_t read_settings(const toml::table* table, std::string name, Settings& out, Problem& problem, Each&& each) {
  if (table == nullptr) return 0;
  Reader reader(*table, std::move(name), problem);
  each(out, [&](std::string_view key, auto& member, NumberRange range, std::string_view) {
    reader.number(key, member, range, false);
  });
  reader.finish();
  return line_of(*table);
}

void read_all(const toml::table& root, ClusterFile& out, ClusterLines& lines, Problem& problem) {
  Reader reader(root, "the file", problem);
  if (const toml::table* table = reader.table("cluster", true)) {
    lines.cluster = line_of(*table);
    read_cluster(*table, out, problem);
  }
  for (const toml::table* table : reader.tables("node")) {
    lines.nodes.push_back(line_of(*table));
    out.nodes.push_back(read_node(*table, problem));
  }
  for (const toml::table* table : reader.tables("host")) {
    lines.hosts.push_back(line_of(*table));
    out.hosts.push_back(read_host(*table, problem));
  }
  for (const toml::table* table : reader.tables("client")) {
    lines.clients.push_back(line_of(*table));
    out.clients.push_back(read_client(*table, problem));
  }
  for (const toml::table* table : reader.tables("service")) {
    lines.services.push_back(line_of(*table));
    out.services.push_back(read_service(*table, lines.slots.emplace_back(), problem));
  }
  lines.limits = read_settings(reader.table("limits", false), "[limits]", out.limits, problem,
                               [](auto& l, auto&& visit) { each_limit(l, visit); });
  lines.timing = read_settings(reader.table("timing", false), "[timing]", out.timing, problem,
                               [](auto& t, auto&& visit) { each_timing(t, visit); });
  reader.finish();
}

}  // namespace

std::optional<Address> parse_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;  // an IPv6 address needs its brackets
  }
  if (host.empty() || host.size() > 255 || host.find_first_of(" \t\r\n[]/@") != std::string_view::npos) {
    return std::nullopt;
  }
  Address out{std::string(host), 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (error != std::errc{} || end != port.data() + port.size() || port.empty()) return std::nullopt;
  return out;
}

std::string_view to_string(Durability durability) {
  switch (durability) {
    case Durability::kSync:
      return "sync";
    case Durability::kAsync:
      return "async";
    case Durability::kNone:
      return "none";
  }
  return "unknown";
}

std::optional<Durability> parse_durability(std::string_view name) {
  for (const Durability durability : {Durability::kSync, Durability::kAsync, Durability::kNone}) {
    if (name == to_string(durability)) return durability;
  }
  return std::nullopt;
}

std::string_view to_string(WakePolicy wake) { return wake == WakePolicy::kAll ? "all" : "one-by-one"; }

std::optional<WakePolicy> parse_wake_policy(std::string_view name) {
  for (const WakePolicy wake : {WakePolicy::kAll, WakePolicy::kOneByOne}) {
    if (name == to_string(wake)) return wake;
  }
  return std::nullopt;
}

std::string_view to_string(OnWake on_wake) {
  switch (on_wake) {
    case OnWake::kNone:
      return "none";
    case OnWake::kReload:
      return "reload";
    case OnWake::kRestart:
      return "restart";
  }
  return "?";
}

std::optional<OnWake> parse_on_wake(std::string_view name) {
  for (const OnWake on_wake : {OnWake::kNone, OnWake::kReload, OnWake::kRestart}) {
    if (name == to_string(on_wake)) return on_wake;
  }
  return std::nullopt;
}

std::string to_string(const Address& address) {
  const bool bare = address.host.find(':') == std::string::npos;
  return bare ? fmt::format("{}:{}", address.host, address.port) : fmt::format("[{}]:{}", address.host, address.port);
}

Result<ClusterFile> parse_cluster(const std::string& text, const std::string& path_for_errors) {
  Problem problem{path_for_errors, std::nullopt};
  ClusterFile cluster;
  ClusterLines lines;
  try {
    const toml::table root = toml::parse(text);
    read_all(root, cluster, lines, problem);
  } catch (const toml::parse_error& error) {
    problem.set(static_cast<std::uint32_t>(error.source().begin.line), error.description());
  }
  if (problem.text) return Error{std::move(*problem.text)};
  if (Result<void> checked = check_cluster(cluster, path_for_errors, lines); !checked) return Error{checked.error()};
  return cluster;
}

Result<ClusterFile> load_cluster(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{fmt::format("{}: cannot open: {}", path, std::strerror(errno))};
  std::string text(kClusterFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return Error{fmt::format("{}: cannot read: {}", path, std::strerror(errno))};
  if (static_cast<std::size_t>(file.gcount()) > kClusterFileBytesMax) {
    return Error{fmt::format("{}: longer than {} bytes, not a cluster file", path, kClusterFileBytesMax)};
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse_cluster(text, path);
}

}  // namespace zz::crypto
