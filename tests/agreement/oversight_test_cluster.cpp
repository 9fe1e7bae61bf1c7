// Conversations of a whole cluster of oversight cores, scripted and at random (docs/protocol.md §9 to §11, §14).

#include <gtest/gtest.h>

#include "oversight_test_troupe.hpp"

namespace zz::agreement {
namespace {

// Runs until everybody is up and nothing is open.
void open_the_house(Troupe& troupe) {
  ASSERT_TRUE(troupe.until([&troupe] { return !troupe.order.empty() && troupe.at_rest(); }));
  for (int i = 0; i < 10; ++i) {
    troupe.request();
    troupe.round();
  }
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
}

void play_on(Troupe& troupe, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    troupe.request();
    troupe.round();
  }
}

TEST(OversightCluster, ALiarIsOutvotedEvictedAndRejoinsAsleep) {
  Troupe troupe({.f = 1, .g = 1});
  open_the_house(troupe);
  ASSERT_EQ(troupe.wake_ups, 0u) << "woken without a sign";
  troupe.infect(1, Fault::kLies);
  play_on(troupe, 40);
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  const EpochNotice notice = troupe.nodes[0]->core->notice();
  EXPECT_EQ(notice.epoch, Epoch{1});
  EXPECT_EQ(notice.active, slot_list({0, 2}));
  EXPECT_EQ(notice.incarnations[1], Incarnation{2});
  EXPECT_FALSE(troupe.hosts[1].awake);
  EXPECT_EQ(troupe.wake_ups, 1u);
  for (const auto& node : troupe.nodes) {
    EXPECT_EQ(node->core->stats().divergences, 1u);
    EXPECT_EQ(node->core->stats().wakes, 1u);
    EXPECT_EQ(node->core->stats().evictions, 1u);
    const auto evicted = node->memory.of(EventKind::kEvicted);
    ASSERT_EQ(evicted.size(), 1u);
    EXPECT_EQ(evicted[0].why, "wrong");
    EXPECT_EQ(node->memory.count(EventKind::kDiverged), node->memory.count(EventKind::kSettled));
  }
}

TEST(OversightCluster, LyingFreezingAndDyingInTurnEndWithGPlusOneActiveEachTime) {
  for (const std::uint32_t g : {1u, 2u}) {
    SCOPED_TRACE(g);
    Troupe troupe({.f = g, .g = g});
    open_the_house(troupe);
    std::uint64_t evictions = 0;
    for (const Fault fault : {Fault::kLies, Fault::kSilent, Fault::kDies}) {
      const SlotId victim = troupe.nodes[0]->core->notice().active.back();
      troupe.infect(victim.value, fault);
      play_on(troupe, 20);
      ++evictions;
      ASSERT_TRUE(troupe.until([&] {
        return troupe.at_rest() && troupe.nodes[0]->core->stats().evictions == evictions;
      })) << static_cast<int>(fault);
    }
    for (const auto& node : troupe.nodes) {
      EXPECT_EQ(node->core->stats().divergences, 3u);
      EXPECT_EQ(node->core->stats().wakes, 3u);
      EXPECT_EQ(node->core->stats().evictions, 3u);
    }
  }
}

TEST(OversightCluster, ASlotThatDiesWhileNothingHappensIsReplaced) {
  Troupe troupe({.f = 1, .g = 1});
  open_the_house(troupe);
  const std::size_t batches = troupe.order.size();
  troupe.infect(0, Fault::kDies);
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest() && troupe.nodes[0]->core->epoch() == Epoch{1}; }));
  EXPECT_EQ(troupe.nodes[0]->core->notice().active, slot_list({1, 2}));
  EXPECT_LE(troupe.order.size() - batches, 3u) << "one change, one join";
  for (const auto& node : troupe.nodes) {
    EXPECT_EQ(node->memory.count(EventKind::kDiverged), 1u);
    EXPECT_EQ(node->memory.count(EventKind::kSettled), 1u);
  }
}

TEST(OversightCluster, TwoLiarsAtOnceAreOutvotedWithGEqualTwo) {
  Troupe troupe({.f = 2, .g = 2});
  open_the_house(troupe);
  troupe.infect(0, Fault::kLies);
  troupe.infect(2, Fault::kSilent);
  play_on(troupe, 40);
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  EXPECT_EQ(troupe.nodes[0]->core->notice().active, slot_list({1, 3, 4}));
  EXPECT_EQ(troupe.nodes[0]->core->stats().evictions, 2u);
}

TEST(OversightCluster, AWakeUpThatWasNotNeededGoesBackToSleepWithoutBlame) {
  Troupe troupe({.f = 1, .g = 1});
  open_the_house(troupe);
  troupe.infect(1, Fault::kSlow);
  troupe.request();
  troupe.rounds(30);
  EXPECT_EQ(troupe.awake(), 3u) << "300 ms are not usual";
  troupe.hosts[1].fault = Fault::kNone;
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  EXPECT_EQ(troupe.nodes[0]->core->notice().active, slot_list({0, 1}));
  EXPECT_EQ(troupe.hosts[2].incarnation, Incarnation{2});
  EXPECT_EQ(troupe.nodes[0]->core->stats().evictions, 0u);
}

TEST(OversightCluster, FFaultyNodesAloneWakeAndEvictNobody) {
  Troupe troupe({.f = 1, .g = 1, .faulty_node = true});
  open_the_house(troupe);
  play_on(troupe, 2'000);
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  EXPECT_EQ(troupe.wake_ups, 0u);
  EXPECT_EQ(troupe.nodes[0]->core->epoch(), Epoch{0});
}

struct Season {
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  bool faulty_node = false;
  std::uint64_t first_seed = 1;
  std::uint64_t seeds = 1;
};

class OversightSchedules : public testing::TestWithParam<Season> {};

// One liar (at most g) among jitter, lagging nodes and broken channels. The troupe checks on the way that what is
// closed is right, that only liars are evicted as wrong, and that no vote of a correct slot has a wrong epoch.
TEST_P(OversightSchedules, KeepEveryReplyRightAndEveryTableEqual) {
  const Season season = GetParam();
  std::size_t wake_ups = 0;
  std::uint64_t evictions = 0;
  for (std::uint64_t seed = season.first_seed; seed < season.first_seed + season.seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng random(seed * 7'919);
    Troupe troupe({season.f, season.g, seed, season.faulty_node, true});
    ASSERT_TRUE(troupe.until([&troupe] { return !troupe.order.empty() && troupe.all_closed(); }));
    for (int act = 0; act < 3; ++act) {
      const std::uint64_t until = 50 + random.below(200);
      for (std::uint64_t i = 0; i < until; ++i) {
        if (random.below(3) != 0) troupe.request();
        troupe.round();
      }
      const std::vector<SlotId> active = troupe.nodes[0]->core->notice().active;
      const SlotId victim = active[random.below(active.size())];
      const auto fault = static_cast<Fault>(1 + random.below(5));
      const Incarnation infected = troupe.hosts[victim.value].incarnation;
      troupe.infect(victim.value, fault);
      for (std::uint64_t i = 0; i < 400; ++i) {
        if (random.below(3) != 0) troupe.request();
        troupe.round();
      }
      const auto replaced = [&] { return troupe.hosts[victim.value].incarnation != infected; };
      if (fault == Fault::kSlow || fault == Fault::kEquivocates) {
        // Slow, or lying to too few, it need not be convicted; then it mends its ways.
        if (!replaced()) troupe.hosts[victim.value].fault = Fault::kNone;
      } else {
        ASSERT_TRUE(troupe.until(replaced)) << "act " << act << ", fault " << static_cast<int>(fault);
      }
      ASSERT_TRUE(troupe.until([&troupe] { return troupe.all_closed(); })) << "act " << act;
    }
    ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }, 8'000));
    wake_ups += troupe.wake_ups;
    evictions += troupe.nodes[0]->core->stats().evictions;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GE(wake_ups, 2 * season.seeds) << "the faults had no effect";
  EXPECT_GE(evictions, 2 * season.seeds) << "the faults had no effect";
}

INSTANTIATE_TEST_SUITE_P(Seeds, OversightSchedules,
                         testing::Values(Season{1, 1, false, 1, 30}, Season{1, 1, true, 101, 30},
                                         Season{2, 2, false, 201, 12}, Season{1, 2, true, 301, 12}));

}  // namespace
}  // namespace zz::agreement
