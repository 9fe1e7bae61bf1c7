// Agreement nodes that are killed and restarted under load, with real processes. Each test runs ZZ_RUNS times.

#include <gtest/gtest.h>

#include <algorithm>

#include "base/prng.hpp"
#include "tests/faults/fault_cluster.hpp"
#include "tests/faults/load.hpp"

namespace zz::test {
namespace {

using Clock = Load::Clock;
using namespace std::chrono_literals;

// Enough to keep the machine busy, so that it is not the disk's latency that is measured.
constexpr std::size_t kOutstanding = 200;
constexpr Micros kTimeout{60'000'000};
constexpr auto kWarmUp = 1'500ms;
constexpr auto kBefore = 2'000ms;  // the rate before the fault is measured so long
constexpr auto kRecovery = 10s;    // and has to be back within that
constexpr double kShare = 0.9;

TEST(Acceptance, AL01_KillMinusNinePrimaryUnderLoad) {
  for (std::size_t run = 1, all = runs(2); run <= all; ++run) {
    const std::int64_t failed = failures();
    FaultCluster cluster({});
    ASSERT_TRUE(cluster.serves());
    Load load(cluster.cluster(), cluster.dir(), kOutstanding, kTimeout);
    load.begin();
    ASSERT_TRUE(load.run_until([&] { return load.accepted() > 0; }, 20s));
    load.run_for(kWarmUp);
    const Clock::time_point start = Clock::now();
    load.run_for(kBefore);
    const NodeId primary = cluster.primary();
    load.run_for(100ms);  // the replies that came in the meantime
    const Clock::time_point killed = Clock::now();
    const double before = load.rate(start, start + kBefore);
    cluster.kill(primary);
    // The best two seconds that begin after the outage, within the time allowed.
    double after = 0;
    while (Clock::now() < killed + kRecovery && after < kShare * before) {
      load.run_for(250ms);
      const Clock::time_point now = Clock::now();
      if (now - kBefore > killed) after = std::max(after, load.rate(now - kBefore, now));
    }
    const auto outage = load.longest_gap(killed, Clock::now());
    const auto base = std::chrono::milliseconds(cluster.cluster().timing.view_timeout_ms);
    EXPECT_LT(milliseconds(outage), milliseconds(3 * base));
    EXPECT_GE(after, kShare * before);
    EXPECT_NE(cluster.primary(), primary);
    expect_whole(load);
    report({{"test", "AL-01"},
            {"run", run},
            {"passed", failures() == failed},
            {"outage_ms", milliseconds(outage)},
            {"rate_before", static_cast<std::uint64_t>(before)},
            {"rate_after", static_cast<std::uint64_t>(after)},
            {"accepted", load.accepted()},
            {"indeterminate", load.indeterminate()},
            {"contradictions", load.contradictions().size()}});
  }
}

// In odd runs as many nodes stay down as may be faulty.
TEST(Acceptance, UP02_KillAllNodesAtOnceUnderLoad) {
  for (std::size_t run = 1, all = runs(2); run <= all; ++run) {
    const std::int64_t failed = failures();
    FaultCluster cluster({});
    ASSERT_TRUE(cluster.serves());
    ASSERT_EQ(cluster.cluster().durability, crypto::Durability::kSync);
    Load load(cluster.cluster(), cluster.dir(), kOutstanding, kTimeout);
    load.begin();
    Prng prng(run);
    ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
    load.run_for(std::chrono::milliseconds(500 + prng.below(1'000)));
    cluster.kill_all();
    const Clock::time_point killed = Clock::now();
    std::vector<NodeId> order;
    for (const crypto::NodeEntry& node : cluster.cluster().nodes) order.push_back(node.id);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[prng.below(i)]);
    if (run % 2 == 1) order.resize(order.size() - cluster.cluster().f);
    for (const NodeId node : order) cluster.start(node);
    const std::size_t accepted = load.accepted();
    EXPECT_TRUE(load.run_until([&] { return load.accepted() > accepted + kOutstanding + 100; }, 40s))
        << "the service did not come back";
    const auto outage = load.longest_gap(killed, Clock::now());
    expect_whole(load);
    report({{"test", "UP-02"},
            {"run", run},
            {"passed", failures() == failed},
            {"restarted", order.size()},
            {"outage_ms", milliseconds(outage)},
            {"accepted", load.accepted()},
            {"indeterminate", load.indeterminate()},
            {"contradictions", load.contradictions().size()}});
  }
}

TEST(Acceptance, UP01_RollingRestartUnderLoad) {
  for (std::size_t run = 1, all = runs(1); run <= all; ++run) {
    const std::int64_t failed = failures();
    FaultCluster cluster({});
    ASSERT_TRUE(cluster.serves());
    Load load(cluster.cluster(), cluster.dir(), kOutstanding, kTimeout);
    load.begin();
    ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
    const Clock::time_point start = Clock::now();
    for (const crypto::NodeEntry& node : cluster.cluster().nodes) {
      cluster.send_signal(node.id, SIGTERM);
      ASSERT_TRUE(load.run_until([&] { return !cluster.running(node.id); }, 10s));
      cluster.start(node.id);
      ASSERT_TRUE(cluster.time_to_catch_up(node.id, 20s, [&] { load.run_for(50ms); }))
          << "node " << node.id.value << " does not catch up";
    }
    load.run_for(500ms);
    const auto stall = load.total_gaps(start, Clock::now(), 100ms);
    EXPECT_LE(milliseconds(stall), milliseconds(3s * cluster.cluster().nodes.size()));
    expect_whole(load);
    report({{"test", "UP-01"},
            {"run", run},
            {"passed", failures() == failed},
            {"stall_ms", milliseconds(stall)},
            {"accepted", load.accepted()},
            {"indeterminate", load.indeterminate()},
            {"contradictions", load.contradictions().size()}});
  }
}

}  // namespace
}  // namespace zz::test
