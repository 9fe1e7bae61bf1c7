// Nodes that were restarted or fell behind: what others have closed is no trouble here (docs/protocol.md §6, §9).

#include <gtest/gtest.h>

#include "agreement/oversight.hpp"
#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

// `count` batches with a request each, closed by the active slots; the last n.
std::uint64_t close_some(OversightDesk& desk, int count) {
  std::uint64_t n = 0;
  for (int i = 0; i < count; ++i) {
    n = desk.deliver();
    for (const SlotId slot : desk.core->notice().active) EXPECT_EQ(desk.vote(slot.value, n), Refusal::kNone);
  }
  return n;
}

void expect_quiet(const OversightDesk& desk) {
  EXPECT_EQ(desk.core->stats().divergences, 0u);
  EXPECT_TRUE(desk.out.wakes.empty());
  EXPECT_TRUE(desk.out.suspects.empty());
}

TEST(OversightPresumed, BatchesCountAsClosedWithoutAnyVote) {
  OversightDesk desk;
  desk.start();
  for (int i = 0; i < 5; ++i) desk.deliver();
  desk.core->presume_closed(Seq{4});
  desk.collect();
  EXPECT_EQ(desk.core->closed_through(), Seq{4});
  EXPECT_FALSE(desk.core->closed_digest(Seq{4}));
  EXPECT_TRUE(desk.out.closed.empty()) << "nobody knows the replies";
  desk.core->presume_closed(Seq{2});
  EXPECT_EQ(desk.core->closed_through(), Seq{4});
}

TEST(OversightPresumed, BatchesAreNeverOverdueNorOwedByAnybody) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.core->presume_closed(Seq{n});
  desk.pass(20'000);
  expect_quiet(desk);
  EXPECT_EQ(desk.vote(2, n), Refusal::kNone) << "closes it in earnest";
  desk.pass(20'000);
  EXPECT_FALSE(desk.said(1).has_value());
}

TEST(OversightPresumed, BatchesAreNoDivergence) {
  OversightDesk desk(1, 2);
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.core->presume_closed(Seq{n});
  desk.vote(0, n, "a");
  desk.vote(1, n, "b");
  desk.vote(2, n, "c");
  desk.vote(3, n, "d");
  desk.vote(4, n, "e");
  desk.pass(100);
  expect_quiet(desk);
  EXPECT_EQ(desk.core->stats().not_deterministic, 0u);
}

TEST(OversightPresumed, ASignIsSettledWhenOthersHaveClosedTheBatch) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(200);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.core->presume_closed(Seq{n});
  desk.collect();
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u);
  desk.clear();
  desk.pass(20'000);
  EXPECT_TRUE(desk.out.wakes.empty()) << "the episode is over";
}

TEST(OversightPresumed, AVoteThatDiffersFromALaterCloseIsStillWrong) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = desk.deliver();
  desk.core->presume_closed(Seq{n});
  desk.vote(1, n, "wrong");
  EXPECT_FALSE(desk.said(1).has_value());
  desk.vote(0, n);
  desk.vote(2, n);
  EXPECT_EQ(desk.core->closed_digest(Seq{n}), vote_digest(Seq{n}, replies_saying(Seq{n}, 1, "right")));
  desk.pass(20);
  EXPECT_EQ(desk.memory.count(EventKind::kSuspected), 0u) << "g+1 others have to be connected to take over";
  desk.up(2);
  desk.pass(20);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->why, Suspicion::kWrong);
}

TEST(OversightPresumed, AFrozenSlotStillOwesWhatWasClosedHere) {
  OversightDesk desk;
  desk.start();
  desk.up(2);
  desk.replay(2, 1);
  for (int i = 0; i < 60 && !desk.said(1); ++i) {  // slot 1 is frozen, and checkpoints come fast
    const std::uint64_t n = desk.deliver();
    desk.vote(0, n);
    desk.vote(2, n);
    desk.core->presume_closed(Seq{n});
    desk.pass(20);
  }
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->why, Suspicion::kLate);
}

TEST(OversightRestart, NobodyIsBlamedForTheTimeTheNodeWasAway) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  const std::uint64_t n = close_some(desk, 20);
  desk.restart(15);
  expect_quiet(desk);
  EXPECT_EQ(desk.core->closed_through(), Seq{15});
  EXPECT_TRUE(desk.out.table_changed) << "hosts are told";
  desk.pass(1'000);
  desk.up(0);
  for (std::uint64_t i = 1; i <= n; ++i) ASSERT_EQ(desk.vote(0, i), Refusal::kNone);
  desk.pass(1'000);
  desk.up(1);
  desk.pass(1'000);  // says its votes again, slowly
  for (std::uint64_t i = 1; i <= n; ++i) ASSERT_EQ(desk.vote(1, i), Refusal::kNone);
  EXPECT_EQ(desk.core->closed_through(), Seq{n});
  desk.pass(10'000);
  expect_quiet(desk);
}

TEST(OversightRestart, WithEverythingPresumedClosedItWaitsForExecutorsForEver) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = close_some(desk, 5);
  desk.restart(n);
  desk.pass(20'000);
  expect_quiet(desk);
}

TEST(OversightRestart, VotesSaidAgainCloseWhatWasPresumedSoThatItCanBeAnswered) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = close_some(desk, 5);
  const auto before = desk.core->closed_digest(Seq{n});
  desk.restart(n);
  desk.up(0);
  desk.up(1);
  for (std::uint64_t i = 1; i <= n; ++i) {
    desk.vote(0, i);
    desk.vote(1, i);
  }
  ASSERT_EQ(desk.out.closed.size(), n);
  EXPECT_EQ(desk.out.closed[n - 1].replies, replies_saying(Seq{n}, 1, "right"));
  EXPECT_EQ(desk.out.closed[n - 1].agreeing, slot_list({0, 1}));
  EXPECT_EQ(desk.core->closed_digest(Seq{n}), before);
}

TEST(OversightRestart, VotesSaidAgainDoNotTeachPatience) {
  OversightDesk desk(1, 1, ceiling_of_two_seconds);
  desk.start();
  const std::uint64_t n = close_some(desk, 10);
  desk.restart(n / 2);
  desk.up(0);
  for (std::uint64_t i = 1; i <= n; ++i) desk.vote(0, i);
  desk.up(1);
  desk.pass(1'000);
  for (std::uint64_t i = 1; i <= n; ++i) desk.vote(1, i);
  close_some(desk, 24);  // from the ceiling to the floor, and no further
  const std::uint64_t next = desk.deliver();
  desk.vote(0, next);
  desk.pass(90);
  expect_quiet(desk);
  desk.pass(20);
  EXPECT_EQ(desk.out.wakes.size(), 1u);
}

TEST(OversightRestart, AGoneSlotThatComesBackSettlesTheMatterThoughNobodyVotesAgain) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = close_some(desk, 5);
  desk.restart(n);
  desk.up(0);
  desk.up(1);
  desk.down(1);
  desk.pass(400);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.up(1);
  desk.pass(20);
  EXPECT_EQ(desk.memory.count(EventKind::kSettled, Seq{n}), 1u);
  desk.clear();
  desk.pass(10'000);
  EXPECT_TRUE(desk.out.wakes.empty());
}

TEST(OversightRestart, ASlotThatDoesNotComeBackIsFoundOnceARequestWaits) {
  OversightDesk desk;
  desk.start();
  close_some(desk, 5);
  desk.restart(6);
  desk.up(0);
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.pass(4'900);
  expect_quiet(desk);
  desk.pass(200);
  EXPECT_EQ(desk.out.wakes.size(), 1u);
}

TEST(OversightRestart, AGoneSlotIsReplacedOnceTheOthersHaveVotedAgain) {
  OversightDesk desk;
  desk.start();
  const std::uint64_t n = close_some(desk, 5);
  desk.restart(n);
  desk.up(0);
  for (std::uint64_t i = 1; i <= n; ++i) desk.vote(0, i);
  desk.up(1);
  desk.down(1);
  desk.pass(400);
  EXPECT_EQ(desk.core->stats().divergences, 1u) << "gone";
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  desk.up(2);
  desk.replay(2, n);
  desk.pass(20);
  ASSERT_TRUE(desk.said(1).has_value());
  EXPECT_EQ(desk.said(1)->agreeing, slot_list({0, 2}));
}

TEST(OversightRestart, GivesTheSameTable) {
  OversightDesk desk;
  desk.start();
  const Digest start = desk.core->table_digest();
  desk.deliver(0, {desk.parties.join(SlotId{2}, Incarnation{2})});
  const Digest joined = desk.core->table_digest();
  EXPECT_NE(joined, start);
  close_some(desk, 1);
  EXPECT_EQ(desk.core->table_digest(), joined);
  const EpochNotice notice = desk.core->notice();
  desk.restart(0);
  EXPECT_EQ(desk.core->table_digest(), joined);
  EXPECT_EQ(desk.core->notice(), notice);
}

TEST(OversightBehind, HundredsOfBatchesAtOnceAreNoSignOfAnything) {
  OversightDesk desk;
  desk.start();
  // The executors go on while this node does not; what it hears too early is dropped but for the newest.
  constexpr std::uint64_t kLast = 2'000;
  constexpr std::uint64_t kStable = 1'900;
  for (std::uint64_t n = 2; n <= kLast; ++n) {
    ASSERT_EQ(desk.vote(0, n), Refusal::kNone);
    ASSERT_EQ(desk.vote(1, n), Refusal::kNone);
    if (n % 20 == 0) desk.pass(5);
  }
  desk.pass(10'000);
  for (std::uint64_t n = 2; n <= kLast; ++n) {
    desk.order.push_back(make_delivery(Seq{n}, 1, {}));
    desk.requests_of.push_back(1);
    desk.core->deliver(desk.order.back());
    if (n == 400 || n == kStable) {  // what one round of catching up brings
      desk.core->presume_closed(Seq{n});
      desk.pass(200);
    }
  }
  desk.collect();
  EXPECT_EQ(desk.core->closed_through(), Seq{kLast});
  EXPECT_TRUE(desk.core->closed_digest(Seq{kStable + 1})) << "what a checkpoint needs";
  desk.pass(10'000);
  expect_quiet(desk);
}

TEST(OversightBehind, AWokenSlotIsNotLateBecauseThisNodeIs) {
  OversightDesk desk;
  desk.start();
  desk.up(2);
  desk.vote(2, 1);
  desk.pass(900);
  for (std::uint64_t n = 2; n <= 300; ++n) {
    desk.order.push_back(make_delivery(Seq{n}, 1, {}));
    desk.requests_of.push_back(1);
    desk.core->deliver(desk.order.back());
  }
  desk.core->presume_closed(Seq{300});
  desk.pass(4'900);
  EXPECT_FALSE(desk.said(2).has_value());
  desk.pass(200);
  ASSERT_TRUE(desk.said(2).has_value()) << "but it has to go on";
  EXPECT_EQ(desk.said(2)->why, Suspicion::kLate);
}

}  // namespace
}  // namespace zz::agreement
