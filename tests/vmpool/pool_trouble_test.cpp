#include "base/prng.hpp"
#include "tests/vmpool/pool_harness.hpp"

namespace zz::vmpool {
namespace {

using agreement::EpochNotice;
using Kinds = std::vector<Kind>;

// ---- trouble -----------------------------------------------------------------------------------------------------

TEST_F(PoolTest, TellsTheNodesWhenAGuestDiesAwakeAndReplacesIt) {
  active.boot_awake();
  active.believe(active.joined_notice(5));
  active.die();
  ASSERT_EQ(active.dead.size(), 1u);
  EXPECT_EQ(active.dead[0].dead.incarnation, Incarnation{1});
  active.answer(Kind::kDestroy);
  EXPECT_EQ(active.state(), SlotState::kFailed);
  active.tick(kBackoffMin.value / 1'000 - 1);
  EXPECT_TRUE(active.calls.empty());
  active.tick(1);
  EXPECT_EQ(active.answer(Kind::kBoot).guest.incarnation, Incarnation{2});
  active.answer(Kind::kFreeze);
  EXPECT_EQ(active.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, TellsTheNodesWhenAGuestDiesAsleepOrWaking) {
  sleeper.boot_to_sleep();
  sleeper.die();
  EXPECT_EQ(sleeper.dead.size(), 1u);
  sleeper.answer(Kind::kDestroy);
  sleeper.tick(1'000);
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze);
  sleeper.wake(0);
  sleeper.wake(1);
  sleeper.die();
  EXPECT_EQ(sleeper.dead.size(), 2u);
  EXPECT_EQ(sleeper.open(), (Kinds{Kind::kThaw, Kind::kDestroy}));
  // The thaw's late answer means nothing any more.
  sleeper.answer(Kind::kThaw, false);
  EXPECT_EQ(sleeper.state(), SlotState::kDestroying);
  sleeper.answer(Kind::kDestroy);
  EXPECT_EQ(sleeper.state(), SlotState::kFailed);
}

TEST_F(PoolTest, IgnoresTheDeathOfGuestsThatAreNotThere) {
  sleeper.boot_to_sleep();
  sleeper.pool.guest_died({ServiceId{0}, SlotId{2}, Incarnation{7}});
  sleeper.pool.guest_died({ServiceId{0}, SlotId{0}, Incarnation{1}});
  sleeper.pool.guest_died({ServiceId{9}, SlotId{2}, Incarnation{1}});
  sleeper.drain();
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
  EXPECT_TRUE(sleeper.dead.empty());
}

TEST_F(PoolTest, IgnoresAnswersToCallsItDidNotMakeOrGaveUp) {
  sleeper.boot_to_sleep();
  sleeper.pool.step(CallResult{CallId{0}, false, {}});
  sleeper.pool.step(CallResult{CallId{1}, false, {}});
  sleeper.pool.step(CallResult{CallId{2}, false, {}});
  sleeper.pool.step(CallResult{CallId{99}, false, {}});
  sleeper.drain();
  EXPECT_EQ(sleeper.state(), SlotState::kAsleep);
}

TEST_F(PoolTest, BacksOffExponentiallyUpToALimitWhileBootsFail) {
  std::vector<std::int64_t> waits;
  sleeper.tick();
  for (int i = 0; i < 10; ++i) {
    sleeper.answer(Kind::kBoot, false);
    EXPECT_EQ(sleeper.state(), SlotState::kFailed);
    std::int64_t wait = 0;
    while (sleeper.calls.empty() && wait < 100'000) {
      sleeper.tick(100);
      wait += 100;
    }
    waits.push_back(wait);
  }
  EXPECT_EQ(waits, (std::vector<std::int64_t>{200, 400, 800, 1'600, 3'200, 6'400, 12'800, 25'600, 30'000, 30'000}));
  EXPECT_EQ(sleeper.slot().incarnation, Incarnation{11});
  EXPECT_TRUE(sleeper.dead.empty());
}

TEST_F(PoolTest, ForgivesFailuresOnceAGuestHasLivedForLong) {
  sleeper.tick();
  for (int i = 0; i < 5; ++i) {
    sleeper.answer(Kind::kBoot, false);
    sleeper.tick(60'000);
  }
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze);
  EXPECT_EQ(sleeper.slot().failures, 5u);
  sleeper.tick(kHealthyAfter.value / 1'000 - 1);
  sleeper.die();
  EXPECT_EQ(sleeper.slot().failures, 6u);
  sleeper.answer(Kind::kDestroy);
  sleeper.tick(60'000);
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze);
  sleeper.tick(kHealthyAfter.value / 1'000);
  sleeper.die();
  EXPECT_EQ(sleeper.slot().failures, 1u);
}

TEST_F(PoolTest, TakesAwayAGuestThatCannotBeFrozen) {
  sleeper.tick();
  sleeper.answer(Kind::kBoot);
  sleeper.answer(Kind::kFreeze, false);
  EXPECT_EQ(sleeper.open(), Kinds{Kind::kDestroy});
  EXPECT_TRUE(sleeper.joins.empty());
  EXPECT_TRUE(sleeper.dead.empty());  // nobody heard of it
}

TEST_F(PoolTest, TakesAwayAGuestThatCannotBeThawedOrHandedItsKey) {
  for (const bool thaws : {false, true}) {
    PoolHarness slot(cluster, HostId{2});
    slot.boot_to_sleep();
    slot.wake(0);
    slot.wake(1);
    slot.answer(Kind::kThaw, thaws);
    if (thaws) slot.answer(Kind::kHandOver, false);
    EXPECT_EQ(slot.dead.size(), 1u);
    slot.answer(Kind::kDestroy);
    EXPECT_EQ(slot.state(), SlotState::kFailed);
  }
}

TEST_F(PoolTest, TriesAgainToDestroyAndBootsNothingBefore) {
  active.boot_awake();
  active.believe(active.evicting_notice(5, Epoch{1}));
  active.answer(Kind::kDestroy, false);
  EXPECT_EQ(active.state(), SlotState::kFailed);
  active.tick(kBackoffMin.value / 1'000);
  EXPECT_EQ(active.open(), Kinds{Kind::kDestroy});
  active.answer(Kind::kDestroy, false);
  active.tick(2 * kBackoffMin.value / 1'000);
  active.answer(Kind::kDestroy);
  EXPECT_EQ(active.answer(Kind::kBoot).guest.incarnation, Incarnation{2});
}

TEST_F(PoolTest, WaitsLongerAndLongerWhileAGuestCannotBeDestroyed) {
  active.boot_awake();
  active.tick(kHealthyAfter.value / 1'000);
  active.die();
  std::vector<std::uint32_t> failures;
  for (int i = 0; i < 4; ++i) {
    active.answer(Kind::kDestroy, false);
    failures.push_back(active.slot().failures);
    active.tick(60'000);
  }
  EXPECT_EQ(failures, (std::vector<std::uint32_t>{2, 3, 4, 5}));
}

TEST_F(PoolTest, DestroysEveryGuestWhenItStopsAndBootsNoMore) {
  active.boot_awake();
  EXPECT_FALSE(active.pool.stopped());
  active.stop();
  EXPECT_EQ(active.dead.size(), 1u);
  EXPECT_EQ(active.open(), Kinds{Kind::kDestroy});
  EXPECT_FALSE(active.pool.stopped());
  active.answer(Kind::kDestroy);
  EXPECT_TRUE(active.pool.stopped());
  active.tick(100'000);
  active.believe(active.evicting_notice(9, Epoch{1}));
  active.stop();
  EXPECT_TRUE(active.calls.empty());
  EXPECT_TRUE(active.pool.stopped());
}

TEST_F(PoolTest, StopsFromEveryState) {
  PoolHarness absent(cluster, HostId{2});
  absent.stop();
  absent.tick();
  EXPECT_TRUE(absent.calls.empty());
  EXPECT_TRUE(absent.pool.stopped());

  PoolHarness booting(cluster, HostId{2});
  booting.tick();
  booting.stop();
  booting.answer(Kind::kBoot, false);
  booting.answer(Kind::kDestroy);
  EXPECT_TRUE(booting.pool.stopped());

  PoolHarness failed(cluster, HostId{2});
  failed.tick();
  failed.answer(Kind::kBoot, false);
  failed.stop();
  EXPECT_TRUE(failed.pool.stopped());

  PoolHarness destroying(cluster, HostId{2});
  destroying.boot_to_sleep();
  destroying.die();
  destroying.stop();
  destroying.answer(Kind::kDestroy, false);
  EXPECT_FALSE(destroying.pool.stopped());
  destroying.tick(60'000);
  destroying.answer(Kind::kDestroy);
  EXPECT_TRUE(destroying.pool.stopped());
}

TEST_F(PoolTest, ReportsEveryRefusalToItsObserver) {
  sleeper.boot_to_sleep();
  sleeper.wake(0);
  EXPECT_EQ(sleeper.transitions.refused, 0u);
  sleeper.wake(0);
  EXPECT_EQ(sleeper.transitions.refused, 1u);
}

// ---- all of it ---------------------------------------------------------------------------------------------------

// One random event. The harness checks the hypervisor's prerequisites, one guest per slot and ascending incarnations.
void disturb(PoolHarness& h, Prng& random, std::uint64_t& n, std::uint64_t& epoch) {
  const std::uint64_t dice = random.below(100);
  if (dice < 45 && !h.calls.empty()) {
    h.answer(h.calls.front().kind, random.below(10) != 0);
  } else if (dice < 65) {
    h.tick(static_cast<std::int64_t>(random.below(2'000)));
  } else if (dice < 80) {
    h.step(h.signed_wake(static_cast<std::uint32_t>(random.below(4)), Epoch{epoch}));
  } else if (dice < 85) {
    if (h.running.contains(h.slot().incarnation) || h.frozen.contains(h.slot().incarnation)) h.die();
  } else if (dice < 90) {
    h.believe(h.evicting_notice(++n, Epoch{++epoch}));
  } else if (dice < 95) {
    EpochNotice notice = h.joined_notice(++n, Epoch{++epoch});
    notice.active = random.below(2) == 0 ? std::vector{SlotId{0}, SlotId{1}} : std::vector{SlotId{1}, SlotId{2}};
    h.believe(notice);
  } else {
    h.node_up(static_cast<std::uint16_t>(random.below(4)));
  }
}

TEST_F(PoolTest, KeepsItsInvariantsUnderAnyOrderOfEventsAndUsesEveryTransition) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 200 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Prng random(seed);
    PoolHarness h(cluster, HostId{static_cast<std::uint16_t>(seed % 3)});
    std::uint64_t n = 0;
    std::uint64_t epoch = 0;
    h.tick();
    const std::uint64_t events = 20 + random.below(200);
    for (std::uint64_t i = 0; i < events; ++i) disturb(h, random, n, epoch);
    h.stop();
    for (int i = 0; i < 1'000 && !h.pool.stopped(); ++i) {
      if (h.calls.empty()) {
        h.tick(60'000);
      } else {
        h.answer(h.calls.front().kind);
      }
    }
    EXPECT_TRUE(h.pool.stopped());
    EXPECT_TRUE(h.left.empty()) << "a guest was left behind";
    seen.insert(h.transitions.seen.begin(), h.transitions.seen.end());
  }
  std::set<std::string> table;
  for (const Transition& t : kTransitions)
    table.insert(std::string(to_string(t.from)) + ">" + std::string(to_string(t.to)));
  EXPECT_EQ(seen, table);
}

}  // namespace
}  // namespace zz::vmpool
