#include "vmpool/pool.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "vmpool/ballots.hpp"

namespace zz::vmpool {
namespace {

using agreement::EpochNotice;
using agreement::Wake;
using Kind = BackendCall::Kind;

struct Slot {
  ServiceId service;
  SlotId id;
  std::uint32_t g = 0;
  SlotState state = SlotState::kAbsent;
  Incarnation incarnation;  // of the guest, or of the last one
  CallId pending;           // the one backend call whose result counts; 0 = none
  Incarnation known;        // by the believed notice
  Incarnation evicted;      // by the believed notice: this one and all before
  crypto::PublicKey key;
  Epoch wake_epoch;  // handed over with the key
  WakeBallot wakes;
  bool joined = false;      // a believed notice shows this incarnation
  bool presumed = false;    // never slept: handed its key at boot because epoch 0 begins so
  bool thawing = false;     // waking: the key follows
  bool failing = false;     // destroying: a failure, so back off before the next boot
  bool guest_left = false;  // failed: destroy has to be tried again
  std::uint32_t failures = 0;
  Micros settled_at{-1};  // asleep or awake since; -1 = never in this incarnation
  Micros retry_at;
  Micros join_at;
  Micros join_wait;
};

Micros doubled(Micros base, Micros limit, std::uint32_t times) {
  Micros out = base;
  for (std::uint32_t i = 0; i < times && out < limit; ++i) out.value *= 2;
  return std::min(out, limit);
}

Micros later(Micros now, Micros wait) { return Micros{now.value + wait.value}; }

bool contains(const std::vector<SlotId>& slots, SlotId slot) {
  return std::binary_search(slots.begin(), slots.end(), slot);
}

}  // namespace

struct Pool::State {
  State(const crypto::ClusterFile& cluster_file, HostId host, const crypto::SecretKey& host_key, Incarnation used_up,
        Observer& events)
      : cluster(cluster_file), self(host), key(host_key), observer(events), last_used(used_up) {
    for (const crypto::ServiceEntry& service : cluster.services) {
      boards.emplace_back(NoticeBoard::Shape{cluster.n(), cluster.f, service.g});
      for (const crypto::SlotEntry& entry : service.slots) {
        if (entry.host != self) continue;
        slots.push_back(Slot{.service = service.id,
                             .id = entry.id,
                             .g = service.g,
                             .incarnation = {},
                             .pending = {},
                             .known = {},
                             .evicted = {},
                             .key = {},
                             .wake_epoch = {},
                             .wakes = WakeBallot(cluster.n(), cluster.f),
                             .retry_at = {},
                             .join_at = {},
                             .join_wait = {}});
      }
    }
  }

  const crypto::ClusterFile& cluster;
  const HostId self;
  const crypto::SecretKey& key;
  Observer& observer;
  std::vector<Slot> slots;          // ascending by service, then slot
  std::vector<NoticeBoard> boards;  // by service
  Incarnation last_used;
  CallId last_call;
  Micros now;
  bool stopping = false;
  PoolOutput out;

  // ---- helpers --------------------------------------------------------------------------------------------

  [[nodiscard]] Slot* find(ServiceId service, SlotId id) {
    for (Slot& slot : slots) {
      if (slot.service == service && slot.id == id) return &slot;
    }
    return nullptr;
  }
  [[nodiscard]] bool hosts(ServiceId service) const {
    return std::any_of(slots.begin(), slots.end(), [&](const Slot& s) { return s.service == service; });
  }
  [[nodiscard]] const std::optional<EpochNotice>& believed(const Slot& slot) const {
    return boards[slot.service.value].believed();
  }
  static GuestId guest_of(const Slot& slot) { return {slot.service, slot.id, slot.incarnation}; }

  Refusal refuse(Refusal why, NodeId from, ServiceId service) {
    if (why != Refusal::kNone) {
      Event event{.kind = EventKind::kRefused, .service = service, .why = to_string(why)};
      event.node = from;
      observer.on_event(event);
    }
    return why;
  }

  void move(Slot& slot, SlotState to) {
    ZZ_ASSERT(is_legal(slot.state, to));
    slot.state = to;
    Event event{.kind = EventKind::kSlotState, .service = slot.service, .why = vmpool::to_string(to)};
    event.slot = slot.id;
    event.incarnation = slot.incarnation;
    observer.on_event(event);
  }

  void call(Slot& slot, Kind kind) {
    last_call = last_call.next();
    slot.pending = last_call;
    out.calls.push_back({slot.pending, kind, guest_of(slot), slot.wake_epoch});
  }

  // ---- the life of a slot ---------------------------------------------------------------------------------

  void boot(Slot& slot) {
    last_used = last_used.next();
    out.used_up = last_used;
    slot.incarnation = last_used;
    slot.joined = slot.presumed = slot.thawing = slot.failing = slot.guest_left = false;
    slot.settled_at = Micros{-1};
    slot.wake_epoch = Epoch{};
    move(slot, SlotState::kBooting);
    call(slot, Kind::kBoot);
  }

  // Epoch 0 begins with slots 0..g; from then on a fresh guest always sleeps first (docs/protocol.md §11).
  [[nodiscard]] bool begins_awake(const Slot& slot) const {
    const auto& notice = believed(slot);
    if (!notice) return slot.id.value <= slot.g;
    return contains(notice->active, slot.id) && notice->incarnations[slot.id.value].value == 0;
  }

  void booted(Slot& slot, const crypto::PublicKey& guest_key) {
    slot.key = guest_key;
    if (!begins_awake(slot)) {
      move(slot, SlotState::kFreezing);
      call(slot, Kind::kFreeze);
      return;
    }
    slot.presumed = true;
    move(slot, SlotState::kWaking);
    call(slot, Kind::kHandOver);
    announce(slot);
  }

  void wake(Slot& slot, Epoch epoch) {
    slot.wake_epoch = epoch;
    slot.wakes.clear();
    slot.thawing = true;
    move(slot, SlotState::kWaking);
    call(slot, Kind::kThaw);
  }

  // The guest has to go. `failed`: it is to blame, so the next one waits.
  void destroy(Slot& slot, bool failed) {
    if (failed) note_failure(slot);
    slot.failing = failed;
    slot.wakes.clear();
    move(slot, SlotState::kDestroying);
    call(slot, Kind::kDestroy);
  }

  // A living guest ended or did not do as it was told.
  void lost(Slot& slot) {
    if (is_announced(slot.state)) send_dead(slot, slot.incarnation, std::nullopt);
    destroy(slot, true);
  }

  void note_failure(Slot& slot) {
    if (slot.settled_at.value >= 0 && now.value - slot.settled_at.value >= kHealthyAfter.value) slot.failures = 0;
    slot.settled_at = Micros{-1};
    slot.failures = std::min(slot.failures + 1, 1'000u);
    slot.retry_at = later(now, doubled(kBackoffMin, kBackoffMax, slot.failures - 1));
  }

  void destroyed(Slot& slot) {
    slot.guest_left = false;
    if (stopping) return move(slot, SlotState::kAbsent);
    if (slot.failing) return move(slot, SlotState::kFailed);
    boot(slot);
  }

  void call_failed(Slot& slot) {
    switch (slot.state) {
      case SlotState::kBooting:
        note_failure(slot);
        return move(slot, SlotState::kFailed);
      case SlotState::kDestroying:
        note_failure(slot);
        slot.guest_left = true;
        return move(slot, SlotState::kFailed);
      default:
        return lost(slot);
    }
  }

  void call_succeeded(Slot& slot, const CallResult& result) {
    switch (slot.state) {
      case SlotState::kBooting:
        return booted(slot, result.key);
      case SlotState::kFreezing:
        slot.settled_at = now;
        move(slot, SlotState::kAsleep);
        announce(slot);
        return obey(slot);
      case SlotState::kWaking:
        if (std::exchange(slot.thawing, false)) return call(slot, Kind::kHandOver);
        if (slot.settled_at.value < 0) slot.settled_at = now;
        return move(slot, SlotState::kAwake);
      case SlotState::kDestroying:
        return destroyed(slot);
      default:
        ZZ_ASSERT(false);  // no other state has a call pending
    }
  }

  // ---- what the nodes are told ----------------------------------------------------------------------------

  void send_join(const Slot& slot, std::optional<NodeId> to) {
    agreement::Join join{slot.service, slot.id, slot.incarnation, slot.key, {}};
    join.signature = key.sign(join_fields(cluster.id, join));
    out.joins.push_back({to, join});
  }

  void announce(Slot& slot) {
    slot.join_wait = kJoinRetryMin;
    slot.join_at = later(now, slot.join_wait);
    send_join(slot, std::nullopt);
  }

  void send_dead(const Slot& slot, Incarnation incarnation, std::optional<NodeId> to) {
    out.dead.push_back({to, slot.service, {slot.id, incarnation}});
  }

  // The incarnation that the nodes believe in although it is gone.
  [[nodiscard]] std::optional<Incarnation> believed_dead(const Slot& slot) const {
    const auto& notice = believed(slot);
    if (!notice) return std::nullopt;
    const Incarnation known = notice->incarnations[slot.id.value];
    if (known <= notice->evicted_through[slot.id.value]) return std::nullopt;
    const bool alive = known == slot.incarnation && is_announced(slot.state);
    return alive ? std::nullopt : std::optional(known);
  }

  // ---- the order's word -----------------------------------------------------------------------------------

  // Brings a slot in line with the believed notice.
  void obey(Slot& slot) {
    const auto& notice = believed(slot);
    if (!notice) return;
    const Incarnation known = slot.known = notice->incarnations[slot.id.value];
    const Incarnation evicted = slot.evicted = notice->evicted_through[slot.id.value];
    // Our own count was lost if the order knows later incarnations than we ever used.
    last_used = std::max({last_used, known, evicted});
    const bool active = contains(notice->active, slot.id);
    slot.joined = known == slot.incarnation;
    if (slot.state == SlotState::kAbsent || slot.state == SlotState::kDestroying || slot.state == SlotState::kFailed) {
      return;
    }
    const bool outdated = slot.incarnation <= evicted || slot.incarnation < known;
    // Handed its key as one of epoch 0, but the order is past that: start over, asleep.
    const bool misplaced = slot.presumed && !slot.joined && !(active && known.value == 0);
    if (outdated || misplaced) return destroy(slot, false);
    if (active && slot.joined && slot.state == SlotState::kAsleep) wake(slot, notice->epoch);
  }

  void obey_all(ServiceId service) {
    for (Slot& slot : slots) {
      if (slot.service != service) continue;
      const auto before = std::pair(slot.known, slot.evicted);
      obey(slot);
      if (const auto dead = believed_dead(slot)) send_dead(slot, *dead, std::nullopt);
      // What was too early may be right now; otherwise the timer repeats it.
      const bool news = before != std::pair(slot.known, slot.evicted);
      if (news && is_announced(slot.state) && !slot.joined) announce(slot);
    }
  }
};

Pool::Pool(const crypto::ClusterFile& cluster, HostId self, const crypto::SecretKey& key, Incarnation used_up,
           Observer& observer)
    : state_(std::make_unique<State>(cluster, self, key, used_up, observer)) {}

Pool::~Pool() = default;

void Pool::tick(Micros now) {
  State& s = *state_;
  s.now = now;
  for (Slot& slot : s.slots) {
    if (slot.state == SlotState::kAbsent && !s.stopping) s.boot(slot);
    if (slot.state == SlotState::kFailed && now >= slot.retry_at) {
      if (slot.guest_left) {
        s.destroy(slot, false);
      } else {
        s.boot(slot);
      }
    }
    if (is_announced(slot.state) && !slot.joined && now >= slot.join_at) {
      slot.join_wait = doubled(slot.join_wait, kJoinRetryMax, 1);
      slot.join_at = later(now, slot.join_wait);
      s.send_join(slot, std::nullopt);
    }
  }
}

Refusal Pool::step(NodeId from, const Wake& wake) {
  State& s = *state_;
  const auto refuse = [&](Refusal why) { return s.refuse(why, from, wake.service); };
  if (from.value >= s.cluster.n()) return refuse(Refusal::kUnknownPeer);
  if (wake.signer != from) return refuse(Refusal::kWrongRole);
  if (wake.service.value >= s.boards.size()) return refuse(Refusal::kUnknownService);
  Slot* slot = s.find(wake.service, wake.slot);
  if (slot == nullptr) return refuse(Refusal::kUnknownSlot);
  if (wake.incarnation != slot->incarnation) return refuse(Refusal::kStaleIncarnation);
  if (slot->state == SlotState::kWaking || slot->state == SlotState::kAwake) return refuse(Refusal::kDuplicate);
  if (slot->state != SlotState::kAsleep || s.stopping) return refuse(Refusal::kNotReady);
  const auto& notice = s.believed(*slot);
  if (notice && wake.epoch < notice->epoch) return refuse(Refusal::kStaleEpoch);
  if (const Refusal why = slot->wakes.admit(from, wake.epoch); why != Refusal::kNone) return refuse(why);
  // Dear, so last: a node makes us check at most one signature per epoch it names.
  if (!crypto::verify(s.cluster.nodes[from.value].key, wake_fields(s.cluster.id, wake), wake.signature))
    return refuse(Refusal::kBadSignature);
  if (slot->wakes.add(from, wake.epoch)) s.wake(*slot, wake.epoch);
  return Refusal::kNone;
}

Refusal Pool::step(NodeId from, const EpochNotice& notice) {
  State& s = *state_;
  const auto refuse = [&](Refusal why) { return s.refuse(why, from, notice.service); };
  if (from.value >= s.cluster.n()) return refuse(Refusal::kUnknownPeer);
  if (notice.service.value >= s.boards.size()) return refuse(Refusal::kUnknownService);
  // Nodes tell every host; a service without a slot here is no concern of ours, and no fault of theirs.
  if (!s.hosts(notice.service)) return Refusal::kNone;
  NoticeBoard& board = s.boards[notice.service.value];
  const Refusal why = board.add(from, notice);
  if (board.take_changed()) s.obey_all(notice.service);
  return refuse(why);
}

void Pool::step(const CallResult& result) {
  State& s = *state_;
  for (Slot& slot : s.slots) {
    if (slot.pending != result.call || result.call.value == 0) continue;
    slot.pending = CallId{};
    if (result.ok) {
      s.call_succeeded(slot, result);
    } else {
      s.call_failed(slot);
    }
    return;
  }
}

void Pool::guest_died(const GuestId& guest) {
  Slot* slot = state_->find(guest.service, guest.slot);
  if (slot == nullptr || slot->incarnation != guest.incarnation) return;
  if (slot->state == SlotState::kFreezing || is_announced(slot->state)) state_->lost(*slot);
}

void Pool::node_up(NodeId node) {
  State& s = *state_;
  for (const Slot& slot : s.slots) {
    if (const auto dead = s.believed_dead(slot)) s.send_dead(slot, *dead, node);
    if (is_announced(slot.state) && !slot.joined) s.send_join(slot, node);
  }
}

void Pool::stop() {
  State& s = *state_;
  s.stopping = true;
  for (Slot& slot : s.slots) {
    if (slot.state == SlotState::kAbsent || slot.state == SlotState::kDestroying) continue;
    if (slot.state == SlotState::kFailed && !slot.guest_left) {
      s.move(slot, SlotState::kAbsent);
    } else {
      if (is_announced(slot.state)) s.send_dead(slot, slot.incarnation, std::nullopt);
      s.destroy(slot, false);
    }
  }
}

PoolOutput Pool::take_output() { return std::exchange(state_->out, {}); }

bool Pool::stopped() const {
  const auto& slots = state_->slots;
  return state_->stopping &&
         std::all_of(slots.begin(), slots.end(), [](const Slot& s) { return s.state == SlotState::kAbsent; });
}

std::vector<PoolSlot> Pool::slots() const {
  std::vector<PoolSlot> out;
  for (const Slot& slot : state_->slots) {
    out.push_back({slot.service, slot.id, slot.incarnation, slot.state, slot.joined, slot.failures});
  }
  return out;
}

}  // namespace zz::vmpool
