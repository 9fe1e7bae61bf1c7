// Ordering: who may say what, what is counted, and what is delivered (docs/protocol.md §5).

#include "agreement/replica.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Micros kSecond{1'000'000};
Micros operator+(Micros a, Micros b) { return Micros{a.value + b.value}; }
Micros operator-(Micros a, Micros b) { return Micros{a.value - b.value}; }

ReplicaConfig faults(std::uint32_t f) {
  ReplicaConfig config;
  config.f = f;
  return config;
}

// ---- the normal case -------------------------------------------------------------------------------------------

class AnyF : public ::testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Replica, AnyF, ::testing::Values(1u, 2u, 3u, 4u, 5u));

TEST_P(AnyF, ReplicasDeliverTheSameBatchesInTheSameOrder) {
  ReplicaCluster cluster(faults(GetParam()));
  for (std::uint64_t number = 1; number <= 20; ++number) {
    cluster.submit(cluster.request(1, 7, number));
    if (number % 3 == 0) cluster.run();
  }
  cluster.run();
  ASSERT_THAT(order_of(cluster.delivered[0]), SizeIs(20));
  for (std::size_t node = 1; node < cluster.size(); ++node) {
    ASSERT_EQ(cluster.delivered[node].size(), cluster.delivered[0].size());
    for (std::size_t i = 0; i < cluster.delivered[0].size(); ++i) {
      EXPECT_EQ(cluster.delivered[node][i].history, cluster.delivered[0][i].history);
    }
    EXPECT_EQ(cluster.at(node).waiting_requests(), 0u);
  }
}

TEST_P(AnyF, ReplicasGoOnWithFNodesSilent) {
  const std::uint32_t f = GetParam();
  ReplicaCluster cluster(faults(f));
  cluster.pass = [&](const Packet& packet) { return packet.from.value < cluster.size() - f; };
  cluster.submit(cluster.request(1, 7, 1));
  cluster.run();
  EXPECT_THAT(cluster.delivered[0], SizeIs(1));
}

TEST_P(AnyF, NothingIsDeliveredWithMoreThanFNodesSilent) {
  const std::uint32_t f = GetParam();
  ReplicaCluster cluster(faults(f));
  cluster.pass = [&](const Packet& packet) { return packet.from.value < cluster.size() - f - 1; };
  cluster.submit(cluster.request(1, 7, 1));
  cluster.run();
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(deliveries, IsEmpty());
}

TEST(Replica, ThePrimaryOfServiceKIsNodeKModN) {
  ReplicaConfig config;
  config.service = ServiceId{6};
  ReplicaCluster cluster(config);
  EXPECT_EQ(cluster.at(0).primary(), NodeId{2});
  cluster.submit(cluster.request(1, 7, 1));
  cluster.run();
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(deliveries, SizeIs(1));
  EXPECT_EQ(cluster.delivered[0][0].header->service, ServiceId{6});
}

TEST(Replica, AHistoryDigestCoversAllBatchesSoFar) {
  ReplicaCluster cluster;
  Digest history;
  for (std::uint64_t number = 1; number <= 3; ++number) {
    cluster.submit(cluster.request(1, 7, number));
    cluster.run();
    const Delivery& last = cluster.delivered[3].back();
    EXPECT_EQ(last.digest, batch_digest(*last.header));
    history = history_digest(history, last.digest);
    EXPECT_EQ(last.history, history);
  }
  EXPECT_THAT(cluster.delivered[3], SizeIs(3));
}

TEST(Replica, ADeliveryCarriesTheBodiesInTheOrderOfTheReferences) {
  ReplicaCluster cluster;
  for (std::uint64_t number = 1; number <= 4; ++number) {
    cluster.submit(cluster.request(static_cast<std::uint32_t>(number % 2), 7, number, std::to_string(number)));
  }
  cluster.run();
  std::size_t seen = 0;
  for (const Delivery& delivery : cluster.delivered[2]) {
    ASSERT_EQ(delivery.requests.size(), delivery.header->references.size());
    for (std::size_t i = 0; i < delivery.requests.size(); ++i, ++seen) {
      EXPECT_EQ(reference_of(*delivery.requests[i]), delivery.header->references[i]);
    }
  }
  EXPECT_EQ(seen, 4u);
}

// ---- thresholds ------------------------------------------------------------------------------------------------

// What a backup says when the batch is accepted and `prepares` other backups prepare, `commits` other nodes commit.
struct Outcome {
  std::size_t commits_said;
  std::size_t delivered;
};
Outcome outcome(std::uint32_t f, std::uint16_t prepares, std::uint16_t commits) {
  LoneReplica backup(1, faults(f));
  const RequestPtr request = make_request(1, 7, 1);
  EXPECT_EQ(backup->vouch(request), Refusal::kNone);
  const PrePrepare p = make_proposal(1, {request}, kNoon);
  EXPECT_EQ(backup.propose(p), Refusal::kNone);
  EXPECT_THAT(backup.said<Prepare>(), SizeIs(1));
  for (std::uint16_t i = 0; i < prepares; ++i) {
    EXPECT_EQ(backup.prepare(static_cast<std::uint16_t>(2 + i), p), Refusal::kNone);
  }
  const auto from = [&](std::uint16_t i) { return static_cast<std::uint16_t>(i == 0 ? 0 : 1 + i); };
  for (std::uint16_t i = 0; i < commits; ++i) EXPECT_EQ(backup.commit(from(i), p), Refusal::kNone);
  const std::size_t said = backup.said<Commit>().size();
  return {said, backup.delivered.size()};
}

TEST_P(AnyF, ABackupCommitsOnlyAfterTwoFEqualPreparesItsOwnIncluded) {
  const auto f = static_cast<std::uint16_t>(GetParam());
  EXPECT_EQ(outcome(f, static_cast<std::uint16_t>(2 * f - 2), 0).commits_said, 0u);
  EXPECT_EQ(outcome(f, static_cast<std::uint16_t>(2 * f - 1), 0).commits_said, 1u);
}

TEST_P(AnyF, ABatchIsDeliveredOnlyAfterTwoFPlusOneEqualCommitsItsOwnIncluded) {
  const auto f = static_cast<std::uint16_t>(GetParam());
  const auto prepares = static_cast<std::uint16_t>(2 * f - 1);
  EXPECT_EQ(outcome(f, prepares, static_cast<std::uint16_t>(2 * f - 1)).delivered, 0u);
  EXPECT_EQ(outcome(f, prepares, static_cast<std::uint16_t>(2 * f)).delivered, 1u);
}

TEST_P(AnyF, CommittedNeedsPrepared) {
  const auto f = static_cast<std::uint16_t>(GetParam());
  const auto all_others = static_cast<std::uint16_t>(3 * f);
  EXPECT_EQ(outcome(f, static_cast<std::uint16_t>(2 * f - 2), all_others).delivered, 0u);
}

TEST_P(AnyF, ThePrimaryCommitsAfterTwoFPreparesOfOthers) {
  const auto f = static_cast<std::uint16_t>(GetParam());
  LoneReplica primary(0, faults(f));
  primary->vouch(make_request(1, 7, 1));
  const auto proposals = primary.said<PrePrepare>();
  ASSERT_THAT(proposals, SizeIs(1));
  for (std::uint16_t i = 1; i < 2 * f; ++i) primary.prepare(i, proposals[0]);
  EXPECT_THAT(primary.said<Commit>(), IsEmpty());
  primary.prepare(static_cast<std::uint16_t>(2 * f), proposals[0]);
  EXPECT_THAT(primary.said<Commit>(), SizeIs(1));
  EXPECT_THAT(primary.said<Prepare>(), IsEmpty());
}

class Backup : public ::testing::Test {
 protected:
  Backup() { EXPECT_EQ(node->vouch(request), Refusal::kNone); }
  LoneReplica node{1};
  RequestPtr request = make_request(1, 7, 1);
  PrePrepare p = make_proposal(1, {request}, kNoon);
  PrePrepare other = make_proposal(1, {request}, kNoon + Micros{1});
};

TEST_F(Backup, CountsASenderOnceHoweverOftenItVotes) {
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_EQ(node.prepare(2, p), Refusal::kNone);
  EXPECT_EQ(node.prepare(2, p), Refusal::kDuplicate);
  EXPECT_EQ(node.commit(2, p), Refusal::kNone);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(node.commit(2, p), Refusal::kDuplicate);
  EXPECT_THAT(node.said<Commit>(), SizeIs(1));
  EXPECT_THAT(node.delivered, IsEmpty());
}

TEST_F(Backup, DoesNotCountVotesForAnotherDigest) {
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_EQ(node.prepare(2, other), Refusal::kNone);
  EXPECT_EQ(node.prepare(3, other), Refusal::kNone);
  EXPECT_THAT(node.said<Commit>(), IsEmpty());
  for (const std::size_t from : {0, 2, 3}) EXPECT_EQ(node.commit(from, other), Refusal::kNone);
  EXPECT_THAT(node.said<Commit>(), IsEmpty());
  EXPECT_THAT(node.delivered, IsEmpty());
}

TEST_F(Backup, HoldsASenderToItsFirstVote) {
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_EQ(node.prepare(2, other), Refusal::kNone);
  EXPECT_EQ(node.prepare(2, p), Refusal::kConflict);
  EXPECT_THAT(node.said<Commit>(), IsEmpty());
  EXPECT_EQ(node.prepare(3, p), Refusal::kNone);
  EXPECT_EQ(node.commit(0, other), Refusal::kNone);
  EXPECT_EQ(node.commit(0, p), Refusal::kConflict);
  EXPECT_EQ(node.commit(2, p), Refusal::kNone);
  EXPECT_THAT(node.said<Commit>(), SizeIs(1));
  EXPECT_THAT(node.delivered, IsEmpty());
}

TEST_F(Backup, KeepsVotesThatComeBeforeThePrePrepare) {
  for (const std::size_t from : {2, 3}) EXPECT_EQ(node.prepare(from, p), Refusal::kNone);
  for (const std::size_t from : {0, 2, 3}) EXPECT_EQ(node.commit(from, p), Refusal::kNone);
  EXPECT_THAT(node.drain().delivered, IsEmpty());
  EXPECT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_THAT(node.drain().delivered, SizeIs(1));
}

TEST_F(Backup, KeepsThePrePrepareThatCameFirst) {
  EXPECT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_EQ(node.propose(p), Refusal::kDuplicate);
  EXPECT_EQ(node.propose(other), Refusal::kConflict);
  node.finish(p);
  ASSERT_THAT(node.delivered, SizeIs(1));
  EXPECT_EQ(node.delivered[0].digest, p.digest);
}

TEST_F(Backup, TakesNoPrepareFromThePrimary) {
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  EXPECT_EQ(node.prepare(0, p), Refusal::kWrongRole);
  EXPECT_THAT(node.said<Commit>(), IsEmpty());
}

TEST_F(Backup, TakesAPrePrepareFromThePrimaryOnly) {
  EXPECT_EQ(node.propose(p, 2), Refusal::kNotPrimary);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
}

TEST_F(Backup, RefusesSendersThatAreNotOtherNodes) {
  EXPECT_EQ(node.propose(p, 1), Refusal::kWrongRole);
  EXPECT_EQ(node.propose(p, 4), Refusal::kUnknownPeer);
  EXPECT_EQ(node.prepare(1, p), Refusal::kWrongRole);
  EXPECT_EQ(node.prepare(65535, p), Refusal::kUnknownPeer);
  EXPECT_EQ(node.commit(1, p), Refusal::kWrongRole);
  EXPECT_EQ(node.commit(16, p), Refusal::kUnknownPeer);
  EXPECT_EQ(node->step(NodeId{9}, FetchBodies{p.header->references}), Refusal::kUnknownPeer);
  EXPECT_EQ(node->step(NodeId{1}, Bodies{{request}}), Refusal::kWrongRole);
}

TEST_F(Backup, RefusesOtherViews) {
  p.view = View{1};
  EXPECT_EQ(node.propose(p), Refusal::kFutureView);
  EXPECT_EQ(node.prepare(2, p), Refusal::kFutureView);
  EXPECT_EQ(node.commit(2, p), Refusal::kFutureView);
}

TEST_F(Backup, RefusesAnotherServicesBatch) {
  BatchHeader header = *p.header;
  header.service = ServiceId{1};
  const PrePrepare foreign{View{}, std::make_shared<BatchHeader>(header), batch_digest(header)};
  EXPECT_EQ(node.propose(foreign), Refusal::kUnknownService);
}

TEST_F(Backup, RefusesNumbersOutsideTheWindow) {
  for (const std::uint64_t n : {std::uint64_t{0}, kWindow + 1, std::numeric_limits<std::uint64_t>::max()}) {
    const PrePrepare outside = make_proposal(n, {request}, kNoon);
    EXPECT_EQ(node.propose(outside), Refusal::kOutOfWindow);
    EXPECT_EQ(node.prepare(2, outside), Refusal::kOutOfWindow);
    EXPECT_EQ(node.commit(2, outside), Refusal::kOutOfWindow);
  }
  EXPECT_EQ(node.propose(make_proposal(kWindow, {request}, kNoon)), Refusal::kNone);
}

TEST_F(Backup, ForgetsWhatLiesBelowTheLowWatermark) {
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  node.finish(p);
  ASSERT_EQ(node->last_delivered(), Seq{1});
  EXPECT_EQ(node.propose(p), Refusal::kDuplicate);
  node->set_stable(unsigned_certificate(Seq{1}));
  EXPECT_EQ(node->low_watermark(), Seq{1});
  EXPECT_EQ(node.propose(p), Refusal::kOutOfWindow);
  EXPECT_EQ(node.commit(0, p), Refusal::kOutOfWindow);
  const RequestPtr late = make_request(1, 7, 2);
  node->vouch(late);
  const PrePrepare last = make_proposal(kWindow + 1, {late}, kNoon + kSecond);
  EXPECT_EQ(node.propose(last), Refusal::kNone);
  node->set_stable(unsigned_certificate(Seq{0}));
  EXPECT_EQ(node->low_watermark(), Seq{1});
}

TEST_F(Backup, RefusesMalformedBatches) {
  EXPECT_EQ(node.propose(PrePrepare{}), Refusal::kMalformed);
  EXPECT_EQ(node.propose(make_proposal(1, {}, kNoon)), Refusal::kMalformed);
  EXPECT_EQ(node.propose(make_proposal(1, {make_request(1, 7, 0)}, kNoon)), Refusal::kMalformed);
  EXPECT_EQ(node.propose(p), Refusal::kNone);
}

TEST(Replica, RefusesBatchesBeyondTheLimits) {
  ReplicaConfig config;
  config.batch_requests_max = 3;
  config.batch_bytes_max = 10;
  LoneReplica node(1, config);
  std::vector<RequestPtr> requests;
  for (std::uint64_t number = 1; number <= 4; ++number) {
    requests.push_back(make_request(1, 7, number, "12345"));
    node->vouch(requests.back());
  }
  EXPECT_EQ(node.propose(make_proposal(1, requests, kNoon)), Refusal::kOversize);
  requests.pop_back();
  EXPECT_EQ(node.propose(make_proposal(1, requests, kNoon)), Refusal::kOversize);
  std::vector<SystemOp> many;
  for (std::uint64_t i = 0; i < 17; ++i) many.push_back(make_join(1, 100 + i));
  EXPECT_EQ(node.propose(make_proposal(1, {}, kNoon, many)), Refusal::kOversize);
  requests.pop_back();
  const PrePrepare fits = make_proposal(1, requests, kNoon);
  EXPECT_EQ(node.propose(fits), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(1));
}

TEST(Replica, StandsForNoBatchThatTurnsOutTooLargeWhenItsLastRequestArrives) {
  ReplicaConfig config;
  config.batch_bytes_max = 10;
  LoneReplica node(1, config);
  const RequestPtr early = make_request(1, 7, 1, "123456");
  const RequestPtr late = make_request(1, 7, 2, "123456");
  node->vouch(early);
  EXPECT_EQ(node.propose(make_proposal(1, {early, late}, kNoon)), Refusal::kNone) << "its size is not known yet";
  node->vouch(late);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
}

TEST(Replica, TakesOneRequestLargerThanABatchAlone) {
  ReplicaConfig config;
  config.batch_bytes_max = 10;
  LoneReplica node(1, config);
  const RequestPtr large = make_request(1, 7, 1, "longer than ten bytes");
  node->vouch(large);
  EXPECT_EQ(node.propose(make_proposal(1, {large}, kNoon)), Refusal::kNone);
}

// ---- order -----------------------------------------------------------------------------------------------------

TEST_F(Backup, DeliversInOrderWhateverCommitsFirst) {
  const RequestPtr second = make_request(1, 7, 2);
  node->vouch(second);
  const PrePrepare q = make_proposal(2, {second}, kNoon + kSecond);
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  ASSERT_EQ(node.propose(q), Refusal::kNone);
  node.finish(q);
  EXPECT_THAT(node.delivered, IsEmpty());
  node.finish(p);
  ASSERT_THAT(node.delivered, SizeIs(2));
  EXPECT_EQ(node.delivered[0].digest, p.digest);
  EXPECT_EQ(node.delivered[1].digest, q.digest);
}

TEST(Replica, AtMostOneOfTwoProposalsForANumberCommits) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    ReplicaCluster cluster;
    const RequestPtr request = cluster.request(1, 7, 1);
    for (const std::size_t node : {1, 2, 3}) cluster.at(node).vouch(request);
    const PrePrepare a = make_proposal(1, {request}, kNoon);
    const PrePrepare b = make_proposal(1, {request}, kNoon + Micros{1});
    // The primary says a to some and b to others, and votes for both.
    Prng prng(seed);
    for (std::uint16_t to = 1; to < 4; ++to) {
      const PrePrepare& p = prng.below(2) == 0 ? a : b;
      cluster.wire.push_back({NodeId{0}, NodeId{to}, p});
      cluster.wire.push_back({NodeId{0}, NodeId{to}, Commit{View{}, Seq{1}, prng.below(2) == 0 ? a.digest : b.digest}});
    }
    cluster.run_shuffled(prng, 4);
    std::vector<Digest> seen;
    for (const auto& deliveries : cluster.delivered) {
      ASSERT_LE(deliveries.size(), 1u);
      for (const Delivery& delivery : deliveries) seen.push_back(delivery.digest);
    }
    for (const Digest& digest : seen) EXPECT_EQ(digest, seen[0]) << "seed " << seed;
  }
}

// ---- agreed time -----------------------------------------------------------------------------------------------

TEST_F(Backup, RefusesATimeThatDoesNotExceedTheLastBatchs) {
  ASSERT_EQ(node.propose(p), Refusal::kNone);
  node.finish(p);
  const RequestPtr second = make_request(1, 7, 2);
  node->vouch(second);
  const std::size_t before = node.said<Prepare>().size();
  EXPECT_EQ(node.propose(make_proposal(2, {second}, kNoon - kSecond)), Refusal::kBadTime);
  EXPECT_EQ(node.propose(make_proposal(2, {second}, kNoon)), Refusal::kBadTime);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(before));
  EXPECT_EQ(node.propose(make_proposal(2, {second}, kNoon + Micros{1})), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(before + 1));
}

TEST_F(Backup, StandsForNoTimeFarFromItsClock) {
  constexpr Micros kBound{2'000'000};
  const Micros extremes[] = {kNoon + Micros{3'600'000'000}, kNoon + kBound + Micros{1}, kNoon - kBound - Micros{1},
                             Micros{std::numeric_limits<std::int64_t>::max()}, Micros{1}};
  for (const Micros time : extremes) {
    LoneReplica fresh(1);
    fresh->vouch(request);
    EXPECT_EQ(fresh.propose(make_proposal(1, {request}, time)), Refusal::kBadTime) << time.value;
    EXPECT_THAT(fresh.said<Prepare>(), IsEmpty());
  }
  for (const Micros time : {Micros{0}, Micros{-1}, Micros{std::numeric_limits<std::int64_t>::min()}}) {
    LoneReplica fresh(1);
    fresh->vouch(request);
    EXPECT_EQ(fresh.propose(make_proposal(1, {request}, time)), Refusal::kBadTime) << time.value;
    fresh.finish(make_proposal(1, {request}, time));
    EXPECT_THAT(fresh.delivered, IsEmpty());
  }
  for (const Micros time : {kNoon - kBound, kNoon + kBound}) {
    LoneReplica fresh(1);
    fresh->vouch(request);
    EXPECT_EQ(fresh.propose(make_proposal(1, {request}, time)), Refusal::kNone) << time.value;
    EXPECT_THAT(fresh.said<Prepare>(), SizeIs(1));
  }
}

TEST_F(Backup, FollowsFPlusOneNodesThatStandForATimeItsOwnClockDoubts) {
  const PrePrepare odd = make_proposal(1, {request}, kNoon + Micros{10'000'000});
  EXPECT_EQ(node.propose(odd), Refusal::kBadTime);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
  EXPECT_EQ(node.propose(p), Refusal::kConflict);
  EXPECT_EQ(node.prepare(2, odd), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(1));
  node.finish(odd);
  EXPECT_THAT(node.delivered, SizeIs(1));
}

TEST_F(Backup, FitsATimeBetweenThoseOfItsNeighboursInAnyOrderOfArrival) {
  const RequestPtr second = make_request(1, 7, 2);
  const RequestPtr third = make_request(1, 7, 3);
  node->vouch(second);
  node->vouch(third);
  ASSERT_EQ(node.propose(make_proposal(5, {second}, kNoon)), Refusal::kNone);
  EXPECT_EQ(node.propose(make_proposal(3, {third}, kNoon)), Refusal::kBadTime);
  EXPECT_EQ(node.propose(make_proposal(3, {third}, kNoon + Micros{1})), Refusal::kBadTime);
  EXPECT_EQ(node.propose(make_proposal(9, {third}, kNoon - Micros{1})), Refusal::kBadTime);
  EXPECT_EQ(node.propose(make_proposal(3, {third}, kNoon - Micros{1})), Refusal::kNone);
  EXPECT_EQ(node.propose(make_proposal(4, {request}, kNoon - Micros{1})), Refusal::kBadTime);
}

TEST(Replica, ThePrimarysTimesIncreaseThoughItsClockGoesBack) {
  ReplicaCluster cluster;
  for (std::uint64_t number = 1; number <= 5; ++number) {
    cluster.tick(kNoon - Micros{static_cast<std::int64_t>(number) * 1'000});
    cluster.submit(cluster.request(1, 7, number));
    cluster.run();
  }
  ASSERT_THAT(cluster.delivered[1], SizeIs(5));
  for (std::size_t i = 1; i < 5; ++i) {
    EXPECT_GT(cluster.delivered[1][i].header->time, cluster.delivered[1][i - 1].header->time);
  }
}

// ---- reconnects ------------------------------------------------------------------------------------------------

TEST(Replica, ANodeThatComesBackLearnsWhatItMissedAboveTheLowWatermark) {
  ReplicaCluster cluster;
  cluster.pass = [](const Packet& packet) { return packet.to != NodeId{3} && packet.from != NodeId{3}; };
  for (std::uint64_t number = 1; number <= 5; ++number) {
    cluster.submit(cluster.request(1, 7, number));
    cluster.run();
  }
  EXPECT_THAT(cluster.delivered[0], SizeIs(5));
  EXPECT_THAT(cluster.delivered[3], IsEmpty());
  cluster.tick(kNoon + Micros{60'000'000});  // long past: no clock would accept these times now
  cluster.pass = nullptr;
  for (std::uint16_t node = 0; node < 3; ++node) {
    cluster.at(node).peer_up(NodeId{3});
    cluster.at(3).peer_up(NodeId{node});
  }
  cluster.run();
  ASSERT_THAT(cluster.delivered[3], SizeIs(5));
  EXPECT_EQ(cluster.delivered[3].back().history, cluster.delivered[0].back().history);
}

TEST(Replica, SaysNothingToANewcomerOfWhatItDoesNotStandFor) {
  LoneReplica backup(1);
  const RequestPtr unknown = make_request(1, 7, 1);
  backup.propose(make_proposal(1, {unknown}, kNoon));
  backup->peer_up(NodeId{2});
  backup->peer_up(NodeId{1});
  backup->peer_up(NodeId{99});
  EXPECT_THAT(backup.drain().sent, IsEmpty());
}

TEST(Replica, RepairsAPeerAtMostOncePerHalfProgressInterval) {
  LoneReplica primary(0);
  primary->vouch(make_request(1, 7, 1));
  primary.drain();
  const auto told = [&] { return primary.said<PrePrepare>().size() - 1; };
  const Progress behind{};
  for (int i = 0; i < 5; ++i) {
    primary->peer_up(NodeId{2});
    primary->step(NodeId{2}, behind);
  }
  EXPECT_EQ(told(), 1u);
  primary->step(NodeId{3}, behind);
  EXPECT_EQ(told(), 2u);
  primary.tick(kNoon + Micros{99'999});
  primary->step(NodeId{2}, behind);
  EXPECT_EQ(told(), 2u);
  primary.tick(kNoon + Micros{100'000});
  primary->step(NodeId{2}, behind);
  EXPECT_EQ(told(), 3u);
}

TEST(Replica, ProposesNothingBeforeItKnowsTheTime) {
  ReplicaConfig config;
  TestRules rules;
  NullObserver observer;
  const Keys& keys = Keys::of(1);
  Authority authority(keys.file, config.service, config.self, keys.keys[0]);
  Replica primary(config, authority, rules, observer);
  primary.vouch(make_request(1, 7, 1));
  EXPECT_THAT(primary.take_output().send, IsEmpty());
  primary.tick(Micros{}, kNoon);
  EXPECT_THAT(primary.take_output().send, SizeIs(2));  // PROGRESS, PRE-PREPARE
}

}  // namespace
}  // namespace zz::agreement::testing
