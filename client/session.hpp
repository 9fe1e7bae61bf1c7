#pragma once

// Session: the client core (docs/protocol.md §2, §4, §8). It numbers requests, sends them to all agreement
// nodes, counts what the nodes say, and completes each request with a reply that f+1 nodes vouch for, or with
// a definite error.
//
// One thread; no clock, socket or randomness: time comes in with tick(), the session id from the caller.
// Payloads are slices of the frames they came in. What nodes get wrong comes back as a Refusal and changes
// nothing else.
//
// Invariants:
//  1. A reply is accepted only when f+1 distinct nodes gave its digest and its body has that digest.
//  2. Each node's word on a number counts once: its first digest.
//  3. Every submitted request completes exactly once, at the latest when its time is up.
//  4. Outstanding numbers lie in (low, low + window]; memory is bounded by the window, and by one body per request.
//  5. Once a request ended without a reply, its number may be missing in the order for ever: the session takes no new
//     ones (ended()), so that a gap can never block it.
//
// When it sends again:
//  - hedge: a node says the request is closed, but body or digests are missing one hedge delay later; sooner when that
//    has become the rule, as with a home that is dead or slow;
//  - retransmit: nothing is heard; the delay doubles with every try;
//  - busy: only to the nodes that said so, after a delay that doubles.
// All delays stretch with the latency seen lately, so that a loaded cluster is not loaded further.

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"

namespace zz::client {

struct SessionConfig {
  SessionId id;
  std::uint32_t f = 1;
  std::uint32_t window = 256;                // outstanding requests; the cluster's client_window
  std::size_t message_bytes_max = 1u << 20;  // op bytes of one Requests message; one larger op travels alone
  Micros hedge{20'000};
  Micros retransmit{500'000};
  Micros retransmit_max{8'000'000};
  Micros busy{10'000};
  Micros busy_max{500'000};
  Micros timeout{30'000'000};  // then the request completes with kTimedOut
};

enum class Outcome : std::uint8_t {
  kReply,     // `reply` is what g+1 replicas agreed on
  kRejected,  // f+1 nodes refused it for `reason`; it was not taken by them
  kTimedOut,  // nobody can say whether it was or will be executed
};
std::string_view to_string(Outcome outcome);

struct Completed {
  RequestNumber number;
  Outcome outcome = Outcome::kTimedOut;
  SharedBytes reply;
  Refusal reason = Refusal::kNone;
};

// Members in the order in which they must be carried out.
struct SessionOutput {
  struct Send {
    std::optional<NodeId> to;  // nothing: every node
    agreement::Requests requests;
  };
  std::vector<Send> send;
  std::vector<Completed> completed;
};

struct SessionStats {
  std::uint64_t submitted = 0;
  std::uint64_t replies = 0;
  std::uint64_t rejected = 0;
  std::uint64_t timed_out = 0;
  std::uint64_t hedges = 0;
  std::uint64_t retransmits = 0;
  std::uint64_t busy = 0;          // BUSY answers
  std::uint64_t wrong_bodies = 0;  // bodies that were not what their node said
  std::uint64_t conflicts = 0;     // nodes that changed their word, or said another digest than f+1 others
};

class Session {
 public:
  // Requires f <= kFaultsMax and window > 0.
  explicit Session(const SessionConfig& config);

  // Monotonic time now. Cheap when nothing is due.
  void tick(Micros now);
  // The number under which `op` will complete; nothing (BUSY) when the window is full or the session has ended.
  std::optional<RequestNumber> submit(SharedBytes op);
  // Acks and rejections for this session only.
  Refusal step(NodeId from, const agreement::Acks& acks);
  Refusal step(NodeId from, const agreement::Rejected& rejected);
  // A new channel to that node: it is told again what is outstanding.
  void channel_up(NodeId node);

  [[nodiscard]] bool has_output() const;
  [[nodiscard]] SessionOutput take_output();

  [[nodiscard]] SessionId id() const { return config_.id; }
  [[nodiscard]] std::uint32_t outstanding() const { return outstanding_; }
  [[nodiscard]] bool has_room() const { return !ended_ && next_ <= low_ + config_.window; }
  // No new requests are taken: open another session. Outstanding ones still complete.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] const SessionStats& stats() const { return stats_; }

 private:
  static constexpr std::uint32_t kHedgesExpected = 3;  // so many in a row, and the next will be one too
  static constexpr std::uint32_t kNodesMax = 3 * crypto::kFaultsMax + 1;

  // One outstanding request; its place in the ring is number % window.
  struct Entry {
    bool open = false;
    SharedBytes op;
    Micros sent;  // first time
    Micros first_ack;
    Micros deadline;          // when it times out
    Micros resend;            // to all nodes, unless it completes first
    Micros busy_resend;       // to the nodes in `busy`
    std::uint32_t tries = 0;  // times sent again to all
    std::uint32_t busy_tries = 0;
    std::uint32_t acked = 0;     // bit per node: said a digest
    std::uint32_t busy = 0;      // bit per node: said BUSY since we sent to it
    std::uint32_t rejected = 0;  // bit per node: refused for good
    bool hedged = false;         // a hedge is due or was sent
    bool has_body = false;
    SharedBytes body;  // its digest is body_digest
    Digest body_digest;
  };

  [[nodiscard]] Entry* find(RequestNumber number);
  [[nodiscard]] Digest& word_of(std::uint64_t number, std::uint32_t node);
  [[nodiscard]] Refusal& reason_of(std::uint64_t number, std::uint32_t node);
  Refusal take(NodeId from, const agreement::Acks::Item& item);
  Refusal keep_body(std::uint64_t number, Entry& entry, const agreement::Acks::Item& item);
  void judge(std::uint64_t number, Entry& entry, const Digest& digest);
  [[nodiscard]] std::uint32_t count_equal(std::uint64_t number, const Entry& entry, const Digest& digest);
  void complete(Entry& entry, Completed result);
  void learn_latency(const Entry& entry);
  void plan_hedge(Entry& entry);
  void check(std::uint64_t number, Entry& entry);
  void set_due(Micros when) { next_due_ = std::min(next_due_, when); }
  [[nodiscard]] Micros retransmit_delay(std::uint32_t tries) const;
  void emit(std::vector<SessionOutput::Send>& out, std::optional<NodeId> to,
            std::vector<agreement::Requests::Item>& items) const;

  SessionConfig config_;
  std::uint32_t nodes_;
  Micros now_{};
  Micros next_due_;         // nothing to do in tick() before
  std::uint64_t next_ = 1;  // next number to give
  std::uint64_t low_ = 0;   // everything up to here has completed
  std::uint32_t outstanding_ = 0;
  bool ended_ = false;
  Micros latency_{};                 // smoothed, see learn_latency()
  std::uint32_t hedged_in_row_ = 0;  // requests answered last, that were answered only when asked for again
  std::vector<Entry> ring_;
  std::vector<Digest> words_;     // a row of nodes_ per ring entry: what each node said
  std::vector<Refusal> reasons_;  // likewise: why it refused
  std::uint64_t fresh_from_ = 1;  // numbers from here on have not left yet
  std::vector<agreement::Requests::Item> to_all_;
  std::vector<std::vector<agreement::Requests::Item>> to_one_;  // per node
  std::vector<Completed> completed_;
  SessionStats stats_;
};

}  // namespace zz::client
