#pragma once

// CheckpointBook: which batches are checkpoints, what this node signs about them, and the stable certificates that 2f+1
// signatures make (docs/protocol.md §6). A part of ServiceInstance; one thread, no time, no IO.
//
// Which n is a checkpoint depends on the ordered content alone: K batches, R requests or B bytes since the last one.
// A node signs n once it has delivered n, every batch up to n is closed, and S_n is known: g+1 slots gave it here
// (settled), or f+1 other nodes signed what this node would sign, all with one S, which it takes over. A slot may tell
// one node what it does not tell others.
//
// Invariants:
//  1. The stable checkpoint only rises, and only with a valid certificate.
//  2. One signature per node and n is counted: the first. Of each node at most kPendingMax checkpoints above the stable
//     one are collected; what lies further ahead than that many can lie is refused unread.
//  3. Certificates are kept for every stable checkpoint this node has seen, ascending, so that a peer that is behind
//     can be led along (about 300 bytes each).
//  4. A certificate that contradicts what was delivered and closed here is refused and reported (kConflict): more than
//     f nodes or g slots must be faulty, and going on would only spread it.
//  5. f+1 nodes whose words contradict the order that was delivered here are reported (kConflict), once: one of them is
//     correct, or more than f are faulty. Two halves that never make a certificate show themselves so.

#include <map>
#include <string_view>
#include <vector>

#include "agreement/authority.hpp"
#include "agreement/checkpoint_clock.hpp"
#include "agreement/messages.hpp"
#include "base/observer.hpp"

namespace zz::agreement {

struct CheckpointOutput {
  std::vector<Checkpoint> send;  // to every other node
  struct Root {
    Seq n;
    Digest root;
  };
  std::vector<Root> taken_over;  // S that f+1 other nodes stand for
  CertificatePtr stable;         // not null: the stable checkpoint has risen to this
};

class CheckpointBook {
 public:
  static constexpr std::size_t kPendingMax = 64;

  // `authority` and `observer` must outlive it.
  CheckpointBook(const CheckpointRules& rules, ServiceId service, NodeId self, std::uint32_t f, Authority& authority,
                 Observer& observer);

  // In order of n, from 1: batch n was delivered, H_n is `history`; `table` is the digest of the slot table after n.
  // True: it is a checkpoint.
  bool delivered(Seq n, std::size_t requests, std::uint64_t bytes, const Digest& history, const Digest& table);
  // g+1 slots' current incarnations gave this S_n here. Once per n, which was delivered.
  void settled(Seq n, const Digest& root);
  // In order of n, for n above results_through() and delivered: n is closed with this vote digest.
  void closed(Seq n, const Digest& vote_digest);
  // R is known up to here; after adopting a certificate it may jump.
  [[nodiscard]] Seq results_through() const { return results_through_; }

  // kNotAllowed: not the sender's own, or not another's; kDuplicate: not above the stable one, or counted; kConflict:
  // the signer has signed another state of n; kOutOfWindow: too far ahead, or too many.
  Refusal step(NodeId from, const Checkpoint& message);
  // A whole certificate: a peer's, or one out of the durable log (before the order is delivered again, so that nothing
  // below it is collected). kDuplicate when it is not above the stable one.
  Refusal step(const CertificatePtr& certificate);
  // One that catching up has shown to be good; below the stable one it is kept for those further behind.
  void keep(const CertificatePtr& certificate);
  // What this node said itself, on its channel or signed, contradicts the batch n that was delivered here.
  void contradicted(NodeId by, Seq n);
  // This node's own signed messages above the stable checkpoint, ascending, to be said again to a peer.
  [[nodiscard]] std::vector<Checkpoint> own() const;
  // A learner signs nothing.
  void set_silent(bool silent);

  [[nodiscard]] CheckpointOutput take_output();

  [[nodiscard]] const CertificatePtr& stable() const { return stable_; }
  // The highest kept certificate in [n, n + span), else the lowest above, or null.
  [[nodiscard]] CertificatePtr covering(Seq n, std::uint64_t span = 1) const;

 private:
  // A checkpoint that was delivered here, above the stable one.
  struct Due {
    CheckpointState state;  // results: once closed; root: once it is known
    bool closed = false;
    bool has_root = false;
    bool is_signed = false;
  };

  void sign_ready();
  // Requires a message not counted yet, above the stable checkpoint.
  void count(const Checkpoint& message);
  Refusal adopt(CertificatePtr certificate);
  [[nodiscard]] bool contradicts(const CheckpointState& state) const;
  [[nodiscard]] bool is_other_order(const CheckpointState& state) const;
  [[nodiscard]] bool has_other_root(const CheckpointState& state) const;
  // S that f+1 others signed, if what else they say of it is what is known here.
  void take_over_root(Due& due);
  void report(EventKind kind, Seq n, std::string_view why) const;

  CheckpointRules rules_;
  ServiceId service_;
  NodeId self_;
  std::uint32_t f_;
  Authority& authority_;
  Observer& observer_;
  bool silent_ = false;

  Seq delivered_;
  CheckpointClock clock_;
  std::map<Seq, Due> due_;

  Seq results_through_;
  Digest results_;  // R of it

  std::map<Seq, std::map<NodeId, Checkpoint>> heard_;  // above the stable one, own ones among them
  std::vector<std::size_t> heard_of_;                  // how many of each node
  std::uint32_t contradictors_ = 0;                    // bit per node
  CertificatePtr stable_;
  std::map<Seq, CertificatePtr> certificates_;
  CheckpointOutput out_;
};

}  // namespace zz::agreement
