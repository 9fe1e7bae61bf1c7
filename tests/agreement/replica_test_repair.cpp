// What is missing for good unless somebody else gives it: proposals that the primary keeps back, bodies that only a
// crashed node had, and system operations that a shut window waits for (docs/protocol.md §4, §5, §7).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::int64_t kMs = 1'000;

class Repair : public ::testing::Test {
 protected:
  Repair() {
    ReplicaConfig config;
    config.window = 32;
    cluster = std::make_unique<ReplicaCluster>(config);
    cluster->pass = [this](const Packet& packet) { return !rule || rule(packet); };
  }
  void pass_time(std::int64_t ms) {
    for (std::int64_t i = 0; i < ms; i += 50) {
      now += 50 * kMs;
      cluster->tick(Micros{kNoon.value + now});
      cluster->run();
    }
  }

  std::unique_ptr<ReplicaCluster> cluster;
  std::function<bool(const Packet&)> rule;
  std::int64_t now = 0;
};

TEST_F(Repair, ABackupThatThePrimaryPassesOverLearnsTheProposalFromTheOthers) {
  rule = [](const Packet& packet) { return packet.from != NodeId{0} || packet.to != NodeId{3}; };
  for (std::uint64_t number = 1; number <= 3; ++number) {
    cluster->submit(cluster->request(1, 7, number));
    cluster->run();
  }
  ASSERT_THAT(order_of(cluster->delivered[1]), SizeIs(3));
  ASSERT_THAT(order_of(cluster->delivered[3]), IsEmpty());
  pass_time(2'000);
  EXPECT_THAT(order_of(cluster->delivered[3]), SizeIs(3));
  for (std::size_t node = 0; node < 4; ++node) EXPECT_EQ(cluster->at(node).view(), View{0});
}

TEST(RepairAlone, FPreparesAreNoProofOfWhatThePrimaryProposed) {
  LoneReplica node(3);
  const RequestPtr request = make_request(1, 7, 1);
  node->vouch(request);
  const PrePrepare proposal = make_proposal(1, {request}, kNoon);
  node.prepare(1, proposal);
  node.tick(Micros{kNoon.value + 3'000 * kMs});
  EXPECT_THAT(node.said<FetchHeaders>(), IsEmpty());
  node->step(NodeId{1}, Headers{{proposal.header}});
  EXPECT_THAT(node.said<Prepare>(), IsEmpty());
  node.prepare(2, proposal);
  EXPECT_THAT(node.said<FetchHeaders>(), IsEmpty()) << "before the primary had time to say it again";
  node.tick(Micros{kNoon.value + 6'000 * kMs});
  ASSERT_THAT(node.said<FetchHeaders>(), SizeIs(1));
  EXPECT_EQ(node.said<FetchHeaders>().front().wanted, std::vector<Digest>{proposal.digest});
  EXPECT_EQ(node->step(NodeId{1}, Headers{{make_proposal(1, {request}, Micros{kNoon.value + 1}).header}}),
            Refusal::kDuplicate);
  EXPECT_EQ(node->step(NodeId{1}, Headers{{proposal.header}}), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(1));
  EXPECT_THAT(node.said<Commit>(), SizeIs(1));
}

TEST(RepairAlone, OnAWordABackupStandsForARequestOnlyWithItsBody) {
  LoneReplica node(1);
  const RequestPtr request = make_request(1, 7, 1);
  const PrePrepare proposal = make_proposal(1, {request}, kNoon);
  EXPECT_EQ(node.propose(proposal), Refusal::kNone);
  EXPECT_THAT(node.said<FetchBodies>(), IsEmpty());
  EXPECT_EQ(node->step(NodeId{2}, Vouched{{reference_of(*request)}}), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), IsEmpty()) << "who gave the word may crash and have nothing";
  EXPECT_THAT(node.said<FetchBodies>(), SizeIs(1));
  EXPECT_EQ(node->step(NodeId{0}, Bodies{}), Refusal::kNone) << "the primary is asked first";
  EXPECT_THAT(node.said<FetchBodies>(), SizeIs(2)) << "and anybody may have it";
  EXPECT_EQ(node->step(NodeId{2}, Bodies{{request}}), Refusal::kNone);
  EXPECT_THAT(node.said<Prepare>(), SizeIs(1));
  const auto* accepted = std::get_if<AcceptedRecord>(&node.logged.back());
  ASSERT_NE(accepted, nullptr);
  EXPECT_EQ(accepted->bodies, std::vector<RequestPtr>{request}) << "it can be given after a restart";
}

TEST_F(Repair, ASystemOperationThatAShutWindowMayWaitForIsNotKeptBackForEver) {
  for (std::uint64_t number = 1; number <= 40; ++number) {
    cluster->submit(cluster->request(1, 7, number));
    cluster->run();
  }
  const Seq shut = cluster->at(1).last_delivered();
  ASSERT_EQ(shut, Seq{24});
  pass_time(3'000);
  for (std::size_t node = 0; node < 4; ++node) EXPECT_EQ(cluster->at(node).view(), View{0}) << "back-pressure";
  rule = [](const Packet& packet) {
    return packet.from != NodeId{0} || !std::holds_alternative<PrePrepare>(packet.body);
  };
  for (std::size_t node = 0; node < 4; ++node) cluster->at(node).propose(make_join(2, 1));
  pass_time(3'000);
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_EQ(cluster->at(node).view(), View{1}) << node;
    EXPECT_EQ(cluster->at(node).last_delivered(), shut.next()) << node;
  }
}

}  // namespace
}  // namespace zz::agreement::testing
