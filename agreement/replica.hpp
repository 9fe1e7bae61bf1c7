#pragma once

// Replica: the ordering core of one service at one agreement node (docs/protocol.md §4, §5, §7): PBFT (Castro and
// Liskov, TOCS 2002) over references, with requests vouched for by channel.
//
// One thread; no clock, IO or randomness. Callers authenticate senders (channels) and pass time in tick(). Peers'
// mistakes come back as a Refusal and change nothing.
//
// Invariants, asserted where they are made:
//  1. At most one digest is pre-prepared here per (view, n); prepared implies pre-prepared; committed implies prepared.
//  2. Deliveries have no holes and ascending n; agreed times strictly increase.
//  3. h <= last delivered; every live slot lies in (h, h + window].
//  4. This node vouches for at most one digest per (client, session, number).
//  5. Every vote and proposal is preceded by the LogRecord that makes it repeatable, in the same output or an earlier
//     one. The view never goes back.
//  6. A correct primary proposes a request once per view. A new view may still choose two batches that name one
//     request: executors run it once (their session tables).

#include <memory>
#include <optional>
#include <vector>

#include "agreement/authority.hpp"
#include "agreement/delivery.hpp"
#include "agreement/log_record.hpp"
#include "agreement/messages.hpp"
#include "agreement/primary_watch.hpp"
#include "agreement/system_rules.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

struct ReplicaConfig {
  ServiceId service;
  NodeId self;
  std::uint32_t f = 1;
  std::uint32_t window = 256;  // L of the protocol, in batches
  std::uint32_t batch_requests_max = 1024;
  std::uint32_t batch_bytes_max = 1u << 20;
  std::uint32_t client_window = 256;  // a node vouches within twice this, since it may lag the client
  // Sessions of one client with requests waiting at once; and, of those that the order knows, how many are
  // remembered: the one used least recently makes room.
  std::uint32_t client_sessions_max = 16;
  std::uint64_t client_bytes_max = 64u << 20;   // request bodies waiting, per client
  std::uint64_t requests_bytes_max = 1u << 30;  // request bodies waiting, of all clients
  std::uint32_t pipeline_depth = 2;             // proposals in flight before a batch waits to be full
  Micros clock_bound{2'000'000};
  Micros body_timeout{500'000};  // fetch missing bodies again from another node after this
  Micros view_timeout{500'000};  // base of the view timer (agreement/primary_watch.hpp)
  Micros view_timeout_max{60'000'000};
  Micros progress{200'000};  // PROGRESS at least this often
};

struct Outgoing {
  std::optional<NodeId> to;  // nothing: every other node
  Body body;
};

// Members in the order in which they must be carried out (a durable log comes before `send`).
struct ReplicaOutput {
  std::vector<LogRecord> log;
  std::vector<Outgoing> send;
  std::vector<Delivery> deliver;
};

struct ReplicaStats {
  std::uint64_t view_changes = 0;  // VIEW-CHANGEs sent
  std::uint64_t views_entered = 0;
  Complaint last_complaint{};  // meaningful when view_changes > 0
};

class Replica {
 public:
  // `authority`, `rules` and `observer` must outlive the replica.
  Replica(const ReplicaConfig& config, Authority& authority, const SystemRules& rules, Observer& observer);
  ~Replica();

  // What its durable log held; before anything else is called. The ordered batches come out as deliveries.
  void restore(const Recovered& recovered);

  // Monotonic and wall time now; call it at least every few milliseconds.
  void tick(Micros monotonic, Micros wall);

  // A request that came on its client's own channel (its digest already computed). kDuplicate: already
  // vouched or delivered (ask the reply book); kConflict: another digest has that number; kSessionExpired: the session
  // was evicted, start a new one; kOutOfWindow, kQuota (too many live sessions), kQueueFull (too many bytes): BUSY;
  // kMalformed: number 0 or unknown flags.
  Refusal vouch(RequestPtr request);
  // A system operation this node wants ordered. The primary proposes it; it is forgotten when delivered or
  // when it is not admissible. Bounded; duplicates are fine.
  void propose(SystemOp op);

  Refusal step(NodeId from, const PrePrepare& message);
  Refusal step(NodeId from, const Prepare& message);
  Refusal step(NodeId from, const Commit& message);
  Refusal step(NodeId from, const FetchBodies& message);
  Refusal step(NodeId from, const Bodies& message);
  Refusal step(NodeId from, const FetchHeaders& message);
  Refusal step(NodeId from, const Headers& message);
  Refusal step(NodeId from, const ViewChangePtr& message);
  Refusal step(NodeId from, const NewViewPtr& message);
  Refusal step(NodeId from, const Progress& message);
  Refusal step(NodeId from, const VouchQuery& message);
  Refusal step(NodeId from, const Vouched& message);
  Refusal step(NodeId from, const Propose& message);

  // A channel to that node has come up: it is told where this node is, and sends what this node lacks.
  void peer_up(NodeId node);

  // The stable checkpoint. h follows it as far as this node has delivered.
  void set_stable(const CertificatePtr& certificate);
  // Batch last_delivered() + 1, proven (agreement/catch_up.hpp).
  void adopt(const Batch& batch);
  // A learner votes, proposes and changes views no more until it is told otherwise.
  void set_learner(bool learner);

  // Cuts the batches that are due (none before the first tick). The result must be carried out whole before the next
  // call to it.
  [[nodiscard]] ReplicaOutput take_output();

  [[nodiscard]] View view() const;  // the one it is in, or waits for
  [[nodiscard]] bool changing() const;
  [[nodiscard]] NodeId primary() const;  // (service + view) mod n
  [[nodiscard]] Seq last_delivered() const;
  [[nodiscard]] const Digest& history() const;  // H of it
  [[nodiscard]] Seq low_watermark() const;
  [[nodiscard]] std::size_t waiting_requests() const;  // vouched, not yet delivered
  [[nodiscard]] Micros view_timeout() const;
  [[nodiscard]] const ReplicaStats& stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zz::agreement
