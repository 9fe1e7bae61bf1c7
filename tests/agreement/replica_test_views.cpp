// View changes and restarts of whole clusters of ordering cores, without a network's tricks (the simulator has those).

#include <gtest/gtest.h>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

constexpr std::int64_t kMs = 1'000;

class Views : public ::testing::Test {
 protected:
  void make(std::uint32_t f = 1) {
    ReplicaConfig config;
    config.f = f;
    config.window = 32;
    cluster = std::make_unique<ReplicaCluster>(config);
    cluster->pass = [this](const Packet& packet) {
      if (dead.contains(packet.from.value) || dead.contains(packet.to.value)) return false;
      return !rule || rule(packet);
    };
  }
  // Time passes in small steps, and everything that is said arrives.
  void pass_time(std::int64_t ms) {
    for (std::int64_t i = 0; i < ms; i += 50) {
      now += 50 * kMs;
      cluster->tick(Micros{kNoon.value + now});
      cluster->run();
    }
  }
  void submit(std::uint64_t number) {
    const RequestPtr request = cluster->request(1, 7, number);
    for (std::size_t node = 0; node < cluster->size(); ++node) {
      if (!dead.contains(static_cast<std::uint16_t>(node))) static_cast<void>(cluster->at(node).vouch(request));
    }
  }
  void expect_all_delivered(std::uint64_t numbers) {
    for (std::size_t node = 0; node < cluster->size(); ++node) {
      if (dead.contains(static_cast<std::uint16_t>(node))) continue;
      std::vector<std::uint64_t> seen;
      for (const Reference& r : order_of(cluster->delivered[node])) seen.push_back(r.number.value);
      std::sort(seen.begin(), seen.end());
      ASSERT_EQ(seen.size(), numbers) << "node " << node;
      for (std::uint64_t i = 0; i < numbers; ++i) EXPECT_EQ(seen[i], i + 1) << "node " << node;
      EXPECT_EQ(order_of(cluster->delivered[node]), order_of(cluster->delivered[cluster->size() - 1]));
    }
  }

  std::unique_ptr<ReplicaCluster> cluster;
  std::set<std::uint16_t> dead;
  std::function<bool(const Packet&)> rule;
  std::int64_t now = 0;
};

TEST_F(Views, ASilentPrimaryIsReplacedAndTheNextOneOrdersWhatWaits) {
  make();
  submit(1);
  pass_time(100);
  dead = {0};
  submit(2);
  submit(3);
  pass_time(1'000);
  EXPECT_EQ(cluster->at(1).view(), View{1});
  EXPECT_FALSE(cluster->at(1).changing());
  expect_all_delivered(3);
}

TEST_F(Views, NobodyAsksForAnotherViewWithoutNeed) {
  make();
  for (std::uint64_t number = 1; number <= 20; ++number) {
    submit(number);
    pass_time(200);
  }
  pass_time(5'000);
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_EQ(cluster->at(node).view(), View{0});
    EXPECT_EQ(cluster->at(node).stats().view_changes, 0u);
  }
}

TEST_F(Views, TimeoutsDoubleUntilACorrectPrimaryIsReached) {
  make(2);
  submit(1);
  pass_time(100);
  dead = {0, 1};
  submit(2);
  pass_time(6'000);
  EXPECT_EQ(cluster->at(2).view(), View{2});
  expect_all_delivered(2);
}

// Committed at one node only, which then says nothing more: the others have prepared it and carry it over.
TEST_F(Views, WhatIsCommittedAnywhereSurvives) {
  make();
  rule = [](const Packet& packet) { return !std::holds_alternative<Commit>(packet.body) || packet.to.value == 3; };
  submit(1);
  pass_time(100);
  ASSERT_EQ(cluster->at(3).last_delivered(), Seq{1});
  ASSERT_EQ(cluster->at(1).last_delivered(), Seq{0});
  rule = nullptr;
  dead = {0};
  submit(2);
  pass_time(2'000);
  expect_all_delivered(2);
  EXPECT_EQ(cluster->delivered[1][0].digest, cluster->delivered[3][0].digest);
}

// The primary's proposal for 1 reaches nobody, the one for 2 is prepared: the new view fills the hole with nothing.
TEST_F(Views, AHoleIsFilledWithANullBatch) {
  make();
  rule = [](const Packet& packet) {
    const auto* proposal = std::get_if<PrePrepare>(&packet.body);
    return (proposal == nullptr || proposal->header->n != Seq{1}) && !std::holds_alternative<Commit>(packet.body);
  };
  submit(1);
  cluster->run();
  submit(2);
  pass_time(100);
  rule = nullptr;
  dead = {0};
  pass_time(2'000);
  expect_all_delivered(2);
  const BatchHeader& first = *cluster->delivered[1][0].header;
  EXPECT_TRUE(first.references.empty());
  EXPECT_EQ(first.time, Micros{0});
  EXPECT_LT(cluster->delivered[1][0].time, cluster->delivered[1][1].time);
}

TEST_F(Views, ANodeThatMissedTheChangeIsToldByProgress) {
  make();
  submit(1);
  pass_time(100);
  dead = {0};
  rule = [](const Packet& packet) { return packet.to.value != 3 || packet.from.value == 2; };
  submit(2);
  pass_time(1'500);
  rule = nullptr;
  pass_time(5'000);
  EXPECT_EQ(cluster->at(3).view(), cluster->at(1).view());
  expect_all_delivered(2);
}

TEST_F(Views, ARestartedNodeSaysWhatItSaidBefore) {
  make();
  rule = [](const Packet& packet) { return !std::holds_alternative<Commit>(packet.body); };
  submit(1);
  pass_time(100);
  rule = nullptr;
  std::map<std::pair<std::uint16_t, bool>, std::set<Digest>> said;  // by node and kind
  rule = [&said](const Packet& packet) {
    if (const auto* m = std::get_if<Prepare>(&packet.body)) said[{packet.from.value, false}].insert(m->digest);
    if (const auto* m = std::get_if<Commit>(&packet.body)) said[{packet.from.value, true}].insert(m->digest);
    return true;
  };
  for (std::size_t node = 0; node < 4; ++node) cluster->restart(node);
  submit(1);
  pass_time(3'000);
  expect_all_delivered(1);
  for (const auto& [who, digests] : said) EXPECT_EQ(digests.size(), 1u) << "node " << who.first;
  EXPECT_EQ(cluster->at(0).view(), View{0});
}

TEST_F(Views, AllNodesRestartInTheMiddleOfAViewChange) {
  make();
  submit(1);
  pass_time(100);
  rule = [](const Packet& packet) {
    return !std::holds_alternative<NewViewPtr>(packet.body) && packet.from.value != 0;
  };
  submit(2);
  pass_time(900);
  ASSERT_TRUE(cluster->at(2).changing());
  const View wanted = cluster->at(2).view();
  rule = nullptr;
  for (std::size_t node = 0; node < 4; ++node) cluster->restart(node);
  EXPECT_GE(cluster->at(2).view(), wanted);
  submit(1);
  submit(2);
  pass_time(5'000);
  expect_all_delivered(2);
}

// A client that speaks to the primary alone: the backups refuse to stand for what they never heard of; from then on
// it has to show itself.
TEST_F(Views, AClientThatOnlyThePrimaryHearsCostsFewViewChanges) {
  make();
  const RequestPtr hidden = cluster->request(2, 9, 1);
  static_cast<void>(cluster->at(0).vouch(hidden));
  pass_time(1'500);
  EXPECT_EQ(cluster->at(2).view(), View{1});
  for (std::uint64_t number = 1; number <= 5; ++number) {
    const std::size_t primary = cluster->at(2).primary().value;
    static_cast<void>(cluster->at(primary).vouch(cluster->request(2, 9, number)));
    submit(number);
    pass_time(1'500);
  }
  EXPECT_LE(cluster->at(2).view(), View{4});  // one per node
  for (std::size_t node = 0; node < 4; ++node) {
    const std::vector<Reference> order = order_of(cluster->delivered[node]);
    EXPECT_EQ(std::count_if(order.begin(), order.end(), [](const Reference& r) { return r.session.value == 7; }), 5);
  }
}

// A client that gives every node another request: nobody leaves the view for what only it knows.
TEST_F(Views, RequestsThatOneNodeAloneHasCostNoViewChange) {
  make();
  for (std::size_t node = 0; node < 4; ++node) {
    static_cast<void>(cluster->at(node).vouch(cluster->request(2, 20 + node, 1)));
  }
  rule = [](const Packet& packet) { return !std::holds_alternative<PrePrepare>(packet.body); };
  pass_time(100);
  cluster->wire.clear();
  rule = nullptr;
  for (const std::size_t node : {1, 2, 3}) EXPECT_EQ(cluster->at(node).stats().view_changes, 0u);
  pass_time(3'000);
  submit(1);
  pass_time(1'000);
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_LE(cluster->at(node).view(), View{1});  // one for the primary's own, which nobody else can stand for
    EXPECT_FALSE(cluster->at(node).changing());
  }
}

// A client that the primary does not hear: f+1 others speak for it, and nobody is voted out.
TEST_F(Views, ARequestThatDoesNotReachThePrimaryIsRelayed) {
  make();
  const RequestPtr request = cluster->request(2, 9, 1);
  for (const std::size_t node : {1, 2, 3}) static_cast<void>(cluster->at(node).vouch(request));
  pass_time(1'000);
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_EQ(order_of(cluster->delivered[node]).size(), 1u);
    EXPECT_EQ(cluster->at(node).view(), View{0});
  }
}

// It may wait while its window is shut; but a primary that takes back what it said of its checkpoint is not excused
// anew, or it could hold up every batch.
TEST(ViewsAlone, AShutWindowExcusesAPrimaryOncePerCheckpoint) {
  for (const bool fresh : {true, false}) {
    ReplicaConfig config;
    config.window = 32;
    LoneReplica node(1, config);
    std::int64_t now = 0;
    std::uint64_t n = 0;
    const auto pass_time = [&](std::int64_t ms) {
      for (const std::int64_t end = now + ms * kMs; now < end;) {
        now += 10 * kMs;
        node.tick(Micros{kNoon.value + now});
      }
    };
    const auto primary_says = [&](Seq stable) {
      Progress progress;
      progress.delivered = progress.settled = node->last_delivered();
      progress.stable = stable;
      EXPECT_EQ(node->step(NodeId{0}, progress), Refusal::kNone);
    };
    const auto serve_after = [&](std::int64_t ms) {
      const RequestPtr request = make_request(1, 7, ++n);
      node->vouch(request);
      node->step(NodeId{2}, Vouched{{reference_of(*request)}});
      pass_time(ms);
      const PrePrepare p = make_proposal(n, {request}, Micros{kNoon.value + now + static_cast<std::int64_t>(n)});
      ASSERT_EQ(node.propose(p), Refusal::kNone);
      node.finish(p);
    };
    while (n < 24) serve_after(0);
    node->set_stable(unsigned_certificate(Seq{n}));
    for (int round = 0; round < 20; ++round) {
      if (fresh) node->set_stable(unsigned_certificate(Seq{n}));
      primary_says(Seq{n});
      pass_time(50);
      primary_says(Seq{});
      serve_after(300);
    }
    EXPECT_EQ(node->last_delivered(), Seq{44});
    EXPECT_EQ(node->stats().last_complaint == Complaint::kSlow, !fresh);
  }
}

// Its certificate comes late: what it had to refuse meanwhile is said again at once.
TEST_F(Views, WhatAShutWindowRefusedIsSaidAgainWhenItOpens) {
  ReplicaConfig config;
  config.window = 8;
  cluster = std::make_unique<ReplicaCluster>(config);
  for (std::uint64_t number = 1; number <= 6; ++number) {
    submit(number);
    cluster->run();
  }
  pass_time(500);
  ASSERT_EQ(cluster->at(3).last_delivered(), Seq{6});
  for (std::size_t node = 0; node < 3; ++node) cluster->at(node).set_stable(unsigned_certificate(Seq{6}));
  for (std::uint64_t number = 7; number <= 12; ++number) {
    submit(number);
    cluster->run();
  }
  ASSERT_EQ(cluster->at(0).last_delivered(), Seq{12});
  ASSERT_EQ(cluster->at(3).last_delivered(), Seq{8});
  cluster->at(3).set_stable(unsigned_certificate(Seq{6}));
  cluster->run();
  expect_all_delivered(12);
}

}  // namespace
}  // namespace zz::agreement::testing
