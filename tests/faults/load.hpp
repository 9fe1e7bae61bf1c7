#pragma once

// Load: a client that keeps a number of requests outstanding and knows what must come of them.
//
// Seven requests of eight add 1 to a counter, the eighth puts a key of its own. So:
//  - no two accepted replies to additions to one counter are equal, or a request was executed twice or an effect lost;
//  - at the end a counter holds at least the accepted additions, and at most those and the indeterminate ones (timed
//    out: executed or not, nobody can say);
//  - at the end every key whose put was accepted holds its value.
//
// One thread; its loop runs only inside run_*() and read_back().

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "client/client.hpp"

namespace zz::test {

class Load {
 public:
  using Clock = std::chrono::steady_clock;

  // `dir` holds the cluster and the key of client 2.
  Load(const crypto::ClusterFile& cluster, const std::string& dir, std::size_t outstanding, Micros timeout);

  // New requests are made from now on.
  void begin() { wanted_ = true; }
  // Serves the load that long.
  void run_for(Clock::duration duration);
  // Until `done`; false when it does not come about in time.
  bool run_until(const std::function<bool()>& done, Clock::duration limit);
  // Makes no new requests and waits until all have ended; false when some do not.
  bool finish(Clock::duration limit);
  // Asks for every counter and key and adds to contradictions(). Requires that all requests have ended.
  void read_back();

  [[nodiscard]] std::size_t accepted() const { return replies_.size(); }
  [[nodiscard]] std::size_t indeterminate() const { return indeterminate_; }
  // What could not be, a line each; bounded.
  [[nodiscard]] const std::vector<std::string>& contradictions() const { return contradictions_; }

  // Accepted replies per second in that time.
  [[nodiscard]] double rate(Clock::time_point from, Clock::time_point to) const;
  // The longest time without an accepted reply in that time, its ends included.
  [[nodiscard]] Clock::duration longest_gap(Clock::time_point from, Clock::time_point to) const;
  // The sum of all times without an accepted reply that were longer than `least`.
  [[nodiscard]] Clock::duration total_gaps(Clock::time_point from, Clock::time_point to, Clock::duration least) const;
  // 99 of 100 requests accepted in that time took no longer; 0 when none were.
  [[nodiscard]] Clock::duration latency_99(Clock::time_point from, Clock::time_point to) const;

 private:
  static constexpr std::size_t kCounters = 4;
  struct Reply {
    Clock::time_point sent;
    Clock::time_point at;
  };
  struct Counter {
    std::size_t accepted = 0;
    std::size_t indeterminate = 0;
    std::set<long long> values;  // that replies gave
  };

  void pump();
  void make_one();
  void contradict(std::string line);

  boost::asio::io_context loop_;
  const crypto::ClusterFile& cluster_;
  std::unique_ptr<crypto::SecretKey> key_;
  std::unique_ptr<client::Client> client_;
  std::size_t outstanding_;
  bool wanted_ = false;
  std::size_t made_ = 0;
  std::size_t open_ = 0;
  std::size_t indeterminate_ = 0;
  std::vector<Reply> replies_;  // in the order of acceptance
  Counter counters_[kCounters];
  std::vector<std::size_t> puts_;  // accepted
  std::vector<std::string> contradictions_;
};

// All its requests have ended with an answer, and what was acknowledged is there, once.
void expect_whole(Load& load);

}  // namespace zz::test
