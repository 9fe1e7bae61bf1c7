// Power cuts: processes whose unsynced writes are lost when they are killed (power_cut.c).

#include <gtest/gtest.h>
#include <sys/wait.h>

#include "agreement/durable_log.hpp"
#include "base/prng.hpp"
#include "tests/faults/fault_cluster.hpp"
#include "tests/faults/load.hpp"

namespace zz::test {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kOutstanding = 64;
constexpr std::uint64_t kGroups = 300;

struct Written {
  int status = -1;  // 128 + signal when it was killed
  std::string out;
};

// Runs the writer, with or without the library, and waits for its end.
Written run_writer(const TemporaryDirectory& dir, std::vector<std::string> arguments, bool power_cut) {
  const std::string out = dir / "out";
  arguments.insert(arguments.begin(), ZZ_WRITER);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string place = std::filesystem::canonical(dir.path()) / "data";
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (power_cut) {
      ::setenv("ZZ_POWER_CUT_DIR", place.c_str(), 1);
      ::setenv("LD_PRELOAD", ZZ_POWER_CUT, 1);
    }
    const int fd = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(fd, STDOUT_FILENO);
    ::execv(ZZ_WRITER, argv.data());
    ::_exit(126);
  }
  int raw = 0;
  ::waitpid(pid, &raw, 0);
  return {WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw), read_text(out)};
}

class PowerCut : public testing::Test {
 protected:
  void SetUp() override {
#ifdef ZZ_SANITIZED
    GTEST_SKIP() << "a sanitizer's library must be the first one, so no other can be preloaded";
#endif
    std::filesystem::create_directory(data);
  }
  [[nodiscard]] std::string file(const std::string& name) const { return read_text(data + "/" + name); }

  TemporaryDirectory dir;
  std::string data = dir / "data";
};

TEST_F(PowerCut, TakesWhatWasNotSynced) {
  ASSERT_EQ(run_writer(dir, {"files", data, "kill"}, true).status, 128 + SIGKILL);
  EXPECT_EQ(file("synced"), "one two");
  EXPECT_EQ(file("unsynced"), "");
  EXPECT_EQ(file("tail"), "one ");
  EXPECT_EQ(file("overwritten"), "one two");
  EXPECT_EQ(file("truncated"), "one two");
  EXPECT_EQ(file("closed"), "");
  EXPECT_EQ(file("moved"), "one two");
}

TEST_F(PowerCut, IsNotWhatAKillAloneDoes) {
  ASSERT_EQ(run_writer(dir, {"files", data, "kill"}, false).status, 128 + SIGKILL);
  EXPECT_EQ(file("unsynced"), "one two");
  EXPECT_EQ(file("tail"), "one two three");
  EXPECT_EQ(file("overwritten"), "ONE two");
  EXPECT_EQ(file("truncated"), "one");
  EXPECT_EQ(file("closed"), "one two");
}

TEST_F(PowerCut, LeavesAProcessThatEndsByItselfItsWrites) {
  ASSERT_EQ(run_writer(dir, {"files", data, "end"}, true).status, 0);
  EXPECT_EQ(file("unsynced"), "one two");
  EXPECT_EQ(file("tail"), "one two three");
  EXPECT_EQ(file("overwritten"), "ONE two");
  EXPECT_EQ(file("truncated"), "one");
  EXPECT_EQ(file("closed"), "one two");
}

struct Found {
  std::uint64_t told = 0;  // the writer's last group
  std::size_t there = 0;
  bool learner = false;
};

Found write_log(const TemporaryDirectory& dir, const std::string& data, const std::string& durability, bool power_cut) {
  const Written written = run_writer(dir, {"log", data, durability, std::to_string(kGroups)}, power_cut);
  EXPECT_EQ(written.status, 128 + SIGKILL) << written.out;
  Found found;
  const std::size_t line = written.out.rfind('\n', written.out.size() - 2);
  found.told = std::strtoull(written.out.c_str() + (line == std::string::npos ? 0 : line + 1), nullptr, 10);
  agreement::DurableLogOptions options;
  options.path = data;
  auto opened = agreement::DurableLog::open(options);
  if (!opened) {
    ADD_FAILURE() << opened.error();
    return found;
  }
  found.there = opened->services.at(0).prepared.size();
  found.learner = opened->services.at(0).learner;
  return found;
}

TEST_F(PowerCut, LosesNoPromiseOfASyncedLog) {
  const Found found = write_log(dir, data, "sync", true);
  EXPECT_EQ(found.told, kGroups);
  EXPECT_EQ(found.there, kGroups);
  EXPECT_FALSE(found.learner);
}

// What was written once a while is not what was written last: so the test above could fail.
TEST_F(PowerCut, LosesPromisesOfAnUnsyncedLog) {
  const Found found = write_log(dir, data, "async", true);
  EXPECT_EQ(found.told, kGroups);
  EXPECT_LT(found.there, kGroups);
}

TEST_F(PowerCut, IsNeededToLoseWhatWasNotSynced) {
  const Found found = write_log(dir, data, "async", false);
  EXPECT_EQ(found.there, kGroups);
  EXPECT_FALSE(found.learner);
}

// ---- whole clusters

class AcceptancePowerCut : public testing::Test {
 protected:
  void SetUp() override {
#ifdef ZZ_SANITIZED
    GTEST_SKIP() << "a sanitizer's library must be the first one, so no other can be preloaded";
#endif
  }
};

TEST_F(AcceptancePowerCut, OfAllNodesUnderLoadLosesNothingAcknowledged) {
  for (std::size_t run = 1, all = runs(1); run <= all; ++run) {
    const std::int64_t failed = failures();
    FaultClusterOptions options;
    options.power_cut = ZZ_POWER_CUT;
    FaultCluster cluster(options);
    ASSERT_TRUE(cluster.serves());
    Load load(cluster.cluster(), cluster.dir(), kOutstanding, Micros{60'000'000});
    load.begin();
    ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
    Prng prng(run);
    load.run_for(std::chrono::milliseconds(500 + prng.below(1'500)));
    cluster.kill_all();
    for (const crypto::NodeEntry& node : cluster.cluster().nodes) cluster.start(node.id);
    const std::size_t accepted = load.accepted();
    EXPECT_TRUE(load.run_until([&] { return load.accepted() > accepted + kOutstanding + 100; }, 40s))
        << "the service did not come back";
    expect_whole(load);
    for (const auto& word : cluster.status()) {
      ASSERT_TRUE(word);
      EXPECT_FALSE(word->at("learner").get<bool>());
    }
    report({{"test", "power cut, sync"},
            {"run", run},
            {"passed", failures() == failed},
            {"accepted", load.accepted()},
            {"indeterminate", load.indeterminate()},
            {"contradictions", load.contradictions().size()}});
  }
}

// With durability "async" a power cut of all nodes may lose what was acknowledged: that is what it says. But nobody
// answers anything that contradicts an earlier answer.
TEST_F(AcceptancePowerCut, OfAllNodesWithoutSyncIsNotPaperedOver) {
  for (std::size_t run = 1, all = runs(1); run <= all; ++run) {
    const std::int64_t failed = failures();
    FaultClusterOptions options;
    options.power_cut = ZZ_POWER_CUT;
    options.configure = [](crypto::ClusterFile& file) { file.durability = crypto::Durability::kAsync; };
    FaultCluster cluster(options);
    ASSERT_TRUE(cluster.serves());
    Load load(cluster.cluster(), cluster.dir(), kOutstanding, Micros{5'000'000});
    load.begin();
    ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
    load.run_for(1'600ms);
    const std::uint64_t ordered = cluster.ordered_by(NodeId{0});  // at once before the cut: logs are synced each second
    cluster.kill_all();
    for (const crypto::NodeEntry& node : cluster.cluster().nodes) cluster.start(node.id);
    const std::uint64_t left = cluster.ordered_by(NodeId{0});
    EXPECT_LT(left, ordered) << "nothing was lost: the power cut did not work";
    const std::size_t accepted = load.accepted();
    EXPECT_TRUE(load.finish(30s)) << "some requests never ended";
    load.begin();  // a session that the nodes have not forgotten
    load.run_for(5s);
    EXPECT_TRUE(load.finish(30s)) << "some requests never ended";
    std::size_t learners = 0;
    for (const auto& word : cluster.status()) learners += word && word->at("learner").get<bool>() ? 1 : 0;
    for (const std::string& line : load.contradictions()) ADD_FAILURE() << line;
    report({{"test", "power cut, async"},
            {"run", run},
            {"passed", failures() == failed},
            {"ordered_before", ordered},
            {"ordered_after", left},
            {"learners", learners},
            {"accepted_before", accepted},
            {"accepted_after", load.accepted() - accepted},
            {"indeterminate", load.indeterminate()},
            {"contradictions", load.contradictions().size()}});
  }
}

}  // namespace
}  // namespace zz::test
