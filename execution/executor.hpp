#pragma once

// Executor: the core of one execution slot (docs/protocol.md §8, §10). It learns the order from f+1 agreement nodes,
// gets the bodies from one of them, runs the requests one by one, and says what came out.
//
// One thread; no clock, IO or randomness. The caller authenticates senders (channels), passes monotonic time in
// tick(), and runs the service: next_invocation() says what to run, complete() what came out, one at a time. What
// nodes get wrong comes back as a Refusal.
//
// Invariants:
//  1. Batch n runs only after n-1, and only with a digest that f+1 distinct nodes gave and bodies that match it.
//  2. A request runs at most once (SessionTable, invariant 1).
//  3. Votes and replies are a function of the order and of what the service answered: two executors that run the same
//     order with equal services give equal votes, whenever they start.
//  4. Agreed times strictly increase, whatever a new view ordered (agreement::agreed_time).
//  5. What is held for nodes is bounded: kOrderWindow batches ahead, held_bytes_max of bodies, kVotesKept votes.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/slot_table.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"
#include "execution/order_window.hpp"
#include "execution/service.hpp"
#include "execution/session_table.hpp"

namespace zz::execution {

// Votes kept for a node whose channel comes back: what was under way when it broke is lost, and a node that was
// restarted has none of those above its stable checkpoint, a whole window of full batches (agreement's
// kAheadDigestsMax) at worst.
inline constexpr std::size_t kVotesKept = 4'096;
inline constexpr std::size_t kVoteBytesKept = (8u << 20) + kVotesKept * sizeof(agreement::Vote);
// Bodies in one Replies message, and in the answer to one FetchReplies. One larger body travels alone.
inline constexpr std::size_t kRepliesBytesMax = 1u << 20;
inline constexpr std::size_t kFetchBytesMax = 8u << 20;
// Bodies in answers to FetchReplies that wait for take_output.
inline constexpr std::size_t kFetchBytesWaiting = 32u << 20;

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
  std::vector<SubscribeAt> subscribe;
  std::vector<VoteAgain> votes_again;
  std::vector<VotePtr> votes;  // to every connected node
  std::vector<RepliesTo> replies;
  [[nodiscard]] bool empty() const {
    return subscribe.empty() && votes_again.empty() && votes.empty() && replies.empty();
  }
};

struct ExecutorStats {
  std::uint64_t batches = 0;
  std::uint64_t requests = 0;        // run
  std::uint64_t repeats = 0;         // answered from the session table
  std::uint64_t expired = 0;         // answered with expired_reply
  std::uint64_t bearer_changes = 0;  // because it lagged or lied
};

class Executor {
 public:
  // `observer` must outlive it.
  Executor(const ExecutorConfig& config, Observer& observer);
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

  // The next request to run, or nothing: one is running, or there is none yet. Executes the batches that need no
  // running on the way.
  [[nodiscard]] std::optional<Invocation> next_invocation();
  // What the service answered. Requires that next_invocation() gave something since the last complete(). The last reply
  // of a batch finishes it.
  void complete(SharedBytes reply);
  // A batch was begun and is not finished.
  [[nodiscard]] bool mid_batch() const { return running_.has_value(); }

  [[nodiscard]] ExecutorOutput take_output();

  // At least this many batches wait to be run: the slot replays, or is slower than the order. Requires it to be below
  // kOrderWindow.
  [[nodiscard]] bool is_behind(std::uint64_t batches) const { return window_.runnable_ahead(batches); }

  // The last batch executed whole.
  [[nodiscard]] Seq executed() const { return executed_; }
  // H of the batch begun last.
  [[nodiscard]] const Digest& history() const { return history_; }
  // As of executed().
  [[nodiscard]] const agreement::SlotTable& slots() const { return slots_; }
  [[nodiscard]] const SessionTable& sessions() const { return sessions_; }
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

  ExecutorConfig config_;
  Observer& observer_;
  OrderWindow window_;
  SessionTable sessions_;
  agreement::SlotTable slots_;
  std::vector<SlotId> active_;  // of slots_
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

  ExecutorOutput out_;
  std::size_t fetch_bytes_waiting_ = 0;
  std::deque<ExecutorOutput::VotePtr> votes_kept_;
  std::size_t vote_bytes_kept_ = 0;
  ExecutorStats stats_;
};

}  // namespace zz::execution
