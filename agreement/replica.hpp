#pragma once

// Replica: the ordering core of one service at one agreement node (docs/protocol.md §4, §5). PBFT's normal
// case (Castro and Liskov, TOCS 2002 §2.3) over references, with requests vouched for by channel.
//
// One thread; no clock, IO or randomness. Callers authenticate senders (channels) and pass wall time in
// tick(). Peers' mistakes come back as a Refusal and change nothing.
//
// Invariants, asserted where they are made:
//  1. At most one digest is pre-prepared here per (view, n); prepared implies pre-prepared; committed implies prepared.
//  2. Deliveries have no holes and ascending n; agreed times strictly increase.
//  3. No request (client, session, number) is delivered twice while its session is remembered.
//  4. h <= last delivered; every live slot lies in (h, h + kWindow].
//  5. This node vouches for at most one digest per (client, session, number).

#include <memory>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/system_rules.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

inline constexpr std::uint64_t kWindow = 256;  // L of the protocol, in batches

struct ReplicaConfig {
  ServiceId service;
  NodeId self;
  std::uint32_t f = 1;
  std::uint32_t batch_requests_max = 1024;
  std::uint32_t batch_bytes_max = 1u << 20;
  std::uint32_t client_window = 256;  // a node vouches within twice this, since it may lag the client
  // Sessions of one client with requests waiting at once; and, of those that the order knows, how many are
  // remembered: the one used least recently makes room.
  std::uint32_t client_sessions_max = 16;
  std::uint64_t client_bytes_max = 64u << 20;   // request bodies waiting, per client
  std::uint64_t requests_bytes_max = 1u << 30;  // request bodies waiting, of all clients
  std::uint32_t pipeline_depth = 2;             // proposals in flight before a batch waits to fill up
  Micros clock_bound{2'000'000};
  Micros body_timeout{500'000};  // fetch missing bodies again from another node after this
};

// A committed batch whose turn has come.
struct Delivery {
  HeaderPtr header;
  Digest digest;                     // D_n
  Digest history;                    // H_n
  std::vector<RequestPtr> requests;  // bodies, in the order of header->references
};

struct Outgoing {
  std::optional<NodeId> to;  // nothing: every other node
  Body body;
};

// Members in the order in which they must be carried out (a durable log comes before `send`).
struct ReplicaOutput {
  std::vector<Outgoing> send;
  std::vector<Delivery> deliver;
};

class Replica {
 public:
  // `rules` and `observer` must outlive the replica.
  Replica(const ReplicaConfig& config, const SystemRules& rules, Observer& observer);
  ~Replica();

  // Wall time now; call it at least every few milliseconds, never going back by more than the clock bound.
  void tick(Micros wall);

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

  // A channel to that node has come up: sends it again what this node said about the slots above h, since messages may
  // have been lost with the channel before. At most once per body_timeout.
  void peer_up(NodeId node);

  // Moves h forward (never back); slots at or below it are forgotten. Requires n <= last delivered.
  void set_low_watermark(Seq n);

  // Cuts the batches that are due (none before the first tick). The result must be carried out whole before the next
  // call to it.
  [[nodiscard]] ReplicaOutput take_output();

  [[nodiscard]] View view() const;
  [[nodiscard]] NodeId primary() const;  // (service + view) mod n
  [[nodiscard]] Seq last_delivered() const;
  [[nodiscard]] Seq low_watermark() const;
  [[nodiscard]] std::size_t waiting_requests() const;  // vouched, not yet delivered

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zz::agreement
