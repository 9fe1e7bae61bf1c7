#include "vmpool/pool.hpp"

#include "tests/vmpool/pool_harness.hpp"

namespace zz::vmpool {
namespace {

using agreement::EpochNotice;
using agreement::Wake;
using Kinds = std::vector<Kind>;

// ---- boot --------------------------------------------------------------------------------------------------------

TEST_F(PoolTest, BootsItsSlotsAtTheFirstTick) {
  EXPECT_EQ(sleeper.state(), SlotState::kAbsent);
  sleeper.tick();
  EXPECT_EQ(sleeper.open(), Kinds{Kind::kBoot});
  EXPECT_EQ(sleeper.slot().incarnation, Incarnation{1});
  EXPECT_EQ(sleeper.durable, Incarnation{1});
}

TEST_F(PoolTest, HasNothingToDoOnAHostWithoutSlots) {
  PoolHarness idle(cluster, HostId{3});
  idle.pool.tick(idle.now);
  const PoolOutput out = idle.pool.take_output();
  EXPECT_TRUE(out.calls.empty());
  EXPECT_FALSE(out.used_up);
  EXPECT_EQ(idle.notice(0, idle.first_notice()), Refusal::kNone);
  idle.stop();
  EXPECT_TRUE(idle.pool.stopped());
}

TEST_F(PoolTest, LetsASlotBeyondGSleepAndJoinsOnlyThen) {
  sleeper.tick();
  sleeper.answer(Kind::kBoot);
  EXPECT_EQ(sleeper.state(), SlotState::kFreezing);
  EXPECT_TRUE(sleeper.joins.empty());
  sleeper.answer(Kind::kFreeze);
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
  EXPECT_TRUE(sleeper.calls.empty());
  ASSERT_EQ(sleeper.joins.size(), 1u);
  EXPECT_FALSE(sleeper.joins[0].to);
  EXPECT_EQ(sleeper.joins[0].join.slot, SlotId{2});
  EXPECT_EQ(sleeper.joins[0].join.incarnation, Incarnation{1});
  EXPECT_EQ(sleeper.joins[0].join.key, PoolHarness::key_of({ServiceId{0}, SlotId{2}, Incarnation{1}}));
}

TEST_F(PoolTest, HandsTheKeyAtOnceToSlotsUpToG) {
  active.tick();
  active.answer(Kind::kBoot);
  EXPECT_EQ(active.state(), SlotState::kWaking);
  EXPECT_EQ(active.joins.size(), 1u);
  const BackendCall call = active.answer(Kind::kHandOver);
  EXPECT_EQ(call.epoch, Epoch{0});
  EXPECT_EQ(active.state(), SlotState::kAwake);
}

TEST_F(PoolTest, LetsASlotSleepThatTheOrderNoLongerCallsActive) {
  EpochNotice later = active.first_notice();
  later.n = Seq{50};
  later.epoch = Epoch{3};
  later.active = {SlotId{1}, SlotId{2}};
  later.incarnations = {Incarnation{4}, Incarnation{5}, Incarnation{6}};
  later.evicted_through = {Incarnation{4}, Incarnation{1}, Incarnation{1}};
  PoolHarness restarted(cluster, HostId{0}, Incarnation{9});
  restarted.tick();
  restarted.believe(later);
  restarted.answer(Kind::kBoot);
  restarted.answer(Kind::kFreeze);
  EXPECT_EQ(restarted.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, StartsOverAsleepWhenItWokeForEpochZeroAndTheOrderIsPastIt) {
  PoolHarness restarted(cluster, HostId{0}, Incarnation{9});
  restarted.boot_awake();
  EpochNotice later = restarted.first_notice();
  later.n = Seq{50};
  later.incarnations = {Incarnation{4}, Incarnation{5}, Incarnation{6}};
  restarted.believe(later);
  restarted.answer(Kind::kDestroy);
  restarted.answer(Kind::kBoot);
  restarted.answer(Kind::kFreeze);
  EXPECT_EQ(restarted.state(), SlotState::kAsleep);
  EXPECT_EQ(restarted.slot().incarnation, Incarnation{11});
  // The incarnation that the nodes still believe in died with the former daemon.
  ASSERT_FALSE(restarted.dead.empty());
  EXPECT_EQ(restarted.dead[0].dead.incarnation, Incarnation{4});
}

TEST_F(PoolTest, NeverUsesAnIncarnationTwiceAcrossRestarts) {
  PoolHarness restarted(cluster, HostId{2}, Incarnation{41});
  restarted.tick();
  EXPECT_EQ(restarted.slot().incarnation, Incarnation{42});
  EXPECT_EQ(restarted.durable, Incarnation{42});
}

TEST_F(PoolTest, GoesBeyondTheOrdersIncarnationsWhenItsOwnCountIsLost) {
  sleeper.boot_to_sleep();
  EpochNotice later = sleeper.first_notice();
  later.n = Seq{9};
  later.incarnations[2] = Incarnation{30};
  sleeper.believe(later);
  sleeper.answer(Kind::kDestroy);
  EXPECT_EQ(sleeper.answer(Kind::kBoot).guest.incarnation, Incarnation{31});
}

// ---- waking ------------------------------------------------------------------------------------------------------

TEST_F(PoolTest, WakesOnWakesOfFPlusOneDistinctNodes) {
  sleeper.boot_to_sleep();
  EXPECT_EQ(sleeper.wake(3, Epoch{2}), Refusal::kNone);
  EXPECT_TRUE(sleeper.calls.empty());
  EXPECT_EQ(sleeper.wake(1, Epoch{2}), Refusal::kNone);
  EXPECT_EQ(sleeper.state(), SlotState::kWaking);
  sleeper.answer(Kind::kThaw);
  const BackendCall call = sleeper.answer(Kind::kHandOver);
  EXPECT_EQ(call.epoch, Epoch{2});
  EXPECT_EQ(sleeper.state(), SlotState::kAwake);
}

TEST_F(PoolTest, NeverWakesOnFNodesHoweverOftenTheyAsk) {
  sleeper.boot_to_sleep();
  for (std::uint64_t epoch = 0; epoch < 100; ++epoch) {
    EXPECT_EQ(sleeper.wake(3, Epoch{epoch}), Refusal::kNone);
    EXPECT_EQ(sleeper.wake(3, Epoch{epoch}), Refusal::kDuplicate);
    if (epoch > 0) {
      EXPECT_EQ(sleeper.wake(3, Epoch{epoch - 1}), Refusal::kStaleEpoch);
    }
  }
  EXPECT_TRUE(sleeper.calls.empty());
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, NeverCountsWakesOfDifferentEpochsTogether) {
  sleeper.boot_to_sleep();
  EXPECT_EQ(sleeper.wake(0, Epoch{1}), Refusal::kNone);
  EXPECT_EQ(sleeper.wake(1, Epoch{2}), Refusal::kNone);
  EXPECT_EQ(sleeper.wake(2, Epoch{3}), Refusal::kNone);
  EXPECT_TRUE(sleeper.calls.empty());
  EXPECT_EQ(sleeper.wake(1, Epoch{3}), Refusal::kNone);
  EXPECT_EQ(sleeper.open(), Kinds{Kind::kThaw});
}

TEST_F(PoolTest, CountsWakesForDifferentBatchesTogether) {
  sleeper.boot_to_sleep();
  Wake other = sleeper.signed_wake(1);
  other.n = Seq{8};
  other.sign = 1;
  sleeper.sign(other, 1);
  EXPECT_EQ(sleeper.wake(0), Refusal::kNone);
  EXPECT_EQ(sleeper.step(other), Refusal::kNone);
  EXPECT_EQ(sleeper.open(), Kinds{Kind::kThaw});
}

TEST_F(PoolTest, RefusesForgedWakes) {
  sleeper.boot_to_sleep();
  ASSERT_EQ(sleeper.wake(3), Refusal::kNone);
  // In another node's name, over the forger's own channel and over that node's.
  Wake forged = sleeper.signed_wake(1);
  EXPECT_EQ(sleeper.pool.step(NodeId{3}, forged), Refusal::kWrongRole);
  sleeper.sign(forged, 3);
  EXPECT_EQ(sleeper.pool.step(NodeId{1}, forged), Refusal::kBadSignature);
  // A true signature over other fields.
  for (int field = 0; field < 3; ++field) {
    Wake bent = sleeper.signed_wake(1);
    if (field == 0) bent.epoch = Epoch{5};
    if (field == 1) bent.n = Seq{99};
    if (field == 2) bent.sign = 2;
    EXPECT_EQ(sleeper.step(bent), Refusal::kBadSignature);
  }
  // Of another cluster.
  Wake foreign = sleeper.signed_wake(1);
  crypto::ClusterId elsewhere = cluster.file.id;
  elsewhere.bytes[0] ^= 1;
  foreign.signature = cluster.node_keys[1].sign(wake_fields(elsewhere, foreign));
  EXPECT_EQ(sleeper.step(foreign), Refusal::kBadSignature);
  // Nobody.
  Wake nobody = sleeper.signed_wake(1);
  nobody.signer = NodeId{4};
  EXPECT_EQ(sleeper.step(nobody), Refusal::kUnknownPeer);
  EXPECT_TRUE(sleeper.calls.empty());
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
  // A forgery does not use up the true node's word.
  EXPECT_EQ(sleeper.wake(1), Refusal::kNone);
  EXPECT_EQ(sleeper.open(), Kinds{Kind::kThaw});
}

TEST_F(PoolTest, RefusesWakesForAnotherSlotServiceOrIncarnation) {
  sleeper.boot_to_sleep();
  for (std::uint32_t node = 0; node < 4; ++node) {
    Wake wake = sleeper.signed_wake(node);
    wake.slot = SlotId{1};  // of another host
    sleeper.sign(wake, node);
    EXPECT_EQ(sleeper.step(wake), Refusal::kUnknownSlot);
    wake.slot = SlotId{77};
    sleeper.sign(wake, node);
    EXPECT_EQ(sleeper.step(wake), Refusal::kUnknownSlot);
    wake = sleeper.signed_wake(node);
    wake.service = ServiceId{1};
    sleeper.sign(wake, node);
    EXPECT_EQ(sleeper.step(wake), Refusal::kUnknownService);
    wake = sleeper.signed_wake(node);
    wake.incarnation = Incarnation{2};
    sleeper.sign(wake, node);
    EXPECT_EQ(sleeper.step(wake), Refusal::kStaleIncarnation);
  }
  EXPECT_TRUE(sleeper.calls.empty());
}

TEST_F(PoolTest, RefusesWakesWhenTheSlotDoesNotSleep) {
  sleeper.tick();
  EXPECT_EQ(sleeper.wake(0), Refusal::kNotReady);
  sleeper.answer(Kind::kBoot);
  EXPECT_EQ(sleeper.wake(0), Refusal::kNotReady);
  sleeper.answer(Kind::kFreeze);
  EXPECT_EQ(sleeper.wake(0), Refusal::kNone);
  EXPECT_EQ(sleeper.wake(1), Refusal::kNone);
  EXPECT_EQ(sleeper.wake(2), Refusal::kDuplicate);
  sleeper.answer(Kind::kThaw);
  sleeper.answer(Kind::kHandOver);
  EXPECT_EQ(sleeper.wake(3), Refusal::kDuplicate);
  EXPECT_TRUE(sleeper.calls.empty());
}

TEST_F(PoolTest, RefusesWakesReplayedAfterTheSlotSleptAgain) {
  sleeper.boot_to_sleep();
  const Wake first = sleeper.signed_wake(0);
  const Wake second = sleeper.signed_wake(1);
  EXPECT_EQ(sleeper.step(first), Refusal::kNone);
  EXPECT_EQ(sleeper.step(second), Refusal::kNone);
  sleeper.answer(Kind::kThaw);
  sleeper.answer(Kind::kHandOver);
  sleeper.believe(sleeper.evicting_notice(20, Epoch{1}));
  sleeper.answer(Kind::kDestroy);
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze);
  EXPECT_EQ(sleeper.step(first), Refusal::kStaleIncarnation);
  EXPECT_EQ(sleeper.step(second), Refusal::kStaleIncarnation);
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, ForgetsWakesForAnIncarnationThatDied) {
  sleeper.boot_to_sleep();
  EXPECT_EQ(sleeper.wake(0), Refusal::kNone);
  sleeper.die();
  sleeper.answer(Kind::kDestroy);
  sleeper.tick(1'000);
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze);
  EXPECT_EQ(sleeper.wake(1), Refusal::kNone);
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, RefusesWakesOfAnEpochThatTheOrderHasPassed) {
  sleeper.boot_to_sleep();
  sleeper.believe(sleeper.joined_notice(10, Epoch{4}));
  EXPECT_EQ(sleeper.wake(0, Epoch{3}), Refusal::kStaleEpoch);
  EXPECT_EQ(sleeper.wake(1, Epoch{3}), Refusal::kStaleEpoch);
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, NeedsThreeWakesWhenTwoNodesMayBeFaulty) {
  test::TestCluster larger(2, 2);
  PoolHarness slot3(larger, HostId{3});
  slot3.boot_to_sleep();
  EXPECT_EQ(slot3.wake(6), Refusal::kNone);
  EXPECT_EQ(slot3.wake(5), Refusal::kNone);
  EXPECT_TRUE(slot3.calls.empty());
  EXPECT_EQ(slot3.wake(4), Refusal::kNone);
  EXPECT_EQ(slot3.open(), Kinds{Kind::kThaw});
}

// ---- the order's word --------------------------------------------------------------------------------------------

TEST_F(PoolTest, DestroysNothingOnTheWordOfFNodes) {
  active.boot_awake();
  EXPECT_EQ(active.notice(3, active.evicting_notice(20, Epoch{1})), Refusal::kNone);
  EXPECT_EQ(active.notice(3, active.evicting_notice(21, Epoch{1})), Refusal::kNone);
  EXPECT_TRUE(active.calls.empty());
  EXPECT_EQ(active.state(), SlotState::kAwake);
}

TEST_F(PoolTest, ReplacesAnEvictedGuestByASleepingNewIncarnationWithANewKey) {
  active.boot_awake();
  active.believe(active.evicting_notice(20, Epoch{1}));
  EXPECT_EQ(active.open(), Kinds{Kind::kDestroy});
  EXPECT_TRUE(active.dead.empty());  // the order knows
  active.joins.clear();
  active.answer(Kind::kDestroy);
  EXPECT_EQ(active.answer(Kind::kBoot).guest.incarnation, Incarnation{2});
  active.answer(Kind::kFreeze);
  EXPECT_EQ(active.state(), SlotState::kAsleep);
  ASSERT_EQ(active.joins.size(), 1u);
  EXPECT_EQ(active.joins[0].join.incarnation, Incarnation{2});
  EXPECT_EQ(active.joins[0].join.key, PoolHarness::key_of({ServiceId{0}, SlotId{0}, Incarnation{2}}));
  EXPECT_EQ(active.slot().failures, 0u);
}

TEST_F(PoolTest, NeverCountsDifferentNoticesTogether) {
  active.boot_awake();
  EpochNotice other = active.evicting_notice(20, Epoch{1});
  other.active = {SlotId{1}, SlotId{2}};
  EXPECT_EQ(active.notice(0, active.evicting_notice(20, Epoch{1})), Refusal::kNone);
  EXPECT_EQ(active.notice(1, other), Refusal::kNone);
  EXPECT_TRUE(active.calls.empty());
  EXPECT_EQ(active.notice(2, other), Refusal::kNone);
  EXPECT_EQ(active.open(), Kinds{Kind::kDestroy});
}

TEST_F(PoolTest, EvictsTheGuestThatIsBootingFreezingOrAsleepToo) {
  sleeper.tick();
  sleeper.believe(sleeper.evicting_notice(5, Epoch{1}));
  EXPECT_EQ(sleeper.open(), (Kinds{Kind::kBoot, Kind::kDestroy}));
  sleeper.answer(Kind::kBoot, false);  // overtaken
  sleeper.answer(Kind::kDestroy);
  sleeper.answer(Kind::kBoot);
  sleeper.believe(sleeper.evicting_notice(6, Epoch{2}));
  sleeper.answer(Kind::kFreeze, false);
  sleeper.answer(Kind::kDestroy);
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze);
  sleeper.believe(sleeper.evicting_notice(7, Epoch{3}));
  sleeper.answer(Kind::kDestroy);
  EXPECT_EQ(sleeper.answer(Kind::kBoot).guest.incarnation, Incarnation{4});
  EXPECT_EQ(sleeper.slot().failures, 0u);
}

TEST_F(PoolTest, WakesASleeperThatTheOrderCallsActive) {
  sleeper.boot_to_sleep();
  EpochNotice notice = sleeper.joined_notice(20, Epoch{1});
  notice.active = {SlotId{1}, SlotId{2}};
  sleeper.believe(notice);
  sleeper.answer(Kind::kThaw);
  EXPECT_EQ(sleeper.answer(Kind::kHandOver).epoch, Epoch{1});
  EXPECT_EQ(sleeper.state(), SlotState::kAwake);
}

TEST_F(PoolTest, DoesNotWakeASleeperForAnotherIncarnationsSake) {
  PoolHarness restarted(cluster, HostId{2}, Incarnation{9});
  restarted.boot_to_sleep();
  EpochNotice notice = restarted.joined_notice(20, Epoch{1});
  notice.active = {SlotId{1}, SlotId{2}};
  notice.incarnations[2] = Incarnation{3};  // of the former daemon
  restarted.believe(notice);
  EXPECT_TRUE(restarted.calls.empty());
  ASSERT_EQ(restarted.dead.size(), 1u);
  EXPECT_EQ(restarted.dead[0].dead.incarnation, Incarnation{3});
  EXPECT_EQ(restarted.dead[0].dead.slot, SlotId{2});
}

TEST_F(PoolTest, LeavesAWokenSlotThatIsNeitherActiveNorEvicted) {
  sleeper.boot_to_sleep();
  sleeper.wake(0);
  sleeper.wake(1);
  sleeper.answer(Kind::kThaw);
  sleeper.answer(Kind::kHandOver);
  sleeper.believe(sleeper.joined_notice(20, Epoch{0}));
  EXPECT_TRUE(sleeper.calls.empty());
  EXPECT_EQ(sleeper.state(), SlotState::kAwake);
}

TEST_F(PoolTest, RefusesNoticesOfTheWrongShape) {
  active.boot_awake();
  std::vector<EpochNotice> bad(6, active.evicting_notice(20, Epoch{1}));
  bad[0].incarnations.pop_back();
  bad[1].evicted_through.emplace_back();
  bad[2].active = {SlotId{0}};
  bad[3].active = {SlotId{1}, SlotId{0}};
  bad[4].active = {SlotId{0}, SlotId{3}};
  bad[5].evicted_through[1] = kIncarnationMax.next();
  for (const EpochNotice& notice : bad) {
    for (std::uint32_t node = 0; node < 4; ++node) EXPECT_EQ(active.notice(node, notice), Refusal::kMalformed);
  }
  EpochNotice elsewhere = active.evicting_notice(20, Epoch{1});
  elsewhere.service = ServiceId{1};
  EXPECT_EQ(active.notice(0, elsewhere), Refusal::kUnknownService);
  EXPECT_EQ(active.notice(4, active.evicting_notice(20, Epoch{1})), Refusal::kUnknownPeer);
  EXPECT_TRUE(active.calls.empty());
}

TEST_F(PoolTest, NeverGoesBackToAnEarlierNotice) {
  active.boot_awake();
  const EpochNotice old = active.evicting_notice(20, Epoch{1});
  active.believe(active.joined_notice(30, Epoch{2}));
  EXPECT_EQ(active.notice(0, old), Refusal::kStaleEpoch);
  EXPECT_EQ(active.notice(1, old), Refusal::kStaleEpoch);
  // Late nodes may still say it for the first time.
  EXPECT_EQ(active.notice(2, old), Refusal::kNone);
  EXPECT_EQ(active.notice(3, old), Refusal::kNone);
  EXPECT_TRUE(active.calls.empty());
}

TEST_F(PoolTest, RefusesASecondNoticeForTheSameBatch) {
  active.boot_awake();
  EXPECT_EQ(active.notice(0, active.joined_notice(20, Epoch{1})), Refusal::kNone);
  EXPECT_EQ(active.notice(0, active.joined_notice(20, Epoch{1})), Refusal::kNone);
  EXPECT_EQ(active.notice(0, active.evicting_notice(20, Epoch{1})), Refusal::kConflict);
}

// ---- what the nodes are told -------------------------------------------------------------------------------------

TEST_F(PoolTest, RepeatsItsJoinToEveryNodeThatComesUpUntilANoticeShowsIt) {
  sleeper.boot_to_sleep();
  sleeper.joins.clear();
  sleeper.node_up(3);
  ASSERT_EQ(sleeper.joins.size(), 1u);
  EXPECT_EQ(sleeper.joins[0].to, NodeId{3});
  sleeper.believe(sleeper.joined_notice(5));
  EXPECT_TRUE(sleeper.slot().joined);
  sleeper.joins.clear();
  sleeper.node_up(3);
  sleeper.tick(60'000);
  EXPECT_TRUE(sleeper.joins.empty());
}

TEST_F(PoolTest, TellsANodeNothingThatComesUpBeforeTheGuestIsThere) {
  sleeper.tick();
  sleeper.node_up(0);
  EXPECT_TRUE(sleeper.joins.empty());
}

TEST_F(PoolTest, RepeatsAnUnconfirmedJoinWithDoublingWaits) {
  sleeper.boot_to_sleep();
  sleeper.joins.clear();
  std::vector<std::int64_t> at;
  for (std::int64_t ms = 0; ms < 40'000; ms += 500) {
    sleeper.tick(500);
    if (!sleeper.joins.empty()) at.push_back(ms + 500);
    sleeper.joins.clear();
  }
  EXPECT_EQ(at, (std::vector<std::int64_t>{1'000, 3'000, 7'000, 15'000, 23'000, 31'000, 39'000}));
}

TEST_F(PoolTest, JoinsAgainAtOnceWhenTheOrderEvictedTheFormerIncarnation) {
  PoolHarness restarted(cluster, HostId{0}, Incarnation{9});
  EpochNotice old = restarted.first_notice();
  old.n = Seq{5};
  old.incarnations = {Incarnation{4}, Incarnation{1}, Incarnation{1}};
  restarted.believe(old);
  restarted.boot_to_sleep();
  restarted.joins.clear();
  EpochNotice evicted = old;
  evicted.n = Seq{6};
  evicted.epoch = Epoch{1};
  evicted.active = {SlotId{1}, SlotId{2}};
  evicted.evicted_through[0] = Incarnation{4};
  restarted.believe(evicted);
  ASSERT_EQ(restarted.joins.size(), 1u);
  EXPECT_EQ(restarted.joins[0].join.incarnation, Incarnation{10});
  EXPECT_TRUE(restarted.calls.empty());
}

TEST_F(PoolTest, DoesNotJoinAgainBecauseOfNewsAboutOtherSlots) {
  sleeper.boot_to_sleep();
  sleeper.joins.clear();
  EpochNotice notice = sleeper.first_notice();
  for (std::uint64_t n = 1; n <= 2; ++n) {
    notice.n = Seq{n};
    notice.incarnations[n - 1] = Incarnation{1};
    sleeper.believe(notice);
  }
  EXPECT_TRUE(sleeper.joins.empty());
}

TEST_F(PoolTest, TellsOfADeadIncarnationAgainToANodeThatComesUp) {
  active.boot_awake();
  active.believe(active.joined_notice(5));
  active.die();
  ASSERT_EQ(active.dead.size(), 1u);
  EXPECT_FALSE(active.dead[0].to);
  active.dead.clear();
  active.node_up(2);
  ASSERT_EQ(active.dead.size(), 1u);
  EXPECT_EQ(active.dead[0].to, NodeId{2});
  EXPECT_EQ(active.dead[0].dead.incarnation, Incarnation{1});
  active.dead.clear();
  active.answer(Kind::kDestroy);
  active.believe([&] {
    EpochNotice evicted = active.joined_notice(6, Epoch{1});
    evicted.evicted_through[0] = Incarnation{1};
    return evicted;
  }());
  active.dead.clear();
  active.node_up(2);
  EXPECT_TRUE(active.dead.empty());
}

}  // namespace
}  // namespace zz::vmpool
