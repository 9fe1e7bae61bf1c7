#pragma once

// The cluster file (cluster.toml): who takes part, with which key, where, and under which limits. Read once
// at start-up, checked as a whole, passed around as a const value. docs/operations.md explains every key.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "crypto/sign.hpp"

namespace zz::crypto {

inline constexpr std::uint32_t kFaultsMax = 5;  // f and g, 0 < f <= 5, 0 < g <= 5
inline constexpr std::uint32_t kServicesMax = 64;
inline constexpr std::uint32_t kClientsMax = 4096;
inline constexpr std::uint32_t kHostsMax = 4096;
inline constexpr std::size_t kClusterFileBytesMax = 4u << 20;

struct Address {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  auto operator<=>(const Address&) const = default;
};

struct NodeEntry {
  NodeId id;
  HostId host;
  Address address;
  PublicKey key;
  bool operator==(const NodeEntry&) const = default;
};

struct HostEntry {
  HostId id;
  PublicKey key;
  bool operator==(const HostEntry&) const = default;
};

struct ClientEntry {
  ClientId id;
  std::string name;
  PublicKey key;
  bool operator_role = false;  // may ask for status
  bool operator==(const ClientEntry&) const = default;
};

struct SlotEntry {
  SlotId id;
  HostId host;
  bool operator==(const SlotEntry&) const = default;
};

// What a web service is told when its machine was resumed and its state is what it was.
enum class OnWake : std::uint8_t {
  kNone,
  kReload,   // HttpOptions::reload is run
  kRestart,  // its process is started anew
};
// Who is woken when there is trouble (docs/protocol.md §9).
enum class WakePolicy : std::uint8_t {
  kAll,       // all g sleepers at once
  kOneByOne,  // the next one when the one before did not settle it
};
std::string_view to_string(WakePolicy wake);  // "all", "one-by-one"
std::optional<WakePolicy> parse_wake_policy(std::string_view name);

std::string_view to_string(OnWake on_wake);  // "none", "reload", "restart"
std::optional<OnWake> parse_on_wake(std::string_view name);

// How the HTTP adapter makes replies comparable and what it knows of the service. Header names are compared without
// case.
struct HttpOptions {
  std::vector<std::string> reply_headers;       // kept besides the built-in list (execution/http_canonical.hpp)
  std::vector<std::string> drop_body_patterns;  // ECMAScript regular expressions removed from textual bodies
  std::uint32_t request_timeout_ms = 10'000;
  std::uint32_t start_timeout_ms = 10'000;  // until $PORT accepts
  OnWake on_wake = OnWake::kNone;
  std::vector<std::string> reload;  // argv, as `command`; $PID too
  // $STATE is a plain directory that checkpoints copy, FUSE or not (docs/decisions/0020).
  bool copy_state = false;
  bool operator==(const HttpOptions&) const = default;
};

struct ServiceEntry {
  ServiceId id;
  std::string name;
  std::uint32_t g = 1;
  std::string adapter;               // "kv" (in-process sample) or "http"
  std::vector<std::string> command;  // http: argv; $PORT and $STATE are replaced in every argument and exported
  std::string initial_state;         // http: directory copied into every fresh slot; empty = start empty
  Address gateway;                   // where `zz gateway` listens for this service (http only; port 0 = none)
  WakePolicy wake = WakePolicy::kAll;
  // A healthy active slot is swapped for a fresh one after so much agreed time, or so many requests; 0: never.
  std::uint32_t rejuvenate_every_ms = 0;
  std::uint32_t rejuvenate_every_requests = 0;
  std::vector<SlotEntry> slots;  // 2g+1
  HttpOptions http;
  bool operator==(const ServiceEntry&) const = default;
};

struct Limits {
  std::uint32_t frame_bytes_max = 8u << 20;  // one frame on a channel
  std::uint32_t op_bytes_max = 4u << 20;     // one request or reply
  std::uint32_t batch_requests_max = 1024;
  std::uint32_t batch_bytes_max = 1u << 20;        // sum of op bytes; one larger op travels alone
  std::uint32_t window_batches = 256;              // L: batches that may be under way above the stable checkpoint
  std::uint32_t checkpoint_batches = 128;          // K: a checkpoint at the latest after so many batches ...
  std::uint32_t checkpoint_requests = 10'000;      // ... or so many requests ...
  std::uint64_t checkpoint_bytes = 64u << 20;      // ... or so many bytes of operations
  std::uint32_t client_window = 256;               // outstanding requests per session
  std::uint32_t client_sessions_max = 16;          // live sessions per client identity on a node
  std::uint32_t sessions_max = 1024;               // executor session table; the oldest is evicted
  std::uint64_t send_queue_bytes_max = 64u << 20;  // per peer
  std::uint64_t history_bytes_max = 1u << 30;      // ordered batches kept for replay; full = requests get BUSY
  std::uint32_t gateway_connections_max = 1024;
  std::uint32_t gateway_header_bytes_max = 32u << 10;
  std::uint32_t gateway_body_bytes_max = 1u << 20;
  std::uint32_t gateway_idle_ms = 30'000;
  bool operator==(const Limits&) const = default;
};

struct Timing {
  std::uint32_t tick_ms = 5;
  std::uint32_t clock_bound_ms = 2'000;  // agreed time against our clock
  std::uint32_t body_timeout_ms = 500;
  std::uint32_t view_timeout_ms = 500;         // a request waits this long, then a view change; doubled per view
  std::uint32_t view_timeout_max_ms = 60'000;  // that never makes progress, up to this
  std::uint32_t progress_ms = 200;             // nodes tell each other how far they are
  std::uint32_t overdue_floor_ms = 100;        // bounds of K times the usual spread
  std::uint32_t overdue_ceiling_ms = 2'000;
  std::uint32_t overdue_factor = 8;            // K
  std::uint32_t execution_timeout_ms = 5'000;  // no vote at all
  std::uint32_t gone_ms = 300;                 // channel lost and not back
  std::uint32_t late_ms = 500;                 // no vote this long after n closed
  std::uint32_t wake_budget_ms = 3'000;        // a woken slot must be connected by then, else ask again
  std::uint32_t quarantine_ms = 60'000;        // a slot convicted again may not join, eight times as long each time
  std::uint32_t retransmit_ms = 500;           // client, doubled per try
  std::uint32_t hedge_ms = 20;                 // client: ask everybody when the home node is slow
  bool operator==(const Timing&) const = default;
};

// When a node's promises are on disk before it makes them (docs/protocol.md §5).
enum class Durability : std::uint8_t {
  kSync,   // always
  kAsync,  // written, but not synced: a power cut of more than f nodes can lose data
  kNone,   // nothing is written: a restart of more than f nodes can lose data
};
std::string_view to_string(Durability durability);  // "sync", "async", "none"
std::optional<Durability> parse_durability(std::string_view name);

struct ClusterFile {
  ClusterId id;
  std::string name;
  std::uint32_t f = 1;
  bool local = false;         // one machine: hosts are only processes, placement across hosts means nothing
  bool allow_faults = false;  // `zz fault` works
  Durability durability = Durability::kSync;
  std::vector<NodeEntry> nodes;        // 3f+1, id = position
  std::vector<HostEntry> hosts;        // id = position
  std::vector<ClientEntry> clients;    // id = position
  std::vector<ServiceEntry> services;  // id = position
  Limits limits;
  Timing timing;

  [[nodiscard]] std::uint32_t n() const { return 3 * f + 1; }
  bool operator==(const ClusterFile&) const = default;
};

// Refuses unknown keys, ids out of order, f or g out of range, two nodes on one host, two slots of one
// service on one host, duplicate keys or addresses, limits that contradict each other; the error names file,
// line where known, and key.
Result<ClusterFile> load_cluster(const std::string& path);
Result<ClusterFile> parse_cluster(const std::string& text, const std::string& path_for_errors);
// A commented cluster.toml that parse_cluster accepts and that gives back an equal value.
std::string render_cluster(const ClusterFile& cluster);
Result<void> validate(const ClusterFile& cluster, const std::string& path_for_errors);

// "127.0.0.1:4000", "[::1]:4000"; nothing when `text` is neither. Host names are allowed and not resolved here.
std::optional<Address> parse_address(std::string_view text);
std::string to_string(const Address& address);

}  // namespace zz::crypto
