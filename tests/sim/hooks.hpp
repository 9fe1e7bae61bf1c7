#pragma once

// What the simulator's parts know of each other: parcels, adversaries (Byzantine nodes) and the witness (ghost state
// and checkers). One thread, virtual time.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agreement/delivery.hpp"
#include "agreement/log_record.hpp"
#include "agreement/messages.hpp"
#include "base/observer.hpp"
#include "base/prng.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"
#include "crypto/peer.hpp"

namespace zz::sim {

using MessagePtr = std::shared_ptr<const agreement::Message>;

// One message on one channel.
struct Parcel {
  crypto::Peer from;
  crypto::Peer to;
  MessagePtr message;
};

// Counts by name: faults injected, "sometimes" events, refusals. std::less<>: looked up by string_view.
using Counters = std::map<std::string, std::uint64_t, std::less<>>;
void count(Counters& counters, std::string_view name, std::uint64_t by = 1);

// ---- Byzantine agreement nodes (adversary.hpp) ----

// What a faulty node may use: its own key and those of the other faulty nodes, never a correct one's.
struct AdversaryWorld {
  const crypto::ClusterFile& cluster;
  NodeId self;
  const std::map<NodeId, const crypto::SecretKey*>& keys;  // of the faulty nodes
  Prng& prng;
  Counters& counters;  // "byzantine.<what was done>"
  Micros now;
};

// One per Byzantine node. Behind it runs correct code, whose outgoing messages it may change, hold back or add to.
class Adversary {
 public:
  virtual ~Adversary() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // The correct code would send this parcel now. Append what leaves instead, each with a delay (microseconds).
  struct Leaving {
    Parcel parcel;
    Micros delay;
  };
  virtual void outgoing(AdversaryWorld& world, const Parcel& parcel, std::vector<Leaving>& out) = 0;
  // Everything the node receives, before its correct code sees it; false: the correct code does not see it.
  virtual bool incoming(AdversaryWorld& world, const Parcel& parcel) = 0;
  // Every 20 virtual milliseconds: may say something of its own accord.
  virtual void act(AdversaryWorld& world, std::vector<Leaving>& out) = 0;
};

// ---- the witness (witness.hpp) ----

// Sees everything and believes nothing. "Correct" nodes are those that are neither Byzantine nor have lost promised
// data.
class Witness {
 public:
  virtual ~Witness() = default;

  virtual void sent(Micros now, const Parcel& parcel) = 0;  // left its sender, of whatever kind
  // A node's record reached its disk (promises) or its log's memory (others); `synced` says which.
  virtual void persisted(NodeId node, const agreement::LogRecord& record, bool synced) = 0;
  virtual void delivered(NodeId node, const agreement::Delivery& delivery) = 0;
  virtual void observed(Micros now, const Event& event) = 0;  // of cores of nodes, executors and hosts
  virtual void node_restarted(NodeId node, bool amnesiac) = 0;
  virtual void submitted(Micros now, ClientId client, SessionId session, RequestNumber number,
                         const SharedBytes& op) = 0;
  virtual void accepted(Micros now, ClientId client, SessionId session, RequestNumber number,
                        const SharedBytes& reply) = 0;
  // Executed a batch whole: its vote's digest list and a digest of its whole state.
  virtual void executed(SlotId slot, Incarnation incarnation, Seq n, const std::vector<Digest>& replies,
                        const Digest& state) = 0;
  // Any slot took over the state that this certificate is of; it goes on from there.
  virtual void adopted(SlotId slot, Incarnation incarnation, const agreement::CertificatePtr& certificate) = 0;
  // Any slot begins with the first batch again, in the same life.
  virtual void replays(SlotId slot, Incarnation incarnation) = 0;
  // Any slot goes on, though it has learnt that its state after n is not the certified one.
  virtual void goes_on(SlotId slot, Incarnation incarnation, Seq n) = 0;
  virtual void woken(Micros now, SlotId slot, Incarnation incarnation) = 0;  // a host thawed this sleeper
  // A node learnt that it has, or no longer has, a channel of this executor.
  virtual void channel(Micros now, NodeId node, SlotId slot, Incarnation incarnation, bool up) = 0;

  // After every event: the first violated invariant, as "I1 ...: what, where"; nothing when all is well.
  [[nodiscard]] virtual std::optional<std::string> violation() const = 0;
  // What these nodes have complained of without a break since before that time, though they are enough to be heard, or
  // have no more reason to; nothing when all is well.
  [[nodiscard]] virtual std::optional<std::string> open_complaint(const std::set<NodeId>& core,
                                                                  Micros before) const = 0;
  // A view that a node of the core left at `since` or later, though its primary is of the core and f+1 correct nodes
  // had not complained of it before that time; nothing when there is none.
  [[nodiscard]] virtual std::optional<std::string> needless_change(const std::set<NodeId>& core,
                                                                   Micros since) const = 0;
  // At the end of a run: the invariants that need the whole story (linearizable client history, prefixes, at most
  // once).
  [[nodiscard]] virtual std::optional<std::string> final_violation() = 0;
};

}  // namespace zz::sim
