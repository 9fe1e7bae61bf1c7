#pragma once

// Replica's inside: one struct, its functions in replica.cpp (votes and delivery), replica_propose.cpp (proposals, made
// and judged) and replica_bodies.cpp (bodies asked for and given). Included by these files only. Thread rule and
// invariants are Replica's.

#include <array>

#include "agreement/replica.hpp"
#include "agreement/request_table.hpp"
#include "agreement/slot_log.hpp"
#include "agreement/replica_system_queue.hpp"

namespace zz::agreement {

// The primary stops this far above h, a quarter of the window short of what backups take: watermarks of different nodes
// move at different times, and a proposal refused for it is not sent again.
inline constexpr std::uint64_t kProposeAhead = kWindow - kWindow / 4;

// What a peer may have sent to it for its FETCH-BODIES, per body_timeout.
inline constexpr std::uint32_t kFetchesMax = 512;
inline constexpr std::uint64_t kFetchedBytesMax = 64u << 20;

struct Replica::State {
  State(const ReplicaConfig& replica_config, const SystemRules& system_rules, Observer& event_observer);

  // replica.cpp
  [[nodiscard]] NodeId primary() const;
  [[nodiscard]] bool is_primary() const { return primary() == config.self; }
  [[nodiscard]] Refusal check_sender(NodeId from) const;
  // Sender, view and window of an ordering message.
  [[nodiscard]] Refusal check(NodeId from, View v, Seq n) const;
  // Takes the slot as far as its votes go.
  void advance(Slot& slot);
  [[nodiscard]] bool stands_for(const Slot& slot) const;
  void deliver_ready();
  void deliver(Slot& slot);
  void resend(NodeId to, const Slot& slot);
  void send(std::optional<NodeId> to, Body body) { out.send.push_back({to, std::move(body)}); }
  void report(EventKind kind, Seq n);

  // replica_propose.cpp
  Refusal pre_prepare(NodeId from, const PrePrepare& message);
  [[nodiscard]] Refusal judge(const PrePrepare& message);
  [[nodiscard]] bool near_clock(Micros time) const;
  void cut_batches();
  [[nodiscard]] bool cut_due(Seq n) const;
  // False when nothing that waits can be proposed any more.
  bool cut(Seq n);
  void propose(SystemOp op);

  // replica_bodies.cpp
  // The client's own copy came after the proposal.
  void arrived(Seq n, std::uint32_t index, const RequestPtr& request);
  void fetch(Slot& slot);
  void ask_next(Slot& slot);
  void ask(Slot& slot);
  void retry_fetches();
  bool go_on_fetching(NodeId from);
  void end_fetch(Slot& slot);
  Refusal spend(NodeId peer);
  Refusal give_bodies(NodeId to, const FetchBodies& message);
  Refusal take_bodies(NodeId from, const Bodies& message);

  ReplicaConfig config;
  std::uint32_t nodes;  // n of the protocol
  const SystemRules& rules;
  Observer& observer;

  View view;
  RequestTable requests;
  SlotLog log;
  SystemQueue system;

  Seq delivered;
  Micros delivered_time;
  Digest history;

  Micros wall;
  bool ticked = false;
  Micros elapsed;  // monotonic: the forward steps of wall

  std::uint32_t fetching = 0;  // slots that wait for an answer
  struct Budget {              // of one peer's fetches
    Micros since;
    std::uint32_t fetches = 0;
    std::uint64_t bytes = 0;
  };
  std::array<Budget, kNodesMax> budgets{};

  ReplicaOutput out;
};

}  // namespace zz::agreement
