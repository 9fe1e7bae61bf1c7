#pragma once

// DemoTour: what `zz demo` does with a running local cluster around a WebDAV server: users at work, three faults one
// after the other (a lie, a freeze, a crash), each watched until the cluster has healed itself, and a last look at
// everything. Blocking; one thread (the users have their own).

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/demo_status.hpp"
#include "apps/demo_teller.hpp"
#include "apps/demo_workload.hpp"
#include "apps/status_client.hpp"
#include "apps/supervisor.hpp"
#include "base/result.hpp"

namespace zz::apps {

struct DemoSummary {
  std::string service;
  DavCounts users;
  std::uint64_t divergences = 0;
  std::uint64_t wakes = 0;
  std::uint64_t evictions = 0;
  std::uint64_t first_correct_us = 0;  // the longest from detection to g+1 equal votes
  std::size_t active_after = 0;        // active and connected
  std::size_t asleep_after = 0;        // joined, not active, and asleep by their hosts' word
};
// One line.
std::string render_json(const DemoSummary& summary);

struct DemoTourOptions {
  std::string dir;                 // of the cluster
  std::uint64_t requests = 3'000;  // at least; some more while a fault is being healed
  std::size_t users = 4;
  std::uint64_t seed = 1;
  std::function<bool()> cancelled;
};

class DemoTour {
 public:
  // `run` serves the cluster in options.dir; run and teller must outlive the tour.
  DemoTour(DemoTourOptions options, LocalRun& run, DemoTeller& teller);
  ~DemoTour();

  // Error: what was not seen in time, in one line.
  Result<void> go();
  // What was seen so far.
  [[nodiscard]] const DemoSummary& summary() const { return summary_; }
  // No user begins another request.
  void halt();

 private:
  struct Fault {
    std::string kind;           // as the host daemon knows it
    std::string what;           // "the replica in slot {} ..."
    std::string noticed;        // "the nodes saw ..."
    bool first_active = false;  // which of the active slots
  };
  // What one fault has led to so far.
  struct Healing {
    Fault fault;
    std::uint32_t victim = 0;
    ClusterStatus before;
    std::vector<nlohmann::json> answers_before;
    std::chrono::steady_clock::time_point start;
    bool noticed = false;
    bool woken = false;
    bool settled = false;
    bool evicted = false;
    bool renewed = false;
  };

  Result<void> calm();
  Result<void> heal(const Fault& fault, int number, std::uint64_t requests);
  Result<void> inject(const Healing& healing);
  void narrate(Healing& healing);
  [[nodiscard]] bool healed(const Healing& healing) const;
  // g+1 slots serve and the others sleep, by the nodes' and the hosts' word.
  [[nodiscard]] bool is_healthy() const;
  // Waits until all nodes have answered anew and the cluster is healthy.
  Result<void> await_health(std::string_view what);
  Result<void> last_look();

  // Lets things happen until `done`, showing `progress`; error when that takes longer than `limit`.
  Result<void> await(const std::function<bool()>& done, std::chrono::milliseconds limit, std::string_view what);
  void look(StatusClient::Answers answers);
  void pace();
  [[nodiscard]] std::size_t count_serving() const;  // active and connected
  [[nodiscard]] std::size_t count_asleep() const;   // joined, not active, and asleep
  [[nodiscard]] std::string progress_line() const;

  DemoTourOptions options_;
  LocalRun& run_;
  DemoTeller& teller_;
  const crypto::ServiceEntry& service_;
  std::unique_ptr<DavUsers> users_;
  boost::asio::io_context loop_{1};
  bool asking_ = false;
  StatusClient::Answers answers_;
  ClusterStatus status_;
  DemoSummary summary_;
  double rate_ = 0;  // requests per second to grant; 0: none
  double owed_ = 0;  // of a request, by pace()
  std::chrono::steady_clock::time_point paced_at_;
  std::unique_ptr<StatusClient> client_;  // last: goes before what its callbacks touch
};

}  // namespace zz::apps
