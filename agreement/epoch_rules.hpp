#pragma once

// What the signatures on suspicions, epoch changes and joins are worth (docs/protocol.md §11): pure functions
// of a message and the cluster file. Whether an admissible operation still applies is the slot table's business.
//
// Any thread. Cheap checks come first; a signature check is spent only on what is well formed.

#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/slot_table.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"

namespace zz::agreement {

// Everything but the signature. `service` is the one that asks.
Refusal check_form(const crypto::ClusterFile& cluster, ServiceId service, const Suspect& suspect);
bool signed_by_node(const crypto::ClusterFile& cluster, const Suspect& suspect);

// kNotAllowed: the key belongs to a node, host or client of the cluster file.
Refusal check(const crypto::ClusterFile& cluster, ServiceId service, const Join& join);

// Every evicted slot is named, for the epoch before and one incarnation, by f+1 to n suspects of distinct
// signers; the proof is ascending by (slot, signer) and holds nothing else.
Refusal check(const crypto::ClusterFile& cluster, ServiceId service, const EpochChange& change);

// Why the proof evicts this slot. kWrong only if f+1 signers say so, hence at least one correct node; kSurplus only if
// fewer than f+1 signers blame it and, where it is active, f+1 say that its turn to be renewed has come; else kLate.
Suspicion verdict(const SlotTable& table, const std::vector<Suspect>& proof, SlotId slot);

// The change that these suspects (ascending by slot and signer, distinct, checked) call for: every slot that
// f+1 of them convict in the table's epoch and current incarnation is evicted at once, unless that leaves
// fewer than g+1 agreeing slots; then only the blamed ones are, or only the wrong ones. Nothing: not enough evidence.
std::optional<EpochChange> compose_epoch_change(const SlotTable& table, const std::vector<Suspect>& suspects);

}  // namespace zz::agreement
