#include "execution/executor.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/prng.hpp"
#include "tests/execution/order.hpp"

namespace zz::execution::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The node that a slot prefers as its bearer, and one that it does not.
NodeId bearer_of(const Slot& slot) { return *slot.core.bearer(); }
NodeId not_bearer_of(const Slot& slot) { return NodeId{static_cast<std::uint16_t>((bearer_of(slot).value + 1) % 4)}; }

TEST(Executor, RunsABatchOnlyAfterFPlusOneEqualOrders) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  EXPECT_EQ(slot.core.step(bearer_of(slot), batch), Refusal::kNone);
  slot.order(0, batch);
  EXPECT_EQ(slot.run(), 0);
  EXPECT_THAT(slot.votes, IsEmpty());
  slot.order(3, batch);
  EXPECT_EQ(slot.run(), 1);
  ASSERT_EQ(slot.votes.size(), 1u);
  EXPECT_EQ(slot.votes[0].n, Seq{1});
  EXPECT_THAT(slot.votes[0].replies, ElementsAre(digest_of("ok")));
}

TEST(Executor, CountsDistinctNodesNotMessages) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  slot.core.step(bearer_of(slot), batch);
  for (int i = 0; i < 5; ++i) slot.order(2, batch);
  EXPECT_EQ(slot.run(), 0);
  slot.order(1, batch);
  EXPECT_EQ(slot.run(), 1);
}

TEST(Executor, FLyingNodesDoNotDecideABatch) {
  ExecutorConfig config = make_config();
  config.f = 2;
  Slot slot(config);
  for (std::uint16_t i = 0; i < 7; ++i) slot.core.node_up(NodeId{i});
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  const auto lie = make_batch(1, {{1, 1, "put a 2"}});
  slot.core.step(bearer_of(slot), batch);
  slot.order(0, lie);
  slot.order(1, lie);
  slot.order(2, batch);
  slot.order(3, batch);
  EXPECT_EQ(slot.run(), 0);
  slot.order(4, batch);
  EXPECT_EQ(slot.run(), 1);
  EXPECT_THAT(slot.ran_texts(), ElementsAre("put a 1"));
}

TEST(Executor, ANodeThatContradictsItselfKeepsItsFirstWord) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  const auto other = make_batch(1, {{1, 1, "put a 2"}});
  EXPECT_EQ(slot.order(2, other), Refusal::kNone);
  EXPECT_EQ(slot.order(2, batch), Refusal::kConflict);
  slot.core.step(bearer_of(slot), batch);
  slot.order(0, batch);
  EXPECT_EQ(slot.run(), 0);
  slot.order(1, batch);
  EXPECT_EQ(slot.run(), 1);
}

TEST(Executor, RunsBatchesInOrderWhateverTheOrderOfTheirArrival) {
  Slot slot;
  slot.all_up();
  std::vector<agreement::Batch> batches;
  for (std::uint64_t n = 1; n <= 4; ++n) batches.push_back(make_batch(n, {{1, n, "put k " + std::to_string(n)}}));
  for (const std::size_t i : {3u, 1u, 2u}) slot.deliver(batches[i]);
  EXPECT_EQ(slot.run(), 0);
  slot.deliver(batches[0]);
  EXPECT_EQ(slot.run(), 4);
  EXPECT_THAT(slot.ran_texts(), ElementsAre("put k 1", "put k 2", "put k 3", "put k 4"));
  std::vector<std::uint64_t> voted;
  for (const auto& vote : slot.votes) voted.push_back(vote.n.value);
  EXPECT_THAT(voted, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(slot.core.executed(), Seq{4});
}

TEST(Executor, VotesForABatchWithoutRequests) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {}));
  EXPECT_EQ(slot.run(), 0);
  ASSERT_EQ(slot.votes.size(), 1u);
  EXPECT_THAT(slot.votes[0].replies, IsEmpty());
}

TEST(Executor, RunsAWholeBatchWithoutAskingForAnotherTurn) {
  Slot slot;
  slot.all_up();
  std::vector<Op> ops;
  for (std::uint64_t i = 1; i <= 300; ++i) ops.push_back({1, i, "add k 1"});
  slot.deliver(make_batch(1, ops));
  EXPECT_EQ(slot.run(), 300);
  ASSERT_EQ(slot.votes.size(), 1u);
  EXPECT_EQ(slot.votes[0].replies[299], digest_of("300"));
}

TEST(Executor, NeverRunsABodyThatIsNotTheReferencedOne) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  auto forged = batch;
  forged.requests[0] = make_request({1, 1, "put a 2"});
  const NodeId liar = bearer_of(slot);
  slot.order(0, batch);
  slot.order(1, batch);
  EXPECT_EQ(slot.core.step(liar, forged), Refusal::kConflict);
  EXPECT_EQ(slot.run(), 0);
  EXPECT_NE(bearer_of(slot), liar);
  slot.core.step(bearer_of(slot), batch);
  EXPECT_EQ(slot.run(), 1);
  EXPECT_THAT(slot.ran_texts(), ElementsAre("put a 1"));
}

TEST(Executor, NeverRunsABatchWithBodiesMissing) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}, {1, 2, "put b 2"}});
  auto short_one = batch;
  short_one.requests.pop_back();
  slot.order(0, batch);
  slot.order(1, batch);
  EXPECT_EQ(slot.core.step(bearer_of(slot), short_one), Refusal::kConflict);
  EXPECT_EQ(slot.run(), 0);
}

TEST(Executor, ChangesTheBearerWhoseBatchIsNotTheOneThatWasOrdered) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  const auto lie = make_batch(1, {{1, 1, "put a 2"}});
  const NodeId liar = bearer_of(slot);
  EXPECT_EQ(slot.core.step(liar, lie), Refusal::kNone);  // not decided yet
  slot.order(0, batch);
  slot.order(1, batch);
  EXPECT_EQ(slot.run(), 0);
  ASSERT_NE(bearer_of(slot), liar);
  slot.subscribes.clear();
  slot.drain();
  EXPECT_EQ(slot.core.step(bearer_of(slot), batch), Refusal::kNone);
  EXPECT_EQ(slot.run(), 1);
  EXPECT_THAT(slot.ran_texts(), ElementsAre("put a 1"));
}

TEST(Executor, TellsTheNewBearerAndTheOldOneWhoIsBearer) {
  Slot slot;
  slot.all_up();
  slot.subscribes.clear();
  const NodeId old = bearer_of(slot);
  slot.core.step(old, make_batch(1, {{1, 1, "put a 2"}}));
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  slot.order(0, batch);
  slot.order(1, batch);
  slot.drain();
  ASSERT_EQ(slot.subscribes.size(), 2u);
  for (const auto& at : slot.subscribes) {
    EXPECT_EQ(at.subscribe.from, Seq{1});
    EXPECT_EQ(at.subscribe.bearer, at.to != old);
  }
}

TEST(Executor, ChangesTheBearerWhenBodiesLag) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  const NodeId slow = bearer_of(slot);
  slot.core.tick(Micros{1'000'000});
  slot.order(0, batch);
  slot.order(1, batch);
  slot.core.tick(Micros{1'020'000});
  slot.core.tick(Micros{1'025'000});
  EXPECT_EQ(bearer_of(slot), slow) << "late, but perhaps it was this process that stood still";
  slot.core.tick(Micros{1'030'000});
  EXPECT_NE(bearer_of(slot), slow);
  EXPECT_EQ(slot.core.stats().bearer_changes, 1u);
  slot.core.step(bearer_of(slot), batch);
  EXPECT_EQ(slot.run(), 1);
}

TEST(Executor, TakesAnUndecidedBatchFromTheBearerOnly) {
  Slot slot;
  slot.all_up();
  const auto batch = make_batch(1, {{1, 1, "put a 1"}});
  EXPECT_EQ(slot.core.step(not_bearer_of(slot), batch), Refusal::kNotAllowed);
  slot.order(0, batch);
  slot.order(1, batch);
  const auto other = make_batch(1, {{1, 1, "put a 2"}});
  EXPECT_EQ(slot.core.step(not_bearer_of(slot), other), Refusal::kNotAllowed);
  EXPECT_EQ(slot.core.step(not_bearer_of(slot), batch), Refusal::kNone);  // on its way from an earlier bearer
  EXPECT_EQ(slot.run(), 1);
}

TEST(Executor, ALostBearerIsReplacedByANodeThatIsUp) {
  Slot slot;
  slot.all_up();
  const NodeId old = bearer_of(slot);
  slot.core.node_down(old);
  EXPECT_NE(bearer_of(slot), old);
  for (std::uint16_t i = 0; i < 4; ++i) {
    if (NodeId{i} != old) slot.core.node_down(NodeId{i});
  }
  EXPECT_FALSE(slot.core.bearer().has_value());
  slot.core.node_up(NodeId{2});
  EXPECT_EQ(slot.core.bearer(), NodeId{2});
}

TEST(Executor, SubscribesFromTheNextBatchWithExactlyOneBearer) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "put a 1"}}));
  slot.run();
  slot.subscribes.clear();
  const NodeId other = not_bearer_of(slot);
  slot.core.node_down(other);
  slot.core.node_up(other);
  slot.drain();
  ASSERT_EQ(slot.subscribes.size(), 1u);
  EXPECT_EQ(slot.subscribes[0].to, other);
  EXPECT_EQ(slot.subscribes[0].subscribe.from, Seq{2});
  EXPECT_FALSE(slot.subscribes[0].subscribe.bearer);
}

TEST(Executor, AtTheStartExactlyOneOfAllNodesIsBearer) {
  Slot slot;
  for (std::uint16_t i = 0; i < 4; ++i) slot.core.node_up(NodeId{i});
  slot.drain();
  ASSERT_EQ(slot.subscribes.size(), 4u);
  int bearers = 0;
  for (const auto& at : slot.subscribes) bearers += at.subscribe.bearer ? 1 : 0;
  EXPECT_EQ(bearers, 1);
}

TEST(Executor, AsksAgainForOrdersThatWereLost) {
  Slot slot;
  slot.all_up();
  slot.subscribes.clear();
  const auto second = make_batch(2, {{1, 2, "put a 2"}});
  slot.deliver(second);  // 1 never came
  slot.core.tick(Micros{1'000'000});
  slot.core.tick(Micros{1'600'000});
  slot.drain();
  ASSERT_EQ(slot.subscribes.size(), 4u);
  for (const auto& at : slot.subscribes) EXPECT_EQ(at.subscribe.from, Seq{1});
}

// ---- at most once ----------------------------------------------------------------------------------------------

TEST(Executor, RunsARequestAtMostOnceAndRepeatsItsReply) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}}));
  slot.deliver(make_batch(2, {{1, 1, "add k 1"}, {1, 2, "add k 1"}}));
  EXPECT_EQ(slot.run(), 2);
  EXPECT_THAT(slot.votes[1].replies, ElementsAre(digest_of("1"), digest_of("2")));
  EXPECT_EQ(slot.core.stats().repeats, 1u);
}

TEST(Executor, ANumberUsedForTwoRequestsRunsTheFirst) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}, {1, 1, "add k 10"}}));
  EXPECT_EQ(slot.run(), 1);
  EXPECT_THAT(slot.votes[0].replies, ElementsAre(digest_of("1"), digest_of("1")));
}

TEST(Executor, ARepeatedRequestAtTheEndOfABatchDoesNotHoldTheVoteBack) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}, {1, 1, "add k 1"}}));
  auto invocation = slot.core.next_invocation();
  ASSERT_TRUE(invocation.has_value());
  slot.core.complete(SharedBytes::copy("1"));
  EXPECT_FALSE(slot.core.mid_batch());
  slot.drain();
  EXPECT_EQ(slot.votes.size(), 1u);
}

TEST(Executor, GivesARequestOfAnEvictedSessionADefiniteReply) {
  ExecutorConfig config = make_config();
  config.sessions.sessions_max = 2;
  Slot slot(config);
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 1"}, {2, 1, "add k 1"}, {3, 1, "add k 1"}}));
  slot.deliver(make_batch(2, {{1, 1, "add k 1"}, {1, 2, "add k 1"}, {3, 1, "add k 1"}}));
  EXPECT_EQ(slot.run(), 3);
  EXPECT_THAT(slot.votes[1].replies, ElementsAre(digest_of("expired"), digest_of("expired"), digest_of("3")));
  EXPECT_EQ(slot.core.stats().expired, 2u);
}

// A long, mixed order with repeats, evictions and epochs.
std::vector<agreement::Batch> long_order(std::uint64_t seed, std::uint64_t batches) {
  Prng prng(seed);
  std::vector<std::uint64_t> next(12, 1);
  std::vector<agreement::Batch> out;
  for (std::uint64_t n = 1; n <= batches; ++n) {
    std::vector<Op> ops;
    for (std::uint64_t i = prng.below(6); i > 0; --i) {
      const std::uint64_t session = prng.below(next.size());
      const bool repeat = prng.below(4) == 0 && next[session] > 1;
      const std::uint64_t number = repeat ? 1 + prng.below(next[session] - 1) : next[session]++;
      const std::string key = "k" + std::to_string(prng.below(5));
      ops.push_back({session + 100, number, prng.below(5) == 0 ? std::string("seed") : "add " + key + " 1"});
    }
    std::vector<agreement::SystemOp> system;
    if (n == 1) system = {join(0, 1), join(1, 1), join(2, 1)};
    if (n == batches / 2) system = {epoch_change(1, {0, 2}, {{1, 1}})};
    out.push_back(make_batch(n, ops, system));
  }
  return out;
}

ExecutorConfig small_tables(std::uint16_t slot) {
  ExecutorConfig config = make_config(slot);
  config.sessions.sessions_max = 5;
  config.sessions.client_window = 8;
  config.sessions.reply_bytes_max = 2'000;
  return config;
}

TEST(Executor, EqualOrdersGiveEqualVotesTablesAndHistories) {
  Slot a(small_tables(0));
  Slot b(small_tables(0));
  a.all_up();
  b.all_up();
  for (const auto& batch : long_order(11, 400)) {
    a.deliver(batch);
    a.run();
    b.deliver(batch);  // b runs them all in one go
  }
  b.run();
  ASSERT_EQ(a.votes.size(), 400u);
  ASSERT_EQ(b.votes.size(), 400u);
  for (std::size_t i = 0; i < a.votes.size(); ++i) {
    EXPECT_EQ(agreement::vote_digest(a.votes[i].n, a.votes[i].replies),
              agreement::vote_digest(b.votes[i].n, b.votes[i].replies));
    EXPECT_EQ(a.votes[i].epoch, b.votes[i].epoch);
  }
  EXPECT_EQ(a.core.history(), b.core.history());
  EXPECT_EQ(test::root_of(*a.store), test::root_of(*b.store));
  EXPECT_GT(a.core.stats().repeats, 0u);
  EXPECT_GT(a.core.stats().expired, 0u);
}

TEST(Executor, ASlotThatReplaysFromTheBeginningVotesAsTheOthersDid) {
  const auto order = long_order(12, 300);
  Slot active(small_tables(0));
  active.all_up();
  for (const auto& batch : order) {
    active.deliver(batch);
    active.run();
  }
  Slot woken(small_tables(2));
  woken.all_up();
  ASSERT_FALSE(woken.subscribes.empty());
  EXPECT_EQ(woken.subscribes[0].subscribe.from, Seq{1});
  for (const auto& batch : order) woken.deliver(batch);
  woken.run();
  ASSERT_EQ(woken.votes.size(), active.votes.size());
  for (std::size_t i = 0; i < woken.votes.size(); ++i) {
    EXPECT_EQ(woken.votes[i].replies, active.votes[i].replies);
    EXPECT_EQ(woken.votes[i].epoch, active.votes[i].epoch);
    EXPECT_EQ(woken.votes[i].slot, SlotId{2});
  }
}

// ---- epochs and bodies -----------------------------------------------------------------------------------------

TEST(Executor, AnEpochChangeCountsFromTheNextBatchOn) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {}, {join(0, 1), join(1, 1), join(2, 1)}));
  slot.deliver(make_batch(2, {{1, 1, "put a 1"}}, {epoch_change(1, {0, 2}, {{1, 1}})}));
  slot.deliver(make_batch(3, {{1, 2, "put a 1"}}));
  slot.run();
  ASSERT_EQ(slot.votes.size(), 3u);
  EXPECT_EQ(slot.votes[1].epoch, Epoch{0});
  EXPECT_EQ(slot.votes[2].epoch, Epoch{1});
}

TEST(Executor, OnlyTheDesignatedActiveSlotSendsBodies) {
  for (std::uint16_t id = 0; id < 3; ++id) {
    Slot slot(make_config(id));
    slot.all_up();
    slot.deliver(make_batch(1, {{1, 1, "put a 1"}}, {join(0, 1), join(1, 1), join(2, 1)}));
    slot.deliver(make_batch(2, {{1, 2, "put a 1"}}, {epoch_change(1, {1, 2}, {{0, 1}})}));
    slot.deliver(make_batch(3, {{1, 3, "put a 1"}}));
    slot.deliver(make_batch(4, {{1, 4, "put a 1"}}));
    slot.run();
    std::vector<std::uint64_t> with_bodies;
    for (const auto& to : slot.replies) with_bodies.push_back(to.replies.n.value);
    // Epoch 0 has slots 0 and 1, epoch 1 slots 1 and 2; batch n belongs to active[n mod 2].
    if (id == 0) {
      EXPECT_THAT(with_bodies, ElementsAre(2));
    } else if (id == 1) {
      EXPECT_THAT(with_bodies, ElementsAre(1, 4));
    } else {
      EXPECT_THAT(with_bodies, ElementsAre(3));
    }
  }
}

TEST(Executor, SendsEachBodyToTheHomeNodeOfItsSession) {
  Slot slot;  // slot 0 is designated for even n
  slot.all_up();
  slot.deliver(make_batch(1, {}));
  slot.deliver(make_batch(2, {{5, 1, "add k 1"}, {6, 1, "add k 1"}, {9, 1, "add k 1"}}));
  slot.run();
  ASSERT_EQ(slot.replies.size(), 2u);  // homes 1 (5, 9) and 2 (6)
  EXPECT_EQ(slot.replies[0].to, NodeId{1});
  ASSERT_EQ(slot.replies[0].replies.items.size(), 2u);
  EXPECT_EQ(slot.replies[0].replies.items[0].index, 0u);
  EXPECT_EQ(slot.replies[0].replies.items[1].index, 2u);
  EXPECT_EQ(slot.replies[0].replies.items[1].body.text(), "3");
  EXPECT_EQ(slot.replies[1].to, NodeId{2});
  EXPECT_EQ(slot.replies[1].replies.items[0].body.text(), "2");
}

TEST(Executor, CutsLargeBodiesIntoMessagesThatFitAFrame) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{4, 1, "put k " + std::string(700'000, 'v')}}));
  std::vector<Op> ops;
  for (std::uint64_t i = 2; i <= 6; ++i) ops.push_back({4, i, "get k"});
  slot.deliver(make_batch(2, ops));
  slot.run();
  EXPECT_EQ(slot.replies.size(), 5u);
  std::vector<std::uint32_t> indices;
  for (const auto& to : slot.replies) {
    EXPECT_EQ(to.replies.n, Seq{2});
    for (const auto& item : to.replies.items) indices.push_back(item.index);
  }
  EXPECT_THAT(indices, ElementsAre(0, 1, 2, 3, 4));
}

TEST(Executor, AnswersForReplyBodiesFromTheSessionTable) {
  Slot slot(make_config(2));  // asleep in epoch 0: sends no body by itself
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 5"}, {1, 2, "add k 5"}}));
  slot.run();
  EXPECT_THAT(slot.replies, IsEmpty());
  agreement::FetchReplies wanted{Seq{1}, {{1, ClientId{7}, SessionId{1}, RequestNumber{2}}}};
  EXPECT_EQ(slot.core.step(NodeId{3}, wanted), Refusal::kNone);
  slot.drain();
  ASSERT_EQ(slot.replies.size(), 1u);
  EXPECT_EQ(slot.replies[0].to, NodeId{3});
  ASSERT_EQ(slot.replies[0].replies.items.size(), 1u);
  EXPECT_EQ(slot.replies[0].replies.items[0].index, 1u);
  EXPECT_EQ(slot.replies[0].replies.items[0].body.text(), "10");
}

TEST(Executor, HasNoBodyForARequestThatItHasNotExecuted) {
  Slot slot;
  slot.all_up();
  agreement::FetchReplies wanted{Seq{1}, {{0, ClientId{7}, SessionId{1}, RequestNumber{2}}}};
  EXPECT_EQ(slot.core.step(NodeId{3}, wanted), Refusal::kNotReady);
  slot.drain();
  EXPECT_THAT(slot.replies, IsEmpty());
}

TEST(Executor, TellsHowItsSessionTableSaysThatRequestsWereAnswered) {
  Slot slot;
  slot.all_up();
  slot.deliver(make_batch(1, {{1, 1, "add k 5"}, {1, 2, "add k 5"}}));
  slot.run();
  slot.replies.clear();
  const agreement::FetchReplies wanted{Seq{1},
                                       {{0, ClientId{7}, SessionId{1}, RequestNumber{1}},
                                        {1, ClientId{7}, SessionId{1}, RequestNumber{2}},
                                        {2, ClientId{7}, SessionId{1}, RequestNumber{3}},
                                        {3, ClientId{7}, SessionId{1}, RequestNumber{0}}},
                                       true};
  EXPECT_EQ(slot.core.step(NodeId{3}, wanted), Refusal::kNone);
  const ExecutorOutput out = slot.core.take_output();
  EXPECT_THAT(out.replies, IsEmpty());
  ASSERT_EQ(out.digests.size(), 1u);
  EXPECT_EQ(out.digests[0].to, NodeId{3});
  EXPECT_EQ(out.digests[0].digests.n, Seq{1});
  const auto& items = out.digests[0].digests.items;
  ASSERT_EQ(items.size(), 3u) << "it has not executed number 3 yet";
  EXPECT_EQ(items[0].digest, digest_of("5"));
  EXPECT_EQ(items[1].index, 1u);
  EXPECT_EQ(items[1].digest, digest_of("10"));
  EXPECT_EQ(items[2].index, 3u);
  EXPECT_TRUE(items[2].digest.is_zero()) << "it will never be executed";
}

TEST(Executor, TellsNoDigestOfWhatItHasNotExecuted) {
  Slot slot;
  slot.all_up();
  const agreement::FetchReplies wanted{Seq{1}, {{0, ClientId{7}, SessionId{1}, RequestNumber{2}}}, true};
  EXPECT_EQ(slot.core.step(NodeId{3}, wanted), Refusal::kNotReady);
  EXPECT_THAT(slot.core.take_output().digests, IsEmpty());
  EXPECT_EQ(slot.core.step(NodeId{4}, wanted), Refusal::kUnknownPeer);
}

TEST(Executor, GivesEveryRequestOfABatchTheAgreedTimeAndSeed) {
  Slot a;
  Slot b;
  for (Slot* slot : {&a, &b}) {
    slot->all_up();
    slot->deliver(make_batch(1, {{1, 1, "seed"}, {1, 2, "time"}}));
    slot->deliver(make_batch(2, {{1, 3, "seed"}}));
    slot->run();
  }
  EXPECT_EQ(a.votes[0].replies, b.votes[0].replies);
  EXPECT_EQ(a.votes[0].replies[1], digest_of("1000001"));
  EXPECT_NE(a.votes[0].replies[0], a.votes[1].replies[0]);
  const Digest first = agreement::history_digest(Digest{}, make_batch(1, {{1, 1, "seed"}, {1, 2, "time"}}).digest);
  EXPECT_EQ(a.votes[0].replies[0], digest_of(to_hex(first.bytes)));
}

// ---- bounds ----------------------------------------------------------------------------------------------------

TEST(Executor, IgnoresOrdersBeyondItsWindowAndAsksForThemAgain) {
  Slot slot;
  slot.all_up();
  std::vector<agreement::Batch> batches;
  for (std::uint64_t n = 1; n <= kOrderWindow + 10; ++n) batches.push_back(make_batch(n, {}));
  agreement::Orders orders{Seq{1}, {}};
  for (const auto& batch : batches) orders.digests.push_back(batch.digest);
  for (std::uint16_t node = 0; node < 4; ++node) EXPECT_EQ(slot.core.step(NodeId{node}, orders), Refusal::kOutOfWindow);
  slot.subscribes.clear();
  for (std::uint64_t n = 1; n <= kOrderWindow; ++n) slot.core.step(bearer_of(slot), batches[n - 1]);
  slot.run();
  EXPECT_EQ(slot.core.executed(), Seq{kOrderWindow});
  ASSERT_EQ(slot.subscribes.size(), 4u);
  for (const auto& at : slot.subscribes) EXPECT_EQ(at.subscribe.from, Seq{kOrderWindow + 1});
}

TEST(Executor, AHugeBatchNumberIsRefusedWithoutEffect) {
  Slot slot;
  slot.all_up();
  const Seq last{~std::uint64_t{0}};
  EXPECT_EQ(slot.core.step(NodeId{0}, agreement::Orders{last, {Digest{}, Digest{}}}), Refusal::kMalformed);
  EXPECT_EQ(slot.core.step(NodeId{0}, agreement::Orders{Seq{last.value - 5}, {Digest{}}}), Refusal::kOutOfWindow);
  EXPECT_EQ(slot.core.step(NodeId{0}, agreement::Orders{Seq{0}, {Digest{}}}), Refusal::kMalformed);
  EXPECT_EQ(slot.core.step(NodeId{0}, agreement::Orders{Seq{1}, {}}), Refusal::kMalformed);
  EXPECT_EQ(slot.core.step(bearer_of(slot), make_batch(last.value, {})), Refusal::kOutOfWindow);
  EXPECT_EQ(slot.core.step(bearer_of(slot), agreement::Batch{}), Refusal::kMalformed);
  EXPECT_EQ(slot.run(), 0);
}

TEST(Executor, ABearerCannotMakeItHoldMoreThanItsBoundAndStillMakesProgress) {
  ExecutorConfig config = make_config();
  config.held_bytes_max = 100'000;
  Slot slot(config);
  slot.all_up();
  std::vector<agreement::Batch> batches;
  for (std::uint64_t n = 1; n <= 100; ++n)
    batches.push_back(make_batch(n, {{1, n, "put k " + std::string(10'000, 'v')}}));
  for (const auto& batch : batches) {
    slot.order(0, batch);
    slot.order(1, batch);
  }
  int refused = 0;
  for (const auto& batch : batches) {
    if (slot.core.step(bearer_of(slot), batch) == Refusal::kQueueFull) ++refused;
  }
  EXPECT_GT(refused, 80);
  // As the bearer streams again what it is asked for, everything gets through.
  for (int round = 0; round < 50 && slot.core.executed() != Seq{100}; ++round) {
    slot.subscribes.clear();
    slot.run();
    for (const auto& at : slot.subscribes) {
      if (!at.subscribe.bearer) continue;
      for (std::uint64_t n = at.subscribe.from.value; n <= 100; ++n) slot.core.step(at.to, batches[n - 1]);
    }
  }
  EXPECT_EQ(slot.core.executed(), Seq{100});
  EXPECT_EQ(slot.ran.size(), 100u);
}

TEST(Executor, UndecidedBatchesOfAFormerBearerAreForgotten) {
  ExecutorConfig config = make_config();
  config.held_bytes_max = 100'000;
  Slot slot(config);
  slot.all_up();
  for (std::uint64_t n = 500; n < 600; ++n)
    slot.core.step(bearer_of(slot), make_batch(n, {{1, n, "put k " + std::string(10'000, 'v')}}));
  slot.core.node_down(bearer_of(slot));
  const auto second = make_batch(2, {{1, 2, "put k " + std::string(20'000, 'v')}});
  EXPECT_EQ(slot.core.step(bearer_of(slot), second), Refusal::kNone);
}

TEST(Executor, RefusesABatchOfAnotherService) {
  Slot slot;
  slot.all_up();
  auto batch = make_batch(1, {});
  auto header = std::make_shared<agreement::BatchHeader>(*batch.header);
  header->service = ServiceId{4};
  batch.header = header;
  EXPECT_EQ(slot.core.step(bearer_of(slot), batch), Refusal::kUnknownService);
}

}  // namespace
}  // namespace zz::execution::testing
