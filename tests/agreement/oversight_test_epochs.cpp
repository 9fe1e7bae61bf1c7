// Suspicions, epoch changes and joins as one node sees them (docs/protocol.md §11).

#include <gtest/gtest.h>

#include "agreement/oversight.hpp"
#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

TEST(OversightEpochs, AnEvictedSlotsVotesCountNoMore) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = lie_and_settle(desk, 1);
  const std::uint64_t open = desk.deliver();
  desk.vote(1, open);
  desk.convict(1);
  EXPECT_EQ(desk.core->epoch(), Epoch{1});
  EXPECT_FALSE(desk.core->is_current(SlotId{1}, Incarnation{1}));
  EXPECT_FALSE(desk.core->holder_of(Parties::slot_key(SlotId{1}, Incarnation{1})).has_value());
  const Vote stale{Epoch{0}, Seq{n}, SlotId{1}, Incarnation{1}, replies_saying(Seq{n}, 1, "right")};
  EXPECT_EQ(desk.core->step(SlotId{1}, Incarnation{1}, stale), Refusal::kStaleIncarnation);
  desk.clear();
  desk.vote(0, open);
  EXPECT_TRUE(desk.out.closed.empty()) << "the evicted slot's vote was counted";
  desk.vote(2, open);
  EXPECT_EQ(desk.out.closed.size(), 1u);
}

TEST(OversightEpochs, AChangeInBatchNCountsFromTheNextBatchOn) {
  OversightDesk desk;
  desk.start();
  lie_and_settle(desk, 1);
  const Suspect heard = *desk.said(1);
  desk.echo(1, heard);
  const std::uint64_t change = desk.deliver(0, {desk.changes().at(0)});
  const std::uint64_t after = desk.deliver();
  EXPECT_TRUE(desk.out.table_changed);
  Vote vote = desk.make_vote(0, change);
  vote.epoch = Epoch{1};
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kStaleEpoch);
  vote.epoch = Epoch{0};
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kNone);
  vote = desk.make_vote(0, after);
  EXPECT_EQ(vote.epoch, Epoch{1});
  EXPECT_EQ(desk.core->step(SlotId{0}, Incarnation{1}, vote), Refusal::kNone);
  const auto changed = desk.memory.of(EventKind::kEpochChanged);
  ASSERT_EQ(changed.size(), 1u);
  EXPECT_EQ(changed[0].n, Seq{change});
}

TEST(OversightEpochs, AChangeThatNoLongerAppliesIsANoOp) {
  OversightDesk desk;
  desk.start();
  lie_and_settle(desk, 1);
  const Suspect heard = *desk.said(1);
  desk.echo(1, heard);
  const EpochChange change = desk.changes().at(0);
  desk.deliver(0, {change});
  const EpochNotice once = desk.core->notice();
  desk.clear();
  desk.deliver(0, {change});
  EXPECT_EQ(desk.core->notice(), once);
  EXPECT_FALSE(desk.out.table_changed);
  EXPECT_EQ(desk.core->stats().evictions, 1u);
  EXPECT_EQ(desk.core->admissible(change), Refusal::kNone) << "its signatures are as good as before";
}

TEST(OversightEpochs, TheSameChangeIsHandedOutOncePerEvidenceAndAgainOnlyIfNotOrdered) {
  OversightDesk desk(2, 1);
  desk.start();
  lie_and_settle(desk, 1);
  const Suspect heard = *desk.said(1);
  for (std::uint16_t i = 1; i < 5; ++i) desk.echo(i, heard);
  desk.pass(500);
  ASSERT_EQ(desk.changes().size(), 1u);
  desk.pass(600);
  ASSERT_EQ(desk.changes().size(), 2u);
  EXPECT_EQ(desk.changes()[0].proof.size(), desk.changes()[1].proof.size()) << "not the same bytes";
}

TEST(OversightEpochs, TwoLiarsAtOnceAreEvictedByOneChange) {
  OversightDesk desk(2, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n, "otherwise");
  desk.vote(2, n);
  ASSERT_EQ(desk.out.wakes.size(), 2u);
  for (std::uint16_t i = 3; i < 5; ++i) {
    desk.up(i);
    desk.replay(i, n);
  }
  ASSERT_EQ(desk.core->closed_through(), Seq{n});
  const Suspect first = *desk.said(0);
  const Suspect second = *desk.said(1);
  EXPECT_EQ(first.agreeing, slot_list({2, 3, 4}));
  for (std::uint16_t i = 1; i <= 2; ++i) EXPECT_EQ(desk.echo(i, first), Refusal::kNone);
  EXPECT_TRUE(desk.changes().empty()) << "the other one is about to be convicted too";
  for (std::uint16_t i = 1; i <= 2; ++i) EXPECT_EQ(desk.echo(i, second), Refusal::kNone);
  ASSERT_EQ(desk.changes().size(), 1u);
  const EpochChange change = desk.changes()[0];
  EXPECT_EQ(change.evicted, slot_list({0, 1}));
  EXPECT_EQ(change.active, slot_list({2, 3, 4}));
  EXPECT_EQ(desk.core->admissible(change), Refusal::kNone);
  desk.deliver(0, {change});
  EXPECT_EQ(desk.core->stats().evictions, 2u);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
}

TEST(OversightEpochs, AConvictionDoesNotWaitLongForAnother) {
  OversightDesk desk(2, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n, "otherwise");
  desk.vote(2, n);
  for (std::uint16_t i = 3; i < 5; ++i) {
    desk.up(i);
    desk.replay(i, n);
  }
  const Suspect first = *desk.said(0);
  for (std::uint16_t i = 1; i <= 2; ++i) desk.echo(i, first);
  desk.pass(60);
  ASSERT_EQ(desk.changes().size(), 1u);
  EXPECT_EQ(desk.changes()[0].evicted, slot_list({0}));
  EXPECT_EQ(desk.changes()[0].active, slot_list({1, 2, 3}));
  desk.clear();
  desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{2})});
  const auto again = desk.said(1);
  EXPECT_FALSE(again.has_value()) << "repeated too early";
}

TEST(OversightEpochs, ASuspicionThatStillHoldsIsSaidAgainInTheNewEpoch) {
  OversightDesk desk(2, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n, "otherwise");
  desk.vote(2, n);
  for (std::uint16_t i = 3; i < 5; ++i) {
    desk.up(i);
    desk.replay(i, n);
  }
  desk.convict(0);
  const auto suspect = desk.said(1);
  ASSERT_TRUE(suspect.has_value());
  EXPECT_EQ(suspect->epoch, Epoch{1});
  EXPECT_EQ(suspect->why, Suspicion::kWrong);
  EXPECT_EQ(suspect->agreeing, slot_list({2, 3, 4}));
  desk.convict(1);
  EXPECT_EQ(desk.core->notice().active, slot_list({2, 3, 4}));
}

TEST(OversightEpochs, SuccessiveFaultsAreSeparateEpisodesAndRolesGoRound) {
  OversightDesk desk;
  desk.start();
  const std::uint16_t liars[] = {0, 1, 2, 0};
  for (std::size_t i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    lie_and_settle(desk, liars[i]);
    desk.convict(liars[i]);
    const auto active = desk.core->notice().active;
    EXPECT_EQ(active.size(), 2u);
    EXPECT_FALSE(std::binary_search(active.begin(), active.end(), SlotId{liars[i]}));
    const std::uint64_t change = desk.requests_of.size();
    const std::uint64_t back = desk.deliver(0, {desk.parties.join(SlotId{liars[i]}, Incarnation{i + 2})});
    for (const SlotId slot : active) {
      for (std::uint64_t n = change; n <= back; ++n) EXPECT_EQ(desk.vote(slot.value, n), Refusal::kNone);
    }
    EXPECT_EQ(desk.core->closed_through(), Seq{back});
    desk.pass(1'200);
    EXPECT_EQ(desk.core->stats().divergences, i + 1);
    EXPECT_EQ(desk.core->stats().wakes, i + 1);
    EXPECT_EQ(desk.core->stats().evictions, i + 1);
    desk.clear();
  }
  EXPECT_EQ(desk.core->epoch(), Epoch{4});
}

TEST(OversightEpochs, ADivergenceStillOpenInTheNewEpochWakesAnew) {
  OversightDesk desk(2, 2);
  desk.start();
  // Slot 0 lies; then, while its eviction is ordered, slots 1 and 3 lie about the next batch.
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n);
  desk.vote(2, n);
  desk.up(3);
  desk.replay(3, n);
  ASSERT_EQ(desk.core->closed_through(), Seq{n});
  const std::uint64_t second = desk.deliver();
  desk.vote(1, second, "a");
  desk.vote(2, second);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{second}), 1u);
  desk.convict(0);
  ASSERT_EQ(desk.out.wakes.size(), 1u) << "slot 4 is asked again, for the new epoch";
  EXPECT_EQ(desk.out.wakes[0].wake.slot, SlotId{4});
  EXPECT_EQ(desk.out.wakes[0].wake.epoch, Epoch{1});
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged, Seq{second}), 1u) << "reported once per batch";
  desk.vote(3, second);
  desk.up(4);
  desk.replay(4, second);
  EXPECT_EQ(desk.core->closed_through(), Seq{second});
  EXPECT_EQ(desk.said(1)->why, Suspicion::kWrong);
}

TEST(OversightEpochs, ASignWhoseCauseWasEvictedWakesNobodyAnew) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  std::vector<std::uint64_t> batches;
  for (int i = 0; i < 2; ++i) {
    batches.push_back(desk.deliver());
    desk.vote(0, batches.back());
    desk.vote(1, batches.back(), "wrong");
  }
  desk.up(2);
  desk.replay(2, batches[0]);
  ASSERT_EQ(desk.core->closed_through(), Seq{batches[0]});
  desk.convict(1);
  desk.deliver(0, {desk.parties.join(SlotId{1}, Incarnation{2})});
  desk.clear();
  desk.pass(1'000);
  EXPECT_TRUE(desk.out.wakes.empty()) << "slot 2 is on its way";
  desk.vote(2, batches[1]);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{batches[1]}), 1u);
}

TEST(OversightEpochs, InTheNewEpochPatienceStartsAnew) {
  OversightDesk desk(1, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n, "wrong");
  desk.vote(1, n);
  desk.vote(2, n);
  desk.up(3);
  desk.replay(3, n);
  const std::uint64_t second = desk.deliver();
  desk.vote(2, second);
  desk.vote(3, second);
  desk.pass(200);  // slot 1 is overdue
  desk.convict(0);
  desk.clear();
  desk.pass(90);
  EXPECT_TRUE(desk.out.wakes.empty());
  desk.pass(30);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  EXPECT_EQ(desk.out.wakes[0].wake.epoch, Epoch{1});
}

TEST(OversightEpochs, AReplacementThatOnlyCreepsForwardIsOverdue) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  lie_and_settle(desk, 1);
  std::vector<std::uint64_t> backlog;
  for (int i = 0; i < 10; ++i) {
    backlog.push_back(desk.deliver());
    desk.vote(0, backlog.back());
  }
  desk.convict(1);
  desk.vote(0, desk.requests_of.size());
  const std::uint64_t diverged = desk.core->stats().divergences;
  for (int i = 0; i < 3; ++i) {
    desk.pass(1'500);
    desk.vote(2, backlog[static_cast<std::size_t>(i)]);
  }
  EXPECT_EQ(desk.core->stats().divergences, diverged);
  desk.pass(1'000);
  EXPECT_EQ(desk.core->stats().divergences, diverged + 1);
}

TEST(OversightEpochs, AReplacementMayCatchUpWithoutBeingOverdue) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  const std::uint64_t n = lie_and_settle(desk, 1);
  std::vector<std::uint64_t> backlog;
  for (int i = 0; i < 30; ++i) {
    backlog.push_back(desk.deliver());
    desk.vote(0, backlog.back());
  }
  desk.convict(1);
  const std::uint64_t diverged = desk.core->stats().divergences;
  for (const std::uint64_t open : backlog) {
    desk.pass(50);  // 1.5 s in all, far beyond the limit since slot 0's votes
    desk.vote(2, open);
  }
  EXPECT_EQ(desk.core->closed_through(), Seq{backlog.back()});
  EXPECT_EQ(desk.core->stats().divergences, diverged);
  EXPECT_GT(backlog.front(), n);
}

TEST(OversightEpochs, AReplacementThatStopsCatchingUpIsOverdue) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  lie_and_settle(desk, 1);
  const std::uint64_t open = desk.deliver();
  desk.vote(0, open);
  desk.convict(1);
  desk.pass(1'900);
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  desk.pass(300);
  EXPECT_EQ(desk.core->stats().divergences, 2u);
}

TEST(OversightJoins, OfTheSlotsHostAreProposedAndAppliedInOrder) {
  OversightDesk desk;
  const Join join = desk.parties.join(SlotId{0}, Incarnation{3});
  EXPECT_EQ(desk.core->step(join), Refusal::kNone);
  EXPECT_EQ(desk.core->step(join), Refusal::kDuplicate);
  desk.collect();
  ASSERT_EQ(desk.out.propose.size(), 1u);
  EXPECT_EQ(desk.core->admissible(desk.out.propose[0]), Refusal::kNone);
  EXPECT_FALSE(desk.core->is_current(SlotId{0}, Incarnation{3})) << "current before it is ordered";
  const std::uint64_t n = desk.deliver(0, {join});
  EXPECT_TRUE(desk.out.table_changed);
  EXPECT_TRUE(desk.core->is_current(SlotId{0}, Incarnation{3}));
  EXPECT_EQ(desk.core->holder_of(join.key), (std::pair{SlotId{0}, Incarnation{3}}));
  EXPECT_EQ(desk.core->notice().n, Seq{n});
  EXPECT_EQ(desk.core->step(join), Refusal::kDuplicate);
  EXPECT_EQ(desk.core->step(desk.parties.join(SlotId{0}, Incarnation{2})), Refusal::kStaleIncarnation);
}

TEST(OversightJoins, ThatAreNotSignedByTheSlotsHostAreRefused) {
  OversightDesk desk;
  Join join = desk.parties.join(SlotId{0}, Incarnation{1});
  join.signature = desk.parties.host_keys[1].sign(join_fields(desk.parties.cluster.id, join));
  EXPECT_EQ(desk.core->step(join), Refusal::kBadSignature);
  EXPECT_EQ(desk.core->admissible(join), Refusal::kBadSignature);
  join = desk.parties.join(SlotId{0}, Incarnation{1});
  join.service = ServiceId{1};
  EXPECT_EQ(desk.core->step(join), Refusal::kUnknownService);
  join = desk.parties.join(SlotId{0}, Incarnation{1});
  join.slot = SlotId{3};
  EXPECT_EQ(desk.core->step(join), Refusal::kUnknownSlot);
  const Join nobody = desk.parties.join(SlotId{0}, Incarnation{0});
  EXPECT_EQ(desk.core->step(nobody), Refusal::kStaleIncarnation);
  EXPECT_EQ(desk.core->admissible(nobody), Refusal::kMalformed);
}

TEST(OversightJoins, WithAKeyOfAPartyOfTheClusterAreRefused) {
  OversightDesk desk;
  Join join = desk.parties.join(SlotId{0}, Incarnation{1});
  join.key = desk.parties.cluster.nodes[2].key;
  join.signature = desk.parties.host_keys[0].sign(join_fields(desk.parties.cluster.id, join));
  EXPECT_EQ(desk.core->step(join), Refusal::kNotAllowed);
}

TEST(OversightJoins, WithAnotherSlotsKeyAreNoOps) {
  OversightDesk desk;
  desk.start();
  Join join = desk.parties.join(SlotId{2}, Incarnation{2});
  join.key = Parties::slot_key(SlotId{0}, Incarnation{1});
  join.signature = desk.parties.host_keys[2].sign(join_fields(desk.parties.cluster.id, join));
  const EpochNotice before = desk.core->notice();
  desk.deliver(0, {join});
  EXPECT_EQ(desk.core->notice(), before);
  EXPECT_EQ(desk.core->holder_of(join.key)->first, SlotId{0});
}

// The host says that the life before is over; it is trusted for its own slots. Nobody else of the active set is left.
TEST(OversightJoins, ReplaceASleeperAndAnActiveSlotsLife) {
  OversightDesk desk;
  desk.start();
  const Join sleeper = desk.parties.join(SlotId{2}, Incarnation{2});
  const Join active = desk.parties.join(SlotId{1}, Incarnation{2});
  desk.down(0);
  EXPECT_EQ(desk.core->step(active), Refusal::kNone);
  EXPECT_EQ(desk.core->step(sleeper), Refusal::kNone);
  desk.collect();
  ASSERT_EQ(desk.out.propose.size(), 2u);
  EXPECT_EQ(std::get<Join>(desk.out.propose[0]).slot, SlotId{1});
  EXPECT_EQ(std::get<Join>(desk.out.propose[1]).slot, SlotId{2});
  desk.deliver(0, {sleeper, active});
  EXPECT_EQ(desk.incarnation(2), Incarnation{2});
  EXPECT_EQ(desk.incarnation(1), Incarnation{2});
  const std::vector<SlotId> still = {SlotId{0}, SlotId{1}};
  EXPECT_EQ(desk.core->notice().active, still);
}

TEST(OversightJoins, OfAnActiveSlotWaitForItsEvictionWhileAnotherActiveSlotLives) {
  OversightDesk desk;
  desk.start();
  EXPECT_EQ(desk.core->step(desk.parties.join(SlotId{1}, Incarnation{2})), Refusal::kNone);
  desk.pass(4'900);
  for (const SystemOp& op : desk.out.propose) EXPECT_FALSE(std::holds_alternative<Join>(op)) << "before its eviction";
  desk.pass(200);  // execution_timeout_ms is 5,000: nobody evicted it
  const bool proposed = std::any_of(desk.out.propose.begin(), desk.out.propose.end(),
                                    [](const SystemOp& op) { return std::holds_alternative<Join>(op); });
  EXPECT_TRUE(proposed);
}

TEST(OversightJoins, OfAnEvictedSlotsSuccessorTakeItsPlaceAndNoEarlierOneDoes) {
  OversightDesk desk;
  desk.start();
  lie_and_settle(desk, 1);
  desk.convict(1);
  desk.deliver(0, {desk.parties.join(SlotId{1}, Incarnation{1})});
  EXPECT_EQ(desk.incarnation(1), Incarnation{0}) << "an evicted incarnation came back";
  desk.deliver(0, {desk.parties.join(SlotId{1}, Incarnation{2})});
  EXPECT_EQ(desk.incarnation(1), Incarnation{2});
  desk.clear();
  desk.pass(3'000);
  for (const SystemOp& op : desk.out.propose) EXPECT_FALSE(std::holds_alternative<Join>(op)) << "proposed again";
}

}  // namespace
}  // namespace zz::agreement
