#pragma once

// ServiceInstance: everything one agreement node holds for one service, without IO. It wires the cores (ordering,
// oversight, checkpoints, catch-up) to the order log and the reply book, and turns their outputs into messages for
// named peers and records for the durable log. One thread.

#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "agreement/authority.hpp"
#include "agreement/catch_up.hpp"
#include "agreement/checkpoint_book.hpp"
#include "agreement/evidence_book.hpp"
#include "agreement/log_record.hpp"
#include "agreement/messages.hpp"
#include "agreement/order_log.hpp"
#include "agreement/oversight.hpp"
#include "agreement/replica.hpp"
#include "agreement/reply_book.hpp"
#include "agreement/state_evidence.hpp"
#include "agreement/state_relay.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"
#include "crypto/peer.hpp"

namespace zz::agreement {

// Where the messages of a turn go. Implemented over channels by the node, over queues by tests and the simulator.
class Outlet {
 public:
  virtual ~Outlet() = default;
  virtual void to_all_nodes(const Message& message) = 0;  // every other node
  virtual void to_node(NodeId node, const Message& message) = 0;
  virtual void to_host(HostId host, const Message& message) = 0;
  virtual void to_all_hosts(const Message& message) = 0;
  virtual void to_client(ClientId client, const Message& message) = 0;
  // False when that executor has no channel.
  virtual bool to_executor(ServiceId service, SlotId slot, Incarnation incarnation, const Message& message) = 0;
  [[nodiscard]] virtual std::size_t queued_bytes(ServiceId service, SlotId slot, Incarnation incarnation) const = 0;
  // Channels of incarnations of this service that are no longer current must go.
  virtual void drop_stale_executors(ServiceId service) = 0;
  // To be written to the durable log. What is_promise() must be on disk before any message leaves that was given to
  // this outlet after it; implementations hold the messages of a turn back and sync once.
  virtual void persist(ServiceId service, const LogRecord& record) = 0;
  // So must all that was persisted until now, promise or not.
  virtual void sync(ServiceId service) = 0;
};

class ServiceInstance {
 public:
  // All references must outlive it.
  ServiceInstance(const crypto::ClusterFile& cluster, ServiceId service, NodeId self, const crypto::SecretKey& key,
                  Observer& observer, Outlet& outlet);

  // What the durable log held; before anything else is called.
  void restore(const Recovered& recovered);

  // One message from an authenticated peer. Anything but kNone changed nothing.
  Refusal step(const crypto::Peer& from, Message& message);
  void peer_up(const crypto::Peer& peer);
  void peer_down(const crypto::Peer& peer);
  void tick(Micros monotonic, Micros wall);
  // Takes the cores' outputs and carries them out until they are quiet.
  void run();

  [[nodiscard]] const Oversight& oversight() const { return oversight_; }
  [[nodiscard]] const Replica& replica() const { return replica_; }
  [[nodiscard]] const OrderLog& log() const { return log_; }
  [[nodiscard]] Seq stable() const { return stable_n(checkpoints_.stable()); }
  // Replies that differed, with what could be had of them.
  [[nodiscard]] std::vector<Evidence> take_evidence() { return evidence_.take_done(); }
  // States that differed, likewise.
  [[nodiscard]] std::vector<StateDifference> take_state_evidence() { return state_evidence_.take_done(); }
  // This node lost promises, and votes again only when everything it may have promised lies behind (docs/protocol.md
  // §5).
  [[nodiscard]] bool learner() const { return learner_; }

 private:
  // Reply bodies may overtake this node's own commit: kept per executor until the batch is delivered here.
  static constexpr std::size_t kEarlyRepliesMax = 256;
  static constexpr std::size_t kEarlyBytesMax = 16u << 20;
  // Each SUBSCRIBE rewinds a stream of megabytes. More than so many per slot and body timeout wait, the newest of them.
  static constexpr std::uint32_t kSubscriptionsMax = 8;
  struct Subscriptions {
    Micros since;
    std::uint32_t count = 0;
    std::optional<Subscribe> waiting;
  };
  struct Executor {
    Incarnation incarnation;
    OrderStream stream;
    std::deque<Replies> early;  // ascending n
    std::size_t early_bytes = 0;
  };

  Refusal from_node(NodeId node, Message& message);
  void learn_from(const ViewChange& change);
  Refusal on_progress(NodeId node, const Progress& message);
  Refusal on_fetch_order(NodeId node, const FetchOrder& message);
  void take_delivery(Delivery& batch);
  void help_to_close(NodeId node, const Progress& message);
  void review_subscriptions(SlotId slot);
  void review_learner(NodeId node, const Progress& message);
  bool run_checkpoints();
  bool run_catch_up();
  Refusal from_host(HostId host, Message& message);
  Refusal from_executor(const crypto::Peer& peer, Message& message);
  Refusal from_client(ClientId client, Message& message);
  Refusal take_replies(Executor& executor, Replies message);
  void take_early_replies();
  Refusal take_request(ClientId client, SessionId session, Requests::Item& item);
  void reject(ClientId client, SessionId session, RequestNumber number, Refusal reason);
  bool run_ordering();
  bool run_oversight();
  void run_replies();
  void run_streams();
  void run_relay();
  void run_evidence();
  void take_difference(OversightOutput::Difference&& difference);
  void fetch_replies(FetchReplies wanted);
  void ask_slots(FetchReplies wanted);
  void presume_closed();
  void tell_stable(SlotId slot, Incarnation incarnation);
  [[nodiscard]] Message wrap(Body body) const { return Message{service_, std::move(body)}; }

  const crypto::ClusterFile& cluster_;
  ServiceId service_;
  NodeId self_;
  Outlet& outlet_;
  Authority authority_;
  Oversight oversight_;
  Replica replica_;
  OrderLog log_;
  ReplyBook book_;
  CheckpointBook checkpoints_;
  CatchUp catch_up_;
  StateRelay relay_;
  EvidenceBook evidence_;
  StateEvidence state_evidence_;
  Micros now_;
  struct Helped {  // one node that is behind
    std::optional<Micros> certificate_at;
    std::uint32_t orders = 0;  // answered since the last tick
    Seq said;                  // its stable checkpoint, by its last PROGRESS
    Seq closed;                // likewise
    std::optional<Micros> closings_at;
  };
  std::vector<Helped> helped_;  // by node
  bool learner_ = false;
  std::uint32_t learner_heard_ = 0;           // bit per node: knows of no stable checkpoint that this node does not
  std::optional<Seq> learner_free_at_;        // once the stable checkpoint is here, no old promise of this node matters
  std::map<SlotId, Executor> executors_;      // with a channel to us
  std::vector<Subscriptions> subscriptions_;  // by slot; they outlive channels
  std::vector<std::vector<SlotId>> agreeing_;  // [n - 1]: who can be asked for reply bodies; empty while open
  std::size_t fetch_turn_ = 0;                 // rotates the slot that is asked
};

}  // namespace zz::agreement
