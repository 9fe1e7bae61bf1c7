#pragma once

// RecoveryWatch: what its nodes and hosts tell of the first service of a local cluster, for measurements: whether it is
// healthy, and how a replica that was woken after a fault got on.
//
// One thread, the loop's. Loop, run and directory must outlive it.

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/bench_run.hpp"
#include "apps/demo_status.hpp"
#include "apps/status_client.hpp"
#include "apps/supervisor.hpp"
#include "base/result.hpp"

namespace zz::apps {

// Milliseconds since the fault.
struct Recovery {
  double detect_ms = 0;
  double wake_ms = 0;
  double first_vote_ms = 0;
  double first_correct_reply_ms = 0;
  double all_state_ms = 0;
  double bytes_on_demand = 0;
};
// One line.
std::string describe(const Recovery& recovery);
// The median of each, by name; requires at least one.
nlohmann::ordered_json medians(const std::vector<Recovery>& runs);

class RecoveryWatch {
 public:
  using Clock = BenchLoop::Clock;
  using Milliseconds = std::chrono::milliseconds;

  // `run` serves the cluster in `dir`.
  static Result<std::unique_ptr<RecoveryWatch>> open(BenchLoop& loop, LocalRun& run, std::string dir);

  // Lets things happen until `done`. Error: it took longer than `limit`, a process ended, the user wants to end.
  Result<void> await(const std::function<bool()>& done, Milliseconds limit, std::string_view what);
  // g+1 slots serve and the others sleep, by the nodes' and the hosts' word of from now on.
  Result<void> await_health();
  // As of the last answers.
  [[nodiscard]] const ClusterStatus& status() const { return status_; }
  [[nodiscard]] bool is_healthy() const;
  // What its host says of the slot; null: nothing.
  [[nodiscard]] nlohmann::json host_slot(std::uint32_t slot) const;
  Result<void> inject(std::uint32_t slot, std::string_view fault) const;

  // A replica's way back, for one fault. Requires g = 1.
  struct Episode {
    std::string fault;
    Milliseconds limit;  // until the woken replica has all of the state
    // The load: its next request counts; when its right reply came.
    std::function<void()> watch_next;
    std::function<std::optional<Clock::time_point>()> answered_at;
  };
  // In a healthy cluster. Nothing, and disturbed() says why: it does not count.
  Result<std::optional<Recovery>> recover(const Episode& episode);
  // The sleeper was awake before the fault, or was put to sleep before it had all of the state.
  [[nodiscard]] const std::string& disturbed() const { return disturbed_; }

 private:
  RecoveryWatch(BenchLoop& loop, LocalRun& run, std::string dir, std::unique_ptr<StatusClient> watcher);
  [[nodiscard]] const crypto::ServiceEntry& service() const;
  [[nodiscard]] bool is_asleep(const SlotStatus& slot) const;
  void look();

  BenchLoop& loop_;
  LocalRun& run_;
  const std::string dir_;
  ClusterStatus status_;
  bool asking_ = false;
  Clock::time_point look_at_;
  std::optional<std::uint32_t> woken_;
  std::string disturbed_;
  std::unique_ptr<StatusClient> watcher_;  // last: goes before what its callbacks touch
};

}  // namespace zz::apps
