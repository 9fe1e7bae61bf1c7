#pragma once

// FaultCluster: a whole local cluster of real processes around the sample key-value service, whose agreement nodes can
// be killed, stopped and started one by one. One thread. Nothing of it is left afterwards.

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/local_cluster.hpp"
#include "apps/status_client.hpp"
#include "apps/supervisor.hpp"
#include "crypto/cluster.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::test {

struct FaultClusterOptions {
  std::uint32_t f = 1;
  std::string power_cut;                                // the library to run all processes under; empty: none
  std::string program = ZZ_BINARY;                      // or a script that runs it
  std::function<void(crypto::ClusterFile&)> configure;  // the last word on cluster.toml
  std::function<void(const std::string&)> prepare;      // with the directory, before anything is started
};

class FaultCluster {
 public:
  // Fails the test when it does not come to serve.
  explicit FaultCluster(const FaultClusterOptions& options) : power_cut_(options.power_cut) {
    apps::LocalClusterOptions made;
    made.dir = dir_.path();
    made.f = options.f;
    auto cluster = apps::make_local_cluster(made);
    if (!cluster) {
      ADD_FAILURE() << cluster.error();
      return;
    }
    cluster_ = std::move(*cluster);
    if (options.configure) {
      options.configure(cluster_);
      std::ofstream(apps::cluster_path(dir())) << crypto::render_cluster(cluster_);
    }
    for (const crypto::NodeEntry& node : cluster_.nodes) std::filesystem::create_directories(data(node.id));
    if (options.prepare) options.prepare(dir());
    apps::LocalRunOptions run;
    run.dir = dir();
    run.program = options.program;
    auto started = with_library([&] { return apps::LocalRun::start(std::move(run)); });
    if (!started) {
      ADD_FAILURE() << started.error();
      return;
    }
    run_ = std::move(*started);
  }
  ~FaultCluster() { stop(); }
  FaultCluster(const FaultCluster&) = delete;
  FaultCluster& operator=(const FaultCluster&) = delete;

  [[nodiscard]] bool serves() const { return run_ != nullptr; }
  // Ends all processes.
  void stop() {
    // One that stands still would not hear that it is to end.
    for (const crypto::NodeEntry& node : cluster_.nodes) send_signal(node.id, SIGCONT);
    run_.reset();
  }
  [[nodiscard]] std::string dir() const { return dir_.path(); }
  [[nodiscard]] std::string data(NodeId node) const { return dir_ / ("data/node-" + std::to_string(node.value)); }
  [[nodiscard]] const crypto::ClusterFile& cluster() const { return cluster_; }
  // What a node has said since it was started last.
  [[nodiscard]] std::string said_by(NodeId node) const {
    return read_text(dir_ / ("log/node-" + std::to_string(node.value) + ".log"));
  }

  void send_signal(NodeId node, int number) {
    if (run_ == nullptr) return;
    for (const apps::LocalRun::Process& process : run_->pids()) {
      if (process.name == "node-" + std::to_string(node.value) && process.running) ::kill(process.pid, number);
    }
  }
  // Requires serves().
  [[nodiscard]] apps::LocalRun& run() { return *run_; }
  [[nodiscard]] bool running(NodeId node) {
    for (const apps::LocalRun::Process& process : run_->pids()) {
      if (process.name == "node-" + std::to_string(node.value)) return process.running;
    }
    return false;
  }
  // kill -9
  void kill(NodeId node) { run_->kill_node(node); }
  // All at once: no node lives to see another one's end.
  void kill_all() {
    for (const crypto::NodeEntry& node : cluster_.nodes) send_signal(node.id, SIGSTOP);
    for (const crypto::NodeEntry& node : cluster_.nodes) kill(node.id);
  }
  void start(NodeId node) {
    const Result<void> started = with_library([&] { return run_->start_node(node); });
    if (!started) ADD_FAILURE() << started.error();
  }

  // Each node's word on the service, by id; nothing where it does not answer.
  [[nodiscard]] std::vector<std::optional<nlohmann::json>> status(std::uint32_t timeout_ms = 1'000) const {
    std::vector<std::optional<nlohmann::json>> out(cluster_.nodes.size());
    const auto answers = apps::query_status(dir(), timeout_ms);
    if (!answers) return out;
    for (const nlohmann::json& answer : *answers) {
      out.at(answer.at("node").get<std::size_t>()) = answer.at("services").at(0);
    }
    return out;
  }
  // As the most nodes see it.
  [[nodiscard]] NodeId primary() const {
    std::vector<std::size_t> votes(cluster_.nodes.size());
    for (const auto& word : status()) {
      if (word) ++votes.at(word->at("primary").get<std::size_t>());
    }
    return NodeId{static_cast<std::uint16_t>(std::max_element(votes.begin(), votes.end()) - votes.begin())};
  }
  [[nodiscard]] std::uint64_t ordered_by(NodeId node) const {
    const auto words = status();
    return words[node.value] ? words[node.value]->at("ordered").get<std::uint64_t>() : 0;
  }
  // How long it takes the node, from now on, to order what the others have now; nothing when it is longer than `limit`.
  [[nodiscard]] std::optional<std::chrono::steady_clock::duration> time_to_catch_up(
      NodeId node, std::chrono::steady_clock::duration limit, const std::function<void()>& meanwhile) const {
    const auto start = std::chrono::steady_clock::now();
    std::uint64_t goal = 0;
    for (const auto& word : status()) {
      if (word) goal = std::max(goal, word->at("ordered").get<std::uint64_t>());
    }
    while (ordered_by(node) < goal) {
      if (std::chrono::steady_clock::now() - start > limit) return std::nullopt;
      meanwhile();
    }
    return std::chrono::steady_clock::now() - start;
  }

 private:
  template <class Start>
  std::invoke_result_t<Start> with_library(Start start) {
    if (power_cut_.empty()) return start();
    ::setenv("ZZ_POWER_CUT_DIR", (std::filesystem::canonical(dir()) / "data").c_str(), 1);
    ::setenv("LD_PRELOAD", power_cut_.c_str(), 1);
    auto done = start();
    ::unsetenv("LD_PRELOAD");
    ::unsetenv("ZZ_POWER_CUT_DIR");
    return done;
  }

  TemporaryDirectory dir_;
  std::string power_cut_;
  crypto::ClusterFile cluster_;
  std::unique_ptr<apps::LocalRun> run_;  // before dir_ goes, its processes have ended
};

// How often a test of this folder repeats itself: scripts/failover asks for more.
inline std::size_t runs(std::size_t in_ctest) {
  const char* asked = std::getenv("ZZ_RUNS");
  return asked == nullptr ? in_ctest : std::strtoull(asked, nullptr, 10);
}

// What has failed in this test so far: a run that fails does not keep the others from being counted.
inline std::int64_t failures() {
  const testing::TestResult& result = *testing::UnitTest::GetInstance()->current_test_info()->result();
  std::int64_t count = 0;
  for (int i = 0; i < result.total_part_count(); ++i) count += result.GetTestPartResult(i).failed() ? 1 : 0;
  return count;
}

// A line for scripts/failover.
inline void report(const nlohmann::json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

inline std::int64_t milliseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

}  // namespace zz::test
