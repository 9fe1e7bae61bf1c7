// Nodes that stand still, vanish without a word, or hang on a thin line, with real processes.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/faults/fault_cluster.hpp"
#include "tests/faults/load.hpp"

namespace zz::test {
namespace {

using Clock = Load::Clock;
using namespace std::chrono_literals;

constexpr Micros kTimeout{60'000'000};

// ---- NW-05: half-open

void stop_for_a_while(bool the_primary) {
  FaultCluster cluster({});
  ASSERT_TRUE(cluster.serves());
  Load load(cluster.cluster(), cluster.dir(), 16, kTimeout);
  load.begin();
  ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
  const NodeId primary = cluster.primary();
  const NodeId victim{static_cast<std::uint16_t>((primary.value + (the_primary ? 0 : 1)) % cluster.cluster().n())};
  const Clock::time_point stopped = Clock::now();
  cluster.send_signal(victim, SIGSTOP);
  load.run_for(4s);
  const auto outage = load.longest_gap(stopped, Clock::now());
  cluster.send_signal(victim, SIGCONT);
  const auto back = cluster.time_to_catch_up(victim, 20s, [&] { load.run_for(50ms); });
  EXPECT_LT(milliseconds(outage), 3 * cluster.cluster().timing.view_timeout_ms);
  EXPECT_TRUE(back) << "node " << victim.value << " did not catch up";
  expect_whole(load);
  report({{"test", the_primary ? "NW-05 primary stopped" : "NW-05 backup stopped"},
          {"passed", !testing::Test::HasFailure()},
          {"outage_ms", milliseconds(outage)},
          {"caught_up_ms", back ? milliseconds(*back) : -1},
          {"accepted", load.accepted()}});
}

TEST(Acceptance, NW05_HalfOpenBackupUnderLoad) { stop_for_a_while(false); }
TEST(Acceptance, NW05_HalfOpenPrimaryUnderLoad) { stop_for_a_while(true); }

// ---- a link of its own for one node

bool command(const std::string& line) { return std::system(line.c_str()) == 0; }

// The last node lives in a network namespace of its own, at the other end of one link; everybody else in one that this
// process has moved to. Needs the right to make namespaces.
class FarNode {
 public:
  FarNode() {
    if (::unshare(CLONE_NEWNET) != 0 || !command("ip link set lo up")) return;
    int ready[2];
    if (::pipe(ready) != 0) return;
    const pid_t parent = ::getpid();
    holder_ = ::fork();
    if (holder_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const char made = ::getppid() == parent && ::unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
      if (::write(ready[1], &made, 1) == 1) ::pause();
      ::_exit(0);
    }
    char made = 'n';
    ready_ = ::read(ready[0], &made, 1) == 1 && made == 'y';
    ::close(ready[0]);
    ::close(ready[1]);
    const std::string inside = "nsenter -t " + std::to_string(holder_) + " -n ";
    ready_ = ready_ && command("ip link add zz-near type veth peer name zz-far netns " + std::to_string(holder_)) &&
             command("ip link set zz-near address 02:00:00:00:00:01 up && ip addr add 10.77.0.1/24 dev zz-near") &&
             command(inside + "ip link set lo up") &&
             command(inside + "ip link set zz-far address 02:00:00:00:00:02 up") &&
             command(inside + "ip addr add 10.77.0.2/24 dev zz-far");
    if (ready_) connect();
  }
  ~FarNode() {
    if (holder_ <= 0) return;
    ::kill(holder_, SIGKILL);
    ::waitpid(holder_, nullptr, 0);
  }
  FarNode(const FarNode&) = delete;
  FarNode& operator=(const FarNode&) = delete;

  [[nodiscard]] bool ready() const { return ready_; }
  // What a program sends goes nowhere, and nobody is told: the frames are for somebody else.
  void vanish() const { set_neighbours("02:00:00:00:00:99", "02:00:00:00:00:98"); }
  void connect() const { set_neighbours("02:00:00:00:00:02", "02:00:00:00:00:01"); }
  [[nodiscard]] bool limit_to_one_megabit() const {
    const std::string limit = " root tbf rate 1mbit burst 32k latency 400ms";
    return command("tc qdisc add dev zz-near" + limit) && command(inside() + "tc qdisc add dev zz-far" + limit);
  }
  void lift_limit() const {
    EXPECT_TRUE(command("tc qdisc del dev zz-near root") && command(inside() + "tc qdisc del dev zz-far root"));
  }

  // A cluster whose last node is the far one. `dir` is for the script that starts it there.
  [[nodiscard]] FaultClusterOptions options(const TemporaryDirectory& dir) const {
    FaultClusterOptions out;
    out.configure = [](crypto::ClusterFile& file) {
      for (crypto::NodeEntry& node : file.nodes) node.address.host = "10.77.0.1";
      file.nodes.back().address.host = "10.77.0.2";
    };
    out.program = dir / "zz";
    std::ofstream(out.program) << "#!/bin/sh\n"
                               << "if [ \"$1 $2 $3\" = \"agreement --id 3\" ]; then\n  exec " << inside() << ZZ_BINARY
                               << " \"$@\"\nfi\nexec " << ZZ_BINARY << " \"$@\"\n";
    std::filesystem::permissions(out.program, std::filesystem::perms::owner_all);
    return out;
  }

 private:
  [[nodiscard]] std::string inside() const { return "nsenter -t " + std::to_string(holder_) + " -n "; }
  void set_neighbours(const std::string& far, const std::string& near) const {
    EXPECT_TRUE(command("ip neigh replace 10.77.0.2 lladdr " + far + " nud permanent dev zz-near"));
    EXPECT_TRUE(command(inside() + "ip neigh replace 10.77.0.1 lladdr " + near + " nud permanent dev zz-far"));
  }

  pid_t holder_ = -1;
  bool ready_ = false;
};

constexpr NodeId kFar{3};
constexpr const char* kNoNamespaces = "this machine does not let us make network namespaces";

TEST(Acceptance, NW05_PeerThatVanishesWithoutAWord) {
  const FarNode far;
  if (!far.ready()) GTEST_SKIP() << kNoNamespaces;
  const TemporaryDirectory scripts;
  FaultCluster cluster(far.options(scripts));
  ASSERT_TRUE(cluster.serves());
  Load load(cluster.cluster(), cluster.dir(), 16, kTimeout);
  load.begin();
  ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
  const Clock::time_point vanished = Clock::now();
  far.vanish();
  // Every side notices, though nobody said goodbye.
  EXPECT_TRUE(
      load.run_until([&] { return cluster.said_by(NodeId{0}).find("channel down: node 3") != std::string::npos; }, 30s))
      << cluster.said_by(NodeId{0});
  const Clock::time_point noticed = Clock::now();
  EXPECT_LT(milliseconds(load.longest_gap(vanished, noticed)), 3 * cluster.cluster().timing.view_timeout_ms);
  load.run_for(2s);
  far.connect();
  const auto back = cluster.time_to_catch_up(kFar, 20s, [&] { load.run_for(50ms); });
  EXPECT_TRUE(back && *back <= 3s) << (back ? milliseconds(*back) : -1) << " ms until it was back";
  expect_whole(load);
  report({{"test", "NW-05 peer vanished"},
          {"passed", !HasFailure()},
          {"noticed_ms", milliseconds(noticed - vanished)},
          {"caught_up_ms", back ? milliseconds(*back) : -1},
          {"accepted", load.accepted()}});
}

// ---- NW-06: a thin line

TEST(Acceptance, NW06_OneMegabitForANodeThatCatchesUp) {
  const FarNode far;
  if (!far.ready()) GTEST_SKIP() << kNoNamespaces;
  const TemporaryDirectory scripts;
  FaultCluster cluster(far.options(scripts));
  ASSERT_TRUE(cluster.serves());
  Load load(cluster.cluster(), cluster.dir(), 8, kTimeout);
  load.begin();
  ASSERT_TRUE(load.run_until([&] { return load.accepted() > 100; }, 20s));
  cluster.kill(kFar);
  load.run_for(1s);
  const Clock::time_point start = Clock::now();
  load.run_for(4s);
  const auto before = load.latency_99(start, Clock::now());
  if (!far.limit_to_one_megabit()) GTEST_SKIP() << "this machine has no token bucket filter";
  cluster.start(kFar);
  const Clock::time_point thin = Clock::now();
  load.run_for(8s);
  const auto during = load.latency_99(thin, Clock::now());
  EXPECT_GT(before.count(), 0);
  EXPECT_LE(during, 3 * before) << milliseconds(during) << " ms after " << milliseconds(before) << " ms";
  far.lift_limit();
  const auto back = cluster.time_to_catch_up(kFar, 30s, [&] { load.run_for(50ms); });
  EXPECT_TRUE(back) << "it did not catch up";
  expect_whole(load);
  report({{"test", "NW-06"},
          {"passed", !HasFailure()},
          {"latency_99_before_us", std::chrono::duration_cast<std::chrono::microseconds>(before).count()},
          {"latency_99_during_us", std::chrono::duration_cast<std::chrono::microseconds>(during).count()},
          {"caught_up_ms", back ? milliseconds(*back) : -1},
          {"accepted", load.accepted()}});
}

}  // namespace
}  // namespace zz::test
