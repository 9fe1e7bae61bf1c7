// zz bench and zz call as their users run them, on real local clusters.

#include <gmock/gmock.h>
#include <signal.h>
#include <stdlib.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "apps/local_cluster.hpp"
#include "apps/process_cpu.hpp"
#include "apps/supervisor.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

using test::TemporaryDirectory;
using test::ZzProcess;
using ::testing::HasSubstr;

TEST(ProcessCpu, CountsWhatAChildHasUsed) {
  const pid_t child = ::fork();
  if (child == 0) {
    timespec now{};
    do {
      clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    } while (now.tv_sec == 0 && now.tv_nsec < 200'000'000);
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  const Micros alone = cpu_time_of_trees({child});
  EXPECT_GE(alone.value, 150'000);
  EXPECT_GE(cpu_time_of_trees({::getpid()}).value, alone.value);    // as a descendant
  EXPECT_EQ(cpu_time_of_trees({child, child}).value, alone.value);  // once
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(cpu_time_of_trees({child}).value, 0);
  EXPECT_GE(cpu_time_of_trees({::getpid()}).value, alone.value);  // as one that was waited for
}

// Temporary clusters go to a directory of our own, so that what is left of them can be told from others'.
class BenchTest : public ::testing::Test {
 protected:
  BenchTest() { ::setenv("TMPDIR", directory_.path().c_str(), 1); }
  ~BenchTest() override { ::unsetenv("TMPDIR"); }
  [[nodiscard]] std::size_t clusters_left() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      count += entry.path().filename().string().starts_with("zz-bench") ? 1 : 0;
    }
    return count;
  }

  TemporaryDirectory directory_;
};

std::string last_line(std::string text) {
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

TEST_F(BenchTest, MeasuresALocalClusterAndLeavesNothing) {
  ZzProcess zz({"bench", "--service", "kv", "--outstanding", "50", "--payload", "8", "--seconds", "1", "--warmup", "1",
                "--json"});
  ASSERT_EQ(zz.wait(), 0) << zz.err();
  const auto result = nlohmann::json::parse(last_line(zz.out()));
  EXPECT_GT(result.at("ops_per_s").get<double>(), 0);
  EXPECT_GT(result.at("latency_us").at("p50").get<std::uint64_t>(), 0u);
  EXPECT_GE(result.at("latency_us").at("p99"), result.at("latency_us").at("p50"));
  EXPECT_GE(result.at("latency_us").at("p999"), result.at("latency_us").at("p99"));
  EXPECT_GE(result.at("latency_us").at("max"), result.at("latency_us").at("p999"));
  EXPECT_GT(result.at("cpu_us_per_op").get<double>(), 0);
  EXPECT_EQ(result.at("errors"), 0);
  EXPECT_EQ(result.at("outstanding"), 50);
  EXPECT_EQ(result.at("payload"), 8);
  EXPECT_GE(result.at("seconds").get<double>(), 0.9);
  EXPECT_EQ(clusters_left(), 0u);
  EXPECT_EQ(test::await_no_process(directory_.path()), 0u);
}

TEST_F(BenchTest, CtrlCEndsItAndLeavesNothing) {
  ZzProcess zz({"bench", "--seconds", "600", "--warmup", "0"});
  const auto deadline = std::chrono::steady_clock::now() + test::kProcessDeadline;
  while (zz.err().find("measured") == std::string::npos && std::chrono::steady_clock::now() < deadline) {
    ::poll(nullptr, 0, 20);
  }
  zz.send_signal(SIGINT);
  EXPECT_EQ(zz.wait(), 1);
  EXPECT_THAT(zz.err(), HasSubstr("zz bench: interrupted"));
  EXPECT_EQ(clusters_left(), 0u);
  EXPECT_EQ(test::await_no_process(directory_.path()), 0u);
}

TEST_F(BenchTest, SaysWhatIsWrongWithItsOptions) {
  const auto error_of = [](std::vector<std::string> words) {
    words.insert(words.begin(), "bench");
    ZzProcess zz(std::move(words));
    EXPECT_NE(zz.wait(), 0);
    return zz.err();
  };
  EXPECT_THAT(error_of({"--payload", "3"}), HasSubstr("--payload"));
  EXPECT_THAT(error_of({"--outstanding", "0"}), HasSubstr("--outstanding"));
  EXPECT_THAT(error_of({"--dir", directory_ / "nothing"}), HasSubstr("nothing/cluster.toml"));
}

class CallTest : public ::testing::Test {
 protected:
  void make() {
    LocalClusterOptions options;
    options.dir = dir_;
    const auto made = make_local_cluster(options);
    ASSERT_TRUE(made.ok()) << made.error();
  }
  std::string reply(std::vector<std::string> words) {
    words.insert(words.begin(), {"call", "--dir", dir_});
    ZzProcess zz(std::move(words));
    EXPECT_EQ(zz.wait(), 0) << zz.err();
    return zz.out();
  }
  std::string failure(std::vector<std::string> words) {
    words.insert(words.begin(), {"call", "--dir", dir_});
    ZzProcess zz(std::move(words));
    EXPECT_NE(zz.wait(), 0);
    EXPECT_EQ(zz.out(), "");
    const std::string error = zz.err();
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
    return error;
  }

  TemporaryDirectory directory_;
  std::string dir_ = directory_ / "c";
};

TEST_F(CallTest, PrintsTheAgreedReply) {
  make();
  const auto run = LocalRun::start({.dir = dir_, .progress = {}, .cancelled = {}, .program = ZZ_BINARY});
  ASSERT_TRUE(run.ok()) << run.error();
  EXPECT_EQ(reply({"put colour deep blue"}), "ok\n");
  EXPECT_EQ(reply({"--service", "kv", "get colour"}), "deep blue\n");
  const auto object = nlohmann::json::parse(reply({"--json", "get colour"}));
  EXPECT_EQ(object.at("reply"), "deep blue");
  EXPECT_GT(object.at("latency_us").get<std::int64_t>(), 0);
  EXPECT_EQ(reply({"--client", "0", "get nothing"}), "none\n");
}

TEST_F(CallTest, SaysWhyThereIsNoReply) {
  EXPECT_THAT(failure({"get a"}), HasSubstr("cluster.toml"));
  make();
  EXPECT_THAT(failure({"--timeout-ms", "200", "get a"}), HasSubstr("0 of 4 agreement nodes reachable"));
  EXPECT_THAT(failure({"--service", "web", "get a"}), HasSubstr("no service \"web\" (it has: kv)"));
  EXPECT_THAT(failure({"--client", "9", "get a"}), HasSubstr("no client 9"));
  std::filesystem::remove(dir_ + "/keys/client-2.key");
  EXPECT_THAT(failure({"get a"}), HasSubstr("client-2.key"));
}

}  // namespace
}  // namespace zz::apps
