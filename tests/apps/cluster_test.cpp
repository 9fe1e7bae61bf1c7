// Whole local clusters of real processes, driven through the client library.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "apps/demo_status.hpp"
#include "apps/local_cluster.hpp"
#include "apps/status_client.hpp"
#include "apps/supervisor.hpp"
#include "client/client.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

constexpr std::chrono::seconds kDeadline{60};

class ClusterTest : public testing::Test {
 protected:
  void start(std::uint32_t f, std::uint32_t g, const std::function<void(crypto::ServiceEntry&)>& configure = {}) {
    ASSERT_TRUE(crypto::init().ok());
    dir = (std::filesystem::temp_directory_path() / ("zz-cluster-test-" + std::to_string(::getpid()))).string();
    LocalClusterOptions options;
    options.dir = dir;
    options.f = f;
    options.g = g;
    options.allow_faults = true;
    auto made = make_local_cluster(options);
    ASSERT_TRUE(made.ok()) << made.error();
    cluster = std::move(*made);
    if (configure) {
      configure(cluster.services[0]);
      std::ofstream(dir + "/cluster.toml") << crypto::render_cluster(cluster);
    }
    LocalRunOptions run_options;
    run_options.dir = dir;
    run_options.program = ZZ_BINARY;
    auto started = LocalRun::start(run_options);
    ASSERT_TRUE(started.ok()) << started.error();
    run = std::move(*started);
    auto loaded = crypto::load_secret_key(dir + "/keys/client-2.key");
    ASSERT_TRUE(loaded.ok());
    key = std::make_unique<crypto::SecretKey>(std::move(*loaded));
    auto opened = client::Client::open(loop, cluster, *key);
    ASSERT_TRUE(opened.ok());
    client = std::move(*opened);
  }
  void TearDown() override {
    client.reset();
    run.reset();
    std::filesystem::remove_all(dir);
  }

  std::string ask(const std::string& op) {
    std::optional<std::string> reply;
    const Refusal refusal = client->submit(ServiceId{}, SharedBytes::copy(op), [&](const client::Answer& answer) {
      reply = answer.outcome == client::Outcome::kReply ? std::string(answer.reply.text())
                                                        : std::string(client::to_string(answer.outcome));
    });
    EXPECT_EQ(refusal, Refusal::kNone);
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    while (!reply && std::chrono::steady_clock::now() < end) loop.run_one_for(std::chrono::milliseconds(100));
    return reply.value_or("no answer");
  }

  void fault(std::uint16_t slot, const std::string& kind) {
    const auto answer = query_host_socket(host_socket_path(dir, HostId{slot}),
                                          {{"cmd", "fault"}, {"service", 0}, {"slot", slot}, {"kind", kind}});
    ASSERT_TRUE(answer.ok()) << answer.error();
    ASSERT_TRUE(answer->value("ok", false)) << answer->dump();
  }

  ClusterStatus status() const {
    const auto answers = query_status(dir);
    return answers.ok() ? combine(*answers, "kv", cluster.f) : ClusterStatus{};
  }

  // Adds one to a counter until `healed`; every reply must be the next number.
  void count_until(const std::function<bool(const ClusterStatus&)>& healed, const char* what) {
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    while (true) {
      for (int i = 0; i < 50; ++i) {
        ++counter;
        ASSERT_EQ(ask("add counter 1"), std::to_string(counter));
      }
      if (healed(status())) return;
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "never came: " << what;
    }
  }

  // g+1 slots active, g others joined as incarnations that have not voted: asleep.
  static bool settled(const ClusterStatus& now, std::size_t g) {
    std::size_t asleep = 0;
    for (const SlotStatus& slot : now.slots) asleep += slot.incarnation > 0 && !slot.active && !slot.connected ? 1 : 0;
    return now.active() == g + 1 && asleep == g;
  }

  std::string dir;
  crypto::ClusterFile cluster;
  std::unique_ptr<LocalRun> run;
  boost::asio::io_context loop{1};
  std::unique_ptr<crypto::SecretKey> key;
  std::unique_ptr<client::Client> client;
  std::uint64_t counter = 0;
};

TEST_F(ClusterTest, WithFAndGTwoTwoSimultaneousFaultsAreOutvotedAndReplaced) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  ASSERT_EQ(cluster.nodes.size(), 7u);
  ASSERT_EQ(cluster.services[0].slots.size(), 5u);
  ASSERT_NO_FATAL_FAILURE(
      count_until([](const ClusterStatus& now) { return settled(now, 2); }, "three active, two asleep"));
  ASSERT_NO_FATAL_FAILURE(fault(0, "wrong-reply"));
  ASSERT_NO_FATAL_FAILURE(fault(2, "crash"));
  ASSERT_NO_FATAL_FAILURE(count_until([](const ClusterStatus& now) { return now.evictions >= 2 && settled(now, 2); },
                                      "both evicted and asleep again"));
  const ClusterStatus now = status();
  EXPECT_GE(now.wakes, 1u);
  EXPECT_FALSE(now.find(0)->active);
  EXPECT_FALSE(now.find(2)->active);
  test::ZzProcess explain({"explain", "--dir", dir});
  EXPECT_EQ(explain.wait(), 0) << explain.err();
  EXPECT_THAT(explain.out(), ::testing::HasSubstr("\"add counter 1\""));
  EXPECT_THAT(explain.out(), ::testing::ContainsRegex("slot 0 .incarnation [0-9]+., WRONG"));
  EXPECT_THAT(explain.out(), ::testing::HasSubstr("the replies differ from byte "));
}

TEST_F(ClusterTest, ASlowReplicaIsReplacedAndTheCounterGoesOn) {
  ASSERT_NO_FATAL_FAILURE(start(1, 1));
  ASSERT_NO_FATAL_FAILURE(
      count_until([](const ClusterStatus& now) { return settled(now, 1); }, "two active, one asleep"));
  ASSERT_NO_FATAL_FAILURE(fault(1, "slow"));
  ASSERT_NO_FATAL_FAILURE(count_until([](const ClusterStatus& now) { return now.evictions >= 1 && settled(now, 1); },
                                      "the slow one evicted"));
  EXPECT_FALSE(status().find(1)->active);
}

TEST_F(ClusterTest, RejuvenationGoesRoundWithoutAnyTrouble) {
  ASSERT_NO_FATAL_FAILURE(start(1, 1, [](crypto::ServiceEntry& service) { service.rejuvenate_every_requests = 300; }));
  const auto renewed = [](const ClusterStatus& now) {
    return std::all_of(now.slots.begin(), now.slots.end(),
                       [](const SlotStatus& slot) { return slot.incarnation >= 2; });
  };
  ASSERT_NO_FATAL_FAILURE(count_until([&](const ClusterStatus& now) { return settled(now, 1) && renewed(now); },
                                      "every slot lives a second life"));
  const auto answers = query_status(dir);
  ASSERT_TRUE(answers.ok()) << answers.error();
  EXPECT_GE(answers->at(0).at("services").at(0).at("rejuvenations").get<std::uint64_t>(), 2u);
}

TEST_F(ClusterTest, FaultsFollowOneAnotherAndEachIsHealed) {
  ASSERT_NO_FATAL_FAILURE(start(1, 1));
  for (std::uint64_t round = 1; round <= 4; ++round) {
    ASSERT_NO_FATAL_FAILURE(count_until([](const ClusterStatus& now) { return settled(now, 1); }, "settled"));
    std::uint16_t victim = 0;
    for (const SlotStatus& slot : status().slots) {
      if (slot.active) victim = static_cast<std::uint16_t>(slot.slot);
    }
    ASSERT_NO_FATAL_FAILURE(fault(victim, round % 2 == 0 ? "silent" : "wrong-reply"));
    ASSERT_NO_FATAL_FAILURE(
        count_until([&](const ClusterStatus& now) { return now.evictions >= round && settled(now, 1); }, "healed"));
  }
}

}  // namespace
}  // namespace zz::apps
