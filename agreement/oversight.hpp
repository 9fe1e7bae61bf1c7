#pragma once

// Oversight: the second core of an agreement node, one per service (docs/protocol.md §9, §11). It compares
// the votes of execution slots, closes batches on g+1 equal ones, notices trouble, asks hosts to wake
// sleepers, and turns f+1 suspicions into an ordered epoch change.
//
// One thread; no clock, IO or randomness: time comes in with tick(), signing is deterministic. What peers get
// wrong comes back as a Refusal. Between two ticks at most kTickGapMax (or four tick_ms, if that is more) counts as
// passed: a node that stood still itself blames nobody for it. A restarted node is given its whole order by deliver()
// before the first tick: no time passes meanwhile, and executors are as new to it as on the first day.
//
// Invariants:
//  1. A batch is closed at most once, with g+1 equal votes of distinct slots' current incarnations; where f+1 other
//     nodes say how it is closed, one such vote is enough.
//  2. The slot table (active, incarnations, epoch) changes only in deliver(), as a function of the order alone.
//  3. Every WAKE is preceded by a sign observed here, or a rejuvenation is due; at most one is outstanding per (epoch,
//     slot, incarnation) and wake budget.
//  4. A slot is suspected as wrong only if its vote differs from the one that closed the same n (1.), or its
//     EXEC-CHECKPOINT for n from what g+1 slots' current incarnations said, or f+1 nodes or a stable certificate stand
//     for.

#include <memory>
#include <optional>
#include <vector>

#include "agreement/delivery.hpp"
#include "agreement/messages.hpp"
#include "agreement/system_rules.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

// Votes for batches that this node has not delivered yet, per slot: at most so many of them, the newest, and so many
// reply digests in all. A node that is far behind is caught up to a stable checkpoint and needs those above it.
inline constexpr std::uint64_t kVotesAheadMax = 1'024;
inline constexpr std::size_t kAheadDigestsMax = std::size_t{1} << 18;  // a whole window of full batches
// EXEC-CHECKPOINTs likewise: the newest, and no further ahead than that many intervals.
inline constexpr std::size_t kRootsAheadMax = 64;
inline constexpr Micros kTickGapMax{50'000};

// kRejuvenation is no sign of trouble, but the other reason to wake somebody.
enum class Sign : std::uint8_t { kMismatch, kOverdue, kGone, kCheckpoint, kRejuvenation };
std::string_view to_string(Sign sign);

struct SlotView {  // for status
  Incarnation incarnation;
  bool active = false;
  bool connected = false;
  Seq last_vote;
  Micros quarantine;  // so long it may not join yet
};

struct OversightOutput {
  std::vector<Suspect> suspects;  // to every other node
  struct WakeFor {
    HostId host;
    Wake wake;
  };
  std::vector<WakeFor> wakes;
  std::vector<SystemOp> propose;  // to Replica::propose
  struct Closed {
    Seq n;
    std::vector<Digest> replies;   // per reference
    std::vector<SlotId> agreeing;  // ascending
  };
  std::vector<Closed> closed;  // may be out of order of n
  struct Root {
    Seq n;
    Digest root;
  };
  std::vector<Root> roots;  // settled: S of these checkpoints
  // A slot's first vote that differs from the closing of n, or all votes for an n on which no g+1 agree.
  struct Difference {
    Seq n;
    Epoch epoch;
    bool hung = false;
    struct Side {
      std::vector<std::pair<SlotId, Incarnation>> slots;
      std::vector<Digest> replies;  // per reference
      bool agrees = false;          // it is the closing; where no side does, n was closed before
    };
    std::vector<Side> sides;
  };
  std::vector<Difference> differences;
  // Roots of a checkpoint that differ; told again when all slots have spoken and no g+1 agree.
  struct RootDifference {
    Seq n;
    Epoch epoch;
    bool hung = false;
    struct Side {
      std::vector<std::pair<SlotId, Incarnation>> slots;
      Digest root;
      bool agrees = false;  // with g+1
    };
    std::vector<Side> sides;
  };
  std::vector<RootDifference> root_differences;
  bool table_changed = false;  // send notice() to the hosts; close channels of dead incarnations
  [[nodiscard]] bool empty() const {
    return suspects.empty() && wakes.empty() && propose.empty() && closed.empty() && roots.empty() &&
           differences.empty() && root_differences.empty() && !table_changed;
  }
};

struct OversightStats {
  std::uint64_t divergences = 0;  // episodes: from the first sign to no open sign
  std::uint64_t wakes = 0;        // wake episodes this node took part in (one per divergence at most, per service)
  std::uint64_t evictions = 0;    // slots evicted as wrong or late by ordered epoch changes
  std::uint64_t rejuvenations = 0;
  std::uint64_t not_deterministic = 0;
};

class Oversight final : public SystemRules {
 public:
  // `cluster`, `key` and `observer` must outlive it. `key` is this node's.
  Oversight(const crypto::ClusterFile& cluster, ServiceId service, NodeId self, const crypto::SecretKey& key,
            Observer& observer);
  ~Oversight() override;

  [[nodiscard]] Refusal admissible(const SystemOp& op) const override;
  [[nodiscard]] bool applies(const SystemOp& op) const override;

  // Monotonic time now.
  void tick(Micros now);
  // In order, every batch that the ordering core delivers: opens n for votes, then applies the system operations.
  void deliver(const Delivery& batch);
  // 2f+1 nodes have closed every batch up to n <= the last delivered one (a stable checkpoint): what is open of them
  // counts as closed and is no sign of anything. Votes may still close them, so that they can be answered here too.
  void presume_closed(Seq n);
  // The channel's slot and incarnation. Votes for batches not delivered here yet are kept, within bounds. The
  // second form takes the reply digests over.
  Refusal step(SlotId slot, Incarnation incarnation, const Vote& vote);
  Refusal step(SlotId slot, Incarnation incarnation, Vote&& vote);
  // How that node has closed batches. A slot may tell one node what it does not tell the others: f+1 equal words stand
  // for g+1 equal votes that a correct node has.
  Refusal step(NodeId from, const Closings& closings);
  // The channel's slot and incarnation. The signature is checked here, last. Words about checkpoints not delivered here
  // yet are kept, within bounds.
  Refusal step(SlotId slot, Incarnation incarnation, const ExecCheckpoint& message);
  // The batch that was delivered last is a checkpoint.
  void checkpoint_due(Seq n);
  // f+1 other nodes, or a stable certificate, stand for this S of the checkpoint n: one of them is correct, and had
  // g+1 equal EXEC-CHECKPOINTs.
  void confirm_root(Seq n, const Digest& root);
  // The slot wants the order from here on. Before an incarnation's first vote this says which stable checkpoint it
  // begins with; it will not vote for what lies before, and agrees with all of it once it is stable here too.
  void subscribed(SlotId slot, Incarnation incarnation, Seq from);
  // It asks, through this node, for parts of the state.
  void fetches(SlotId slot, Incarnation incarnation);
  // A batch below a stable checkpoint of which a client has wanted an answer for long, and no g+1 slots' current
  // incarnations tell this node how it was closed: more slots are needed. Nothing: there is none any more.
  void unanswered(std::optional<Seq> n);
  Refusal step(const Suspect& suspect);  // any node's channel; signature checked here
  Refusal step(const Join& join);        // signature checked here
  Refusal step(HostId from, const SlotDead& dead);
  void channel_up(SlotId slot, Incarnation incarnation);
  void channel_down(SlotId slot, Incarnation incarnation);

  // Whether take_output() would give anything: to be asked first where mostly it would not.
  [[nodiscard]] bool has_output();
  [[nodiscard]] OversightOutput take_output();

  // The ordered table, for hosts.
  [[nodiscard]] EpochNotice notice() const;
  // The slot that holds this key now, or nothing.
  [[nodiscard]] std::optional<std::pair<SlotId, Incarnation>> holder_of(const crypto::PublicKey& key) const;
  [[nodiscard]] Epoch epoch() const;
  [[nodiscard]] bool is_current(SlotId slot, Incarnation incarnation) const;
  // All batches up to here are closed, or presumed so.
  [[nodiscard]] Seq closed_through() const;
  // vote_digest() of the votes that closed n; nothing while it is open, only presumed closed, or not delivered.
  [[nodiscard]] std::optional<Digest> closed_digest(Seq n) const;
  // SlotTable::digest() after the last delivered batch.
  [[nodiscard]] Digest table_digest() const;
  [[nodiscard]] std::vector<SlotView> slots() const;
  [[nodiscard]] const OversightStats& stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zz::agreement
