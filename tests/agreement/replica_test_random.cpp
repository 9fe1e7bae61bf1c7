// Ordering under seeded random schedules: messages and requests arrive in any order, some twice, and faulty nodes and
// clients do as they like. Every seed is its own case; a failure names it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "agreement/replica.hpp"
#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

constexpr std::uint64_t kSeeds = 300;

// A run: the requests of some clients reach each node in an order of its own, between the nodes' messages.
class Schedule {
 public:
  Schedule(std::uint64_t seed, std::uint32_t f) : prng_(seed), cluster_(config(f)) {
    for (std::uint32_t client = 1; client <= 3; ++client) {
      for (std::uint64_t session = 1; session <= 2; ++session) {
        for (std::uint64_t number = 1; number <= 8; ++number) add(client, session, number);
      }
    }
    cluster_.at(0).propose(make_join(1, 1));
    cluster_.step_hook = [this] { arrive(); };
  }

  void run() {
    while (true) {
      cluster_.run_shuffled(prng_, 5);
      if (arrivals_.empty()) return;
      arrive();
    }
  }

  ReplicaCluster& cluster() { return cluster_; }
  Prng& prng() { return prng_; }
  [[nodiscard]] std::size_t requests() const { return requests_; }

 private:
  static ReplicaConfig config(std::uint32_t f) {
    ReplicaConfig config;
    config.f = f;
    config.batch_requests_max = 5;
    config.client_window = 4;
    config.pipeline_depth = 3;
    return config;
  }
  // One of f backups may get another body than the others: its client lies to it.
  void add(std::uint32_t client, std::uint64_t session, std::uint64_t number) {
    const RequestPtr request = cluster_.request(client, session, number);
    const RequestPtr forged = cluster_.request(client, session, number, "forged");
    const std::size_t victim = cluster_.size() - 1 - prng_.below((cluster_.size() - 1) / 3);
    const bool lies = prng_.below(6) == 0;
    for (std::size_t node = 0; node < cluster_.size(); ++node) {
      arrivals_.push_back({node, lies && node == victim ? forged : request});
    }
    ++requests_;
  }
  // A request reaches a node; one that is not taken yet comes again later, as clients do.
  void arrive() {
    if (arrivals_.empty()) return;
    std::swap(arrivals_[prng_.below(arrivals_.size())], arrivals_.back());
    const Arrival arrival = arrivals_.back();
    arrivals_.pop_back();
    const Refusal refusal = cluster_.at(arrival.node).vouch(arrival.request);
    if (refusal == Refusal::kOutOfWindow && ++again_ < 100'000) arrivals_.push_back(arrival);
  }

  struct Arrival {
    std::size_t node;
    RequestPtr request;
  };
  Prng prng_;
  ReplicaCluster cluster_;
  std::vector<Arrival> arrivals_;
  std::size_t requests_ = 0;
  std::uint64_t again_ = 0;
};

// All that must hold among the nodes from `first` on, whatever happened.
void expect_safe(ReplicaCluster& cluster, std::size_t first) {
  const std::vector<Delivery>* longest = &cluster.delivered[first];
  for (std::size_t node = first; node < cluster.size(); ++node) {
    if (cluster.delivered[node].size() > longest->size()) longest = &cluster.delivered[node];
  }
  for (std::size_t node = first; node < cluster.size(); ++node) {
    std::set<std::tuple<ClientId, SessionId, RequestNumber>> seen;
    Micros last;
    for (std::size_t i = 0; i < cluster.delivered[node].size(); ++i) {
      const Delivery& delivery = cluster.delivered[node][i];
      ASSERT_EQ(delivery.digest, (*longest)[i].digest);
      ASSERT_EQ(delivery.history, (*longest)[i].history);
      ASSERT_EQ(delivery.header->n, Seq{i + 1});
      ASSERT_GT(delivery.header->time, last);
      last = delivery.header->time;
      ASSERT_EQ(delivery.requests.size(), delivery.header->references.size());
      for (std::size_t j = 0; j < delivery.requests.size(); ++j) {
        const Reference& r = delivery.header->references[j];
        ASSERT_EQ(reference_of(*delivery.requests[j]), r);
        ASSERT_TRUE(seen.emplace(r.client, r.session, r.number).second) << "delivered twice";
      }
    }
  }
}

class RandomSchedules : public ::testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Replica, RandomSchedules, ::testing::Values(1u, 2u));

TEST_P(RandomSchedules, AllReplicasDeliverAllRequestsOnceInTheSameOrder) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Schedule schedule(seed, GetParam());
    schedule.run();
    expect_safe(schedule.cluster(), 0);
    for (const auto& deliveries : schedule.cluster().delivered) {
      ASSERT_EQ(order_of(deliveries).size(), schedule.requests());
    }
    if (HasFatalFailure()) return;
  }
}

// f nodes that are not the primary say what they like; one correct node may stay behind, the order goes on.
TEST_P(RandomSchedules, FaultyBackupsNeitherStopNorSplitTheOrder) {
  const std::uint32_t f = GetParam();
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Schedule schedule(seed, f);
    ReplicaCluster& cluster = schedule.cluster();
    Prng liar(seed ^ 0x5eed);
    const auto faulty = [&](NodeId node) { return node.value >= 1 && node.value <= f; };
    std::uint64_t lies = 0;
    cluster.pass = [&](Packet& packet) {
      if (!faulty(packet.from)) return true;
      ++lies;
      Digest* digest = nullptr;
      if (auto* prepare = std::get_if<Prepare>(&packet.body)) digest = &prepare->digest;
      if (auto* commit = std::get_if<Commit>(&packet.body)) digest = &commit->digest;
      if (auto* bodies = std::get_if<Bodies>(&packet.body)) bodies->requests.clear();
      if (digest != nullptr && liar.below(2) == 0) digest->bytes[0] ^= 1;
      return liar.below(4) != 0;
    };
    schedule.run();
    ASSERT_GT(lies, 0u);
    for (int round = 0; round < 8; ++round) {  // fetches that a liar left unanswered
      cluster.tick(Micros{kNoon.value + (round + 1) * 500'000});
      schedule.run();
    }
    expect_safe(cluster, 0);
    for (std::size_t node = 0; node < cluster.size(); ++node) {
      ASSERT_EQ(order_of(cluster.delivered[node]).size(), schedule.requests()) << "node " << node;
    }
    if (HasFatalFailure()) return;
  }
}

// What a faulty primary may make of its own proposal for one backup.
PrePrepare twisted(const PrePrepare& p, Prng& prng) {
  BatchHeader header = *p.header;
  auto& references = header.references;
  switch (prng.below(6)) {
    case 0:
      header.time.value += static_cast<std::int64_t>(prng.below(5)) - 2;
      break;
    case 1:
      if (!references.empty()) references.pop_back();
      break;
    case 2:
      if (!references.empty()) references.push_back(references.front());
      break;
    case 3:
      std::reverse(references.begin(), references.end());
      break;
    case 4:
      header.n.value += 1;
      break;
    default:
      if (!references.empty()) references.front().number.value += 1;
      break;
  }
  const Digest digest = batch_digest(header);
  return {p.view, std::make_shared<BatchHeader>(std::move(header)), digest};
}

TEST_P(RandomSchedules, AFaultyPrimaryWithFMinusOneHelpersSplitsNoOrder) {
  const std::uint32_t f = GetParam();
  std::size_t progress = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Schedule schedule(seed, f);
    ReplicaCluster& cluster = schedule.cluster();
    Prng liar(seed ^ 0xbad);
    std::vector<PrePrepare> told;
    cluster.pass = [&](Packet& packet) {
      if (packet.from.value >= f) return true;
      if (auto* p = std::get_if<PrePrepare>(&packet.body)) {
        if (liar.below(4) == 0) *p = twisted(*p, liar);
        told.push_back(*p);
      } else if (!told.empty()) {
        const PrePrepare& any = told[liar.below(told.size())];  // votes for everything it ever said
        if (auto* commit = std::get_if<Commit>(&packet.body)) *commit = {any.view, any.header->n, any.digest};
        if (auto* prepare = std::get_if<Prepare>(&packet.body)) *prepare = {any.view, any.header->n, any.digest};
      }
      return true;
    };
    schedule.run();
    expect_safe(cluster, f);
    for (std::size_t node = f; node < cluster.size(); ++node) progress += cluster.delivered[node].size();
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(progress, kSeeds) << "the schedules commit too little to show anything";
}

}  // namespace
}  // namespace zz::agreement::testing
