#pragma once

// What one run of the simulator is to do, and what came of it. Plain values.

#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "tests/sim/hooks.hpp"

namespace zz::sim {

class World;

// Kinds of faults. Each seed draws about half of them.
enum class Fault : std::uint8_t {
  kDelay,        // messages between nodes take up to a multiple of the base delay
  kLoss,         // single messages between nodes are lost
  kDuplicate,    // messages between nodes come twice, the second one up to a second later
  kReorder,      // messages between nodes overtake one another
  kOneWayCut,    // one direction of one link
  kPartition,    // isolate one, halves, bridge, ring
  kClog,         // one direction of one link stands still for a while
  kSwizzle,      // all links of a node are cut one by one and healed in another order
  kReset,        // channels break and come back
  kCrash,        // one node ends; what was not synced is lost
  kCrashAll,     // power cut: all nodes at once
  kTornWrite,    // a crash keeps a part of what was not synced
  kDamage,       // a node finds its log damaged: a learner from then on
  kLostSync,     // a node's disk lies: synced records are lost, and nobody notices
  kSlowDisk,     // syncs take up to half a second
  kPause,        // a node stands still and goes on
  kDrift,        // clocks run at different rates
  kClockJump,    // wall clocks jump
  kSlowBoot,     // the hypervisor takes its time
  kBootFailure,  // ... or fails
  kGuestCrash,   // a guest ends by itself
  kHostCrash,    // a host daemon ends with its guests
  kByzantineNode,
  kByzantineSlot,
  kHostileClient,
  kCount,
};
inline constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::kCount);
std::string_view to_string(Fault fault);

// What a Byzantine execution slot does. Drawn are those before kCount; kScripted is what a scenario makes of it, and
// nothing until then.
enum class SlotVice : std::uint8_t { kWrong, kSometimesWrong, kSilent, kLate, kTwoFaced, kCount, kScripted };
std::string_view to_string(SlotVice vice);

// The kind of Byzantine node that the world itself plays: two copies with one key.
inline constexpr std::string_view kTwin = "twin";

struct Plan {
  std::uint64_t seed = 1;
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::uint32_t requests = 300;
  // What is not given is drawn from the seed.
  std::optional<std::set<Fault>> faults;
  std::optional<std::vector<std::pair<NodeId, std::string>>> byzantine_nodes;  // at most f unless beyond_bound
  std::optional<std::vector<std::pair<SlotId, SlotVice>>> byzantine_slots;
  std::optional<std::set<NodeId>> core;  // 2f+1 correct nodes that are healed for good
  std::optional<Micros> gst;             // when the liveness phase begins
  std::optional<std::uint32_t> clients;
  bool liveness = true;       // false: the run ends at gst, and nothing has to be answered
  bool beyond_bound = false;  // more than f faulty: only crashes count as failures
  Micros end_at_least{60'000'000};
  std::function<void(World&)> setup;                    // before anything happens: asks for hooks (World::at)
  std::function<void(crypto::ClusterFile&)> configure;  // the last word on limits and timing
  std::FILE* trace = nullptr;                           // one line per event
};

struct RunResult {
  std::uint64_t seed = 0;
  std::optional<std::string> violation;
  std::uint64_t submitted = 0;
  std::uint64_t answered = 0;
  Micros virtual_time;
  Micros outage;  // longest time without an accepted reply while one was waited for
  std::uint64_t events = 0;
  std::uint64_t trace_hash = 0;
  std::vector<std::uint64_t> view_changes;  // VIEW-CHANGEs sent, per node
  Counters counters;
};

RunResult run(const Plan& plan);

}  // namespace zz::sim
