// A healthy slot that has been active for long is swapped for a fresh one (docs/protocol.md §11).

#include <gtest/gtest.h>

#include "oversight_test_support.hpp"
#include "oversight_test_troupe.hpp"

namespace zz::agreement {
namespace {

void every_ten_seconds(crypto::ClusterFile& cluster) { cluster.services[0].rejuvenate_every_ms = 10'000; }
void every_fifty_requests(crypto::ClusterFile& cluster) { cluster.services[0].rejuvenate_every_requests = 50; }

TEST(OversightRejuvenation, WakesOneSleeperAndSendsTheStalestSlotToSleepOnceItHasVoted) {
  OversightDesk desk(1, 2, every_ten_seconds);
  desk.start();
  desk.pass(9'900);
  EXPECT_TRUE(desk.out.wakes.empty());
  desk.pass(200);
  ASSERT_EQ(desk.out.wakes.size(), 1u) << "no more than one at a time";
  EXPECT_EQ(desk.out.wakes[0].wake.slot, SlotId{3});
  EXPECT_EQ(static_cast<Sign>(desk.out.wakes[0].wake.sign), Sign::kRejuvenation);
  EXPECT_EQ(desk.core->stats().wakes, 0u) << "no trouble";
  desk.up(3);
  desk.pass(50);
  EXPECT_FALSE(desk.said(0).has_value()) << "nobody leaves before another votes";
  desk.replay(3, 1);
  desk.pass(5);
  ASSERT_TRUE(desk.said(0).has_value());
  EXPECT_EQ(desk.said(0)->why, Suspicion::kSurplus);
  EXPECT_EQ(desk.said(0)->agreeing, slot_list({1, 2, 3}));
  desk.convict(0);
  EXPECT_EQ(desk.core->notice().active, slot_list({1, 2, 3}));
  EXPECT_EQ(desk.core->stats().rejuvenations, 1u);
  EXPECT_EQ(desk.core->stats().evictions, 0u) << "it is no blame";
  EXPECT_EQ(desk.memory.count(EventKind::kEvicted), 0u);
  EXPECT_EQ(desk.memory.count(EventKind::kDiverged), 0u);
}

// The change that makes it active was signed before. Nothing else shows a liar that agrees with every vote and with no
// state: what it says of states is no news, and no checkpoint becomes stable.
TEST(OversightRejuvenation, WhoLiesBeforeItStandsInIsTroubleOnceItDoes) {
  OversightDesk desk(1, 1, every_ten_seconds);
  desk.start();
  desk.pass(10'100);
  desk.up(2);
  desk.replay(2, 1);
  desk.pass(5);
  ASSERT_TRUE(desk.said(0).has_value());
  ASSERT_EQ(desk.echo(1, *desk.said(0)), Refusal::kNone);
  desk.pass(60);
  ASSERT_FALSE(desk.changes().empty());
  const EpochChange change = desk.changes().back();
  const std::uint64_t n = desk.deliver();
  desk.vote(2, n, "wrong");
  desk.vote(0, n);
  desk.vote(1, n);
  desk.pass(50);
  ASSERT_EQ(desk.said(2)->why, Suspicion::kWrong);
  ASSERT_EQ(desk.core->stats().divergences, 1u);
  desk.deliver(0, {change});
  ASSERT_EQ(desk.core->notice().active, slot_list({1, 2}));
  EXPECT_EQ(desk.core->stats().divergences, 2u) << "that of the lie was over";
  desk.clear();
  desk.deliver(0, {desk.parties.join(SlotId{0}, Incarnation{2})});
  desk.pass(50);
  ASSERT_FALSE(desk.out.wakes.empty());
  EXPECT_EQ(desk.out.wakes[0].wake.slot, SlotId{0});
  EXPECT_EQ(static_cast<Sign>(desk.out.wakes[0].wake.sign), Sign::kMismatch);
  desk.up(0);
  for (std::uint64_t i = 1; i <= n; ++i) desk.vote(0, i);
  desk.pass(50);
  ASSERT_TRUE(desk.said(2).has_value());
  EXPECT_EQ(desk.said(2)->why, Suspicion::kWrong);
  EXPECT_EQ(desk.said(2)->agreeing, slot_list({0, 1}));
}

TEST(OversightRejuvenation, IsOffByDefault) {
  OversightDesk desk;
  desk.start();
  desk.pass(60'000);
  EXPECT_TRUE(desk.out.wakes.empty());
  EXPECT_TRUE(desk.out.suspects.empty());
}

TEST(OversightRejuvenation, WaitsForTroubleToEnd) {
  OversightDesk desk(1, 1, every_ten_seconds);
  desk.start();
  desk.pass(9'950);
  const std::uint64_t n = desk.deliver();
  desk.vote(0, n);
  desk.vote(1, n, "wrong");
  desk.pass(200);
  ASSERT_EQ(desk.out.wakes.size(), 1u);
  EXPECT_EQ(static_cast<Sign>(desk.out.wakes[0].wake.sign), Sign::kMismatch);
  desk.up(2);
  desk.replay(2, n);
  desk.pass(50);
  EXPECT_FALSE(desk.said(0).has_value());
  desk.convict(1);
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 2}));
}

TEST(OversightRejuvenation, ASleeperThatDoesNotWakeUpLeavesEverythingAsItIs) {
  OversightDesk desk(1, 1, every_ten_seconds);
  desk.start();
  desk.pass(30'000);
  EXPECT_GE(desk.out.wakes.size(), 2u);
  EXPECT_FALSE(desk.said(0).has_value());
  EXPECT_FALSE(desk.said(1).has_value());
  EXPECT_EQ(desk.core->notice().active, slot_list({0, 1}));
}

TEST(OversightRejuvenation, GoesRoundUnderLoadAndNeverLowersTheNumberOfVoters) {
  Troupe troupe({.f = 1, .g = 1, .configure = every_fifty_requests});
  ASSERT_TRUE(troupe.until([&troupe] { return !troupe.order.empty() && troupe.at_rest(); }));
  for (int i = 0; i < 1'500; ++i) {
    if (i % 4 == 0) troupe.request();
    troupe.round();
    EXPECT_GE(troupe.awake(), 2u);
  }
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  const OversightStats& stats = troupe.nodes[0]->core->stats();
  EXPECT_GE(stats.rejuvenations, 3u);
  EXPECT_EQ(stats.divergences, 0u);
  EXPECT_EQ(stats.evictions, 0u);
  for (const auto& host : troupe.hosts) {
    EXPECT_GE(host.incarnation, Incarnation{2}) << "it was nobody's turn twice before it was everybody's once";
  }
}

TEST(OversightRejuvenation, OfALiarIsAnOrdinaryEviction) {
  Troupe troupe({.f = 1, .g = 1, .configure = every_fifty_requests});
  ASSERT_TRUE(troupe.until([&troupe] { return !troupe.order.empty() && troupe.at_rest(); }));
  troupe.infect(1, Fault::kLies);
  for (int i = 0; i < 400; ++i) {
    if (i % 4 == 0) troupe.request();
    troupe.round();
  }
  ASSERT_TRUE(troupe.until([&troupe] { return troupe.at_rest(); }));
  EXPECT_EQ(troupe.nodes[0]->core->stats().evictions, 1u);
  EXPECT_GE(troupe.nodes[0]->core->stats().rejuvenations, 1u);
}

}  // namespace
}  // namespace zz::agreement
