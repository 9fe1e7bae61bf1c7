#pragma once

// Kernel: what all parts of the simulated world share: virtual time, the queue of what is to happen, the witness,
// counters and the trace. One thread; nothing here depends on anything but the seed.

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "base/observer.hpp"
#include "base/prng.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"
#include "tests/sim/event_queue.hpp"
#include "tests/sim/hooks.hpp"

namespace zz::sim {

// A party of the cluster by one number: nodes, then hosts, slots and clients.
using Party = std::uint16_t;

struct Happening {
  enum class Kind : std::uint8_t {
    kDeliver,     // a -> b: message, on the connection `number`
    kConnect,     // link a - b: try to bring it up
    kNodeTick,    // a: node
    kNodeSynced,  // a: node, b: body, number: life
    kNodeResume,  // a: node, number: pause
    kNodeStart,   // a: node, number: life
    kNodeAct,     // a: node (Byzantine)
    kHostTick,    // a: host
    kHostStart,   // a: host, number: life
    kBackend,     // a: host, number: call, b: ok
    kGuestDies,   // a: host, number: incarnation
    kSlotTick,    // a: slot, number: incarnation
    kSlotSend,    // a: slot -> b: a delayed message
    kClientTick,  // all clients
    kSubmit,      // a: client
    kHostile,     // a: client
    kFault,       // a: Fault: next injection
    kHeal,        // number: of the healing action
    kHook,        // number: of the scenario's hook
    kStabilise,   // the liveness phase begins
  };
  Kind kind{};
  Party a = 0;
  Party b = 0;
  std::uint64_t number = 0;
  MessagePtr message;
};
std::string_view to_string(Happening::Kind kind);

// Where the parties are in the numbering.
struct Parties {
  std::uint16_t nodes = 0;
  std::uint16_t hosts = 0;
  std::uint16_t slots = 0;
  std::uint16_t clients = 0;

  [[nodiscard]] Party node(std::size_t i) const { return static_cast<Party>(i); }
  [[nodiscard]] Party host(std::size_t i) const { return static_cast<Party>(nodes + i); }
  [[nodiscard]] Party slot(std::size_t i) const { return static_cast<Party>(nodes + hosts + i); }
  [[nodiscard]] Party client(std::size_t i) const { return static_cast<Party>(nodes + hosts + slots + i); }
  [[nodiscard]] std::size_t count() const { return std::size_t{nodes} + hosts + slots + clients; }
  [[nodiscard]] bool is_node(Party p) const { return p < nodes; }
  [[nodiscard]] bool is_host(Party p) const { return p >= nodes && p < nodes + hosts; }
  [[nodiscard]] bool is_slot(Party p) const { return p >= nodes + hosts && p < nodes + hosts + slots; }
  [[nodiscard]] bool is_client(Party p) const { return p >= nodes + hosts + slots; }
};

inline constexpr std::size_t kMessageKinds = std::variant_size_v<agreement::Body>;
std::string_view message_name(std::size_t kind);
struct MessageNumbers {
  std::uint64_t n = 0;
  std::uint64_t view = 0;
};
MessageNumbers numbers_of(const agreement::Body& body);

struct Kernel {
  Kernel(const crypto::ClusterFile& cluster_file, Parties numbering) : cluster(cluster_file), parties(numbering) {}

  const crypto::ClusterFile& cluster;
  const Parties parties;
  Micros now{};
  EventQueue<Happening> queue;
  std::unique_ptr<Witness> witness;
  Counters counters;
  RefusalCounts refusals;
  std::array<std::uint64_t, 32> events_seen{};  // by EventKind
  std::array<std::uint64_t, kMessageKinds> delivered{};
  std::uint64_t events = 0;
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  std::FILE* trace = nullptr;
  bool stable_phase = false;  // the core has been healed

  void after(std::int64_t delay, Happening happening) {
    queue.push(Micros{now.value + (delay > 0 ? delay : 0)}, std::move(happening));
  }
  void note(std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3ULL + (hash >> 29); }
  void count(std::string_view name, std::uint64_t by = 1) { sim::count(counters, name, by); }
  // `by`: the party whose core says so.
  void observed(Party by, const Event& event) {
    ++events_seen[static_cast<std::size_t>(event.kind)];
    if (event.kind == EventKind::kDiverged) count("sign." + std::string(event.why));
    if (event.kind == EventKind::kWakeRequested) count("wake." + std::string(event.why));
    if (trace != nullptr) trace_event(by, event);
    witness->observed(now, event);
  }
  void trace_event(Party by, const Event& event) const;
};

// Uniform in [low, high].
inline std::int64_t between(Prng& prng, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(high - low) + 1));
}
inline bool chance(Prng& prng, std::uint64_t percent) { return prng.below(100) < percent; }
template <class List>
auto& pick(Prng& prng, List& list) {
  return list[prng.below(list.size())];
}

}  // namespace zz::sim
