// How the primary cuts batches, and that no client gets more than its turns (docs/protocol.md §4).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<std::size_t> sizes_of(const std::vector<PrePrepare>& proposals) {
  std::vector<std::size_t> out;
  for (const PrePrepare& p : proposals) out.push_back(p.header->references.size());
  return out;
}

TEST(Batching, ABatchIsCutAtOnceWhenAloneElseAsLargeAsTheLastElseWhenFull) {
  ReplicaConfig config;
  config.batch_requests_max = 4;
  config.pipeline_depth = 2;
  LoneReplica primary(0, config);
  std::uint64_t number = 0;
  const auto submit = [&](int count) {
    for (int i = 0; i < count; ++i) primary->vouch(make_request(1, 7, ++number));
    return sizes_of(primary.said<PrePrepare>());
  };
  EXPECT_THAT(submit(1), ElementsAre(1));
  EXPECT_THAT(submit(2), ElementsAre(1, 2));
  EXPECT_THAT(submit(3), ElementsAre(1, 2));
  EXPECT_THAT(submit(1), ElementsAre(1, 2, 4));
  EXPECT_THAT(submit(3), ElementsAre(1, 2, 4));
  const auto proposals = primary.said<PrePrepare>();
  const auto deliver = [&](const PrePrepare& p) {
    for (const std::size_t from : {1, 2}) primary.prepare(from, p);
    for (const std::size_t from : {1, 2}) primary.commit(from, p);
    return sizes_of(primary.said<PrePrepare>());
  };
  EXPECT_THAT(deliver(proposals[0]), ElementsAre(1, 2, 4));
  EXPECT_THAT(deliver(proposals[1]), ElementsAre(1, 2, 4)) << "three wait, and four are in flight";
  EXPECT_THAT(submit(1), ElementsAre(1, 2, 4, 4));
  EXPECT_THAT(submit(1), ElementsAre(1, 2, 4, 4));
  EXPECT_THAT(deliver(proposals[2]), ElementsAre(1, 2, 4, 4));
  EXPECT_THAT(deliver(primary.said<PrePrepare>()[3]), ElementsAre(1, 2, 4, 4, 1));
}

TEST(Batching, ABatchIsBoundedInBytesAndALargerRequestGoesAlone) {
  ReplicaConfig config;
  config.batch_bytes_max = 20;
  LoneReplica primary(0, config);
  const std::string_view ops[] = {"0123456789", "0123456789", "a", "longer than all twenty", "", "b"};
  std::uint64_t number = 0;
  for (const std::string_view op : ops) primary->vouch(make_request(1, 7, ++number, op));
  EXPECT_THAT(sizes_of(primary.said<PrePrepare>()), ElementsAre(2, 1, 1));  // two in flight, and one cut as full
  for (const PrePrepare& p : primary.said<PrePrepare>()) {
    for (const std::size_t from : {1, 2}) primary.prepare(from, p);
    for (const std::size_t from : {1, 2}) primary.commit(from, p);
  }
  EXPECT_THAT(sizes_of(primary.said<PrePrepare>()), ElementsAre(2, 1, 1, 2));
}

TEST(Batching, ProposalsStopAtTheWindowAndGoOnWhenItMoves) {
  ReplicaConfig config;
  config.pipeline_depth = 1'000;
  ReplicaCluster cluster(config);
  for (std::uint64_t number = 1; number <= 300; ++number) {
    cluster.submit(cluster.request(1, 7, number));
    cluster.run();
  }
  const Seq stopped = cluster.at(0).last_delivered();
  EXPECT_EQ(stopped, Seq{kWindow - kWindow / 4});
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(order_of(deliveries), SizeIs(stopped.value));
  // Backups whose watermark lags a little take what the primary's allows.
  cluster.at(0).set_stable(unsigned_certificate(Seq{60}));
  cluster.submit(cluster.request(1, 7, 301));
  cluster.run();
  for (const auto& deliveries : cluster.delivered) EXPECT_THAT(order_of(deliveries), SizeIs(301));
  EXPECT_EQ(cluster.refusals[1].of(Refusal::kOutOfWindow), 0u);
}

TEST(Fairness, AFloodingClientDoesNotDelayAnother) {
  ReplicaConfig config;
  config.batch_requests_max = 10;
  LoneReplica primary(0, config);
  for (std::uint64_t number = 1; number <= 500; ++number) primary->vouch(make_request(1, 7, number));
  for (std::uint64_t number = 1; number <= 4; ++number) primary->vouch(make_request(2, 8, number));
  const auto first = primary.said<PrePrepare>();
  ASSERT_FALSE(first.empty());
  std::size_t of_second = 0;
  for (const Reference& reference : first[0].header->references) of_second += reference.client == ClientId{2} ? 1u : 0u;
  EXPECT_EQ(of_second, 4u);
  EXPECT_THAT(first[0].header->references, SizeIs(10));
}

TEST(Fairness, ClientsTakeTurnsAcrossBatches) {
  ReplicaConfig config;
  config.batch_requests_max = 5;
  config.pipeline_depth = 1;
  ReplicaCluster cluster(config);
  for (std::uint64_t number = 1; number <= 20; ++number) {
    for (std::uint32_t client = 1; client <= 3; ++client) cluster.submit(cluster.request(client, 7, number));
  }
  cluster.run();
  const std::vector<Reference> order = order_of(cluster.delivered[1]);
  ASSERT_THAT(order, SizeIs(60));
  std::vector<std::uint64_t> count(4);
  for (const Reference& reference : order) {
    EXPECT_EQ(reference.number.value, ++count[reference.client.value]);  // each client's own order stays
    EXPECT_LE(*std::max_element(count.begin() + 1, count.end()) - *std::min_element(count.begin() + 1, count.end()),
              1u);
  }
}

}  // namespace
}  // namespace zz::agreement::testing
