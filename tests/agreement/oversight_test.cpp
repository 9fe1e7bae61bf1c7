// Votes, closing, signs of trouble and WAKEs (docs/protocol.md §8, §9).

#include "agreement/oversight.hpp"

#include <gtest/gtest.h>

#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

TEST(OversightVotes, CloseABatchOnGPlusOneEqualOnesOfDistinctSlots) {
  OversightDesk desk(2, 2);
  desk.start();
  const std::uint64_t n = desk.deliver(3);
  EXPECT_EQ(desk.vote(0, n), Refusal::kNone);
  EXPECT_EQ(desk.vote(0, n), Refusal::kDuplicate);
  EXPECT_EQ(desk.vote(1, n), Refusal::kNone);
  EXPECT_TRUE(desk.out.closed.empty()) << "closed with g votes";
  EXPECT_EQ(desk.vote(2, n), Refusal::kNone);
  ASSERT_EQ(desk.out.closed.size(), 1u);
  EXPECT_EQ(desk.out.closed[0].n, Seq{n});
  EXPECT_EQ(desk.out.closed[0].replies, replies_saying(Seq{n}, 3, "right"));
  EXPECT_EQ(desk.out.closed[0].agreeing, slot_list({0, 1, 2}));
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  EXPECT_EQ(desk.vote(1, n), Refusal::kDuplicate);
  EXPECT_EQ(desk.out.closed.size(), 1u) << "closed twice";
}

TEST(OversightVotes, CloseBatchesInAnyOrderButCloseThroughHasNoHoles) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t first = desk.deliver();
  const std::uint64_t second = desk.deliver();
  desk.vote(0, first);
  desk.vote(0, second);
  desk.vote(1, second);
  ASSERT_EQ(desk.out.closed.size(), 1u);
  EXPECT_EQ(desk.core->closed_through(), Seq{first - 1});
  desk.vote(1, first);
  EXPECT_EQ(desk.core->closed_through(), Seq{second});
}

TEST(OversightVotes, OfAnotherSlotThanTheChannelsAreRefused) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  const Vote vote = desk.make_vote(1, n);
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kUnknownSlot);
  EXPECT_EQ(desk.core->step(SlotId{9}, Incarnation{1}, vote), Refusal::kUnknownSlot);
}

TEST(OversightVotes, OfAnotherIncarnationAreRefused) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  Vote vote = desk.make_vote(0, n);
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{2}, vote), Refusal::kStaleIncarnation);
  vote.incarnation = Incarnation{2};
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{2}, vote), Refusal::kStaleIncarnation);
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kStaleIncarnation);
}

TEST(OversightVotes, WithTheWrongEpochForTheirBatchAreRefused) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  Vote vote = desk.make_vote(0, n);
  vote.epoch = Epoch{1};
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kStaleEpoch);
  EXPECT_EQ(desk.vote(0, n), Refusal::kNone);
}

TEST(OversightVotes, WithoutOneDigestPerRequestAreRefused) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver(2);
  Vote vote = desk.make_vote(0, n);
  vote.replies.pop_back();
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kMalformed);
  vote.replies.resize(3);
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kMalformed);
  vote.n = Seq{0};
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kMalformed);
}

TEST(OversightVotes, AreFinalOncePerSlotAndBatch) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  EXPECT_EQ(desk.vote(0, n, "wrong"), Refusal::kNone);
  EXPECT_EQ(desk.vote(0, n, "right"), Refusal::kConflict);
  EXPECT_EQ(desk.vote(1, n, "right"), Refusal::kNone);
  EXPECT_TRUE(desk.out.closed.empty()) << "the changed vote counted";
}

TEST(OversightVotes, ThatComeBeforeTheirBatchAreJudgedWhenItIsDelivered) {
  OversightDesk desk;
  desk.start();
  EXPECT_EQ(desk.vote(0, 2), Refusal::kNone);
  EXPECT_EQ(desk.vote(0, 2), Refusal::kDuplicate);
  EXPECT_EQ(desk.vote(0, 2, "wrong"), Refusal::kConflict);
  EXPECT_EQ(desk.vote(1, 2), Refusal::kNone);
  EXPECT_TRUE(desk.out.closed.empty()) << "closed before this node knows the batch";
  desk.deliver();
  ASSERT_EQ(desk.out.closed.size(), 1u);
  EXPECT_EQ(desk.out.closed[0].n, Seq{2});
}

TEST(OversightVotes, ThatComeEarlyWithTheWrongEpochOrSizeDoNotCountOnDelivery) {
  OversightDesk desk;
  desk.start();
  Vote vote = desk.make_vote(0, 2);
  vote.epoch = Epoch{3};
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kNone);
  Vote sized = desk.make_vote(1, 2);
  sized.replies.resize(5);
  EXPECT_EQ(desk.core->step(SlotId{1}, Incarnation{1}, sized), Refusal::kNone);
  desk.deliver();
  EXPECT_TRUE(desk.out.closed.empty());
  const auto refused = desk.memory.of(EventKind::kRefused);
  ASSERT_EQ(refused.size(), 2u);
  EXPECT_EQ(refused[0].why, to_string(Refusal::kStaleEpoch));
  EXPECT_EQ(refused[1].why, to_string(Refusal::kMalformed));
}

TEST(OversightVotes, ThatComeEarlyAreBoundedAndTheNewestAreKept) {
  OversightDesk desk;
  desk.start();
  for (std::uint64_t n = 3; n <= 3 + kVotesAheadMax; ++n) ASSERT_EQ(desk.vote(0, n), Refusal::kNone) << n;
  EXPECT_EQ(desk.vote(0, 4), Refusal::kDuplicate);
  EXPECT_EQ(desk.vote(0, 3), Refusal::kOutOfWindow) << "3 has made room, and is older than all that is kept";
  for (std::uint64_t n = 2; n <= 4; ++n) {
    desk.deliver();
    desk.vote(1, n);
  }
  ASSERT_EQ(desk.out.closed.size(), 1u);
  EXPECT_EQ(desk.out.closed[0].n, Seq{4});
}

TEST(OversightVotes, ThatComeEarlyAreBoundedInSize) {
  OversightDesk desk;
  desk.start();
  Vote vote = desk.make_vote(1, 2);
  vote.replies.resize(kAheadDigestsMax + 1);
  EXPECT_EQ(desk.core->step(SlotId{1}, Incarnation{1}, vote), Refusal::kQueueFull);
  vote.replies.resize(1'024);
  const std::size_t fit = kAheadDigestsMax / 1'024;
  for (std::size_t i = 0; i <= fit; ++i) {
    vote.n = Seq{3 + i};
    ASSERT_EQ(desk.core->step(SlotId{1}, Incarnation{1}, vote), Refusal::kNone) << i;
  }
  vote.n = Seq{3};
  EXPECT_EQ(desk.core->step(SlotId{1}, Incarnation{1}, vote), Refusal::kOutOfWindow) << "the oldest is gone";
  vote.n = Seq{4};
  EXPECT_EQ(desk.core->step(SlotId{1}, Incarnation{1}, vote), Refusal::kDuplicate);
}

TEST(OversightVotes, ACloseTellsWhatItWasClosedBy) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver(2);
  EXPECT_FALSE(desk.core->closed_digest(Seq{0}));
  EXPECT_FALSE(desk.core->closed_digest(Seq{n}));
  EXPECT_FALSE(desk.core->closed_digest(Seq{n + 1}));
  desk.vote(0, n);
  desk.vote(1, n);
  EXPECT_EQ(desk.core->closed_digest(Seq{n}), vote_digest(Seq{n}, replies_saying(Seq{n}, 2, "right")));
}

TEST(OversightVotes, OneIsEnoughWhereFPlusOneOthersSayThatItIsWhatClosesTheBatch) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  const Closings words{Seq{n}, {vote_digest(Seq{n}, replies_saying(Seq{n}, 1, "right")), Digest{{1}}}};
  desk.vote(0, n, "told this node alone");
  desk.vote(1, n);
  EXPECT_EQ(desk.core->step(NodeId{0}, words), Refusal::kWrongRole);
  EXPECT_EQ(desk.core->step(NodeId{4}, words), Refusal::kUnknownPeer);
  EXPECT_EQ(desk.core->step(NodeId{1}, Closings{Seq{n}, {}}), Refusal::kMalformed);
  EXPECT_EQ(desk.core->step(NodeId{1}, words), Refusal::kNone);
  EXPECT_EQ(desk.core->step(NodeId{1}, words), Refusal::kNone);
  EXPECT_EQ(desk.core->step(NodeId{1}, Closings{Seq{n}, {Digest{{2}}}}), Refusal::kConflict);
  desk.collect();
  EXPECT_TRUE(desk.out.closed.empty()) << "on the word of f nodes";
  EXPECT_EQ(desk.core->step(NodeId{2}, words), Refusal::kNone);
  desk.collect();
  ASSERT_EQ(desk.out.closed.size(), 1u);
  EXPECT_EQ(desk.out.closed[0].replies, replies_saying(Seq{n}, 1, "right"));
  EXPECT_EQ(desk.out.closed[0].agreeing, slot_list({1}));
  EXPECT_EQ(desk.core->closed_digest(Seq{n}), words.digests.front());
}

TEST(OversightVotes, NoneIsGuessedFromTheWordsOfOthers) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  const Closings words{Seq{n}, {vote_digest(Seq{n}, replies_saying(Seq{n}, 1, "right"))}};
  for (std::uint16_t node = 1; node <= 3; ++node) EXPECT_EQ(desk.core->step(NodeId{node}, words), Refusal::kNone);
  desk.vote(0, n, "wrong");
  EXPECT_TRUE(desk.out.closed.empty());
  desk.vote(1, n);
  EXPECT_EQ(desk.out.closed.size(), 1u);
}

TEST(OversightVotes, OfAWokenSlotAreComparedWithWhatWasClosedLongAgo) {
  OversightDesk desk;
  desk.start();
  for (int i = 0; i < 50; ++i) {
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.vote(1, n);
  }
  desk.up(2);
  desk.clear();
  for (std::uint64_t n = 1; n <= 40; ++n) ASSERT_EQ(desk.vote(2, n), Refusal::kNone);
  EXPECT_TRUE(desk.out.suspects.empty());
  EXPECT_EQ(desk.vote(2, 40), Refusal::kDuplicate);
  EXPECT_EQ(desk.vote(2, 41, "wrong"), Refusal::kNone);
  desk.collect();
  const auto suspect = desk.said(2);
  ASSERT_TRUE(suspect.has_value());
  EXPECT_EQ(suspect->why, Suspicion::kWrong);
  EXPECT_EQ(suspect->n, Seq{41});
  EXPECT_EQ(suspect->agreeing, slot_list({0, 1}));
  EXPECT_TRUE(desk.out.closed.empty());
}

TEST(OversightSigns, TwoDifferentVotesWakeAllSleepersAtOnce) {
  OversightDesk desk(2, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  EXPECT_TRUE(desk.out.wakes.empty());
  desk.vote(1, n, "wrong");
  ASSERT_EQ(desk.out.wakes.size(), 2u);
  for (std::uint16_t i = 0; i < 2; ++i) {
    const auto& [host, wake] = desk.out.wakes[i];
    EXPECT_EQ(wake.slot, SlotId{static_cast<std::uint16_t>(3 + i)});
    EXPECT_EQ(host.value, wake.slot.value);
    EXPECT_EQ(wake.signer, NodeId{0});
    EXPECT_EQ(wake.epoch, Epoch{0});
    EXPECT_EQ(wake.incarnation, Incarnation{1});
    EXPECT_EQ(wake.n, Seq{n});
    EXPECT_EQ(wake.sign, static_cast<std::uint8_t>(Sign::kMismatch));
    EXPECT_TRUE(
        crypto::verify(desk.parties.cluster.nodes[0].key, wake_fields(desk.parties.cluster.id, wake), wake.signature));
  }
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 1u);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  EXPECT_EQ(desk.core->stats().wakes, 1u);
}

TEST(OversightSigns, AHundredMismatchesAtOnceAreOneEpisode) {
  OversightDesk desk;
  desk.start();
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.vote(1, n, "wrong");
  }
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 100u);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  EXPECT_EQ(desk.out.wakes.size(), 1u);
  desk.up(2);
  desk.replay(2, 101);
  EXPECT_EQ(desk.out.closed.size(), 100u);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled), 100u);
  desk.pass(100);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  EXPECT_EQ(desk.core->stats().wakes, 1u);
}

TEST(OversightSigns, FurtherLiesOfAKnownLiarAreNoNewDivergence) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n, "wrong");
  desk.up(2);
  desk.replay(2, n);
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t more = desk.deliver();
    desk.vote(0, more);
    desk.vote(1, more, "wrong");
    desk.vote(2, more);
    desk.pass(20);
  }
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 1u);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  EXPECT_EQ(desk.core->closed_through(), Seq{n + 5});
}

TEST(OversightSigns, WakesAreRepeatedOnlyAfterTheBudgetAndOnlyWhileNobodyCame) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n, "wrong");
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.pass(2'900);
  EXPECT_EQ(desk.out.wakes.size(), 1u) << "asked twice within the budget";
  desk.pass(200);
  EXPECT_EQ(desk.out.wakes.size(), 2u);
  desk.up(2);
  desk.pass(4'000);
  EXPECT_EQ(desk.out.wakes.size(), 2u) << "asked for a slot that is connected";
}

TEST(OversightSigns, WakesStopWhenTheEpisodeEnds) {
  OversightDesk desk(1, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n);
  desk.pass(150);  // overdue: slot 2 is slow
  ASSERT_EQ(desk.out.wakes.size(), 2u);
  desk.vote(2, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  desk.pass(4'000);
  EXPECT_EQ(desk.out.wakes.size(), 2u);
}

TEST(OversightSigns, AVoteThatDoesNotFollowTheFirstInUsualTimeIsOverdue) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(95);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 0u);
  desk.pass(10);
  const auto diverged = desk.memory.of(EventKind::kDiverged);
  ASSERT_EQ(diverged.size(), 1u);
  EXPECT_EQ(diverged[0].why, "overdue");
  EXPECT_EQ(diverged[0].slot, SlotId{1});
  EXPECT_EQ(desk.out.wakes.size(), 1u);
}

TEST(OversightSigns, NothingIsUsualBeforeAnythingIsLearnt) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(1'700);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 0u) << "a slow network is no fault";
  desk.pass(350);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 1u) << "the ceiling holds from the first batch on";
}

TEST(OversightSigns, WhatIsUsualIsLearntWithinSomeBatches) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  for (int i = 0; i < 30; ++i) {
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.vote(1, n);
  }
  desk.vote(0, desk.deliver());
  desk.pass(95);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 0u) << "the floor";
  desk.pass(10);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 1u);
}

TEST(OversightSigns, WhatIsUsualIsLearntAndBoundedByTheCeiling) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  const auto slow_batch = [&desk](std::int64_t spread_ms) {
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.pass(spread_ms);
    desk.vote(1, n);
  };
  for (int i = 0; i < 60; ++i) slow_batch(50);  // below the floor; the limit becomes 8 * 50 ms
  ASSERT_EQ(desk.memory.count(EventKind::kDiverged), 0u);
  slow_batch(300);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 0u) << "300 ms are within 8 times the usual 50";
  for (int i = 0; i < 60; ++i) slow_batch(400);
  const std::size_t before = desk.memory.count(EventKind::kDiverged);
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(1'900);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), before) << "below the ceiling";
  desk.pass(150);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), before + 1);
}

TEST(OversightSigns, NoVoteAtAllIsOverdueAfterTheExecutionTimeoutIfARequestWaits) {
  OversightDesk desk;
  desk.start();
  desk.deliver(0);
  desk.pass(6'000);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 0u) << "nobody waits for an answer";
  const std::uint64_t n = desk.deliver(1);
  desk.pass(4'900);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 0u);
  desk.pass(200);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 1u);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
}

TEST(OversightSigns, BeforeTheActiveSlotsFirstConnectNothingIsASign) {
  OversightDesk desk;
  desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{1}), desk.parties.join(SlotId{2}, Incarnation{1})});
  desk.up(0);
  desk.vote(0, 1);
  desk.pass(10'000);
  EXPECT_EQ(desk.core->stats().divergences, 0u) << "slot 1 has not even joined";
  desk.deliver(0, {desk.parties.join(SlotId{1}, Incarnation{1})});
  desk.vote(0, 2);
  desk.pass(10'000);
  EXPECT_EQ(desk.core->stats().divergences, 0u) << "slot 1 has not connected yet";
  desk.up(1);
  desk.pass(50);
  desk.vote(1, 1);
  desk.vote(1, 2);
  desk.pass(10'000);
  EXPECT_EQ(desk.core->closed_through(), Seq{2});
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  EXPECT_TRUE(desk.out.wakes.empty());
}

TEST(OversightSigns, AnActiveSlotThatNeverConnectsIsOverdueOnceARequestWaitsTooLong) {
  OversightDesk desk;
  desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{1}), desk.parties.join(SlotId{1}, Incarnation{1}),
                   desk.parties.join(SlotId{2}, Incarnation{1})});
  desk.up(0);
  desk.vote(0, 1);
  const std::uint64_t n = desk.deliver(1);
  desk.vote(0, n);
  desk.pass(4'900);
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  desk.pass(200);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.up(2);
  desk.replay(2, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  desk.pass(600);
  const auto suspect = desk.said(1);
  ASSERT_TRUE(suspect.has_value());
  EXPECT_EQ(suspect->why, Suspicion::kLate);
}

TEST(OversightSigns, ASlotThatNeverJoinedIsOverdueButNobodyToEvict) {
  OversightDesk desk;
  desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{1}), desk.parties.join(SlotId{2}, Incarnation{1})});
  desk.up(0);
  const std::uint64_t n = desk.deliver(1);
  desk.vote(0, 1);
  desk.vote(0, n);
  desk.pass(5'100);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.up(2);
  desk.replay(2, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  desk.pass(3'000);
  EXPECT_FALSE(desk.said(1).has_value());
  const std::uint64_t late = desk.deliver(0, {desk.parties.join(SlotId{1}, Incarnation{5})});
  desk.vote(0, late);
  desk.vote(2, late);
  desk.up(1);
  desk.replay(1, late);
  desk.pass(3'000);
  EXPECT_FALSE(desk.said(1).has_value()) << "it joined late and caught up";
  EXPECT_EQ(desk.said(2)->why, Suspicion::kSurplus);
}

TEST(OversightSigns, ALostChannelOfAnActiveSlotIsASignAfterAMoment) {
  OversightDesk desk;
  desk.start();
  desk.down(1);
  desk.pass(290);
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  desk.up(1);
  desk.pass(500);
  EXPECT_EQ(desk.core->stats().divergences, 0u) << "it came back in time";
  desk.down(1);
  desk.pass(310);
  const auto diverged = desk.memory.of(EventKind::kDiverged);
  ASSERT_EQ(diverged.size(), 1u);
  EXPECT_EQ(diverged[0].why, "gone");
  EXPECT_EQ(diverged[0].slot, SlotId{1});
  EXPECT_EQ(diverged[0].n, Seq{1}) << "with nothing open it is the last batch";
  EXPECT_EQ(desk.out.wakes.size(), 1u);
}

TEST(OversightSigns, ASlotWithASecondChannelIsNotGone) {
  OversightDesk desk;
  desk.start();
  desk.up(1);
  desk.down(1);
  desk.pass(1'000);
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  EXPECT_TRUE(desk.core->slots()[1].connected);
}

TEST(OversightSigns, AGoneSlotThatComesBackSettlesTheMatterWithoutAnyEviction) {
  OversightDesk desk;
  desk.start();
  desk.down(1);
  desk.pass(400);
  desk.up(1);
  desk.pass(1'000);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{1}), 1u);
  EXPECT_TRUE(desk.out.suspects.empty());
  const std::size_t wakes = desk.out.wakes.size();
  desk.pass(4'000);
  EXPECT_EQ(desk.out.wakes.size(), wakes) << "the episode is over";
}

TEST(OversightSigns, TheHostsWordThatASlotDiedIsASignAtOnce) {
  OversightDesk desk;
  desk.start();
  EXPECT_EQ(desk.core->step(HostId{0}, SlotDead{SlotId{1}, Incarnation{1}}), Refusal::kNotAllowed);
  EXPECT_EQ(desk.core->step(HostId{1}, SlotDead{SlotId{1}, Incarnation{2}}), Refusal::kStaleIncarnation);
  EXPECT_EQ(desk.core->step(HostId{1}, SlotDead{SlotId{8}, Incarnation{1}}), Refusal::kUnknownSlot);
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  EXPECT_EQ(desk.core->step(HostId{1}, SlotDead{SlotId{1}, Incarnation{1}}), Refusal::kNone);
  EXPECT_EQ(desk.core->step(HostId{1}, SlotDead{SlotId{1}, Incarnation{1}}), Refusal::kDuplicate);
  desk.collect();
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  EXPECT_EQ(desk.out.wakes.size(), 1u);
}

TEST(OversightSigns, ADeadSleeperIsNoDivergenceAndIsNotWoken) {
  OversightDesk desk;
  desk.start();
  EXPECT_EQ(desk.core->step(HostId{2}, SlotDead{SlotId{2}, Incarnation{1}}), Refusal::kNone);
  desk.pass(1'000);
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n, "wrong");
  desk.pass(100);
  EXPECT_TRUE(desk.out.wakes.empty());
  desk.deliver(0, {desk.parties.join(SlotId{2}, Incarnation{2})});
  ASSERT_EQ(desk.out.wakes.size(), 1u) << "its successor is asked as soon as it is there";
  EXPECT_EQ(desk.out.wakes[0].wake.incarnation, Incarnation{2});
}

TEST(OversightSigns, ANodeThatStoodStillItselfBlamesNobody) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.time.value += 60'000 * kMs;
  desk.core->tick(desk.time);
  desk.collect();
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  desk.vote(1, n);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
}

TEST(OversightSigns, AClockThatGoesBackLosesNoTime) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(50);
  desk.core->tick(Micros{0});
  desk.time = Micros{0};
  desk.pass(60);
  EXPECT_EQ(desk.core->stats().divergences, 1u) << "time goes on from where it was";
}

TEST(OversightSigns, WhenAllSlotsVoteAndNoGPlusOneAgreeTheBatchNeverCloses) {
  OversightDesk desk(1, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.up(3);
  desk.up(4);
  desk.vote(3, 1);
  desk.vote(4, 1);
  desk.vote(0, n, "a");
  desk.vote(1, n, "a");
  desk.vote(2, n, "b");
  desk.vote(3, n, "b");
  EXPECT_EQ(desk.memory.count(EventKind::kNotDeterministic), 0u);
  desk.vote(4, n, "c");
  EXPECT_EQ(desk.memory.count(EventKind::kNotDeterministic, Seq{n}), 1u);
  EXPECT_EQ(desk.core->stats().not_deterministic, 1u);
  desk.pass(5'000);
  EXPECT_TRUE(desk.out.closed.empty());
  EXPECT_TRUE(desk.out.suspects.empty()) << "nobody can say who is right";
  EXPECT_EQ(desk.core->closed_through(), Seq{n - 1});
  EXPECT_EQ(desk.core->stats().not_deterministic, 1u);
}

TEST(OversightSigns, ABatchThatNobodyAgreedOnStaysOpenEvenIfAnotherTrialAgrees) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.up(2);
  desk.vote(2, 1);
  desk.vote(0, n, "a");
  desk.vote(1, n, "b");
  desk.vote(2, n, "c");
  ASSERT_EQ(desk.core->stats().not_deterministic, 1u);
  desk.deliver(0, {desk.parties.join(SlotId{2}, Incarnation{2})});
  desk.up(2);
  desk.vote(2, 1);
  EXPECT_EQ(desk.vote(2, n, "a"), Refusal::kNone);
  EXPECT_TRUE(desk.out.closed.empty()) << "guessed";
}

TEST(OversightSigns, AnActiveSlotThatDiffersFromWhatWasClosedWithoutItIsADivergence) {
  OversightDesk desk;
  desk.start();
  desk.up(2);
  desk.vote(2, 1);
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(2, n);
  ASSERT_EQ(desk.core->closed_through(), Seq{n});
  desk.vote(1, n, "wrong");
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{n}), 1u);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u) << "g+1 equal votes are there already";
  EXPECT_TRUE(desk.out.wakes.empty());
  EXPECT_EQ(desk.said(1)->why, Suspicion::kWrong);
}

}  // namespace
}  // namespace zz::agreement
