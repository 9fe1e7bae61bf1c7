// What slots say of the state after a checkpoint: signs, WAKEs and suspicions (docs/protocol.md §6, §9, §11).

#include <gtest/gtest.h>

#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

// A checkpoint that the active slots have voted for.
std::uint64_t closed_checkpoint(OversightDesk& desk) {
  const std::uint64_t n = desk.deliver_checkpoint();
  for (const SlotId slot : desk.core->notice().active) EXPECT_EQ(desk.vote(slot.value, n), Refusal::kNone);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  return n;
}

void expect_quiet(const OversightDesk& desk) {
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  EXPECT_TRUE(desk.out.wakes.empty());
  EXPECT_TRUE(desk.out.suspects.empty());
}

class OversightRoots : public testing::Test {
 protected:
  OversightRoots() { desk.start(); }
  [[nodiscard]] std::int64_t execution_ms() const { return desk.parties.cluster.timing.execution_timeout_ms; }
  [[nodiscard]] std::int64_t late_ms() const { return desk.parties.cluster.timing.late_ms; }
  // Slot 2 replays and says what it finds.
  void wake(std::uint64_t n, const std::string& say = "right") {
    desk.up(2);
    desk.replay(2, n);
    EXPECT_EQ(desk.say_root(2, n, say), Refusal::kNone);
  }
  OversightDesk desk;
};

TEST_F(OversightRoots, GPlusOneEqualOnesSettleACheckpoint) {
  const std::uint64_t n = closed_checkpoint(desk);
  EXPECT_EQ(desk.say_root(0, n), Refusal::kNone);
  EXPECT_TRUE(desk.out.roots.empty());
  EXPECT_EQ(desk.say_root(1, n), Refusal::kNone);
  ASSERT_EQ(desk.out.roots.size(), 1u);
  EXPECT_EQ(desk.out.roots[0].n, Seq{n});
  EXPECT_EQ(desk.out.roots[0].root, desk.parties.exec_checkpoint({}, {}, Seq{n}, "right").root);
  desk.pass(4 * execution_ms());
  expect_quiet(desk);
}

TEST_F(OversightRoots, ThatDifferAreToldForEvidenceAtOnceAndAgainWhenNoneAgree) {
  const std::uint64_t n = closed_checkpoint(desk);
  EXPECT_EQ(desk.say_root(0, n, "one"), Refusal::kNone);
  EXPECT_TRUE(desk.out.root_differences.empty());
  EXPECT_EQ(desk.say_root(1, n, "two"), Refusal::kNone);
  ASSERT_EQ(desk.out.root_differences.size(), 1u);
  const auto& told = desk.out.root_differences[0];
  EXPECT_EQ(told.n, Seq{n});
  EXPECT_FALSE(told.hung);
  ASSERT_EQ(told.sides.size(), 2u);
  EXPECT_EQ(told.sides[0].root, desk.parties.exec_checkpoint({}, {}, Seq{n}, "one").root);
  EXPECT_EQ(told.sides[1].slots, (std::vector<std::pair<SlotId, Incarnation>>{{SlotId{1}, Incarnation{1}}}));
  desk.clear();
  wake(n, "three");
  ASSERT_EQ(desk.out.root_differences.size(), 1u);
  EXPECT_TRUE(desk.out.root_differences[0].hung);
  EXPECT_EQ(desk.out.root_differences[0].sides.size(), 3u);
}

TEST_F(OversightRoots, OtherThanWhatIsSettledAreToldWithIt) {
  const std::uint64_t n = closed_checkpoint(desk);
  EXPECT_EQ(desk.say_root(0, n), Refusal::kNone);
  EXPECT_EQ(desk.say_root(1, n), Refusal::kNone);
  wake(n, "wrong");
  ASSERT_EQ(desk.out.root_differences.size(), 1u);
  const auto& told = desk.out.root_differences[0];
  ASSERT_EQ(told.sides.size(), 2u);
  EXPECT_TRUE(told.sides[0].agrees);
  EXPECT_EQ(told.sides[0].slots.size(), 2u);
  EXPECT_EQ(told.sides[1].slots, (std::vector<std::pair<SlotId, Incarnation>>{{SlotId{2}, Incarnation{1}}}));
  desk.clear();
  const std::uint64_t next = closed_checkpoint(desk);
  EXPECT_EQ(desk.say_root(0, next), Refusal::kNone);
  EXPECT_EQ(desk.say_root(2, next, "wrong"), Refusal::kNone);
  EXPECT_TRUE(desk.out.root_differences.empty()) << "it is known to lie";
}

TEST_F(OversightRoots, AreTheChannelsOwnAndSigned) {
  const std::uint64_t n = closed_checkpoint(desk);
  const ExecCheckpoint good = desk.parties.exec_checkpoint(SlotId{0}, Incarnation{1}, Seq{n}, "right");
  const auto refusal = [&](const ExecCheckpoint& m, std::uint16_t slot = 0, std::uint64_t incarnation = 1) {
    return desk.core->step(SlotId{slot}, Incarnation{incarnation}, m);
  };
  EXPECT_EQ(refusal(good, 1), Refusal::kUnknownSlot);
  EXPECT_EQ(refusal(good, 9), Refusal::kUnknownSlot);
  EXPECT_EQ(refusal(good, 0, 2), Refusal::kStaleIncarnation);
  ExecCheckpoint bad = good;
  bad.service = ServiceId{1};
  EXPECT_EQ(refusal(bad), Refusal::kUnknownService);
  EXPECT_EQ(refusal(desk.parties.exec_checkpoint(SlotId{0}, Incarnation{2}, Seq{n}, "right"), 0, 2),
            Refusal::kStaleIncarnation);
  EXPECT_EQ(refusal(desk.parties.exec_checkpoint(SlotId{0}, Incarnation{1}, Seq{0}, "right")), Refusal::kMalformed);
  EXPECT_EQ(refusal(desk.parties.exec_checkpoint(SlotId{0}, Incarnation{1}, Seq{n - 1}, "right")), Refusal::kMalformed)
      << "no checkpoint";
  bad = good;
  bad.root.bytes[0] ^= 1;
  EXPECT_EQ(refusal(bad), Refusal::kBadSignature);
  bad = good;
  bad.signature = desk.parties.exec_checkpoint(SlotId{1}, Incarnation{1}, Seq{n}, "right").signature;
  EXPECT_EQ(refusal(bad), Refusal::kBadSignature);
  EXPECT_EQ(refusal(good), Refusal::kNone) << "a refused one is not counted";
  EXPECT_EQ(refusal(good), Refusal::kDuplicate);
  EXPECT_EQ(desk.say_root(0, n, "something else"), Refusal::kConflict);
}

TEST_F(OversightRoots, ThatComeBeforeTheirBatchAreKeptUntilItIsDelivered) {
  EXPECT_EQ(desk.say_root(0, 3), Refusal::kNone);
  EXPECT_EQ(desk.say_root(1, 3), Refusal::kNone);
  EXPECT_EQ(desk.say_root(0, 3), Refusal::kDuplicate);
  EXPECT_EQ(desk.say_root(0, 3, "something else"), Refusal::kConflict);
  EXPECT_EQ(desk.say_root(0, 2), Refusal::kNone);
  desk.deliver();
  EXPECT_TRUE(desk.out.roots.empty());
  desk.deliver_checkpoint();
  ASSERT_EQ(desk.out.roots.size(), 1u);
  EXPECT_EQ(desk.out.roots[0].n, Seq{3});
  const auto refused = desk.memory.of(EventKind::kRefused);
  ASSERT_EQ(refused.size(), 1u) << "2 was no checkpoint";
  EXPECT_EQ(refused[0].n, Seq{2});
}

TEST_F(OversightRoots, ThatComeEarlyAreBoundedAndTheNewestAreKept) {
  const std::uint64_t span = kRootsAheadMax * desk.parties.cluster.limits.checkpoint_batches;
  EXPECT_EQ(desk.say_root(0, 1 + span + 1), Refusal::kOutOfWindow);
  EXPECT_EQ(desk.say_root(0, 1 + span), Refusal::kNone);
  for (std::uint64_t n = 3; n < 3 + kRootsAheadMax; ++n) EXPECT_EQ(desk.say_root(0, n), Refusal::kNone) << n;
  EXPECT_EQ(desk.say_root(0, 3), Refusal::kOutOfWindow) << "the oldest is gone, and older ones find no room";
  EXPECT_EQ(desk.say_root(0, 4), Refusal::kDuplicate);
  desk.deliver();
  desk.deliver_checkpoint();
  EXPECT_EQ(desk.say_root(1, 3), Refusal::kNone);
  EXPECT_TRUE(desk.out.roots.empty());
}

// EX-06: the state of one slot diverges, and no vote shows it.
TEST_F(OversightRoots, ThatDifferWakeTheSleepersAndTheThirdShowsWhoIsWrong) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(0, n, "one flipped bit");
  EXPECT_TRUE(desk.out.wakes.empty());
  desk.say_root(1, n);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  EXPECT_EQ(desk.out.wakes[0].wake.slot, SlotId{2});
  EXPECT_EQ(desk.out.wakes[0].wake.sign, static_cast<std::uint8_t>(Sign::kCheckpoint));
  EXPECT_EQ(desk.memory.of(EventKind::kDiverged).back().why, "checkpoint");
  EXPECT_TRUE(desk.out.suspects.empty()) << "nobody knows yet who is wrong";
  EXPECT_TRUE(desk.out.roots.empty());
  wake(n);
  ASSERT_EQ(desk.out.roots.size(), 1u);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u);
  const auto said = desk.said(0);
  ASSERT_TRUE(said.has_value());
  EXPECT_EQ(said->why, Suspicion::kWrong);
  EXPECT_EQ(said->n, Seq{n});
  EXPECT_EQ(said->agreeing, slot_list({1, 2}));
  desk.convict(0);
  EXPECT_EQ(desk.core->notice().active, slot_list({1, 2}));
  EXPECT_EQ(desk.core->stats().divergences, 1u);
  desk.pass(50);
  EXPECT_TRUE(desk.out.wakes.empty());
}

TEST_F(OversightRoots, OfAWokenLiarDecideNothing) {
  OversightDesk five(2, 2);
  five.start();
  const std::uint64_t n = closed_checkpoint(five);
  for (std::uint16_t slot = 0; slot < 3; ++slot) five.say_root(slot, n, slot == 1 ? "wrong" : "right");
  EXPECT_EQ(five.out.wakes.size(), 2u);
  five.up(3);
  five.replay(3, n);
  five.say_root(3, n, "wrong");
  EXPECT_TRUE(five.out.roots.empty());
  five.up(4);
  five.replay(4, n);
  five.say_root(4, n);
  ASSERT_EQ(five.out.roots.size(), 1u);
  ASSERT_TRUE(five.said(1).has_value() && five.said(3).has_value());
  EXPECT_EQ(five.said(1)->agreeing, slot_list({0, 2, 4}));
  EXPECT_EQ(five.said(3)->why, Suspicion::kWrong);
}

// EX-16: a slot votes and says nothing of its state.
TEST_F(OversightRoots, ThatDoNotComeAreASignAfterAnExecutionsTime) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(1, n);
  desk.pass(execution_ms() - 100);
  expect_quiet(desk);
  desk.pass(200);
  ASSERT_FALSE(desk.out.wakes.empty());
  EXPECT_EQ(desk.memory.of(EventKind::kDiverged).back().slot, SlotId{0});
  wake(n);
  ASSERT_EQ(desk.out.roots.size(), 1u);
  EXPECT_FALSE(desk.said(0).has_value());
  desk.core->presume_closed(Seq{n});  // stable, which excuses nobody who owes it here
  desk.pass(late_ms() + 50);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->why, Suspicion::kLate);
  EXPECT_EQ(desk.said(0)->n, Seq{n});
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2}));
  desk.convict(0);
  EXPECT_EQ(desk.core->notice().active, slot_list({1, 2}));
}

TEST_F(OversightRoots, ThatComeLateAfterAllMakeGood) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(1, n);
  desk.pass(execution_ms() + 50);
  wake(n);
  desk.pass(late_ms() + 50);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.say_root(0, n), Refusal::kNone);
  desk.clear();
  desk.pass(1'000);
  EXPECT_FALSE(desk.said(0).has_value());
}

TEST_F(OversightRoots, AreNotOwedByWhoIsBehindWithItsVotes) {
  const std::uint64_t n = desk.deliver_checkpoint();
  desk.up(2);
  desk.replay(2, n);
  desk.say_root(2, n);
  desk.vote(1, n);
  desk.say_root(1, n);
  ASSERT_EQ(desk.core->closed_through(), Seq{n});
  desk.clear();
  desk.pass(late_ms() + 100);  // slot 0 owes its vote
  desk.vote(0, n);
  desk.clear();
  desk.pass(execution_ms() - 200);
  EXPECT_FALSE(desk.said(0).has_value()) << "it may take as long from its vote on";
  EXPECT_TRUE(desk.out.wakes.empty());
  desk.pass(300);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->why, Suspicion::kLate);
}

TEST_F(OversightRoots, AreNotOwedForABatchThatIsOpen) {
  desk.deliver_checkpoint();
  desk.core->presume_closed(Seq{2});
  desk.pass(4 * execution_ms());
  expect_quiet(desk);
}

TEST_F(OversightRoots, AreNoSignForANodeThatStoodStill) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(1, n);
  desk.time.value += 100 * execution_ms() * kMs;
  desk.core->tick(desk.time);
  desk.collect();
  expect_quiet(desk);
  desk.say_root(0, n);
  desk.pass(2 * execution_ms());
  expect_quiet(desk);
}

// A slot tells this node alone something else: it is settled as the others say, and this node knows who lied.
TEST_F(OversightRoots, ToldToOneNodeAloneAreSettledByTheOthers) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(0, n, "told this node alone");
  desk.say_root(1, n);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.core->confirm_root(Seq{n}, desk.parties.exec_checkpoint({}, {}, Seq{n}, "right").root);
  desk.collect();
  ASSERT_EQ(desk.out.roots.size(), 1u);
  desk.pass(50);
  EXPECT_FALSE(desk.said(0).has_value()) << "one slot that agrees is not g+1";
  wake(n);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->why, Suspicion::kWrong);
}

TEST_F(OversightRoots, OfAnInnocentSlotAreNeverHeldAgainstItByTheOthers) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(1, n);  // slot 0 says nothing to this node
  desk.core->confirm_root(Seq{n}, desk.parties.exec_checkpoint({}, {}, Seq{n}, "right").root);
  desk.core->presume_closed(Seq{n});
  desk.pass(4 * execution_ms());
  expect_quiet(desk);
  EXPECT_EQ(desk.say_root(0, n), Refusal::kNone);
  desk.pass(100);
  expect_quiet(desk);
}

TEST_F(OversightRoots, AStableCheckpointEndsTheSignsBeforeIt) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(0, n, "a");
  desk.say_root(1, n, "b");
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.core->presume_closed(Seq{n});
  desk.collect();
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u);
  desk.clear();
  desk.pass(4 * execution_ms());
  EXPECT_TRUE(desk.out.wakes.empty());
}

TEST_F(OversightRoots, WithoutGPlusOneEqualOnesOfAllSlotsTheServiceIsNotDeterministic) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(0, n, "a");
  desk.say_root(1, n, "b");
  wake(n, "c");
  EXPECT_EQ(desk.core->stats().not_deterministic, 1u);
  EXPECT_EQ(desk.memory.count(EventKind::kNotDeterministic, Seq{n}), 1u);
  EXPECT_TRUE(desk.out.suspects.empty());
  EXPECT_TRUE(desk.out.roots.empty());
}

TEST_F(OversightRoots, AreSaidAgainToANodeThatWasRestarted) {
  const std::uint64_t first = closed_checkpoint(desk);
  const std::uint64_t n = closed_checkpoint(desk);
  for (std::uint16_t slot = 0; slot < 2; ++slot) desk.say_root(slot, n);
  desk.restart(first);
  EXPECT_TRUE(desk.out.roots.empty());
  for (std::uint16_t slot = 0; slot < 2; ++slot) {
    desk.up(slot);
    EXPECT_EQ(desk.vote(slot, n), Refusal::kNone);
    EXPECT_EQ(desk.say_root(slot, n), Refusal::kNone);
  }
  ASSERT_EQ(desk.out.roots.size(), 1u);
  EXPECT_EQ(desk.out.roots[0].n, Seq{n});
  desk.pass(2 * execution_ms());
  expect_quiet(desk);
}

TEST_F(OversightRoots, OfAnEndedIncarnationCountNoMore) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.say_root(0, n, "wrong");
  const std::uint64_t joined = desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{2})});
  desk.up(0);
  desk.replay(0, joined);
  EXPECT_EQ(desk.say_root(0, n), Refusal::kNone);
  EXPECT_EQ(desk.say_root(1, n), Refusal::kNone);
  ASSERT_EQ(desk.out.roots.size(), 1u);
  EXPECT_EQ(desk.core->stats().divergences, 0u);
}

// ---- a woken slot begins with a stable checkpoint, and never votes for what lies before

TEST_F(OversightRoots, AStableCheckpointIsWhatAWokenSlotAgreesWith) {
  const std::uint64_t n = closed_checkpoint(desk);
  for (std::uint16_t slot = 0; slot < 2; ++slot) desk.say_root(slot, n);
  desk.core->presume_closed(Seq{n});
  desk.down(0);
  desk.pass(desk.parties.cluster.timing.gone_ms + 50);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.up(2);
  desk.pass(20);
  EXPECT_FALSE(desk.said(0).has_value());
  desk.core->subscribed(SlotId{2}, Incarnation{1}, Seq{n + 1});
  desk.pass(20);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2}));
  desk.convict(0);
  EXPECT_EQ(desk.core->notice().active, slot_list({1, 2}));
  desk.pass(2 * late_ms());
  EXPECT_FALSE(desk.said(2).has_value()) << "it owes nothing that lies before its beginning";
}

TEST_F(OversightRoots, ABeginningCountsOnceItIsStableHereToo) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.down(0);
  desk.pass(desk.parties.cluster.timing.gone_ms + 50);
  desk.up(2);
  desk.core->subscribed(SlotId{2}, Incarnation{1}, Seq{n + 1});
  desk.pass(20);
  EXPECT_FALSE(desk.said(0).has_value()) << "nobody has shown that n is stable";
  desk.core->presume_closed(Seq{n});
  desk.pass(20);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2}));
}

TEST_F(OversightRoots, AnotherBeginningCountsAsLongAsThereIsNoVote) {
  std::uint64_t n = closed_checkpoint(desk);
  desk.up(2);
  desk.core->subscribed(SlotId{2}, Incarnation{1}, Seq{1});  // it has not heard of the checkpoint yet
  desk.core->subscribed(SlotId{2}, Incarnation{1}, Seq{n + 1});
  desk.core->presume_closed(Seq{n});
  n = closed_checkpoint(desk);
  desk.core->subscribed(SlotId{2}, Incarnation{1}, Seq{n + 1});  // it was still loading
  desk.core->presume_closed(Seq{n});
  desk.down(0);
  desk.pass(desk.parties.cluster.timing.gone_ms + 50);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2}));
}

TEST_F(OversightRoots, ABeginningIsNoExcuseForWhoHasVoted) {
  desk.core->subscribed(SlotId{0}, Incarnation{1}, Seq{2});
  desk.up(2);
  desk.replay(2, 1);
  const std::uint64_t n = desk.deliver();
  desk.vote(1, n);
  desk.vote(2, n);
  desk.core->subscribed(SlotId{0}, Incarnation{1}, Seq{n + 1});
  desk.core->presume_closed(Seq{n});
  desk.pass(late_ms() + 50);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->why, Suspicion::kLate);
}

// What slots owe a client besides votes: a node that lost their votes for a batch below a stable checkpoint.
TEST_F(OversightRoots, DoNotHelpWhoIsNotToldHowABatchWasClosed) {
  const std::uint64_t n = closed_checkpoint(desk);
  desk.core->unanswered(std::nullopt);
  desk.pass(10);
  expect_quiet(desk);
  desk.core->unanswered(Seq{n});
  desk.pass(10);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  EXPECT_EQ(desk.out.wakes[0].wake.slot, SlotId{2});
  EXPECT_EQ(desk.out.wakes[0].wake.sign, static_cast<std::uint8_t>(Sign::kOverdue));
  EXPECT_TRUE(desk.out.suspects.empty()) << "nobody knows who is to blame";
  desk.core->unanswered(Seq{n});
  desk.pass(10);
  EXPECT_EQ(desk.core->stats().divergences, 1u) << "it is the same trouble";
  wake(n);
  desk.core->unanswered(std::nullopt);
  desk.clear();
  desk.pass(4 * late_ms());
  EXPECT_TRUE(desk.out.wakes.empty());
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kSurplus);
}

}  // namespace
}  // namespace zz::agreement
