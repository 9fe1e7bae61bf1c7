// A node whose disk is full, with real processes.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include "tests/faults/fault_cluster.hpp"
#include "tests/faults/load.hpp"

namespace zz::test {
namespace {

using namespace std::chrono_literals;

constexpr NodeId kFull{3};

// Ends the cluster, then takes the small file system away, so that the directory can go.
struct Unmount {
  FaultCluster& cluster;
  ~Unmount() {
    cluster.stop();
    ::umount2(cluster.data(kFull).c_str(), MNT_DETACH);
  }
};

// Takes every byte that is left.
void fill(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  const std::vector<char> bytes(4'096, 'x');
  while (::write(fd, bytes.data(), bytes.size()) > 0) continue;
  EXPECT_EQ(errno, ENOSPC);
  ::close(fd);
}

TEST(Acceptance, ST08_ANodeWithoutDiskSpaceStopsAndTheOthersGoOn) {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    GTEST_SKIP() << "this machine does not let us mount: " << std::strerror(errno);
  }
  bool mounted = false;
  FaultClusterOptions options;
  options.prepare = [&](const std::string& dir) {
    const std::string place = dir + "/data/node-" + std::to_string(kFull.value);
    mounted = ::mount("zz", place.c_str(), "tmpfs", 0, "size=64m,mode=700") == 0;
  };
  FaultCluster cluster(options);
  ASSERT_TRUE(mounted) << std::strerror(errno);
  const Unmount unmount{cluster};
  ASSERT_TRUE(cluster.serves());
  Load load(cluster.cluster(), cluster.dir(), 16, Micros{60'000'000});
  load.begin();
  ASSERT_TRUE(load.run_until([&] { return load.accepted() > 500; }, 20s));

  const std::string ballast = cluster.data(kFull) + "/ballast";
  ASSERT_NO_FATAL_FAILURE(fill(ballast));
  EXPECT_TRUE(load.run_until([&] { return !cluster.running(kFull); }, 20s)) << "it runs on with a full disk";
  const std::string words = cluster.said_by(kFull);
  EXPECT_NE(words.find("No space left"), std::string::npos) << words;
  EXPECT_NE(words.find(cluster.data(kFull)), std::string::npos) << words;
  const std::size_t accepted = load.accepted();
  EXPECT_TRUE(load.run_until([&] { return load.accepted() > accepted + 1'000; }, 20s)) << "the others do not go on";

  ASSERT_TRUE(std::filesystem::remove(ballast));
  cluster.start(kFull);
  EXPECT_TRUE(cluster.time_to_catch_up(kFull, 30s, [&] { load.run_for(50ms); })) << cluster.said_by(kFull);
  const auto words_now = cluster.status();
  ASSERT_TRUE(words_now[kFull.value]);
  EXPECT_FALSE(words_now[kFull.value]->at("learner").get<bool>()) << "a full disk is no damage";

  expect_whole(load);
  report({{"test", "ST-08"}, {"passed", !HasFailure()}, {"accepted", load.accepted()}});
}

}  // namespace
}  // namespace zz::test
