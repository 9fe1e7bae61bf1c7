// Oversight: who is suspected of what, when it is withdrawn, and when f+1 suspicions make an epoch change.

#include <gtest/gtest.h>

#include "agreement/oversight.hpp"
#include "agreement/suspect_book.hpp"
#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

TEST(OversightSuspects, AVoteThatDiffersFromGPlusOneEqualOnesIsWrong) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = lie_and_settle(desk, 1);
  const auto suspect = desk.said(1);
  ASSERT_TRUE(suspect.has_value());
  EXPECT_EQ(suspect->why, Suspicion::kWrong);
  EXPECT_EQ(suspect->n, Seq{n});
  EXPECT_EQ(suspect->epoch, Epoch{0});
  EXPECT_EQ(suspect->incarnation, Incarnation{1});
  EXPECT_EQ(suspect->agreeing, slot_list({0, 2}));
  EXPECT_TRUE(crypto::verify(desk.parties.cluster.nodes[0].key, suspect_fields(desk.parties.cluster.id, *suspect),
                             suspect->signature));
  EXPECT_FALSE(desk.said(0).has_value());
  EXPECT_FALSE(desk.said(2).has_value());
  EXPECT_EQ(desk.memory.count(EventKind::kSuspected), 1u);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u);
}

TEST(OversightSuspects, AWokenSlotThatLiesIsWrongAndTheActiveSetStays) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(150);  // slot 1 is slow: overdue
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.up(2);
  desk.vote(2, 1);
  desk.vote(2, n, "wrong");
  EXPECT_FALSE(desk.said(2).has_value()) << "nobody knows yet who is right";
  desk.vote(1, n);
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kWrong);
  EXPECT_FALSE(desk.said(1).has_value());
  desk.convict(2);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 1}));
  EXPECT_EQ(desk.core->notice().evicted_through[2], Incarnation{1});
  EXPECT_EQ(desk.core->stats().evictions, 1u);
}

TEST(OversightSuspects, AreRepeatedWhileTheyHold) {
  OversightDesk desk;
  desk.start();
  lie_and_settle(desk, 1);
  ASSERT_EQ(desk.out.suspects.size(), 1u);
  desk.pass(1'000);
  EXPECT_EQ(desk.out.suspects.size(), 5u);
  EXPECT_TRUE(same_statement(desk.out.suspects.front(), desk.out.suspects.back()));
  EXPECT_EQ(desk.out.suspects.front().signature, desk.out.suspects.back().signature);
}

TEST(OversightSuspects, OfFSignersDoNothingAndOfFPlusOneMakeAnEpochChange) {
  OversightDesk desk(2, 1);
  desk.start();
  lie_and_settle(desk, 1);
  const Suspect heard = *desk.said(1);
  EXPECT_EQ(desk.echo(1, heard), Refusal::kNone);
  desk.pass(200);
  EXPECT_TRUE(desk.changes().empty()) << "changed on f suspicions";
  EXPECT_EQ(desk.echo(2, heard), Refusal::kNone);
  ASSERT_EQ(desk.changes().size(), 1u);
  const EpochChange change = desk.changes()[0];
  EXPECT_EQ(change.epoch, Epoch{1});
  EXPECT_EQ(change.active, slot_list({0, 2}));
  EXPECT_EQ(change.evicted, slot_list({1}));
  EXPECT_EQ(change.proof.size(), 3u);
  EXPECT_EQ(desk.core->admissible(change), Refusal::kNone);
}

TEST(OversightSuspects, OfOneSignerTwiceCountOnce) {
  OversightDesk desk(2, 1);
  desk.start();
  lie_and_settle(desk, 1);
  Suspect heard = *desk.said(1);
  EXPECT_EQ(desk.echo(1, heard), Refusal::kNone);
  EXPECT_EQ(desk.echo(1, heard), Refusal::kDuplicate);
  heard.n = Seq{1};
  EXPECT_EQ(desk.echo(1, heard), Refusal::kNone) << "another statement of the same signer replaces the first";
  desk.pass(200);
  EXPECT_TRUE(desk.changes().empty());
}

TEST(OversightSuspects, ThatAreForgedStaleOrMalformedAreRefused) {
  OversightDesk desk;
  desk.start();
  const Suspect good = desk.parties.suspect({.signer = 1, .slot = 1, .agreeing = slot_list({0, 2})});
  Suspect bad = good;
  bad.signer = NodeId{2};
  EXPECT_EQ(desk.core->step(bad), Refusal::kBadSignature);
  bad = good;
  bad.slot = SlotId{0};
  EXPECT_EQ(desk.core->step(bad), Refusal::kBadSignature);
  bad = good;
  bad.service = ServiceId{1};
  EXPECT_EQ(desk.core->step(bad), Refusal::kUnknownService);
  bad = good;
  bad.signer = NodeId{4};
  EXPECT_EQ(desk.core->step(bad), Refusal::kUnknownPeer);
  bad = good;
  bad.slot = SlotId{3};
  EXPECT_EQ(desk.core->step(bad), Refusal::kUnknownSlot);
  bad = good;
  bad.agreeing = slot_list({2, 0});
  EXPECT_EQ(desk.core->step(bad), Refusal::kMalformed);
  bad.agreeing = slot_list({0, 7});
  EXPECT_EQ(desk.core->step(bad), Refusal::kMalformed);
  bad = good;
  bad.why = static_cast<Suspicion>(9);
  EXPECT_EQ(desk.core->step(bad), Refusal::kMalformed);
  EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = 1, .slot = 1, .epoch = 1})), Refusal::kStaleEpoch);
  EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = 1, .slot = 1, .incarnation = 2})),
            Refusal::kStaleIncarnation);
  EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = 0, .slot = 1})), Refusal::kDuplicate)
      << "our own words come from us only";
  EXPECT_EQ(desk.core->step(good), Refusal::kNone);
  desk.pass(200);
  EXPECT_TRUE(desk.changes().empty()) << "one good suspicion is not f+1";
}

TEST(OversightSuspects, ThatAreNotHeardAgainCountNoMore) {
  OversightDesk desk;
  desk.start();
  EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = 1, .slot = 1, .agreeing = slot_list({0, 2})})),
            Refusal::kNone);
  desk.pass(kSuspectLife.value / kMs + 10);
  EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = 2, .slot = 1, .agreeing = slot_list({0, 2})})),
            Refusal::kNone);
  desk.pass(200);
  EXPECT_TRUE(desk.changes().empty()) << "two short troubles far apart added up";
  EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = 1, .slot = 1, .agreeing = slot_list({0, 2})})),
            Refusal::kDuplicate);
  desk.pass(100);
  EXPECT_FALSE(desk.changes().empty()) << "heard again, it counts again";
}

TEST(OversightSuspects, FromOthersAloneAreEnough) {
  OversightDesk desk;
  desk.start();
  for (std::uint16_t signer = 1; signer <= 2; ++signer) {
    EXPECT_EQ(desk.core->step(desk.parties.suspect({.signer = signer, .slot = 0, .agreeing = slot_list({1, 2})})),
              Refusal::kNone);
  }
  desk.collect();
  ASSERT_EQ(desk.changes().size(), 1u);
  EXPECT_EQ(desk.changes()[0].active, slot_list({1, 2}));
}

// Slot 1 hangs; slots 0 and 2, woken for it, close the batch that this returns.
std::uint64_t close_without_slot_1(OversightDesk& desk) {
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(150);
  desk.up(2);
  desk.replay(2, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  return n;
}

TEST(OversightSuspects, AFrozenSlotIsLateOnceItsPeersHaveClosedWithoutIt) {
  OversightDesk desk;
  const std::uint64_t n = close_without_slot_1(desk);
  desk.pass(450);
  EXPECT_FALSE(desk.said(1).has_value()) << "its time is not up";
  desk.pass(100);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->why, Suspicion::kLate);
  EXPECT_EQ(desk.said(1)->n, Seq{n});
  EXPECT_EQ(desk.said(1)->agreeing, slot_list({0, 2}));
  desk.convict(1);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 2}));
  const auto evicted = desk.memory.of(EventKind::kEvicted);
  ASSERT_EQ(evicted.size(), 1u);
  EXPECT_EQ(evicted[0].why, "late");
  EXPECT_EQ(evicted[0].incarnation, Incarnation{1});
}

TEST(OversightSuspects, ASlotThatVotesAfterAllIsNotLateAnyMore) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(150);
  desk.up(2);
  desk.replay(2, n);
  desk.pass(600);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.vote(1, n), Refusal::kNone);
  desk.pass(10);
  desk.clear();
  desk.pass(900);
  EXPECT_FALSE(desk.said(1).has_value());
  // And it owes its votes as before.
  const std::uint64_t more = desk.deliver();
  desk.vote(0, more);
  desk.vote(2, more);
  desk.pass(600);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->n, Seq{more});
}

TEST(OversightSuspects, ThatDoNoLongerHoldAreWithdrawn) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(150);
  desk.up(2);
  desk.replay(2, n);
  desk.pass(600);
  const Suspect heard = *desk.said(1);
  desk.vote(1, n);
  desk.pass(10);
  EXPECT_EQ(desk.echo(1, heard), Refusal::kNone);
  desk.pass(200);
  EXPECT_TRUE(desk.changes().empty()) << "our own withdrawn word was counted";
}

TEST(OversightSuspects, AKnownLiarsVoteIsNoAnswer) {
  OversightDesk desk;
  desk.start();
  lie_and_settle(desk, 1);
  desk.deliver(0, {desk.parties.join(SlotId{2}, Incarnation{2})});  // the replacement's host lost it
  EXPECT_EQ(desk.out.wakes.back().wake.incarnation, Incarnation{2}) << "the liar cannot go before it is there";
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n, "wrong");
  desk.pass(90);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 0u);
  desk.pass(30);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 1u);
}

TEST(OversightSuspects, ASlotThatSkipsABatchAndGoesOnIsLateForIt) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(150);
  desk.up(2);
  desk.replay(2, n);
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t more = desk.deliver();
    for (std::uint16_t slot = 0; slot < 3; ++slot) desk.vote(slot, more);
    desk.pass(200);
  }
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->n, Seq{n});
}

// Slot 0 lied and is gone; slot 2, woken for it, fetches the state that slot 1 alone has.
TEST(OversightSuspects, ASlotThatMayAloneHaveTheStateIsNotSentAwayForBeingSlow) {
  OversightDesk desk;
  desk.start();
  lie_and_settle(desk, 0);
  desk.convict(0);
  ASSERT_EQ(desk.core->notice().active, slot_list({1, 2}));
  desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{2})});
  for (const SlotId slot : slot_list({1, 2})) {
    for (std::uint64_t n = desk.core->closed_through().value + 1; n <= desk.requests_of.size(); ++n) {
      desk.vote(slot.value, n);
    }
  }
  const auto fetch_for = [&](std::int64_t ms) {
    for (std::int64_t gone = 0; gone < ms; gone += 1'000) {
      desk.core->fetches(SlotId{2}, Incarnation{1});
      desk.core->fetches(SlotId{0}, Incarnation{2});
      desk.pass(1'000);
    }
  };
  fetch_for(1'000);
  const std::uint64_t n = desk.deliver();
  desk.vote(2, n);
  desk.pass(150);
  desk.up(0);
  desk.replay(0, n);
  ASSERT_EQ(desk.core->closed_through(), Seq{n});
  fetch_for(20'000);
  EXPECT_FALSE(desk.said(1).has_value()) << "nobody else has all of the state";
  desk.pass(16'000);
  ASSERT_TRUE(desk.said(1).has_value()) << "somebody has stopped asking for parts";
  EXPECT_EQ(desk.said(1)->why, Suspicion::kLate);
}

TEST(OversightSuspects, ASlotIsSparedForThreeMinutesAtMostAndNotIfItIsGone) {
  for (const bool is_gone : {false, true}) {
    OversightDesk desk;
    close_without_slot_1(desk);
    if (is_gone) desk.down(1);
    for (int second = 0; second < 175; ++second) {
      for (const SlotId slot : slot_list({0, 2})) desk.core->fetches(slot, Incarnation{1});
      desk.pass(1'000);
    }
    EXPECT_EQ(desk.said(1).has_value(), is_gone);
    for (int second = 0; second < 10; ++second) {
      for (const SlotId slot : slot_list({0, 2})) desk.core->fetches(slot, Incarnation{1});
      desk.pass(1'000);
    }
    EXPECT_TRUE(desk.said(1).has_value());
  }
}

TEST(OversightSuspects, AGoneIdleSlotIsLateOnceAReplacementAgreesOnTheLastBatch) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n);
  desk.down(1);
  desk.pass(310);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 1u);
  desk.up(2);
  desk.vote(2, 1);
  desk.pass(20);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled), 0u);
  EXPECT_FALSE(desk.said(1).has_value()) << "the replacement is not there yet";
  desk.vote(2, n);
  desk.pass(5);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->why, Suspicion::kLate);
  EXPECT_EQ(desk.said(1)->agreeing, slot_list({0, 2})) << "the gone slot itself is no candidate";
  desk.convict(1);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 2}));
  desk.pass(1'200);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
}

TEST(OversightSuspects, AnActiveSlotIsBlamedOnlyWhenGPlusOneOthersCanTakeOver) {
  OversightDesk desk(1, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n);
  desk.vote(2, n);
  desk.up(3);
  desk.replay(3, n);
  ASSERT_EQ(desk.core->closed_through(), Seq{n});
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2, 3}));
  desk.down(3);
  desk.clear();
  desk.pass(600);
  EXPECT_FALSE(desk.said(0).has_value()) << "a slot without a channel cannot take over";
  desk.up(4);
  desk.replay(4, n);
  desk.pass(5);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2, 4}));
}

TEST(OversightSuspects, AWokenSlotThatIsNotNeededIsSurplusAfterAQuietWhile) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(150);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.vote(1, n);  // only slow: the wake-up was not needed
  desk.up(2);
  desk.replay(2, n);
  desk.pass(900);
  EXPECT_FALSE(desk.said(2).has_value());
  desk.pass(300);
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kSurplus);
  desk.convict(2);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 1}));
  EXPECT_EQ(desk.core->notice().evicted_through[2], Incarnation{1});
  EXPECT_EQ(desk.core->stats().evictions, 0u) << "surplus is no blame";
  EXPECT_EQ(desk.memory.count(EventKind::kEvicted), 0u);
  EXPECT_EQ(desk.core->epoch(), Epoch{1});
}

TEST(OversightSuspects, ASurplusSlotIsFoundUnderSteadyLoadToo) {
  OversightDesk desk;
  desk.start();
  desk.up(2);
  desk.replay(2, 1);
  for (int i = 0; i < 100 && !desk.said(2); ++i) {
    const std::uint64_t n = desk.deliver();  // open while the next 20 ms pass
    desk.pass(20);
    for (std::uint16_t slot = 0; slot < 3; ++slot) desk.vote(slot, n);
  }
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kSurplus);
}

TEST(OversightSuspects, AWokenSlotThatIsConnectedAndGoesNowhereIsLate) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n);
  desk.up(2);
  desk.vote(2, 1);
  desk.pass(4'900);
  EXPECT_FALSE(desk.said(2).has_value());
  desk.pass(200);
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kLate);
}

TEST(OversightSuspects, ASleeperThatDoesNotWakeUpIsReplaced) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n, "wrong");
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.pass(5'900);
  EXPECT_FALSE(desk.said(2).has_value());
  desk.pass(200);
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kLate);
  desk.convict(2);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 1}));
  EXPECT_EQ(desk.core->notice().evicted_through[2], Incarnation{1});
  desk.clear();
  desk.deliver(0, {desk.parties.join(SlotId{2}, Incarnation{2})});
  ASSERT_EQ(desk.out.wakes.size(), 1u) << "its successor is asked";
  EXPECT_EQ(desk.out.wakes[0].wake.incarnation, Incarnation{2});
  desk.up(2);
  desk.replay(2, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
}

TEST(OversightSuspects, ASleeperIsNotBlamedForATroubleThatIsOver) {
  OversightDesk desk;
  desk.start();
  for (int i = 0; i < 4; ++i) {  // many short ones do not add up
    desk.down(1);
    desk.pass(2'000);
    desk.up(1);
    desk.pass(2'000);
  }
  EXPECT_FALSE(desk.out.wakes.empty());
  EXPECT_FALSE(desk.said(2).has_value());
}

}  // namespace
}  // namespace zz::agreement
