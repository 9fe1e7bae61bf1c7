// A whole local cluster as its users run it: `zz up`, requests, faults of processes, and a clean end.

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/apps/http_user.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

using test::TemporaryDirectory;
using test::ZzProcess;
using ::testing::HasSubstr;

class Up : public ::testing::Test {
 protected:
  // zz COMMAND --dir DIR MORE…: its output; fails the test when it fails.
  std::string zz(const std::string& command, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {command, "--dir", cluster_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ZzProcess process(arguments);
    EXPECT_EQ(process.wait(), 0) << command << ": " << process.err();
    return process.out();
  }
  nlohmann::json status() { return nlohmann::json::parse(zz("status", {"--json"}), nullptr, false); }
  // The processes of the cluster whose command line holds `what`.
  [[nodiscard]] std::vector<pid_t> processes(const std::string& what) const {
    std::vector<pid_t> found;
    for (const pid_t pid : test::processes_naming(cluster_)) {
      std::string line = test::read_text("/proc/" + std::to_string(pid) + "/cmdline");
      std::replace(line.begin(), line.end(), '\0', ' ');
      if (line.find(what) != std::string::npos) found.push_back(pid);
    }
    return found;
  }

  TemporaryDirectory directory_;
  std::string cluster_ = directory_ / "c";
};

TEST_F(Up, ServesTheSampleServiceAndLeavesNothingAtTheEnd) {
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  EXPECT_THAT(up.out(), HasSubstr("LOCAL cluster"));
  EXPECT_EQ(zz("call", {"put greeting hello"}), "ok\n");
  EXPECT_EQ(zz("call", {"get greeting"}), "hello\n");

  const nlohmann::json report = status();
  ASSERT_TRUE(report.is_object());
  EXPECT_EQ(report["nodes"].size(), 4u);
  EXPECT_EQ(report["hosts"].size(), 3u);
  for (const nlohmann::json& node : report["nodes"]) {
    EXPECT_EQ(node["services"][0]["active"], nlohmann::json::array({0, 1}));
  }
  EXPECT_THAT(zz("status"), HasSubstr("4 of 4 agreement nodes answer"));

  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_THAT(up.out(), HasSubstr("nothing is left running"));
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

TEST_F(Up, RunsTheSameClusterAgain) {
  for (int round = 0; round < 2; ++round) {
    ZzProcess up({"up", cluster_});
    ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
    EXPECT_EQ(zz("call", {"put x 1"}), "ok\n");
    up.send_signal(SIGTERM);
    EXPECT_EQ(up.wait(), 0) << up.err();
  }
}

TEST_F(Up, IsRefusedWhileTheClusterRuns) {
  ZzProcess first({"up", cluster_});
  ASSERT_TRUE(first.await_output("serving")) << first.out() << first.err();
  ZzProcess second({"up", cluster_});
  EXPECT_EQ(second.wait(), 1);
  EXPECT_THAT(second.err(), HasSubstr("this cluster is already running"));
  EXPECT_EQ(zz("call", {"get x"}), "none\n");
  first.send_signal(SIGINT);
  EXPECT_EQ(first.wait(), 0);
}

TEST_F(Up, LeavesNoProcessWhenItIsKilled) {
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  EXPECT_FALSE(test::processes_naming(cluster_).empty());
  up.send_signal(SIGKILL);
  EXPECT_EQ(up.wait(), 128 + SIGKILL);
  EXPECT_EQ(test::await_no_process(cluster_), 0u);
}

TEST_F(Up, StopsCleanlyWhileItIsStarting) {
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("starting 4 agreement nodes")) << up.out() << up.err();
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

TEST_F(Up, StartsNodesAgainThatRememberEverything) {
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  EXPECT_EQ(zz("call", {"put x 1"}), "ok\n");
  const std::vector<pid_t> third = processes("zz agreement --id 3 ");
  ASSERT_EQ(third.size(), 1u);
  ::kill(third[0], SIGKILL);
  ASSERT_TRUE(up.await_output("node-3 was killed by signal 9 (Killed); starting it again in 200 ms")) << up.out();
  ASSERT_TRUE(up.await_output("node-3 is started again")) << up.out();
  EXPECT_EQ(zz("call", {"add x 1"}), "2\n");
  for (const char* id : {"0", "1", "2", "3"}) {
    const std::vector<pid_t> one = processes(std::string("zz agreement --id ") + id + " ");
    ASSERT_EQ(one.size(), 1u) << id;
    ::kill(one[0], SIGKILL);
  }
  for (const char* id : {"0", "1", "2", "3"}) {
    ASSERT_TRUE(up.await_output(std::string("node-") + id + " is started again")) << up.out();
  }
  EXPECT_EQ(zz("call", {"add x 1"}), "3\n");
  for (const nlohmann::json& node : status()["nodes"]) {
    EXPECT_EQ(node["durability"], "sync");
    EXPECT_EQ(node["services"][0]["learner"], false);
  }
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

// What it answers is the same everywhere, what it keeps is not.
TEST_F(Up, AServiceThatKeepsRandomBytesIsFoundAndTheBytesAreShown) {
  static constexpr const char* kService = R"(
import http.server, os, sys
class Service(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        with open(sys.argv[2] + '/kept', 'ab') as kept:
            kept.write(b'x' * 40000 + (os.urandom(4) if self.path == '/random' else b''))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Service).serve_forever()
)";
  if (::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "no FUSE here: a web service's files are not compared";
  ZzProcess init({"init", cluster_, "--service", "web", "--", "python3", "-c", kService, "$PORT", "$STATE"});
  ASSERT_EQ(init.wait(), 0) << init.err();
  std::string file = test::read_text(cluster_ + "/cluster.toml");
  const std::string rule = "checkpoint_batches = ";
  const std::size_t at = file.find(rule);
  ASSERT_NE(at, std::string::npos);
  file.replace(at, file.find('\n', at) - at, rule + "1");
  std::ofstream(cluster_ + "/cluster.toml") << file;
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("Ctrl-C stops everything")) << up.out() << up.err();
  const std::string said = up.out();
  const std::string before = "http://127.0.0.1:";
  const std::size_t port = said.find(before);
  ASSERT_NE(port, std::string::npos) << said;
  HttpUser user(static_cast<std::uint16_t>(std::stoul(said.substr(port + before.size()))));
  for (const char* path : {"/same", "/random"}) {
    EXPECT_TRUE(user.send(fmt::format("PUT {} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", path)));
    EXPECT_EQ(user.receive().status, 204u) << path;
  }
  std::string explained;
  for (int tries = 0; tries < 300 && explained.find("NOT DETERMINISTIC") == std::string::npos; ++tries) {
    explained = zz("explain");
  }
  EXPECT_THAT(explained, HasSubstr("NOT DETERMINISTIC"));
  EXPECT_THAT(explained, HasSubstr("the first object that differs is 0000000002000014, inode 2: block 4"));
  EXPECT_THAT(explained, HasSubstr("its bytes differ from byte 14464 on"));  // 80,000 - 4 * 16,384
  EXPECT_THAT(explained, HasSubstr("from byte 14448: \"xxxxxxxxxxxxxxxx"));
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

TEST_F(Up, WithoutDurabilityItGoesOnWithoutOneNodeAndEndsWithoutTwo) {
  ZzProcess up({"up", cluster_, "--durability", "none"});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  EXPECT_FALSE(std::filesystem::exists(cluster_ + "/data/node-0"));
  const std::vector<pid_t> third = processes("zz agreement --id 3 ");
  const std::vector<pid_t> second = processes("zz agreement --id 2 ");
  ASSERT_EQ(second.size() + third.size(), 2u);
  ::kill(third[0], SIGKILL);
  ASSERT_TRUE(up.await_output("node-3 was killed by signal 9")) << up.out();
  EXPECT_EQ(zz("call", {"put x 1"}), "ok\n");
  // Both at once: stopped first, so that the second is gone before the first is back.
  const std::vector<pid_t> first = processes("zz agreement --id 1 ");
  ASSERT_EQ(first.size(), 1u);
  up.send_signal(SIGSTOP);
  ::kill(second[0], SIGKILL);
  ::kill(first[0], SIGKILL);
  up.send_signal(SIGCONT);
  EXPECT_EQ(up.wait(), 1);
  EXPECT_THAT(up.err(), HasSubstr("zz up: too many processes have ended: node-"));
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

TEST_F(Up, ANodeWhoseLogIsGoneSaysSoAndLearns) {
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  EXPECT_EQ(zz("call", {"put x 1"}), "ok\n");
  const std::vector<pid_t> third = processes("zz agreement --id 2 ");
  ASSERT_EQ(third.size(), 1u);
  up.send_signal(SIGSTOP);  // it starts nothing while the log goes
  ::kill(third[0], SIGKILL);
  const std::string name = "zz agreement --id 2 ";
  const auto deadline = std::chrono::steady_clock::now() + test::kProcessDeadline;
  while (!processes(name).empty() && std::chrono::steady_clock::now() < deadline) ::poll(nullptr, 0, 10);
  std::filesystem::remove_all(cluster_ + "/data/node-2/log");
  up.send_signal(SIGCONT);
  ASSERT_TRUE(up.await_output("node-2 is started again")) << up.out();
  EXPECT_EQ(zz("call", {"add x 1"}), "2\n");
  EXPECT_THAT(zz("status"), HasSubstr("LEARNER"));
  EXPECT_THAT(test::read_text(cluster_ + "/log/node-2.log"), HasSubstr("LEARNER: "));
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
}

TEST_F(Up, SurvivesTheLossOfAHostDaemonAndCleansUpAfterIt) {
  ZzProcess up({"up", cluster_});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  ASSERT_EQ(zz("call", {"put x 1"}), "ok\n");
  const auto report = status();
  const std::vector<pid_t> daemons = processes("zz host --id 0 ");
  ASSERT_FALSE(daemons.empty());
  ::kill(*std::min_element(daemons.begin(), daemons.end()), SIGKILL);
  ASSERT_TRUE(up.await_output("host-0 was killed by signal 9")) << up.out();
  ASSERT_TRUE(up.await_output("slot 2 is an active replica now")) << up.out();
  EXPECT_EQ(zz("call", {"get x"}), "1\n");
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

TEST_F(Up, WrapsAWebServiceAndTellsOfALiar) {
  const std::string state = directory_ / "tree";
  std::filesystem::create_directory(state);
  std::ofstream(state + "/index.html") << "hello from the agreed state\n";
  ZzProcess up({"up", cluster_, "--allow-faults", "--listen", "127.0.0.1:0", "--initial-state", state, "--",
                "/usr/bin/python3", "-m", "http.server", "$PORT", "--bind", "127.0.0.1", "--directory", "$STATE"});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  const std::string text = up.out();
  const std::size_t begin = text.find("http://");
  const std::string url = text.substr(begin, text.find_first_of(" \n", begin) - begin);
  const auto get = [&] {
    const std::string file = directory_ / "reply";
    EXPECT_EQ(std::system(fmt::format("curl -s -m 30 -o {} {}", file, url).c_str()), 0);
    return test::read_text(file);
  };
  EXPECT_EQ(get(), "hello from the agreed state\n");
  zz("fault", {"0", "wrong-reply"});
  EXPECT_EQ(get(), "hello from the agreed state\n");
  EXPECT_TRUE(up.await_output("web: replicas disagree")) << up.out();
  EXPECT_TRUE(up.await_output("web: slot 2 is an active replica now")) << up.out();
  EXPECT_TRUE(up.await_output("web: slot 0 is there again, with a fresh replica (incarnation 2, asleep)")) << up.out();
  EXPECT_EQ(get(), "hello from the agreed state\n");
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

TEST_F(Up, ServesWithTwoFaultsToleratedOnEitherSide) {
  ZzProcess up({"up", cluster_, "--f", "2", "--g", "2", "--allow-faults"});
  ASSERT_TRUE(up.await_output("serving")) << up.out() << up.err();
  EXPECT_EQ(zz("call", {"put x 1"}), "ok\n");
  zz("fault", {"0", "wrong-reply"});
  zz("fault", {"1", "wrong-reply"});
  EXPECT_EQ(zz("call", {"get x"}), "1\n");
  EXPECT_EQ(zz("call", {"add x 4"}), "5\n");
  ASSERT_TRUE(up.await_output("kv: slot 3 is an active replica now")) << up.out();
  ASSERT_TRUE(up.await_output("kv: slot 4 is an active replica now")) << up.out();
  EXPECT_EQ(zz("call", {"get x"}), "5\n");
  up.send_signal(SIGINT);
  EXPECT_EQ(up.wait(), 0) << up.err();
  EXPECT_TRUE(test::processes_naming(cluster_).empty());
}

}  // namespace
}  // namespace zz::apps
