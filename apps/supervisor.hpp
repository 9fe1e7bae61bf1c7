#pragma once

// LocalRun: all processes of a local cluster, as children of this one: `zz agreement` per node, `zz host` per host that
// has slots, `zz gateway` per service with a gateway address.
//
// It belongs to the thread that called start() and calls the rest, and that thread must outlive it: the children get
// SIGTERM when that thread ends, however it ends. While a LocalRun lives, this process adopts orphaned descendants
// (PR_SET_CHILD_SUBREAPER), so that stop() can wait for whatever a killed host daemon leaves behind.
//
// Invariants:
//  1. At most one LocalRun per directory on this machine (a lock in DIR/run).
//  2. When start() fails or stop() returns, no process of the run is left.

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "crypto/cluster.hpp"

namespace zz::apps {

struct LocalRunOptions {
  std::string dir;                                 // made by make_local_cluster
  std::function<void(std::string_view)> progress;  // what is happening, a line each; may be empty
  std::function<bool()> cancelled;                 // asked while start() waits; may be empty
  std::string program = "/proc/self/exe";          // the zz binary
  std::uint32_t start_timeout_ms = 60'000;
  bool restart_nodes = false;  // poll() starts agreement nodes again that have ended by themselves
};

class LocalRun {
 public:
  struct Process {
    std::string name;  // "node-0", "host-2", "gateway-web"
    pid_t pid;
    bool running;
  };

  // Starts everything and waits until it serves: every node answers, every slot has joined, g+1 slots of every
  // service are active and connected, gateways accept. The error names the process that failed and its last words.
  static Result<std::unique_ptr<LocalRun>> start(LocalRunOptions options);
  // stop()
  ~LocalRun();
  LocalRun(const LocalRun&) = delete;
  LocalRun& operator=(const LocalRun&) = delete;

  // Ends gateways, hosts and nodes, in this order: SIGTERM, a bounded wait, SIGKILL. Takes at most
  // kStopTimeoutMs per kind. Idempotent.
  void stop();
  [[nodiscard]] std::vector<Process> pids();
  // One line for each process that has ended by itself since the last call, and for each that was started again. A node
  // that ends again and again is started ever more rarely, up to kRestartMostMs apart.
  [[nodiscard]] std::vector<std::string> poll();
  // For tests: kill -9, and no restart before start_node(). Does nothing to a node that does not run.
  void kill_node(NodeId node);
  // Starts a node that does not run; it may not serve yet.
  Result<void> start_node(NodeId node);
  [[nodiscard]] const crypto::ClusterFile& cluster() const;

 private:
  struct State;
  explicit LocalRun(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

inline constexpr std::uint32_t kRestartLeastMs = 200;
inline constexpr std::uint32_t kRestartMostMs = 10'000;  // who lived for so long is started with the least delay again
inline constexpr std::uint32_t kStopTimeoutMs = 20'000;  // a host daemon takes up to 15 s to destroy its guests

}  // namespace zz::apps
