#pragma once

// Executor: the core of one execution slot (docs/protocol.md §8, §10). It learns the order from f+1 agreement nodes,
// gets the bodies from one of them, runs the requests one by one, and says what came out. At checkpoints it takes a
// snapshot of everything that decides what it says; a stable certificate of such a state stands for the whole order
// before it (§6, §10).
//
// One thread; no clock, IO or randomness. The caller authenticates senders (channels), passes monotonic time in
// tick(), and runs the service: next_invocation() says what to run, complete() what came out, one at a time. What
// nodes get wrong comes back as a Refusal. The store is the service's and the executor's together (slot_layout.hpp):
// the caller changes it between next_invocation() and complete() only, digests snapshots, and supplies what is wanted.
//
// Invariants:
//  1. Batch n runs only after n-1, and only with a digest that f+1 distinct nodes gave and bodies that match it.
//  2. A request runs at most once (SessionTable, invariant 1).
//  3. Votes and replies are a function of the order and of what the service answered: two executors that run the same
//     order with equal services give equal votes, whenever they start.
//  4. Agreed times strictly increase, whatever a new view ordered (agreement::agreed_time).
//  5. What is held for nodes is bounded: kOrderWindow batches ahead, held_bytes_max of bodies, kVotesKept votes.
//  6. After equal prefixes of the order equal services leave equal stores, so the roots at a checkpoint are equal,
//     whatever was fetched, adopted or restarted before.
//  7. Only a certificate with 2f+1 good signatures replaces the state, and then all of it; kChecksPerTick are looked at
//     per node and tick. One of which nobody has the state is not adopted again.
//  8. A slot whose state is not the certified one says nothing any more.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agreement/checkpoint_clock.hpp"
#include "agreement/messages.hpp"
#include "agreement/slot_table.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"
#include "execution/order_window.hpp"
#include "execution/service.hpp"
#include "execution/session_table.hpp"
#include "execution/slot_state.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

// Votes kept for a node whose channel comes back: what was under way when it broke is lost, and a node that was
// restarted has none of those above its stable checkpoint, a whole window of full batches (agreement's
// kAheadDigestsMax) at worst.
inline constexpr std::size_t kVotesKept = 4'096;
inline constexpr std::size_t kVoteBytesKept = (8u << 20) + kVotesKept * sizeof(agreement::Vote);
// Bodies in one Replies message, and in the answer to one FetchReplies. One larger body travels alone.
inline constexpr std::size_t kRepliesBytesMax = 1u << 20;
inline constexpr std::size_t kFetchBytesMax = 8u << 20;
// Bodies and digests in answers to FetchReplies that wait for take_output.
inline constexpr std::size_t kFetchBytesWaiting = 32u << 20;
// Certificates whose signatures are checked, per node and tick.
inline constexpr std::uint32_t kChecksPerTick = 2;
// Stable snapshots that stay, so that others can fetch them.
inline constexpr std::size_t kStablesKept = 2;
// EXEC-CHECKPOINTs that a node whose channel is new is told again.
inline constexpr std::size_t kCheckpointsKept = 8;
// A slot that lacks the order which a certificate covers adopts its state after so many body timeouts.
inline constexpr std::int64_t kOrderLostTimeouts = 4;
// All who had a certified state may be gone. The order is still there.
inline constexpr std::uint32_t kStaleMax = 3;
// Parts of replies' bodies that are wanted in one output.
inline constexpr std::size_t kBodyWantsMax = 256;

struct ExecutorConfig {
  ServiceId service;
  SlotId slot;
  Incarnation incarnation;
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  SessionLimits sessions;
  std::uint64_t held_bytes_max = 64u << 20;
  Micros body_timeout{500'000};  // the bearer may lag this long at most
  SharedBytes expired_reply;     // answers a request of an evicted session; equal on all slots
  agreement::CheckpointRules checkpoints;
  // The service's state is in the store only after who drives it was told to_save(), and said saved().
  bool saves_first = false;
  // All signatures of this certificate, of good form, are good. Not set: none is believed.
  std::function<bool(const agreement::StableCertificate&)> genuine;
};

// Carried out whole, in the order of the members.
struct ExecutorOutput {
  struct SubscribeAt {
    NodeId to;
    agreement::Subscribe subscribe;
  };
  using VotePtr = std::shared_ptr<const agreement::Vote>;
  struct VoteAgain {  // to a node whose channel is new
    NodeId to;
    std::vector<VotePtr> votes;
  };
  struct RepliesTo {
    NodeId to;
    agreement::Replies replies;
  };
  struct DigestsTo {
    NodeId to;
    agreement::ReplyDigests digests;
  };
  struct CheckpointTo {
    std::optional<NodeId> to;              // nothing: every connected node
    agreement::ExecCheckpoint checkpoint;  // the caller signs it
  };
  struct Stable {
    agreement::CertificatePtr certificate;
    state::Snapshot snapshot;
  };
  // Why this slot is of no use any more: it votes no more, signs no more, runs no more. Nothing else is there then.
  std::string ended;
  // The store has the state of this certificate, as far as it is here. What the service was running is forgotten, and
  // after this was taken complete() must not be called for it; the service is to begin anew with the state, once
  // next_invocation() gives something. Wants of before are void.
  agreement::CertificatePtr adopted;
  // The same, but the store is empty: the slot begins with batch 1 again.
  bool replays = false;
  // Absent parts that the slot itself needs; call supplied() when some came.
  std::vector<state::Want> wants;
  std::vector<SubscribeAt> subscribe;
  std::vector<VoteAgain> votes_again;
  std::vector<VotePtr> votes;  // to every connected node
  std::vector<RepliesTo> replies;
  std::vector<DigestsTo> digests;
  std::vector<CheckpointTo> checkpoints;
  // The newest stable checkpoint whose snapshot is here: what is worth to be persisted.
  std::optional<Stable> stable;
  [[nodiscard]] bool empty() const {
    return ended.empty() && !adopted && !replays && wants.empty() && subscribe.empty() && votes_again.empty() &&
           votes.empty() && replies.empty() && digests.empty() && checkpoints.empty() && !stable;
  }
};

struct ExecutorStats {
  std::uint64_t batches = 0;
  std::uint64_t requests = 0;        // run
  std::uint64_t repeats = 0;         // answered from the session table
  std::uint64_t expired = 0;         // answered with expired_reply
  std::uint64_t bearer_changes = 0;  // because it lagged or lied
  std::uint64_t checkpoints = 0;     // snapshots taken
  std::uint64_t no_place = 0;        // of these, such that had to wait for a place in the store
  std::uint64_t stable = 0;          // own states that turned out to be the certified ones
  std::uint64_t adopted = 0;         // states taken from a certificate
  std::uint64_t replayed = 0;        // times that the slot began with batch 1 again
  std::uint64_t forged = 0;          // certificates with a bad signature
};

class Executor {
 public:
  // Both references must outlive it. A store that holds a slot's state waits for a certificate, of which it then is the
  // part that need not be fetched; one that does not is the service's initial state.
  Executor(const ExecutorConfig& config, state::ObjectStore& store, Observer& observer);
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Monotonic time now.
  void tick(Micros now);
  // The channel to that node is there / is lost. Ids below 3f+1.
  void node_up(NodeId node);
  void node_down(NodeId node);

  Refusal step(NodeId from, const agreement::Orders& message);
  Refusal step(NodeId from, agreement::Batch message);
  Refusal step(NodeId from, const agreement::FetchReplies& message);
  Refusal step(NodeId from, const agreement::Stable& message);

  // The next request to run, or nothing: one is running, there is none yet, the slot's own state is not whole yet, or a
  // checkpoint waits for a place in the store. Executes the batches that need no running on the way.
  [[nodiscard]] std::optional<Invocation> next_invocation();
  // What the service answered to what next_invocation() gave last; ignored when that is forgotten. The last reply of a
  // batch finishes it.
  void complete(SharedBytes reply);
  // What will be run after the request that is, in order, at most so many of batches above n: for who prepares for it.
  // Time and seed are not known yet.
  [[nodiscard]] std::vector<Invocation> upcoming(Seq n, std::size_t limit) const;
  // A batch was begun and is not finished.
  [[nodiscard]] bool mid_batch() const { return running_.has_value(); }

  // A checkpoint is due and waits for the service's state, of this agreed time; and that it is in the store now.
  [[nodiscard]] std::optional<Micros> to_save() const;
  void saved() { service_saved_ = due_; }

  // The oldest snapshot whose root is not known: ObjectStore::digest_some() is to work on it, beside.
  struct ToDigest {
    Seq n;
    state::Snapshot snapshot;
  };
  [[nodiscard]] std::optional<ToDigest> to_digest() const;
  // That snapshot's root is this.
  void checkpointed(Seq n, const Digest& root);
  // The store was supplied with parts.
  void supplied();
  // Nobody gives what is wanted of the adopted state: adopts the newest certified one, or, when there was no newer one
  // kStaleMax times, runs the order again: from the state of `kept` on, which the store's disk holds whole, if it was
  // not tried before; else all of it. False: none of these yet.
  bool start_over(const agreement::CertificatePtr& kept = nullptr);
  // Of batch n, its root known: what others may fetch from. Null: not (or no longer) here.
  [[nodiscard]] state::Snapshot snapshot_of(Seq n) const;

  [[nodiscard]] ExecutorOutput take_output();

  // At least this many batches wait to be run: the slot replays, or is slower than the order. Requires it to be below
  // kOrderWindow.
  [[nodiscard]] bool is_behind(std::uint64_t batches) const { return window_.runnable_ahead(batches); }

  // The last batch executed whole.
  [[nodiscard]] Seq executed() const { return executed_; }
  // H of the batch begun last.
  [[nodiscard]] const Digest& history() const { return history_; }
  // As of executed().
  [[nodiscard]] const agreement::SlotTable& slots() const { return own_.slots(); }
  [[nodiscard]] const SessionTable& sessions() const { return own_.sessions(); }
  // Its own state is whole: it runs what is decided.
  [[nodiscard]] bool running() const { return phase_ == Phase::kRunning; }
  // A checkpoint waits for a place in the store (ObjectStore::reclaim_some).
  [[nodiscard]] bool waits_for_place() const { return due_; }
  // The newest certificate seen; null: none.
  [[nodiscard]] const agreement::CertificatePtr& newest() const { return newest_; }
  [[nodiscard]] std::optional<NodeId> bearer() const { return bearer_; }
  [[nodiscard]] const ExecutorStats& stats() const { return stats_; }

 private:
  struct Node {
    bool up = false;
    bool subscribe = false;  // a Subscribe is due
    Seq from;                // where it begins
    Seq missed;              // first batch number we had no place for; 0: none
    std::uint32_t strikes = 0;
    std::optional<Micros> struck_at;  // last, as the bearer
    std::uint32_t checks = 0;         // of certificates, since the last tick
  };
  enum class Phase : std::uint8_t {
    kWaiting,  // the store is that of an earlier life: for a certificate
    kLoading,  // a state was adopted; the slot's own part of it is not whole
    kRunning,
    kEnded,
  };
  struct Taken {  // a snapshot
    Seq n;
    Digest history;
    state::Snapshot snapshot;
    std::optional<Digest> root;
    bool stable = false;
  };
  // The batch that is being run.
  struct Running {
    agreement::Batch batch;
    std::size_t index = 0;  // of the request to run or running
    std::vector<Digest> replies;
    bool designated = false;  // this slot sends its bodies
    bool outstanding = false;
  };

  [[nodiscard]] bool known(NodeId node) const { return node.value < nodes_.size(); }
  void begin(agreement::Batch batch);
  void advance();
  void finish();
  [[nodiscard]] bool designated(Seq n) const { return active_[n.value % active_.size()] == config_.slot; }
  void answer(const Digest& digest, const SharedBytes* body);
  void send_body(NodeId home, std::uint32_t index, const SharedBytes& body);
  void keep_vote(ExecutorOutput::VotePtr vote);
  void subscribe(NodeId node, Seq from);
  void set_bearer(std::optional<NodeId> node);
  [[nodiscard]] std::optional<NodeId> other_bearer() const;
  void change_bearer();
  [[nodiscard]] bool bearer_lags() const;
  void watch_bearer();
  void note_lag(Seq n);
  void strike(NodeId node);
  void strike_liar(NodeId node);
  void missed(NodeId node, Seq n);
  void resume_streams();
  Refusal tell_digests(NodeId from, const agreement::FetchReplies& message);
  void want_body(const std::vector<state::Want>& missing);
  bool take_checkpoint();
  void compare();
  void forget_snapshots();
  void judge_newest();
  void adopt(agreement::CertificatePtr certificate);
  void replay();
  void begin_after(Seq n, const Digest& history);
  void go_on_loading();
  void watch_order();
  void end(std::string why);

  ExecutorConfig config_;
  Observer& observer_;
  OrderWindow window_;
  state::ObjectStore& store_;
  SlotState own_;
  Phase phase_;
  std::vector<SlotId> active_;  // of the slot table
  Digest expired_digest_;
  std::vector<Node> nodes_;
  std::optional<NodeId> bearer_;
  Micros now_;
  Micros bearer_since_;       // asked for bodies
  Micros patience_;           // with a bearer that lags
  Micros last_body_at_;       // from a bearer
  bool lagged_ = false;       // at the last tick
  std::uint32_t prompt_ = 0;  // bodies in a row that came in a quarter of the patience
  Seq backlog_;               // the last batch that was decided further ahead than bodies are sent
  std::optional<Micros> waiting_since_;
  Seq waiting_for_;

  std::optional<Running> running_;
  Seq executed_;
  Digest history_;
  Micros time_;                              // agreed time of the batch begun last
  std::vector<agreement::Replies> by_home_;  // of the running batch, per node
  std::vector<std::size_t> by_home_bytes_;

  agreement::CheckpointClock clock_;
  bool due_ = false;                            // executed_ is a checkpoint, and there is no snapshot of it yet
  bool service_saved_ = false;                  // and the service's state is in the store, if it saves first
  bool saved_ = false;                          // and the store is as it is to be
  std::deque<Taken> taken_;                     // ascending n
  std::deque<agreement::ExecCheckpoint> told_;  // the last kCheckpointsKept
  agreement::CertificatePtr newest_;            // verified
  agreement::CertificatePtr base_;              // the one adopted last
  std::size_t newer_ = 0;                       // certificates since
  std::uint32_t stale_ = 0;                     // times since that nobody had what was wanted
  Seq lost_;                                    // the newest certificate of which nobody had the state
  Seq kept_;                                    // the last one from the disk that was adopted
  std::optional<Micros> order_lost_since_;

  ExecutorOutput out_;
  std::size_t fetch_bytes_waiting_ = 0;
  std::deque<ExecutorOutput::VotePtr> votes_kept_;
  std::size_t vote_bytes_kept_ = 0;
  ExecutorStats stats_;
};

}  // namespace zz::execution
