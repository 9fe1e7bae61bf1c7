// RequestTable and clients that are new, that the primary does not hear, or that went away.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/agreement/request_table_test_support.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

// ---- unproven clients ------------------------------------------------------------------------------------------

TEST(UnprovenClient, ItsRequestIsProposedOnceTwoFOtherNodesVouchForIt) {
  Table t;
  const RequestPtr request = make_request(1, 7, 1);
  t.table.mark_unproven(ClientId{1});
  EXPECT_TRUE(t.table.is_unproven(ClientId{1}));
  EXPECT_FALSE(t.table.is_unproven(ClientId{2}));
  ASSERT_EQ(t.vouch(1, 7, 1), Refusal::kNone);
  EXPECT_EQ(t.table.queued(), 0u);
  EXPECT_THAT(t.cut(1), IsEmpty());
  EXPECT_FALSE(t.vouched_by(2, request));
  EXPECT_FALSE(t.vouched_by(2, request));                           // one node counts once
  EXPECT_FALSE(t.vouched_by(3, make_request(1, 7, 1, "another")));  // of another digest
  EXPECT_THAT(t.cut(1), IsEmpty());
  EXPECT_FALSE(t.vouched_by(3, request));
  EXPECT_EQ(t.table.queued(), 1u);
  EXPECT_THAT(t.cut(1), SizeIs(1));
}

TEST(UnprovenClient, VouchesThatCameBeforeTheRequestCount) {
  Table t;
  t.table.mark_unproven(ClientId{1});
  const RequestPtr request = make_request(1, 7, 1);
  EXPECT_FALSE(t.vouched_by(2, request));
  EXPECT_TRUE(t.vouched_by(3, request));
  ASSERT_EQ(t.vouch(1, 7, 1), Refusal::kNone);
  EXPECT_THAT(t.cut(1), SizeIs(1));
}

TEST(UnprovenClient, TheMarkHoldsForWhatWaitsAlready) {
  Table t;
  for (const std::uint64_t number : {1, 2, 3}) t.vouch(1, 7, number);
  t.vouched_by(2, make_request(1, 7, 2));
  t.vouched_by(3, make_request(1, 7, 2));
  t.table.mark_unproven(ClientId{1});
  t.table.mark_unproven(ClientId{1});
  EXPECT_EQ(t.table.queued(), 1u);
  EXPECT_THAT(numbers_of(t.cut(1)), ElementsAre(2));
}

TEST(UnprovenClient, NeitherStarvesTheOthersNorIsServedOutOfTurn) {
  Table t;
  t.table.mark_unproven(ClientId{2});
  for (std::uint64_t number = 1; number <= 500; ++number) t.vouch(2, 7, number);
  for (std::uint64_t number = 1; number <= 3; ++number) t.vouch(3, 7, number);
  EXPECT_THAT(clients_of(t.cut(1, 2)), ElementsAre(3, 3));
  for (const std::uint64_t number : {400, 401}) {
    for (const int node : {1, 2}) t.vouched_by(node, make_request(2, 7, number));
  }
  EXPECT_THAT(clients_of(t.cut(2)), UnorderedElementsAre(2, 3, 2));
  EXPECT_EQ(t.table.queued(), 0u);
  EXPECT_EQ(t.table.pending(), 503u);
}

TEST(UnprovenClient, EachOfItsRequestsIsAskedForOnce) {
  Table t;
  t.table.mark_unproven(ClientId{1});
  t.table.mark_unproven(ClientId{2});
  for (std::uint64_t number = 1; number <= 40; ++number) t.vouch(1, 7, number);
  t.vouch(2, 7, 1);
  t.vouch(3, 7, 1);
  const std::vector<Reference> first = t.table.take_queries(4);  // a flood of one leaves room for the other
  EXPECT_THAT(clients_of(first), UnorderedElementsAre(1, 1, 1, 2));
  EXPECT_THAT(t.table.take_queries(1'000), SizeIs(37));
  EXPECT_THAT(t.table.take_queries(1'000), IsEmpty());
  for (const int node : {1, 2}) t.vouched_by(node, make_request(2, 7, 1));
  t.table.ask_again();  // answers were lost
  EXPECT_THAT(clients_of(t.table.take_queries(1'000)), ::testing::AllOf(SizeIs(40), ::testing::Each(1u)));
  t.table.release_all();  // this node may be the primary of a later view
  EXPECT_THAT(t.table.take_queries(1'000), SizeIs(41));
}

TEST(UnprovenClient, AHostilePrimaryCannotMakeANodeRememberAnyNumberOfClients) {
  Table t;
  for (std::uint32_t client = 0; client < 100'000; ++client) t.table.mark_unproven(ClientId{client + 10});
  std::size_t marked = 0;
  for (std::uint32_t client = 0; client < 100'000; ++client)
    marked += t.table.is_unproven(ClientId{client + 10}) ? 1 : 0;
  EXPECT_EQ(marked, 4'096u);
  t.vouch(1, 7, 1);  // a real client can still be marked
  t.table.mark_unproven(ClientId{1});
  EXPECT_TRUE(t.table.is_unproven(ClientId{1}));
}

// What an unproven client sends to a backup is claimed and delivered without ever being cut here.
TEST(UnprovenClient, ItsQueuesAtABackupDoNotGrowWithWhatOthersOrder) {
  Table t;
  t.table.mark_unproven(ClientId{1});
  for (std::uint64_t n = 1; n <= 20'000; ++n) {
    const RequestPtr request = make_request(1, 2, n);
    ASSERT_EQ(t.table.vouch(request).refusal, Refusal::kNone);
    for (const int node : {1, 2}) t.vouched_by(node, request);
    EXPECT_THAT(t.table.heads(), SizeIs(1));
    ASSERT_EQ(t.claim(n, {request}), Refusal::kNone);
    t.deliver(n, {request});
    if (n % 2'000 == 0) t.table.check();  // holds the queues against their bound
  }
  EXPECT_EQ(t.table.pending(), 0u);
}

// ---- relayed requests ------------------------------------------------------------------------------------------

TEST(RelayedRequest, FPlusOneNodesStandInForTheClientsOwnChannel) {
  Table t;
  const RequestPtr request = make_request(1, 7, 1);
  EXPECT_EQ(t.table.take_relayed(request).refusal, Refusal::kNotReady);
  EXPECT_FALSE(t.vouched_by(1, request));
  EXPECT_FALSE(t.vouched_by(1, request));
  EXPECT_EQ(t.table.take_relayed(request).refusal, Refusal::kNotReady);
  EXPECT_FALSE(t.vouched_by(2, make_request(1, 7, 1, "forged")));
  EXPECT_TRUE(t.vouched_by(2, request));
  EXPECT_FALSE(t.vouched_by(3, request));  // said once
  EXPECT_EQ(t.table.take_relayed(make_request(1, 7, 1, "forged")).refusal, Refusal::kNotReady);
  EXPECT_EQ(t.table.take_relayed(request).refusal, Refusal::kNone);
  EXPECT_TRUE(t.table.vouches(reference_of(*request)));
  EXPECT_EQ(t.table.take_relayed(request).refusal, Refusal::kDuplicate);
  EXPECT_EQ(t.vouch(1, 7, 1), Refusal::kDuplicate);
  EXPECT_EQ(t.vouch(1, 7, 1, "another"), Refusal::kConflict);
  EXPECT_THAT(t.cut(1), SizeIs(1));
}

TEST(RelayedRequest, GoesToTheBatchThatNamesItAlready) {
  Table t;
  const RequestPtr request = make_request(1, 7, 1);
  ASSERT_EQ(t.claim(4, {request}), Refusal::kNone);
  for (const int node : {1, 2}) t.vouched_by(node, request);
  const RequestTable::Vouched got = t.table.take_relayed(request);
  EXPECT_EQ(got.refusal, Refusal::kNone);
  EXPECT_EQ(got.claimed_by, Seq{4});
}

TEST(RelayedRequest, TheClientsLimitsHoldForIt) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
  limits.client_window = 4;
  Table t(limits);
  ASSERT_EQ(t.vouch(1, 7, 1), Refusal::kNone);
  for (const int node : {1, 2}) t.vouched_by(node, make_request(1, 8, 1));
  EXPECT_EQ(t.table.take_relayed(make_request(1, 8, 1)).refusal, Refusal::kQuota);
  EXPECT_FALSE(t.vouched_by(1, make_request(1, 7, 10)));
  EXPECT_FALSE(t.vouched_by(2, make_request(1, 7, 10)));  // far out of the window: not even remembered
  EXPECT_EQ(t.table.take_relayed(make_request(1, 7, 10)).refusal, Refusal::kNotReady);
}

TEST(RelayedRequest, VouchesForWhatCannotBeTakenAreNotKept) {
  Table t;
  t.deliver(1, {make_request(1, 7, 1)});
  for (const int node : {1, 2, 3}) {
    EXPECT_FALSE(t.vouched_by(node, make_request(1, 7, 1)));
    EXPECT_FALSE(t.vouched_by(node, make_request(1, 7, 0)));
    EXPECT_FALSE(t.vouched_by(node, make_request(1, 9, 513)));  // an unknown session begins with its first window
  }
  EXPECT_FALSE(t.vouched_by(16, make_request(1, 7, 2)));
  EXPECT_FALSE(t.vouched_by(65'535, make_request(1, 7, 2)));
  EXPECT_FALSE(t.vouched_by(1, make_request(1, 7, 2)));  // the first one that counts
}

TEST(RelayedRequest, AFloodOfVouchesPushesOutOnlyTheFloodersOwn) {
  Table t;
  const RequestPtr early = make_request(1, 7, 1);
  const RequestPtr other = make_request(1, 7, 2);
  t.vouched_by(1, early);
  t.vouched_by(2, other);
  for (std::uint64_t i = 0; i < 10'000; ++i) t.vouched_by(1, make_request(2, i, 1));
  EXPECT_FALSE(t.vouched_by(2, early));  // node 1's word is forgotten
  EXPECT_TRUE(t.vouched_by(3, early));
  EXPECT_TRUE(t.vouched_by(3, other));  // node 2's is not
}

TEST(RelayedRequest, TheBookHoldsALimitedNumberOfReferencesPerNode) {
  VouchBook book;
  const auto reference = [](std::uint64_t i) { return Reference{ClientId{1}, SessionId{i}, RequestNumber{1}, {}}; };
  for (std::uint64_t i = 0; i < 3 * VouchBook::kPerNodeMax; ++i) EXPECT_FALSE(book.add(NodeId{0}, reference(i), 2));
  std::size_t held = 0;
  for (std::uint64_t i = 0; i < 3 * VouchBook::kPerNodeMax; ++i) held += book.nodes(reference(i)) != 0 ? 1 : 0;
  EXPECT_EQ(held, VouchBook::kPerNodeMax);
  for (std::uint64_t i = 0; i < 3 * VouchBook::kPerNodeMax; ++i) {
    book.erase(ClientId{1}, SessionId{i}, RequestNumber{1});
  }
  EXPECT_TRUE(book.empty());
}

TEST(RelayedRequest, TheOtherNodesThatVouchForAVouchedOneAreCounted) {
  Table t;
  const auto count = [&](std::uint64_t number) {
    return t.table.vouchers(ClientId{1}, SessionId{7}, RequestNumber{number});
  };
  t.vouched_by(1, make_request(1, 7, 1));
  EXPECT_EQ(count(1), 0u);  // not here
  t.vouch(1, 7, 1);
  EXPECT_EQ(count(1), 1u);
  for (const int node : {1, 2, 3}) t.vouched_by(node, make_request(1, 7, 1));
  EXPECT_EQ(count(1), 3u);
  EXPECT_EQ(count(2), 0u);
}

// ---- abandoned sessions ----------------------------------------------------------------------------------------

// Sixteen runs of a command line tool timed out: each left a request that reached this backup and not the primary. The
// requests of later runs were refused here for ever.
TEST(AbandonedSessions, MakeRoomForNewOnes) {
  RequestLimits limits;
  limits.client_window = 32;
  Table t(limits);
  for (std::uint64_t session = 1; session <= 16; ++session) ASSERT_EQ(t.vouch(1, session, 1), Refusal::kNone);
  ASSERT_EQ(t.vouch(2, 1, 1), Refusal::kNone);
  ASSERT_EQ(t.vouch(1, 100, 1), Refusal::kQuota);
  int tries = 1;
  while (t.vouch(1, 100, 1) == Refusal::kQuota) ASSERT_LT(++tries, 64);
  EXPECT_GT(tries, 32);
  t.table.check();
  EXPECT_EQ(t.table.find(ClientId{1}, SessionId{1}, RequestNumber{1}), nullptr);  // used least recently
  EXPECT_NE(t.table.find(ClientId{1}, SessionId{2}, RequestNumber{1}), nullptr);
  EXPECT_NE(t.table.find(ClientId{2}, SessionId{1}, RequestNumber{1}), nullptr);
  EXPECT_EQ(t.table.pending(), 17u);
  for (std::uint64_t session = 101; session <= 110; ++session) {  // the others follow soon
    for (tries = 0; t.vouch(1, session, 1) == Refusal::kQuota;) ASSERT_LT(++tries, 64);
  }
  EXPECT_EQ(t.table.pending(), 17u);
  // It was given up, not executed: the client may still send it.
  while (t.vouch(1, 1, 1) == Refusal::kQuota) {
  }
  EXPECT_NE(t.table.find(ClientId{1}, SessionId{1}, RequestNumber{1}), nullptr);
}

// The primary is not to blame for what the client itself let go.
TEST(AbandonedSessions, AHeadIsGivenUpUnlessItWaitsOrIsProposedOrOrdered) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
  limits.client_window = 8;
  Table t(limits);
  const auto gave_up = [&t](std::uint64_t session, std::uint64_t number) {
    return t.table.gave_up({ClientId{1}, SessionId{session}, RequestNumber{number}});
  };
  ASSERT_EQ(t.vouch(1, 1, 1), Refusal::kNone);
  EXPECT_FALSE(gave_up(1, 1)) << "waits";
  ASSERT_EQ(t.claim(1, {make_request(1, 1, 1)}), Refusal::kNone);
  EXPECT_FALSE(gave_up(1, 1)) << "proposed";
  t.deliver(1, {make_request(1, 1, 1)});
  EXPECT_FALSE(gave_up(1, 1)) << "ordered";
  ASSERT_EQ(t.vouch(1, 1, 3), Refusal::kNone);
  while (t.vouch(1, 2, 1) == Refusal::kQuota) {
  }
  EXPECT_TRUE(gave_up(1, 3)) << "its session made room";
  EXPECT_FALSE(gave_up(2, 1));
  ASSERT_EQ(t.vouch(1, 1, 2), Refusal::kQuota);
  t.deliver(2, {make_request(1, 2, 2)});
  t.deliver(3, {make_request(1, 3, 1)});
  EXPECT_TRUE(gave_up(2, 1)) << "its session was evicted";
  EXPECT_FALSE(gave_up(2, 2)) << "ordered before that";
}

TEST(AbandonedSessions, TheOneUsedLeastRecentlyGoesFirst) {
  RequestLimits limits;
  limits.client_sessions_max = 4;
  limits.client_window = 8;
  Table t(limits);
  for (const std::uint64_t session : {3, 1, 4, 2}) ASSERT_EQ(t.vouch(1, session, 1), Refusal::kNone);
  ASSERT_EQ(t.vouch(1, 3, 2), Refusal::kNone);
  for (int i = 0; i < 16; ++i) ASSERT_EQ(t.vouch(1, 2, 1), Refusal::kDuplicate);  // its client is there
  for (std::uint64_t next = 5; const std::uint64_t gone : {1, 4, 3}) {
    ASSERT_EQ(t.vouch(1, next++, 1), Refusal::kNone);
    EXPECT_EQ(t.table.find(ClientId{1}, SessionId{gone}, RequestNumber{1}), nullptr);
    EXPECT_EQ(t.table.pending(), gone == 3 ? 4u : 5u);
  }
  EXPECT_EQ(t.vouch(1, 8, 1), Refusal::kQuota);
}

TEST(AbandonedSessions, ASessionWhoseClientSendsAgainIsKept) {
  RequestLimits limits;
  limits.client_sessions_max = 2;
  limits.client_window = 8;
  Table t(limits);
  ASSERT_EQ(t.vouch(1, 1, 1), Refusal::kNone);
  ASSERT_EQ(t.vouch(1, 2, 1), Refusal::kNone);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(t.vouch(1, 3, 1), Refusal::kQuota);
    ASSERT_EQ(t.vouch(1, 1 + static_cast<std::uint64_t>(i % 2), 1), Refusal::kDuplicate);
  }
}

TEST(AbandonedSessions, WhatABatchInFlightNamesIsKept) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
  limits.client_window = 8;
  Table t(limits);
  ASSERT_EQ(t.vouch(1, 1, 1), Refusal::kNone);
  ASSERT_EQ(t.claim(1, {make_request(1, 1, 1)}), Refusal::kNone);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(t.vouch(1, 2, 1), Refusal::kQuota);
  EXPECT_NE(t.table.find(ClientId{1}, SessionId{1}, RequestNumber{1}), nullptr);
}

// Deliveries of it are still to count against batches that name them again.
TEST(AbandonedSessions, WhatWasDeliveredOfThemIsStillKnown) {
  RequestLimits limits;
  limits.client_sessions_max = 1;
  limits.client_window = 8;
  Table t(limits);
  t.deliver(1, {make_request(1, 1, 1)});
  ASSERT_EQ(t.vouch(1, 1, 2), Refusal::kNone);
  while (t.vouch(1, 2, 1) == Refusal::kQuota) {
  }
  EXPECT_EQ(t.table.find(ClientId{1}, SessionId{1}, RequestNumber{2}), nullptr);
  EXPECT_EQ(t.claim(2, {make_request(1, 1, 1)}), Refusal::kDuplicate);
  EXPECT_THAT(numbers_of(t.cut(2)), ElementsAre(1));
}

}  // namespace
}  // namespace zz::agreement::testing
