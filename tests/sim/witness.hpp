#pragma once

// The witness: ghost state and checkers of the simulator (docs/protocol.md §14). It is told of every message, record,
// delivery and reply, keeps its own books, and recomputes from them what the cores claim: no quorum, choice, order or
// reply is believed. What it checks:
//   witness_agreement.hpp  I1, I2, I6 to I12, I16, I20: one order, votes, quorums, views, checkpoints, durability
//   witness_clients.hpp    I3, I4, I5, I11, I13, I14, I19: requests, and replies against a reference run of the order
//   witness_roots.hpp      I6, I19: whose word the roots in CHECKPOINTs are
//   witness_complaints.hpp I22: complaints of executors and primaries; how long they stay open, for L4
//   witness.cpp            I21, I24 to I26: wake-ups and evictions; I3 for system operations
//
// One thread, virtual time. Every call costs a few table look-ups; messages to several receivers are checked once, when
// they come one after the other. Memory: the order of a run (shared with the nodes), votes above the lowest stable
// checkpoint, and what faulty parties may add within fixed bounds.

#include <memory>
#include <set>

#include "tests/sim/hooks.hpp"

namespace zz::sim {

// What executors answer to a request of an evicted session (execution/agent.cpp says the same).
inline constexpr std::string_view kExpiredReply = "error session expired";

// `cluster` must outlive it.
std::unique_ptr<Witness> make_witness(const crypto::ClusterFile& cluster, ServiceId service,
                                      const std::set<NodeId>& byzantine_nodes, const std::set<SlotId>& byzantine_slots);

}  // namespace zz::sim
