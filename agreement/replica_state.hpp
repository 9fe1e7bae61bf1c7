#pragma once

// Replica's inside: one struct, its functions in replica.cpp (votes and delivery), replica_propose.cpp (proposals, made
// and judged) and replica_bodies.cpp (bodies asked for and given). Included by these files only. Thread rule and
// invariants are Replica's.

#include <array>

#include "agreement/replica.hpp"
#include "agreement/replica_system_queue.hpp"
#include "agreement/request_table.hpp"
#include "agreement/slot_log.hpp"

namespace zz::agreement {

// How far above h the primary proposes. Both limits keep clear of the end of the window, because watermarks of
// different nodes move at different times, and a proposal refused for it is not sent again. Batches of system
// operations alone may go further: what they bring, a new incarnation or another active set, may be just what the
// window waits for.
inline constexpr std::uint64_t kRequestsAhead = kWindow * 3 / 4;
inline constexpr std::uint64_t kSystemAhead = kWindow * 7 / 8;
static_assert(kRequestsAhead < kSystemAhead && kSystemAhead < kWindow);

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
  void resend_all(NodeId to);
  void resend(NodeId to, const Slot& slot);
  void resend_due();
  void send(std::optional<NodeId> to, Body body) { out.send.push_back({to, std::move(body)}); }
  void report(EventKind kind, Seq n);

  // replica_propose.cpp
  Refusal pre_prepare(NodeId from, const PrePrepare& message);
  [[nodiscard]] Refusal judge(const PrePrepare& message);
  [[nodiscard]] bool near_clock(Micros time) const;
  // Within batch_bytes_max, or one op alone. Requires that no body is missing.
  [[nodiscard]] bool fits(const Slot& slot) const;
  void cut_batches();
  [[nodiscard]] bool cut_due(Seq n) const;
  [[nodiscard]] std::uint64_t ahead(Seq n) const { return n.value - log.low().value; }
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
  struct Newcomer {
    bool waits = false;  // its channel came up, and it was not told yet
    bool told = false;
    Micros told_at;
  };
  std::array<Newcomer, kNodesMax> newcomers{};

  ReplicaOutput out;
};

}  // namespace zz::agreement
