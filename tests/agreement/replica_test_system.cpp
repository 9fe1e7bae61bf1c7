// System operations: which are ordered, when, and how many.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agreement/replica_system_queue.hpp"
#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(Replica, OrdersASystemOperationOnceThoughEveryNodeProposesIt) {
  ReplicaCluster cluster;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t node = 0; node < 4; ++node) cluster.at(node).propose(make_join(2, 1));
  }
  cluster.run();
  for (const auto& deliveries : cluster.delivered) {
    ASSERT_THAT(deliveries, SizeIs(1));
    EXPECT_THAT(deliveries[0].header->references, IsEmpty());
    ASSERT_THAT(deliveries[0].header->system, SizeIs(1));
    EXPECT_EQ(std::get<Join>(deliveries[0].header->system[0]).slot, SlotId{2});
  }
}

TEST(Replica, OrdersNoInadmissibleSystemOperation) {
  ReplicaCluster cluster;
  for (std::size_t node = 0; node < 4; ++node) cluster.at(node).propose(make_join(2, TestRules::kForbidden));
  cluster.run();
  EXPECT_THAT(cluster.delivered[0], IsEmpty());
  LoneReplica backup(1);
  EXPECT_EQ(backup.propose(make_proposal(1, {}, kNoon, {make_join(2, TestRules::kForbidden)})), Refusal::kBadSignature);
  EXPECT_THAT(backup.said<Prepare>(), IsEmpty());
}

TEST(Replica, CarriesAtMostSixteenSystemOperationsInABatch) {
  ReplicaCluster cluster;
  for (std::uint64_t i = 0; i < 20; ++i) cluster.at(0).propose(make_join(static_cast<std::uint16_t>(i), 1));
  cluster.run();
  ASSERT_THAT(cluster.delivered[3], SizeIs(2));
  EXPECT_THAT(cluster.delivered[3][0].header->system, SizeIs(16));
  EXPECT_THAT(cluster.delivered[3][1].header->system, SizeIs(4));
}

// What the window waits for may be a new incarnation, which takes a JOIN.
TEST(Replica, OrdersSystemOperationsWhenTheWindowIsShutForRequests) {
  ReplicaCluster cluster;
  for (std::uint64_t number = 1; number <= 200; ++number) {
    cluster.submit(cluster.request(1, 7, number));
    cluster.run();
  }
  const Seq shut = cluster.at(0).last_delivered();
  ASSERT_EQ(cluster.at(0).waiting_requests(), 200 - shut.value);
  for (std::uint16_t i = 0; i < 100; ++i) {
    cluster.at(0).propose(make_join(i, 1));
    cluster.run();
  }
  EXPECT_EQ(cluster.at(0).waiting_requests(), 200 - shut.value);
  EXPECT_EQ(cluster.at(3).last_delivered(), Seq{kWindow});
  const Delivery& last = cluster.delivered[3].back();
  EXPECT_THAT(last.header->system, SizeIs(1));
  EXPECT_THAT(last.header->references, IsEmpty());
}

TEST(Replica, HoldsAtMostSixtyFourSystemOperations) {
  ReplicaCluster cluster;
  for (std::uint64_t i = 0; i < 100; ++i) cluster.at(0).propose(make_join(static_cast<std::uint16_t>(i), 1));
  cluster.run();
  std::size_t ordered = 0;
  for (const Delivery& delivery : cluster.delivered[1]) ordered += delivery.header->system.size();
  EXPECT_EQ(ordered, 64u);
}

SystemOp make_epoch(std::uint64_t epoch, std::uint64_t variant = 0) {
  EpochChange change;
  change.epoch = Epoch{epoch};
  change.active = {SlotId{static_cast<std::uint16_t>(variant)}};
  return change;
}

TEST(SystemQueue, AnOperationIsCarriedByOneBatchAndLeavesWhenDelivered) {
  SystemQueue queue;
  EXPECT_FALSE(queue.due());
  EXPECT_TRUE(queue.add(system_op_digest(make_join(1, 5)), make_join(1, 5)));
  EXPECT_TRUE(queue.due());
  EXPECT_THAT(queue.take(Seq{3}, Seq{3}), SizeIs(1));
  EXPECT_FALSE(queue.due());
  EXPECT_THAT(queue.take(Seq{4}, Seq{4}), IsEmpty());
  EXPECT_TRUE(queue.contains(system_op_digest(make_join(1, 5))));
  queue.delivered(Seq{1}, make_join(1, 5));
  EXPECT_FALSE(queue.contains(system_op_digest(make_join(1, 5))));
}

TEST(SystemQueue, ADeliveredOperationTakesThoseWithItThatItOvertook) {
  SystemQueue queue;
  const std::vector<SystemOp> ops = {make_join(1, 5), make_join(1, 6),  make_join(2, 5),
                                     make_epoch(1),   make_epoch(2, 1), make_epoch(3)};
  for (const SystemOp& op : ops) ASSERT_TRUE(queue.add(system_op_digest(op), op));
  queue.delivered(Seq{1}, make_join(1, 6));
  queue.delivered(Seq{1}, make_epoch(2));  // another of the same epoch stays: this one may have had no effect
  const std::vector<SystemOp> left = queue.take(Seq{1}, Seq{1});
  ASSERT_THAT(left, SizeIs(3));
  EXPECT_EQ(system_op_digest(left[0]), system_op_digest(ops[2]));
  EXPECT_EQ(system_op_digest(left[1]), system_op_digest(ops[4]));
  EXPECT_EQ(system_op_digest(left[2]), system_op_digest(ops[5]));
  EXPECT_FALSE(queue.due());
}

}  // namespace
}  // namespace zz::agreement::testing
