// A node or a slot whose disk is full, with real processes.

#include <gtest/gtest.h>

#include <optional>

#include "client/client.hpp"
#include "tests/faults/fault_cluster.hpp"
#include "tests/faults/load.hpp"
#include "tests/support/small_disk.hpp"

namespace zz::test {
namespace {

using namespace std::chrono_literals;

constexpr NodeId kFull{3};

// Ends the cluster, then takes the small file system away, so that the directory can go.
struct Unmount {
  FaultCluster& cluster;
  std::optional<SmallDisk>& disk;
  ~Unmount() {
    cluster.stop();
    disk.reset();
  }
};

TEST(Acceptance, ST08_ANodeWithoutDiskSpaceStopsAndTheOthersGoOn) {
  if (!mounts_are_own()) GTEST_SKIP() << "this machine does not let us mount: " << std::strerror(errno);
  std::optional<SmallDisk> disk;
  FaultClusterOptions options;
  options.prepare = [&](const std::string& dir) {
    disk.emplace(dir + "/data/node-" + std::to_string(kFull.value), 64);
  };
  FaultCluster cluster(options);
  ASSERT_TRUE(disk && disk->mounted());
  const Unmount unmount{cluster, disk};
  ASSERT_TRUE(cluster.serves());
  Load load(cluster.cluster(), cluster.dir(), 16, Micros{60'000'000});
  load.begin();
  ASSERT_TRUE(load.run_until([&] { return load.accepted() > 500; }, 20s));

  ASSERT_NO_FATAL_FAILURE(disk->fill());
  EXPECT_TRUE(load.run_until([&] { return !cluster.running(kFull); }, 20s)) << "it runs on with a full disk";
  const std::string words = cluster.said_by(kFull);
  EXPECT_NE(words.find("No space left"), std::string::npos) << words;
  EXPECT_NE(words.find(cluster.data(kFull)), std::string::npos) << words;
  const std::size_t accepted = load.accepted();
  EXPECT_TRUE(load.run_until([&] { return load.accepted() > accepted + 1'000; }, 20s)) << "the others do not go on";

  disk->empty();
  cluster.start(kFull);
  EXPECT_TRUE(cluster.time_to_catch_up(kFull, 30s, [&] { load.run_for(50ms); })) << cluster.said_by(kFull);
  const auto words_now = cluster.status();
  ASSERT_TRUE(words_now[kFull.value]);
  EXPECT_FALSE(words_now[kFull.value]->at("learner").get<bool>()) << "a full disk is no damage";

  expect_whole(load);
  report({{"test", "ST-08"}, {"passed", !HasFailure()}, {"accepted", load.accepted()}});
}

// Asks the service to put so many megabytes under keys of that name; those that it did not answer in time with "ok".
std::size_t fill_state(const FaultCluster& cluster, const std::string& name, std::size_t megabytes) {
  constexpr std::size_t kAtOnce = 4;
  boost::asio::io_context loop;
  const auto key = crypto::load_secret_key(cluster.dir() + "/keys/client-2.key");
  client::ClientOptions options;
  options.timeout = Micros{60'000'000};
  auto client = client::Client::open(loop, cluster.cluster(), *key, options);
  if (!client) return megabytes;
  std::size_t sent = 0;
  std::size_t ended = 0;
  std::size_t good = 0;
  while (ended < megabytes) {
    while (sent < megabytes && sent - ended < kAtOnce) {
      const std::string op = "fill " + name + std::to_string(sent) + "- 16 65000";
      const Refusal refusal = (*client)->submit(ServiceId{}, SharedBytes::copy(op), [&](const client::Answer& answer) {
        ++ended;
        if (answer.outcome == client::Outcome::kReply && answer.reply.text() == "ok") ++good;
      });
      if (refusal != Refusal::kNone) break;
      ++sent;
    }
    loop.restart();
    loop.run_one_for(10ms);
  }
  return megabytes - good;
}

// More state than an agent's memory, so that it needs its disk.
TEST(DiskFull, ASlotWithoutDiskSpaceEndsByNameAndTheOthersAnswer) {
  constexpr std::size_t kMegabytes = 400;
  if (!mounts_are_own()) GTEST_SKIP() << "this machine does not let us mount: " << std::strerror(errno);
  std::optional<SmallDisk> disk;
  FaultClusterOptions options;
  options.prepare = [&](const std::string& dir) { disk.emplace(dir + "/work/s0-slot0", 64); };
  FaultCluster cluster(options);
  ASSERT_TRUE(disk && disk->mounted());
  const Unmount unmount{cluster, disk};
  ASSERT_TRUE(cluster.serves());
  ASSERT_NO_FATAL_FAILURE(disk->fill());
  EXPECT_EQ(fill_state(cluster, "bulk", kMegabytes), 0u);
  const std::string words = read_text(cluster.dir() + "/log/s0-slot0.log");
  EXPECT_NE(words.find("/work/s0-slot0/objects: cannot write: IO error: No space left"), std::string::npos) << words;
  EXPECT_NE(words.find("memory alone does not do"), std::string::npos) << words;
  EXPECT_EQ(words.find("Assertion"), std::string::npos) << words;
  EXPECT_EQ(fill_state(cluster, "more", 1), 0u) << "the others do not go on";
}

}  // namespace
}  // namespace zz::test
