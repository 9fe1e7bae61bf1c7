#pragma once

// What the tests of the oversight core share: a cluster in memory with all its keys, an observer that remembers, and
// one Oversight with short words for what can happen to it.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agreement/oversight.hpp"
#include "base/observer.hpp"
#include "crypto/cluster.hpp"
#include "crypto/digest.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

constexpr std::int64_t kMs = 1'000;  // in Micros

inline crypto::SecretKey key_from(std::uint8_t kind, std::uint64_t index) {
  std::array<std::uint8_t, 32> seed{};
  seed[0] = kind;
  for (std::size_t i = 0; i < 8; ++i) seed[i + 1] = static_cast<std::uint8_t>(index >> (8 * i));
  return crypto::SecretKey::from_seed(seed);
}

// 3f+1 nodes, one service with 2g+1 slots, slot i on host i.
struct Parties {
  Parties(std::uint32_t f, std::uint32_t g, const std::function<void(crypto::ClusterFile&)>& configure = {}) {
    static const bool ready = crypto::init().ok();
    EXPECT_TRUE(ready);
    cluster.f = f;
    cluster.timing.quarantine_ms = 0;  // tests convict more often than the world does
    cluster.timing.overdue_ceiling_ms = cluster.timing.overdue_floor_ms;  // as if votes had come in step for long
    cluster.id.bytes[0] = 7;
    for (std::uint16_t i = 0; i < cluster.n(); ++i) {
      node_keys.push_back(key_from(1, i));
      cluster.nodes.push_back({NodeId{i}, HostId{i}, {}, node_keys.back().public_key()});
    }
    crypto::ServiceEntry service;
    service.g = g;
    for (std::uint16_t i = 0; i < std::max(cluster.n(), 2 * g + 1); ++i) {
      host_keys.push_back(key_from(2, i));
      cluster.hosts.push_back({HostId{i}, host_keys.back().public_key()});
      if (i < 2 * g + 1) service.slots.push_back({SlotId{i}, HostId{i}});
    }
    cluster.services.push_back(service);
    cluster.services.push_back(service);
    cluster.services.back().id = ServiceId{1};
    cluster.clients.push_back({ClientId{0}, "operator", key_from(3, 0).public_key(), true});
    if (configure) configure(cluster);
  }

  static crypto::SecretKey slot_secret(SlotId slot, Incarnation incarnation) {
    return key_from(4, slot.value * 1'000 + incarnation.value);
  }
  static crypto::PublicKey slot_key(SlotId slot, Incarnation incarnation) {
    return slot_secret(slot, incarnation).public_key();
  }
  // `say` stands for the state.
  [[nodiscard]] ExecCheckpoint exec_checkpoint(SlotId slot, Incarnation incarnation, Seq n,
                                               const std::string& say) const {
    ExecCheckpoint out{ServiceId{0}, slot, incarnation, n, reply_digest(as_bytes(say + std::to_string(n.value))), {}};
    out.signature = slot_secret(slot, incarnation).sign(exec_checkpoint_fields(cluster.id, out));
    return out;
  }
  [[nodiscard]] Join join(SlotId slot, Incarnation incarnation) const {
    Join out{ServiceId{0}, slot, incarnation, slot_key(slot, incarnation), {}};
    out.signature = host_keys[slot.value].sign(join_fields(cluster.id, out));
    return out;
  }
  void sign(Suspect& suspect) const {
    suspect.signature = node_keys[suspect.signer.value].sign(suspect_fields(cluster.id, suspect));
  }
  struct Accusation {
    std::uint16_t signer = 0;
    std::uint16_t slot = 0;
    Suspicion why = Suspicion::kWrong;
    std::vector<SlotId> agreeing = {};
    std::uint64_t epoch = 0;
    std::uint64_t incarnation = 1;
    std::uint64_t n = 1;
  };
  [[nodiscard]] Suspect suspect(const Accusation& a) const {
    Suspect out{ServiceId{0},
                NodeId{a.signer},
                Epoch{a.epoch},
                SlotId{a.slot},
                Incarnation{a.incarnation},
                Seq{a.n},
                a.why,
                a.agreeing,
                {}};
    sign(out);
    return out;
  }

  crypto::ClusterFile cluster;
  std::vector<crypto::SecretKey> node_keys;
  std::vector<crypto::SecretKey> host_keys;
};

// Nothing is usual yet.
inline void ceiling_of_two_seconds(crypto::ClusterFile& cluster) { cluster.timing.overdue_ceiling_ms = 2'000; }

inline std::vector<SlotId> slot_list(std::initializer_list<std::uint16_t> ids) {
  std::vector<SlotId> out;
  for (const std::uint16_t id : ids) out.push_back(SlotId{id});
  return out;
}

// `say` stands for what the service answered.
inline std::vector<Digest> replies_saying(Seq n, std::size_t count, const std::string& say) {
  std::vector<Digest> out;
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(reply_digest(as_bytes(say + " " + std::to_string(n.value) + " " + std::to_string(i))));
  }
  return out;
}

struct Remembered {
  EventKind kind;
  Seq n;
  Epoch epoch;
  SlotId slot;
  Incarnation incarnation;
  std::string why;
};

class Memory final : public Observer {
 public:
  void on_event(const Event& e) override {
    events.push_back({e.kind, e.n, e.epoch, e.slot, e.incarnation, std::string(e.why)});
  }
  [[nodiscard]] std::vector<Remembered> of(EventKind kind) const {
    std::vector<Remembered> out;
    for (const Remembered& e : events) {
      if (e.kind == kind) out.push_back(e);
    }
    return out;
  }
  [[nodiscard]] std::size_t count(EventKind kind) const { return of(kind).size(); }
  [[nodiscard]] std::size_t count(EventKind kind, Seq n) const {
    return static_cast<std::size_t>(
        std::count_if(events.begin(), events.end(), [&](const Remembered& e) { return e.kind == kind && e.n == n; }));
  }

  std::vector<Remembered> events;
};

inline Delivery make_delivery(Seq n, std::size_t requests, std::vector<SystemOp> system, Micros time = {}) {
  auto header = std::make_shared<BatchHeader>();
  header->n = n;
  header->references.resize(requests);
  header->system = std::move(system);
  Delivery out;
  out.header = std::move(header);
  out.time = time;
  return out;
}

// One Oversight (node 0's) and everything around it, played by the test.
class OversightDesk {
 public:
  explicit OversightDesk(std::uint32_t f = 1, std::uint32_t g = 1,
                         const std::function<void(crypto::ClusterFile&)>& configure = {})
      : parties(f, g, configure),
        slots(static_cast<std::uint16_t>(2 * g + 1)),
        core(std::make_unique<Oversight>(parties.cluster, ServiceId{0}, NodeId{0}, parties.node_keys[0], memory)) {
    core->tick(time);
  }

  // Batch 1 brings all first incarnations in; the active ones connect and vote for it.
  void start() {
    std::vector<SystemOp> joins;
    for (std::uint16_t i = 0; i < slots; ++i) joins.emplace_back(parties.join(SlotId{i}, Incarnation{1}));
    requests_of.push_back(0);
    order.push_back(make_delivery(Seq{1}, 0, joins, time));
    core->deliver(order.back());
    for (const SlotId slot : core->notice().active) {
      up(slot.value);
      EXPECT_EQ(vote(slot.value, 1), Refusal::kNone);
    }
    collect();
    out = {};
    ASSERT_EQ(core->closed_through(), Seq{1});
  }

  std::uint64_t deliver(std::size_t requests = 1, std::vector<SystemOp> system = {}) {
    requests_of.push_back(requests);
    const std::uint64_t n = requests_of.size();
    order.push_back(make_delivery(Seq{n}, requests, std::move(system), time));
    core->deliver(order.back());
    collect();
    return n;
  }
  // The node starts again with its order and without votes; up to `stable` 2f+1 nodes have closed it.
  void restart(std::uint64_t stable) {
    core = std::make_unique<Oversight>(parties.cluster, ServiceId{0}, NodeId{0}, parties.node_keys[0], memory);
    clear();
    for (const Delivery& batch : order) {
      core->deliver(batch);
      if (checkpoints.contains(batch.header->n.value)) core->checkpoint_due(batch.header->n);
      core->presume_closed(std::min(batch.header->n, Seq{stable}));
    }
    time.value += 3'600'000 * kMs;
    core->tick(time);
    collect();
  }
  [[nodiscard]] Incarnation incarnation(std::uint16_t slot) const { return core->notice().incarnations[slot]; }
  [[nodiscard]] Vote make_vote(std::uint16_t slot, std::uint64_t n, const std::string& say = "right") const {
    const std::size_t count = n <= requests_of.size() ? requests_of[n - 1] : 1;
    return {epoch_of(n), Seq{n}, SlotId{slot}, incarnation(slot), replies_saying(Seq{n}, count, say)};
  }
  Refusal vote(std::uint16_t slot, std::uint64_t n, const std::string& say = "right") {
    const Refusal result = core->step(SlotId{slot}, incarnation(slot), make_vote(slot, n, say));
    collect();
    return result;
  }
  // A batch that is a checkpoint.
  std::uint64_t deliver_checkpoint(std::size_t requests = 1) {
    const std::uint64_t n = deliver(requests);
    core->checkpoint_due(Seq{n});
    checkpoints.insert(n);
    collect();
    return n;
  }
  Refusal say_root(std::uint16_t slot, std::uint64_t n, const std::string& say = "right") {
    const Refusal result = core->step(SlotId{slot}, incarnation(slot),
                                      parties.exec_checkpoint(SlotId{slot}, incarnation(slot), Seq{n}, say));
    collect();
    return result;
  }
  // Votes as a woken slot does: for everything from the beginning up to n.
  void replay(std::uint16_t slot, std::uint64_t through) {
    for (std::uint64_t n = 1; n <= through; ++n) EXPECT_EQ(vote(slot, n), Refusal::kNone) << "n=" << n;
  }
  void up(std::uint16_t slot) { core->channel_up(SlotId{slot}, incarnation(slot)); }
  void down(std::uint16_t slot) { core->channel_down(SlotId{slot}, incarnation(slot)); }
  void pass(std::int64_t ms) {
    for (std::int64_t gone = 0; gone < ms; gone += 5) {
      time.value += 5 * kMs;
      core->tick(time);
      collect();
    }
  }
  // Another node says what this one said last about the slot.
  Refusal echo(std::uint16_t signer, const Suspect& heard) {
    Suspect suspect = heard;
    suspect.signer = NodeId{signer};
    parties.sign(suspect);
    const Refusal result = core->step(suspect);
    collect();
    return result;
  }
  // What was put out since the last clear().
  void collect() {
    OversightOutput more = core->take_output();
    for (Suspect& s : more.suspects) out.suspects.push_back(std::move(s));
    for (auto& w : more.wakes) out.wakes.push_back(std::move(w));
    for (SystemOp& op : more.propose) out.propose.push_back(std::move(op));
    for (auto& c : more.closed) out.closed.push_back(std::move(c));
    out.roots.insert(out.roots.end(), more.roots.begin(), more.roots.end());
    for (auto& r : more.root_differences) out.root_differences.push_back(std::move(r));
    out.table_changed = out.table_changed || more.table_changed;
  }
  void clear() { out = {}; }
  [[nodiscard]] std::vector<EpochChange> changes() const {
    std::vector<EpochChange> found;
    for (const SystemOp& op : out.propose) {
      if (const auto* change = std::get_if<EpochChange>(&op)) found.push_back(*change);
    }
    return found;
  }
  // The last suspicion of this slot that was put out.
  [[nodiscard]] std::optional<Suspect> said(std::uint16_t slot) const {
    std::optional<Suspect> found;
    for (const Suspect& s : out.suspects) {
      if (s.slot.value == slot) found = s;
    }
    return found;
  }
  // Batch with the change that f other nodes' echoes of what was said about the slot lead to.
  void convict(std::uint16_t slot) {
    const auto suspect = said(slot);
    ASSERT_TRUE(suspect.has_value());
    for (std::uint16_t i = 1; i <= parties.cluster.f; ++i) ASSERT_EQ(echo(i, *suspect), Refusal::kNone);
    pass(60);
    ASSERT_FALSE(changes().empty());
    const EpochChange change = changes().back();
    ASSERT_EQ(core->admissible(change), Refusal::kNone);
    clear();
    deliver(0, {change});
  }

  Parties parties;
  std::uint16_t slots;
  Memory memory;
  std::unique_ptr<Oversight> core;
  OversightOutput out;
  std::vector<std::size_t> requests_of;  // [n - 1]
  std::vector<Delivery> order;           // [n - 1]
  std::set<std::uint64_t> checkpoints;
  Micros time{1'000'000'000};

 private:
  [[nodiscard]] Epoch epoch_of(std::uint64_t n) const {
    Epoch epoch;
    for (const Remembered& e : memory.of(EventKind::kEpochChanged)) {
      if (e.n.value < n) epoch = e.epoch;
    }
    return epoch;
  }
};

// Slot `liar` answers wrongly and the sleepers settle it. Returns the batch.
inline std::uint64_t lie_and_settle(OversightDesk& desk, std::uint16_t liar) {
  const std::uint64_t n = desk.deliver();
  const auto active = desk.core->notice().active;
  for (const SlotId slot : active) desk.vote(slot.value, n, slot.value == liar ? "wrong" : "right");
  for (std::uint16_t i = 0; i < desk.slots; ++i) {
    if (std::binary_search(active.begin(), active.end(), SlotId{i})) continue;
    if (desk.incarnation(i).value == 0) continue;
    desk.up(i);
    desk.replay(i, n);
  }
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  return n;
}

}  // namespace zz::agreement
