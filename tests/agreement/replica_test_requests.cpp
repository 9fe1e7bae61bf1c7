// Requests: vouching, sessions, references, bodies that come late (docs/protocol.md §4).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "agreement/replica.hpp"
#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

// ---- vouching --------------------------------------------------------------------------------------------------

TEST(Vouching, TheFirstDigestOfANumberWins) {
  LoneReplica node(1);
  EXPECT_EQ(node->vouch(make_request(1, 7, 1, "a")), Refusal::kNone);
  EXPECT_EQ(node->vouch(make_request(1, 7, 1, "a")), Refusal::kDuplicate);
  EXPECT_EQ(node->vouch(make_request(1, 7, 1, "b")), Refusal::kConflict);
  EXPECT_EQ(node->waiting_requests(), 1u);
  const PrePrepare b = make_proposal(1, {make_request(1, 7, 1, "b")}, kNoon);
  EXPECT_EQ(node.propose(b), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
}

TEST(Vouching, NumbersBeginAtOneAndStayInTheWindow) {
  ReplicaConfig config;
  config.client_window = 10;
  LoneReplica node(1, config);
  EXPECT_EQ(node->vouch(make_request(1, 7, 0)), Refusal::kMalformed);
  EXPECT_EQ(node->vouch(make_request(1, 7, 21)), Refusal::kSessionExpired);
  EXPECT_EQ(node->vouch(make_request(1, 7, kMax)), Refusal::kSessionExpired);
  EXPECT_EQ(node->vouch(make_request(1, 7, 20)), Refusal::kNone);
  EXPECT_EQ(node->vouch(make_request(1, 7, 21)), Refusal::kOutOfWindow);
  EXPECT_EQ(node->vouch(make_request(1, 7, kMax)), Refusal::kOutOfWindow);
  EXPECT_EQ(node->vouch(make_request(1, 7, 3)), Refusal::kNone);
  EXPECT_EQ(node->waiting_requests(), 2u);
}

TEST(Vouching, FlagsThatNobodyDefinedAreRefused) {
  LoneReplica node(1);
  Request request = *make_request(1, 7, 1);
  request.flags = 1;
  EXPECT_EQ(node->vouch(std::make_shared<Request>(request)), Refusal::kMalformed);
}

TEST(Vouching, TheWindowFollowsTheLowestUndeliveredNumber) {
  ReplicaConfig config;
  config.client_window = 2;
  ReplicaCluster cluster(config);
  for (const std::uint64_t number : {2, 3, 4}) cluster.submit(cluster.request(1, 7, number));
  cluster.run();
  EXPECT_THAT(numbers_of(order_of(cluster.delivered[2])), ElementsAre(2, 3, 4));
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 7, 5)), Refusal::kOutOfWindow);
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 7, 3)), Refusal::kDuplicate);
  }
  cluster.submit(cluster.request(1, 7, 1));
  cluster.run();
  cluster.submit(cluster.request(1, 7, 8));
  cluster.run();
  EXPECT_THAT(numbers_of(order_of(cluster.delivered[2])), ElementsAre(2, 3, 4, 1, 8));
  EXPECT_EQ(cluster.at(2).vouch(cluster.request(1, 7, 9)), Refusal::kOutOfWindow);
  EXPECT_EQ(cluster.at(2).vouch(cluster.request(1, 7, 1, "again")), Refusal::kDuplicate);
}

TEST(Vouching, ANumberIsNeverDeliveredAgain) {
  ReplicaCluster cluster;
  for (int round = 0; round < 4; ++round) {
    for (std::uint64_t number = 1; number <= 10; ++number) {
      cluster.submit(cluster.request(1, 7, number));
      cluster.submit(cluster.request(1, 7, number, "another op"));
    }
    cluster.run();
  }
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(order_of(deliveries), SizeIs(10));
}

TEST(Vouching, AClientHasABoundedNumberOfLiveSessions) {
  ReplicaConfig config;
  config.client_sessions_max = 3;
  LoneReplica node(1, config);
  for (std::uint64_t session = 1; session <= 3; ++session) {
    EXPECT_EQ(node->vouch(make_request(1, session, 1)), Refusal::kNone);
  }
  EXPECT_EQ(node->vouch(make_request(1, 4, 1)), Refusal::kQuota);
  EXPECT_EQ(node->vouch(make_request(1, 3, 2)), Refusal::kNone);
  EXPECT_EQ(node->vouch(make_request(2, 4, 1)), Refusal::kNone);
}

TEST(Vouching, AClientsBodiesAreBounded) {
  ReplicaConfig config;
  config.client_bytes_max = 10;
  config.requests_bytes_max = 40;
  LoneReplica node(1, config);
  EXPECT_EQ(node->vouch(make_request(1, 7, 1, "12345678")), Refusal::kNone);
  EXPECT_EQ(node->vouch(make_request(1, 7, 2, "123")), Refusal::kQueueFull);
  EXPECT_EQ(node->vouch(make_request(1, 7, 3, "12")), Refusal::kNone);
  EXPECT_EQ(node->vouch(make_request(2, 7, 1, "a single request larger")), Refusal::kNone);  // one always fits
  EXPECT_EQ(node->vouch(make_request(2, 7, 2, "a")), Refusal::kQueueFull);
  EXPECT_EQ(node->vouch(make_request(3, 7, 1, "12345678")), Refusal::kQueueFull);  // all clients together
}

TEST(Vouching, RoomComesBackWithTheDelivery) {
  ReplicaConfig config;
  config.client_bytes_max = 10;
  config.client_sessions_max = 1;
  ReplicaCluster cluster(config);
  for (std::uint64_t round = 1; round <= 5; ++round) {
    for (std::size_t node = 0; node < 4; ++node) {
      ASSERT_EQ(cluster.at(node).vouch(cluster.request(1, round, 1, "0123456789")), Refusal::kNone) << round;
    }
    cluster.run();
  }
  EXPECT_THAT(order_of(cluster.delivered[1]), SizeIs(5));
}

// ---- sessions --------------------------------------------------------------------------------------------------

TEST(Sessions, TheLeastRecentlyUsedOneMakesRoomAndExpiresDefinitely) {
  ReplicaConfig config;
  config.client_sessions_max = 2;
  ReplicaCluster cluster(config);
  const auto run_one = [&](std::uint64_t session, std::uint64_t number) {
    cluster.submit(cluster.request(1, session, number));
    cluster.run();
  };
  run_one(1, 1);
  run_one(2, 1);
  run_one(1, 2);
  run_one(3, 1);  // evicts session 2
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 2, 2)), Refusal::kSessionExpired);
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 2, 1)), Refusal::kDuplicate);
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 1, 3)), Refusal::kNone);
  }
}

TEST(Sessions, AnEvictedOneIsForgottenAWindowLaterEverywhereAtTheSamePlace) {
  ReplicaConfig config;
  config.client_sessions_max = 1;
  ReplicaCluster cluster(config);
  cluster.submit(cluster.request(1, 1, 1));
  cluster.run();
  cluster.submit(cluster.request(1, 2, 1));
  cluster.run();
  ASSERT_EQ(cluster.at(0).last_delivered(), Seq{2});  // session 1 counts against batches up to 2 + kWindow - 1
  for (std::uint64_t n = 3; n <= kWindow + 1; ++n) {
    cluster.submit(cluster.request(1, 2, n - 1));
    cluster.run();
    for (std::size_t node = 0; node < 4; ++node) cluster.at(node).set_stable(unsigned_certificate(Seq{n}));
  }
  ASSERT_EQ(cluster.at(0).last_delivered(), Seq{kWindow + 1});
  EXPECT_EQ(cluster.at(3).vouch(cluster.request(1, 1, 1)), Refusal::kDuplicate);
  cluster.submit(cluster.request(1, 2, kWindow + 1));
  cluster.run();
  ASSERT_EQ(cluster.at(3).last_delivered(), Seq{kWindow + 2});
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 1, 1'000)), Refusal::kSessionExpired);
    EXPECT_EQ(cluster.at(node).vouch(cluster.request(1, 1, 1)), Refusal::kNone);
  }
}

TEST(Sessions, ManyShortOnesOfOneClientGoThrough) {
  ReplicaCluster cluster;
  for (std::uint64_t session = 1; session <= 2'000; ++session) {
    for (std::size_t node = 0; node < 4; ++node) {
      ASSERT_EQ(cluster.at(node).vouch(cluster.request(1, session, 1)), Refusal::kNone) << session;
    }
    cluster.run();
    for (std::size_t node = 0; node < 4; ++node)
      cluster.at(node).set_stable(unsigned_certificate(cluster.at(node).last_delivered()));
  }
  EXPECT_THAT(order_of(cluster.delivered[3]), SizeIs(2'000));
}

// What waits in a session when it is forgotten can never be ordered.
TEST(Sessions, WhatWaitedInAForgottenOneIsDropped) {
  ReplicaConfig config;
  config.client_sessions_max = 2;
  LoneReplica node(1, config);
  std::uint64_t n = 0;
  const auto order = [&](std::uint64_t session, std::uint64_t number) {
    const RequestPtr request = make_request(1, session, number);
    ASSERT_EQ(node->vouch(request), Refusal::kNone);
    ++n;
    const PrePrepare p = make_proposal(n, {request}, Micros{kNoon.value + static_cast<std::int64_t>(n)});
    ASSERT_EQ(node.propose(p), Refusal::kNone);
    node.finish(p);
    ASSERT_EQ(node->last_delivered(), Seq{n});
    node->set_stable(unsigned_certificate(Seq{n}));
  };
  order(1, 1);
  ASSERT_EQ(node->vouch(make_request(1, 1, 2)), Refusal::kNone);  // never proposed
  order(2, 1);
  order(3, 1);  // evicts session 1
  for (std::uint64_t number = 2; n < 3 + kWindow - 1; ++number) order(3, number);
  EXPECT_EQ(node->waiting_requests(), 1u);
  EXPECT_EQ(node->vouch(make_request(1, 1, 3)), Refusal::kSessionExpired);
  order(3, kWindow + 1);
  EXPECT_EQ(node->waiting_requests(), 0u);
  EXPECT_EQ(node->vouch(make_request(1, 1, 1)), Refusal::kNone);
}

// ---- proposals and late requests -------------------------------------------------------------------------------

TEST(Proposals, WaitForTheClientsOwnCopyOfEveryReference) {
  LoneReplica node(1);
  const std::vector<RequestPtr> requests = {make_request(1, 7, 1), make_request(1, 7, 2), make_request(2, 9, 1)};
  node->vouch(requests[1]);
  EXPECT_EQ(node.propose(make_proposal(1, requests, kNoon)), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
  EXPECT_EQ(node->vouch(requests[0]), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
  EXPECT_EQ(node->vouch(requests[2]), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(1));
}

TEST(Proposals, AnotherDigestOfTheNumberDoesNotCount) {
  LoneReplica node(1);
  const RequestPtr proposed = make_request(1, 7, 1, "proposed");
  EXPECT_EQ(node.propose(make_proposal(1, {proposed}, kNoon)), Refusal::kNone);
  EXPECT_EQ(node->vouch(make_request(1, 7, 1, "sent")), Refusal::kNone);
  EXPECT_EQ(node->vouch(proposed), Refusal::kConflict);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
}

TEST(Proposals, NameNoNumberTwiceInOneBatch) {
  LoneReplica node(1);
  const RequestPtr known = make_request(1, 7, 1);
  const RequestPtr unknown = make_request(3, 9, 5);
  node->vouch(known);
  EXPECT_EQ(node.propose(make_proposal(1, {known, known}, kNoon)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(1, {known, make_request(1, 7, 1, "b")}, kNoon)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(1, {unknown, known, unknown}, kNoon)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(1, {known, unknown, make_request(3, 9, 0)}, kNoon)), Refusal::kMalformed);
  // A refusal leaves no trace.
  EXPECT_EQ(node.propose(make_proposal(1, {known, unknown}, kNoon)), Refusal::kNone);
  node->vouch(unknown);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(1));
}

TEST(Proposals, NameNoNumberThatAnotherBatchInFlightNames) {
  LoneReplica node(1);
  const RequestPtr known = make_request(1, 7, 1);
  const RequestPtr unknown = make_request(3, 9, 600);
  const RequestPtr fresh = make_request(1, 7, 2);
  node->vouch(known);
  node->vouch(fresh);
  ASSERT_EQ(node.propose(make_proposal(4, {known, unknown}, kNoon)), Refusal::kNone);
  const Micros later{kNoon.value + 5};
  const Micros sooner{kNoon.value - 5};
  EXPECT_EQ(node.propose(make_proposal(5, {fresh, known}, later)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(3, {fresh, known}, sooner)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(5, {fresh, make_request(1, 7, 1, "b")}, later)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(5, {fresh, unknown}, later)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(3, {fresh, make_request(3, 9, 600, "b")}, sooner)), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(make_proposal(5, {fresh}, later)), Refusal::kNone);
}

TEST(Proposals, NameNothingThatIsDelivered) {
  LoneReplica node(1);
  const std::vector<RequestPtr> done = {make_request(1, 7, 1), make_request(1, 7, 3)};
  for (const RequestPtr& request : done) node->vouch(request);
  const PrePrepare p = make_proposal(1, done, kNoon);
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  node.finish(p);
  ASSERT_THAT(node.delivered, SizeIs(1));
  const Micros later{kNoon.value + 5};
  const RequestPtr fresh = make_request(1, 7, 2);
  node->vouch(fresh);
  for (const RequestPtr& request : done) {
    EXPECT_EQ(node.propose(make_proposal(2, {fresh, request}, later)), Refusal::kDuplicate);
    EXPECT_EQ(node->vouch(request), Refusal::kDuplicate);
  }
  EXPECT_EQ(node.propose(make_proposal(2, {fresh}, later)), Refusal::kNone);
}

TEST(Proposals, RequestsOfARefusedProposalAreProposedByThisNodeAsBefore) {
  LoneReplica primary(0);
  primary->vouch(make_request(1, 7, 1));
  EXPECT_EQ(primary.propose(make_proposal(1, {make_request(1, 7, 1)}, kNoon), 1), Refusal::kNotPrimary);
  EXPECT_THAT(primary.said<PrePrepare>(), SizeIs(1));
}

// ---- bodies ----------------------------------------------------------------------------------------------------

// A hostile client sends to the primary and to one backup only.
TEST(Bodies, AreFetchedWhenFPlusOneNodesStandForABatch) {
  ReplicaCluster cluster;
  const RequestPtr request = cluster.request(1, 7, 1, "secretly");
  cluster.at(0).vouch(request);
  cluster.at(2).vouch(request);
  cluster.run();
  for (const auto& deliveries : cluster.delivered) {
    ASSERT_THAT(deliveries, SizeIs(1));
    ASSERT_THAT(deliveries[0].requests, SizeIs(1));
    EXPECT_EQ(deliveries[0].requests[0]->op.text(), "secretly");
  }
  for (std::size_t node = 0; node < 4; ++node) {  // the client's own copy comes at last: it is done
    EXPECT_EQ(cluster.at(node).vouch(request), Refusal::kDuplicate);
  }
}

TEST(Bodies, WithOnlyFVoicesForABatchABackupStandsAside) {
  for (const std::uint32_t f : {1u, 2u}) {
    ReplicaConfig config;
    config.f = f;
    LoneReplica node(1, config);
    const PrePrepare p = make_proposal(1, {make_request(1, 7, 1)}, kNoon);
    ASSERT_EQ(node.propose(p), Refusal::kNone);
    for (std::uint16_t i = 0; i + 1u < f; ++i) node.prepare(static_cast<std::uint16_t>(2 + i), p);
    EXPECT_THAT(node.said<Prepare>(), IsEmpty()) << "f = " << f;
    node.prepare(static_cast<std::uint16_t>(1 + f), p);
    EXPECT_THAT(node.said<Prepare>(), SizeIs(1)) << "f = " << f;
  }
}

TEST(Bodies, AClientThatSendsToThePrimaryOnlyGetsNothingOrdered) {
  ReplicaCluster cluster;
  cluster.at(0).vouch(cluster.request(1, 7, 1));
  cluster.run();
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(deliveries, IsEmpty());
  EXPECT_EQ(cluster.at(0).waiting_requests(), 1u);
  cluster.submit(cluster.request(1, 7, 1));
  cluster.run();
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(deliveries, SizeIs(1));
}

TEST(Bodies, ABatchWithAMissingBodyHoldsUpThoseAfterIt) {
  ReplicaCluster cluster;
  cluster.pass = [](const Packet& packet) { return !std::holds_alternative<FetchBodies>(packet.body); };
  for (const std::size_t node : {0, 1, 2}) cluster.at(node).vouch(cluster.request(1, 7, 1));
  cluster.run();
  cluster.submit(cluster.request(2, 7, 1));
  cluster.run();
  EXPECT_THAT(cluster.delivered[0], SizeIs(2));
  EXPECT_THAT(cluster.delivered[3], IsEmpty());
  EXPECT_EQ(cluster.at(3).vouch(cluster.request(1, 7, 1)), Refusal::kNone);
  cluster.run();
  ASSERT_THAT(cluster.delivered[3], SizeIs(2));
  EXPECT_EQ(cluster.delivered[3][1].history, cluster.delivered[0][1].history);
}

class Fetching : public ::testing::Test {
 protected:
  // Node 1 committed a batch of which it has no body; nodes 0 and 2 stand for it, node 3 does not.
  Fetching() {
    EXPECT_EQ(node.propose(p), Refusal::kNone);
    node.prepare(2, p);
    for (const std::size_t from : {0, 2, 3}) node.commit(from, p);
    node.drain();
  }
  [[nodiscard]] std::vector<std::uint16_t> asked() {
    node.drain();
    std::vector<std::uint16_t> out;
    for (const Outgoing& outgoing : node.sent) {
      if (std::holds_alternative<FetchBodies>(outgoing.body)) out.push_back(outgoing.to->value);
    }
    return out;
  }
  std::vector<RequestPtr> requests = {make_request(1, 7, 1), make_request(1, 7, 2), make_request(2, 5, 9)};
  PrePrepare p = make_proposal(1, requests, kNoon);
  LoneReplica node{1};
};

TEST_F(Fetching, AsksNodesThatStandForTheBatchForAllThatIsMissing) {
  EXPECT_THAT(asked(), ElementsAre(2));
  EXPECT_EQ(node.said<FetchBodies>()[0].wanted, p.header->references);
}

TEST_F(Fetching, TriesAnotherNodeAfterTheBodyTimeout) {
  node.tick(Micros{kNoon.value + 499'999});
  EXPECT_THAT(asked(), ElementsAre(2));
  node.tick(Micros{kNoon.value + 500'000});
  EXPECT_THAT(asked(), ElementsAre(2, 0));
  node.tick(Micros{kNoon.value + 900'000});
  EXPECT_THAT(asked(), ElementsAre(2, 0));
  node.tick(Micros{kNoon.value + 1'000'000});
  EXPECT_THAT(asked(), ElementsAre(2, 0, 2));
}

TEST_F(Fetching, TriesAnotherNodeAtOnceWhenOneHasNothingButAllOnlyOncePerTimeout) {
  for (int i = 0; i < 20; ++i) {
    const auto before = asked();
    static_cast<void>(node->step(NodeId{before.back()}, Bodies{}));
  }
  const auto all = asked();
  EXPECT_EQ(all[1], 0);
  EXPECT_EQ(all[2], 2);
  EXPECT_LE(all.size(), 5u);
  node.tick(Micros{kNoon.value + 500'000});
  EXPECT_EQ(asked().size(), all.size() + 1);
}

TEST_F(Fetching, AsksOnForTheRestOfAPartialAnswer) {
  EXPECT_EQ(node->step(NodeId{2}, Bodies{{requests[1]}}), Refusal::kNone);
  EXPECT_THAT(asked(), ElementsAre(2, 2));
  EXPECT_EQ(node.said<FetchBodies>()[1].wanted,
            (std::vector<Reference>{p.header->references[0], p.header->references[2]}));
  EXPECT_EQ(node->step(NodeId{2}, Bodies{{requests[2], requests[0]}}), Refusal::kNone);
  EXPECT_THAT(node.drain().delivered, SizeIs(1));
  EXPECT_EQ(node->step(NodeId{2}, Bodies{{requests[2], requests[0]}}), Refusal::kDuplicate);
  node.tick(Micros{kNoon.value + 5'000'000});
  EXPECT_THAT(asked(), SizeIs(2));
}

TEST_F(Fetching, TakesABodyFromAnyNodeButOnlyWithTheRightDigest) {
  const std::vector<RequestPtr> wrong = {make_request(1, 7, 1, "forged"), make_request(1, 8, 1), nullptr};
  EXPECT_EQ(node->step(NodeId{3}, Bodies{wrong}), Refusal::kDuplicate);
  EXPECT_THAT(node.drain().delivered, IsEmpty());
  EXPECT_EQ(node->step(NodeId{3}, Bodies{requests}), Refusal::kNone);
  EXPECT_THAT(node.drain().delivered, SizeIs(1));
}

TEST_F(Fetching, EndsWhenTheClientsOwnCopiesCome) {
  for (const RequestPtr& request : requests) EXPECT_EQ(node->vouch(request), Refusal::kNone);
  EXPECT_THAT(node.drain().delivered, SizeIs(1));
  node.tick(Micros{kNoon.value + 5'000'000});
  EXPECT_THAT(asked(), ElementsAre(2));
}

class Giving : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<RequestPtr> answer(const std::vector<RequestPtr>& wanted) {
    FetchBodies message;
    for (const RequestPtr& request : wanted) message.wanted.push_back(reference_of(*request));
    EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kNone);
    const auto said = node.said<Bodies>();
    EXPECT_EQ(node.sent.back().to, NodeId{3});
    return said.back().requests;
  }
  LoneReplica node{1};
};

TEST_F(Giving, BodiesAreGivenVouchedInFlightAndDelivered) {
  const std::vector<RequestPtr> requests = {make_request(1, 7, 1), make_request(2, 7, 1), make_request(1, 7, 2)};
  for (const RequestPtr& request : requests) node->vouch(request);
  EXPECT_THAT(answer(requests), SizeIs(3));
  const PrePrepare p = make_proposal(1, requests, kNoon);
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_THAT(answer(requests), SizeIs(3));
  node.finish(p);
  ASSERT_THAT(node.delivered, SizeIs(1));
  EXPECT_THAT(answer(requests), SizeIs(3));
  EXPECT_THAT(answer({requests[2], requests[0]}), SizeIs(2));
  EXPECT_THAT(answer({make_request(1, 7, 1, "other digest")}), IsEmpty());
  EXPECT_THAT(answer({make_request(4, 4, 4)}), IsEmpty());
  node->set_stable(unsigned_certificate(Seq{1}));
  EXPECT_THAT(answer(requests), IsEmpty());
}

TEST_F(Giving, OldBatchesInTheWindowAreFoundThoughTheSessionWentOn) {
  std::vector<std::vector<RequestPtr>> batches;
  for (std::uint64_t n = 1; n <= 40; ++n) {
    batches.emplace_back();
    for (std::uint64_t i = 1; i <= 50; ++i) {
      batches.back().push_back(make_request(1, 7, (n - 1) * 50 + i));
      ASSERT_EQ(node->vouch(batches.back().back()), Refusal::kNone);
    }
    const PrePrepare p = make_proposal(n, batches.back(), Micros{kNoon.value + static_cast<std::int64_t>(n)});
    ASSERT_EQ(node.propose(p), Refusal::kNone);
    node.finish(p);
  }
  ASSERT_THAT(node.delivered, SizeIs(40));
  EXPECT_EQ(answer(batches[0]), batches[0]);
  EXPECT_EQ(answer(batches[17]), batches[17]);
}

TEST_F(Giving, AFetchIsBounded) {
  const RequestPtr request = make_request(1, 7, 1);
  FetchBodies message;
  EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kMalformed);
  message.wanted.assign(1025, reference_of(*request));
  EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kOversize);
  message.wanted.resize(1);
  for (int i = 0; i < 512; ++i) ASSERT_EQ(node->step(NodeId{3}, message), Refusal::kNone);
  EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kQuota);
  EXPECT_EQ(node->step(NodeId{2}, message), Refusal::kNone);
  node.tick(Micros{kNoon.value + 500'000});
  EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kNone);
}

// What a header costs is counted too: sixteen proofs in each of sixteen headers are a megabyte.
TEST_F(Giving, AFetchOfHeadersIsBounded) {
  FetchHeaders message;
  EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kMalformed);
  for (std::uint64_t n = 1; n <= 16; ++n) {
    std::vector<SystemOp> joins;
    for (std::uint64_t i = 0; i < 16; ++i) joins.push_back(make_join(0, 100 + 16 * n + i));
    const PrePrepare p = make_proposal(n, {}, Micros{kNoon.value + static_cast<std::int64_t>(n)}, joins);
    ASSERT_EQ(node.propose(p), Refusal::kNone);
    message.wanted.push_back(p.digest);
  }
  const auto given = [&](NodeId to) {
    node.drain().sent.clear();
    EXPECT_EQ(node->step(to, message), Refusal::kNone);
    const auto said = node.said<Headers>();
    return said.empty() ? 0 : said.back().headers.size();
  };
  FetchHeaders other = message;
  other.wanted.emplace_back();
  EXPECT_EQ(node->step(NodeId{3}, other), Refusal::kOversize);
  other.wanted = {message.wanted[0], message.wanted[1], message.wanted[0]};
  EXPECT_EQ(node->step(NodeId{2}, other), Refusal::kMalformed) << "one header is asked for once";
  other.wanted.resize(1);
  EXPECT_EQ(node->step(NodeId{3}, other), Refusal::kNone);
  for (int i = 0; i < 63; ++i) ASSERT_EQ(given(NodeId{3}), 16u) << i;
  EXPECT_EQ(given(NodeId{3}), 15u) << "64 MiB, and not a header more";
  EXPECT_EQ(node->step(NodeId{3}, message), Refusal::kQuota);
  EXPECT_EQ(given(NodeId{2}), 16u);
  node.tick(Micros{kNoon.value + 500'000});
  EXPECT_EQ(given(NodeId{3}), 16u);
}

TEST(Bodies, AnAnswerIsNoLargerThanABatch) {
  ReplicaConfig config;
  config.batch_bytes_max = 25;
  LoneReplica node(1, config);
  FetchBodies message;
  for (std::uint64_t number = 1; number <= 5; ++number) {
    const RequestPtr request = make_request(1, 7, number, "0123456789");
    node->vouch(request);
    message.wanted.push_back(reference_of(*request));
  }
  ASSERT_EQ(node->step(NodeId{0}, message), Refusal::kNone);
  ASSERT_THAT(node.said<Bodies>(), SizeIs(1));
  EXPECT_THAT(node.said<Bodies>()[0].requests, SizeIs(2));
}

}  // namespace
}  // namespace zz::agreement::testing
