#pragma once

// Pool: the core of one host daemon (docs/protocol.md §9 to §11). It keeps the host's slots alive: boots each
// one, lets it sleep, wakes it on f+1 WAKEs or when the order makes it active, takes it away when the order
// evicted it, and announces every new incarnation by a JOIN.
//
// One thread; no clock, IO or randomness: time comes in with tick(), keys with the results of boots, signing
// is deterministic. What peers get wrong comes back as a Refusal and changes nothing.
//
// Invariants:
//  1. A slot has at most one guest: the next incarnation boots only after the last one is destroyed.
//  2. Incarnations are used once, in strictly ascending order over all slots of the host and over restarts.
//  3. A sleeping guest is woken only by f+1 valid WAKEs of distinct nodes for its (service, epoch, slot, incarnation),
//     or by f+1 equal notices of distinct nodes that call it active.
//  4. A living guest is destroyed only when f+1 equal notices of distinct nodes say so (evicted, or not the one they
//     know), when it failed, or when the pool stops.
//  5. Every move is in kTransitions. At most one backend call per slot counts at any time; late results are ignored.
//  6. Per slot and node one WAKE is remembered, per service and node one notice: nothing here grows with messages.

#include <memory>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "base/observer.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"
#include "vmpool/hypervisor.hpp"
#include "vmpool/slot_state.hpp"

namespace zz::vmpool {

// A slot that failed waits this long before its next try, doubled per failure in a row.
inline constexpr Micros kBackoffMin{200'000};
inline constexpr Micros kBackoffMax{30'000'000};
// A guest that lived this long forgives the failures before it.
inline constexpr Micros kHealthyAfter{30'000'000};
// A JOIN that no notice confirms is sent again after this long, doubled per try.
inline constexpr Micros kJoinRetryMin{1'000'000};
inline constexpr Micros kJoinRetryMax{8'000'000};
using agreement::kIncarnationMax;

static_assert(kBackoffMin < kBackoffMax && kJoinRetryMin < kJoinRetryMax);

using CallId = Strong<struct CallTag, std::uint64_t>;  // from 1

struct BackendCall {
  enum class Kind : std::uint8_t { kBoot, kFreeze, kThaw, kHandOver, kDestroy };
  CallId id;
  Kind kind{};
  GuestId guest;
  Epoch epoch;  // hand-over only
  auto operator<=>(const BackendCall&) const = default;
};

struct CallResult {
  CallId call;
  bool ok = false;
  crypto::PublicKey key;  // of a successful boot: the key that this incarnation will be handed
};

// To be carried out in this order.
struct PoolOutput {
  std::optional<Incarnation> used_up;  // make durable: this incarnation and all before it are used
  std::vector<BackendCall> calls;
  struct JoinFor {
    std::optional<NodeId> to;  // nothing: every node
    agreement::Join join;
  };
  std::vector<JoinFor> joins;
  struct DeadFor {
    std::optional<NodeId> to;  // nothing: every node
    ServiceId service;
    agreement::SlotDead dead;
  };
  std::vector<DeadFor> dead;
};

// For status.
struct PoolSlot {
  ServiceId service;
  SlotId slot;
  Incarnation incarnation;  // of the guest there is, or of the last one; 0 = never booted
  SlotState state{};
  bool joined = false;         // f+1 nodes know this incarnation
  std::uint32_t failures = 0;  // in a row
};

class Pool {
 public:
  // `cluster`, `key` (this host's) and `observer` must outlive it. `used_up`: incarnations up to here were
  // used before (0 for none).
  Pool(const crypto::ClusterFile& cluster, HostId self, const crypto::SecretKey& key, Incarnation used_up,
       Observer& observer);
  ~Pool();

  // Monotonic time now. The first one boots every slot.
  void tick(Micros now);
  // `from` is the node at the other end of the channel. Signature checked here.
  Refusal step(NodeId from, const agreement::Wake& wake);
  Refusal step(NodeId from, const agreement::EpochNotice& notice);
  // The answer to a BackendCall.
  void step(const CallResult& result);
  // A guest ended by itself.
  void guest_died(const GuestId& guest);
  // There is a new channel to that node: it is told again what it may have missed.
  void node_up(NodeId node);
  // Takes every guest away and boots no more.
  void stop();

  [[nodiscard]] PoolOutput take_output();

  // After stop(): every guest is gone.
  [[nodiscard]] bool stopped() const;
  [[nodiscard]] std::vector<PoolSlot> slots() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zz::vmpool
