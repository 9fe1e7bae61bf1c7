#pragma once

// A Pool with a scripted hypervisor: calls wait until the test answers them, and the script checks the prerequisites of
// the port (vmpool/hypervisor.hpp) at every call. Time is the test's.

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/support/test_cluster.hpp"
#include "vmpool/pool.hpp"

namespace zz::vmpool {

using Kind = BackendCall::Kind;

// Every transition that happened, as "asleep>waking".
class Transitions final : public Observer {
 public:
  void on_event(const Event& event) override {
    if (event.kind == EventKind::kRefused) ++refused;
    if (event.kind != EventKind::kSlotState) return;
    std::string& last = last_[{event.service, event.slot}];
    seen.insert((last.empty() ? "absent" : last) + ">" + std::string(event.why));
    last = event.why;
  }
  std::set<std::string> seen;
  std::size_t refused = 0;

 private:
  std::map<std::pair<ServiceId, SlotId>, std::string> last_;
};

class PoolHarness {
 public:
  explicit PoolHarness(test::TestCluster& shared, HostId self, Incarnation used_up = {})
      : cluster(shared), host(self), pool(shared.file, self, shared.host_keys[self.value], used_up, transitions) {}

  // ---- driving -------------------------------------------------------------------------------------------------

  void tick(std::int64_t wait_ms = 0) {
    now.value += wait_ms * 1'000;
    pool.tick(now);
    drain();
  }
  // Takes the output as a driver does, and checks what every output must obey.
  void drain() {
    const PoolOutput out = pool.take_output();
    if (out.used_up) durable = *out.used_up;
    for (const BackendCall& call : out.calls) {
      check_call(call);
      calls.push_back(call);
    }
    for (const auto& join : out.joins) {
      EXPECT_TRUE(crypto::verify(cluster.file.hosts[host.value].key, join_fields(cluster.file.id, join.join),
                                 join.join.signature));
      joins.push_back(join);
    }
    dead.insert(dead.end(), out.dead.begin(), out.dead.end());
  }
  // Answers the oldest open call, which must be of that kind.
  BackendCall answer(Kind kind, bool ok = true) {
    if (calls.empty()) {
      ADD_FAILURE() << "no call is open";
      return {};
    }
    const BackendCall call = calls.front();
    calls.pop_front();
    EXPECT_EQ(call.kind, kind);
    apply(call, ok);
    pool.step(CallResult{call.id, ok, ok && call.kind == Kind::kBoot ? key_of(call.guest) : crypto::PublicKey{}});
    drain();
    return call;
  }
  void boot_to_sleep() {
    tick();
    answer(Kind::kBoot);
    answer(Kind::kFreeze);
    EXPECT_EQ(state(), SlotState::kAsleep);
  }
  void boot_awake() {
    tick();
    answer(Kind::kBoot);
    answer(Kind::kHandOver);
    EXPECT_EQ(state(), SlotState::kAwake);
  }
  void die() {
    running.erase(slot().incarnation);
    frozen.erase(slot().incarnation);
    pool.guest_died({slot().service, slot().slot, slot().incarnation});
    drain();
  }
  Refusal wake(std::uint32_t signer, Epoch epoch = {}) { return step(signed_wake(signer, epoch)); }
  Refusal step(const agreement::Wake& message) {
    const Refusal why = pool.step(message.signer, message);
    drain();
    return why;
  }
  Refusal notice(std::uint32_t from, const agreement::EpochNotice& message) {
    const Refusal why = pool.step(NodeId{static_cast<std::uint16_t>(from)}, message);
    drain();
    return why;
  }
  // f+1 nodes say so.
  void believe(const agreement::EpochNotice& message) {
    for (std::uint32_t i = 0; i <= cluster.file.f; ++i) EXPECT_EQ(notice(i, message), Refusal::kNone);
  }
  void node_up(std::uint16_t node) {
    pool.node_up(NodeId{node});
    drain();
  }
  void stop() {
    pool.stop();
    drain();
  }

  // ---- messages ------------------------------------------------------------------------------------------------

  [[nodiscard]] agreement::Wake signed_wake(std::uint32_t signer, Epoch epoch = {}) const {
    const PoolSlot mine = slot();
    agreement::Wake out{
        mine.service, NodeId{static_cast<std::uint16_t>(signer)}, epoch, mine.slot, mine.incarnation, Seq{7}, 0, {}};
    sign(out, signer);
    return out;
  }
  void sign(agreement::Wake& message, std::uint32_t key) const {
    message.signature = cluster.node_keys[key].sign(wake_fields(cluster.file.id, message));
  }
  // The table of epoch 0 as it is before anybody joined.
  [[nodiscard]] agreement::EpochNotice first_notice() const {
    agreement::EpochNotice out;
    const std::uint32_t g = cluster.file.services[0].g;
    for (std::uint32_t i = 0; i <= g; ++i) out.active.push_back(SlotId{static_cast<std::uint16_t>(i)});
    out.incarnations.resize(2 * g + 1);
    out.evicted_through.resize(2 * g + 1);
    return out;
  }
  // A later table in which this host's guest is known.
  [[nodiscard]] agreement::EpochNotice joined_notice(std::uint64_t n, Epoch epoch = {}) const {
    agreement::EpochNotice out = first_notice();
    out.n = Seq{n};
    out.epoch = epoch;
    for (std::size_t i = 0; i < out.incarnations.size(); ++i) out.incarnations[i] = Incarnation{1};
    out.incarnations[slot().slot.value] = slot().incarnation;
    return out;
  }
  // ... and thrown out.
  [[nodiscard]] agreement::EpochNotice evicting_notice(std::uint64_t n, Epoch epoch) const {
    agreement::EpochNotice out = joined_notice(n, epoch);
    out.evicted_through[slot().slot.value] = slot().incarnation;
    return out;
  }

  // ---- looking -------------------------------------------------------------------------------------------------

  [[nodiscard]] PoolSlot slot() const { return pool.slots().at(0); }
  [[nodiscard]] SlotState state() const { return slot().state; }
  [[nodiscard]] std::vector<Kind> open() const {
    std::vector<Kind> out;
    for (const BackendCall& call : calls) out.push_back(call.kind);
    return out;
  }
  [[nodiscard]] static crypto::PublicKey key_of(const GuestId& guest) {
    crypto::PublicKey out;
    out.bytes[0] = static_cast<std::uint8_t>(guest.incarnation.value);
    out.bytes[1] = static_cast<std::uint8_t>(guest.slot.value);
    return out;
  }

  test::TestCluster& cluster;
  HostId host;
  Micros now{1'000'000};
  Transitions transitions;
  Pool pool;
  std::deque<BackendCall> calls;  // open
  std::vector<PoolOutput::JoinFor> joins;
  std::vector<PoolOutput::DeadFor> dead;
  Incarnation durable;
  Incarnation last_booted;
  // The scripted hypervisor: guests there are. Incarnations are unique on a host.
  std::set<Incarnation> running;
  std::set<Incarnation> frozen;
  std::set<Incarnation> left;  // not destroyed yet: everything booted, alive or dead
  std::map<Incarnation, std::pair<ServiceId, SlotId>> owner;

 private:
  void check_call(const BackendCall& call) {
    const Incarnation i = call.guest.incarnation;
    switch (call.kind) {
      case Kind::kBoot:
        EXPECT_GT(i, last_booted);
        EXPECT_LE(i, durable);
        for (const auto& [other, place] : owner) {
          if (place == std::pair(call.guest.service, call.guest.slot)) {
            EXPECT_FALSE(left.contains(other)) << "two guests in one slot";
          }
        }
        last_booted = i;
        owner[i] = {call.guest.service, call.guest.slot};
        left.insert(i);
        break;
      case Kind::kFreeze:
        EXPECT_TRUE(running.contains(i));
        break;
      case Kind::kThaw:
        EXPECT_TRUE(frozen.contains(i));
        break;
      case Kind::kHandOver:
        EXPECT_FALSE(frozen.contains(i));
        EXPECT_TRUE(left.contains(i));
        break;
      case Kind::kDestroy:
        EXPECT_TRUE(left.contains(i));
        break;
    }
  }
  // What the port promises on success and on failure.
  void apply(const BackendCall& call, bool ok) {
    const Incarnation i = call.guest.incarnation;
    if (call.kind == Kind::kBoot && ok) running.insert(i);
    if (call.kind == Kind::kBoot && !ok) left.erase(i);
    if (call.kind == Kind::kFreeze && ok && running.erase(i) > 0) frozen.insert(i);
    if (call.kind == Kind::kThaw && ok && frozen.erase(i) > 0) running.insert(i);
    if (call.kind == Kind::kDestroy && ok) {
      left.erase(i);
      running.erase(i);
      frozen.erase(i);
    }
  }
};

// f = g = 1: slot 0 and 1 are active at first, slot 2 (on host 2) sleeps.
class PoolTest : public ::testing::Test {
 protected:
  test::TestCluster cluster;
  PoolHarness sleeper{cluster, HostId{2}};
  PoolHarness active{cluster, HostId{0}};
};

}  // namespace zz::vmpool
