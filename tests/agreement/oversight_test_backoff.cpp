// Who causes trouble again and again, and waking one by one (docs/protocol.md §9, §11).

#include <gtest/gtest.h>

#include "oversight_test_support.hpp"
#include "oversight_test_troupe.hpp"

namespace zz::agreement {
namespace {

void with_quarantine(crypto::ClusterFile& cluster) { cluster.timing.quarantine_ms = 10'000; }
void one_by_one(crypto::ClusterFile& cluster) { cluster.services[0].wake = crypto::WakePolicy::kOneByOne; }

// The slot lies and is evicted; what is open afterwards is voted for by the others.
void convict_liar(OversightDesk& desk, std::uint16_t liar) {
  lie_and_settle(desk, liar);
  desk.convict(liar);
  const std::uint64_t change = desk.requests_of.size();
  for (const SlotId slot : desk.core->notice().active) EXPECT_EQ(desk.vote(slot.value, change), Refusal::kNone);
  desk.clear();
}
// The slot's host announces its next life. True if this node wants it ordered.
bool is_let_in(OversightDesk& desk, std::uint16_t slot, std::uint64_t incarnation) {
  const Join join = desk.parties.join(SlotId{slot}, Incarnation{incarnation});
  static_cast<void>(desk.core->step(join));
  desk.collect();
  return !desk.out.propose.empty();
}
void let_in(OversightDesk& desk, std::uint16_t slot, std::uint64_t incarnation) {
  const std::uint64_t n = desk.deliver(0, {desk.parties.join(SlotId{slot}, Incarnation{incarnation})});
  for (const SlotId active : desk.core->notice().active) desk.vote(active.value, n);
  desk.clear();
}

TEST(OversightBackOff, ASlotThatIsConvictedAgainStaysOutForAWhile) {
  OversightDesk desk(1, 1, with_quarantine);
  desk.start();
  convict_liar(desk, 0);
  EXPECT_TRUE(is_let_in(desk, 0, 2)) << "once is no habit";
  let_in(desk, 0, 2);
  convict_liar(desk, 1);
  EXPECT_TRUE(is_let_in(desk, 1, 2));
  let_in(desk, 1, 2);
  convict_liar(desk, 0);
  EXPECT_FALSE(is_let_in(desk, 0, 3));
  EXPECT_EQ(desk.core->slots()[0].quarantine, Micros{10'000 * kMs});
  EXPECT_FALSE(desk.core->applies(SystemOp{desk.parties.join(SlotId{0}, Incarnation{3})})) << "nor others' wish";
  desk.pass(9'900);
  EXPECT_TRUE(desk.out.propose.empty());
  desk.pass(200);
  ASSERT_EQ(desk.out.propose.size(), 1u) << "agreed time goes on without requests";
  EXPECT_EQ(std::get<Join>(desk.out.propose[0]).slot, SlotId{0});
  EXPECT_EQ(desk.core->slots()[0].quarantine, Micros{});
}

TEST(OversightBackOff, IsTheSameAfterARestart) {
  OversightDesk desk(1, 1, with_quarantine);
  desk.start();
  for (std::uint64_t i = 0; i < 3; ++i) {
    const auto liar = static_cast<std::uint16_t>(i % 2);
    convict_liar(desk, liar);
    if (i < 2) let_in(desk, liar, 2);
  }
  ASSERT_EQ(desk.core->slots()[0].quarantine, Micros{10'000 * kMs});
  desk.restart(desk.requests_of.size());
  EXPECT_GT(desk.core->slots()[0].quarantine, Micros{9'000 * kMs});
  EXPECT_FALSE(is_let_in(desk, 0, 3));
}

TEST(OversightBackOff, TheSlotOfAnActiveSetIsNeverKeptOut) {
  OversightDesk desk(1, 1, with_quarantine);
  desk.start();
  convict_liar(desk, 0);
  let_in(desk, 0, 2);
  convict_liar(desk, 1);
  let_in(desk, 1, 2);
  // Slots 0 and 2 are active now.
  ASSERT_EQ(desk.core->notice().active, slot_list({0, 2}));
  for (std::uint16_t slot = 0; slot < 3; slot = static_cast<std::uint16_t>(slot + 2)) {
    EXPECT_EQ(desk.core->slots()[slot].quarantine, Micros{});
  }
}

// Else two of five that lie now and then would take each other's place for ever.
TEST(OversightBackOff, WhoWasConvictedStandsInOnlyWhenNobodyElseCan) {
  for (const bool comes : {true, false}) {
    SCOPED_TRACE(comes);
    OversightDesk desk(1, 2, with_quarantine);
    desk.start();
    const std::uint64_t first = desk.deliver();
    for (const SlotId slot : slot_list({0, 1, 2})) desk.vote(slot.value, first, slot.value == 0 ? "wrong" : "right");
    desk.up(3);
    desk.replay(3, first);
    desk.convict(0);
    ASSERT_EQ(desk.core->notice().active, slot_list({1, 2, 3}));
    for (const SlotId slot : slot_list({1, 2, 3})) desk.vote(slot.value, desk.requests_of.size());
    let_in(desk, 0, 2);
    desk.pass(3'500);

    const std::uint64_t n = desk.deliver();
    for (const SlotId slot : slot_list({1, 2, 3})) desk.vote(slot.value, n, slot.value == 1 ? "wrong" : "right");
    desk.up(0);
    desk.replay(0, n);
    ASSERT_EQ(desk.core->closed_through(), Seq{n});
    desk.pass(1'000);
    EXPECT_FALSE(desk.said(1).has_value()) << "slot 4 may still come";
    if (comes) {
      desk.up(4);
      desk.replay(4, n);
    } else {
      desk.pass(3'000);
    }
    desk.pass(5);
    ASSERT_TRUE(desk.said(1).has_value());
    EXPECT_EQ(desk.said(1)->agreeing, comes ? slot_list({2, 3, 4}) : slot_list({0, 2, 3}));
  }
}

TEST(OversightBackOff, WhoIsOnlyLateIsNotKeptOut) {
  OversightDesk desk(1, 1, with_quarantine);
  desk.start();
  for (std::uint64_t i = 0; i < 3; ++i) {
    const auto victim = desk.core->notice().active.front().value;
    std::uint16_t sleeper = 0;
    while (std::ranges::count(desk.core->notice().active, SlotId{sleeper}) > 0) ++sleeper;
    const Incarnation life = desk.incarnation(victim);
    EXPECT_EQ(desk.core->step(HostId{victim}, SlotDead{SlotId{victim}, life}), Refusal::kNone);
    desk.pass(5);
    desk.up(sleeper);
    desk.replay(sleeper, desk.requests_of.size());
    desk.pass(5);
    desk.convict(victim);
    const std::uint64_t change = desk.requests_of.size();
    for (const SlotId slot : desk.core->notice().active) desk.vote(slot.value, change);
    desk.clear();
    EXPECT_TRUE(is_let_in(desk, victim, life.value + 1)) << i;
    let_in(desk, victim, life.value + 1);
  }
  EXPECT_EQ(desk.core->stats().evictions, 3u);
  EXPECT_EQ(desk.core->stats().not_deterministic, 0u);
}

TEST(OversightBackOff, MoreThanGWrongSlotsInAnHourAreAnAlarm) {
  OversightDesk desk(1, 1, with_quarantine);
  desk.start();
  convict_liar(desk, 0);
  let_in(desk, 0, 2);
  EXPECT_EQ(desk.core->stats().not_deterministic, 0u);
  convict_liar(desk, 1);
  const auto alarms = desk.memory.of(EventKind::kNotDeterministic);
  ASSERT_EQ(alarms.size(), 1u);
  EXPECT_EQ(alarms[0].why, "convictions");
  let_in(desk, 1, 2);
  convict_liar(desk, 2);
  EXPECT_EQ(desk.core->stats().not_deterministic, 1u) << "said once";
}

// The third was convicted and is not back, so the batch neither closes nor hangs, and nobody else is convicted.
TEST(OversightBackOff, TwoThatDifferWhileTheConvictedIsAwayAreAnAlarm) {
  OversightDesk desk(1, 1, with_quarantine);
  desk.start();
  convict_liar(desk, 0);
  EXPECT_EQ(desk.core->stats().not_deterministic, 0u);
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t n = desk.deliver();
    for (const SlotId slot : desk.core->notice().active) desk.vote(slot.value, n, slot.value == 1 ? "one" : "other");
  }
  const auto alarms = desk.memory.of(EventKind::kNotDeterministic);
  ASSERT_EQ(alarms.size(), 1u) << "said once";
  EXPECT_EQ(alarms[0].why, "convictions");
}

// EX-13: of three replicas two agree by chance each time, and it is always another one that differs.
TEST(OversightBackOff, Ex13AServiceThatIsNotDeterministicWakesThreeTimesAndThenRarely) {
  Troupe troupe(
      {.f = 1, .g = 1, .configure = [](crypto::ClusterFile& cluster) { cluster.timing.quarantine_ms = 60'000; }});
  ASSERT_TRUE(troupe.until([&troupe] { return !troupe.order.empty() && troupe.at_rest(); }));
  const auto active = [&] { return troupe.nodes[0]->core->notice().active; };
  for (int i = 0; i < 4'000; ++i) {
    // Of the two that are active the one that began first differs as soon as both are well.
    if (troupe.all_closed() && active().size() == 2) {
      const SlotId odd = active()[static_cast<std::size_t>(i) % 2];
      if (troupe.hosts[odd.value].awake && troupe.hosts[odd.value].fault == Fault::kNone && troupe.awake() == 2) {
        troupe.infect(odd.value, Fault::kLies);
      }
    }
    troupe.request();
    troupe.round();
  }
  EXPECT_LE(troupe.wake_ups, 3u) << "in twenty seconds";
  EXPECT_GE(troupe.wake_ups, 2u) << "nothing was found";
  for (const auto& node : troupe.nodes) EXPECT_GE(node->core->stats().not_deterministic, 1u);
}

TEST(OversightBackOff, WhoIsWaitedForASecondTimeIsNotForgiven) {
  OversightDesk desk;
  desk.start();
  const auto delay = [&desk] {
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.pass(150);
    EXPECT_EQ(desk.out.wakes.size(), 1u) << "overdue";
    desk.vote(1, n);  // after all
    desk.up(2);
    desk.replay(2, n);
    return n;
  };
  delay();
  desk.pass(1'300);
  EXPECT_FALSE(desk.said(1).has_value()) << "forgiven";
  ASSERT_EQ(desk.said(2)->why, Suspicion::kSurplus);
  desk.convict(2);
  let_in(desk, 2, 2);
  for (const std::uint64_t n : {desk.requests_of.size() - 1, desk.requests_of.size()}) {
    for (const std::uint16_t slot : {std::uint16_t{0}, std::uint16_t{1}}) desk.vote(slot, n);
  }
  desk.pass(100);
  desk.clear();
  const std::uint64_t n = delay();
  desk.pass(5);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->why, Suspicion::kLate);
  EXPECT_EQ(desk.said(1)->n, Seq{n});
  EXPECT_EQ(desk.said(1)->agreeing, slot_list({0, 2}));
  desk.convict(1);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 2}));
}

TEST(OversightBackOff, ThatNobodyElseSharesIsDroppedAfterAWhile) {
  OversightDesk desk;
  desk.start();
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.pass(200);
    EXPECT_EQ(desk.out.wakes.size(), 1u) << "overdue";
    desk.vote(1, n);
    if (i == 0) desk.pass(3'100);  // until the sleeper may be asked again
    if (i == 0) desk.clear();
  }
  desk.up(2);
  desk.replay(2, desk.requests_of.size());
  desk.pass(5);
  ASSERT_TRUE(desk.said(1).has_value());
  desk.pass(2 * 3'000 + 5'000);
  desk.clear();
  desk.pass(1'000);
  EXPECT_FALSE(desk.said(1).has_value()) << "two opinions far apart must not add up";
}

TEST(OversightOneByOne, OneSleeperIsWokenAndTheNextOnlyIfItDoesNotSettleIt) {
  OversightDesk desk(1, 2, one_by_one);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "a");
  desk.vote(1, n, "b");
  desk.vote(2, n);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  EXPECT_EQ(desk.out.wakes[0].wake.slot, SlotId{3});
  desk.pass(1'000);
  EXPECT_EQ(desk.out.wakes.size(), 1u);
  desk.up(3);
  desk.pass(500);
  EXPECT_EQ(desk.out.wakes.size(), 1u) << "it is catching up";
  desk.replay(3, n);  // agrees with slot 2: two of three
  desk.pass(5);
  ASSERT_EQ(desk.out.wakes.size(), 2u);
  EXPECT_EQ(desk.out.wakes[1].wake.slot, SlotId{4});
  desk.up(4);
  desk.replay(4, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  EXPECT_EQ(desk.core->stats().wakes, 1u) << "one episode";
}

TEST(OversightOneByOne, ASleeperThatSettlesItIsTheOnlyOne) {
  OversightDesk desk(1, 2, one_by_one);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n);
  desk.vote(2, n);
  desk.up(3);
  desk.replay(3, n);
  desk.pass(200);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.convict(0);
  EXPECT_EQ(desk.core->notice().active, slot_list({1, 2, 3}));
}

TEST(OversightOneByOne, ASleeperThatDoesNotReportForDutyIsReplacedByTheNext) {
  OversightDesk desk(1, 2, one_by_one);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n);
  desk.vote(2, n);
  desk.pass(2'900);
  EXPECT_EQ(desk.out.wakes.size(), 1u);
  desk.pass(200);
  ASSERT_EQ(desk.out.wakes.size(), 3u);
  EXPECT_EQ(desk.out.wakes[1].wake.slot, SlotId{3}) << "it is asked again";
  EXPECT_EQ(desk.out.wakes[2].wake.slot, SlotId{4});
}

TEST(OversightOneByOne, TwoLiarsAtOnceAreOutvoted) {
  Troupe troupe({.f = 1, .g = 2, .configure = one_by_one});
  ASSERT_TRUE(troupe.until([&troupe] { return !troupe.order.empty() && troupe.at_rest(); }));
  troupe.infect(0, Fault::kLies);
  troupe.infect(2, Fault::kSilent);
  for (int i = 0; i < 100; ++i) {
    troupe.request();
    troupe.round();
  }
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  EXPECT_EQ(troupe.nodes[0]->core->notice().active, slot_list({1, 3, 4}));
}

}  // namespace
}  // namespace zz::agreement
