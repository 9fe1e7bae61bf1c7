#pragma once

// KvLoad: a closed loop of puts on a key-value service. A fixed number of requests is always outstanding: each reply
// starts the next one. It measures from submission to the agreed reply and checks every reply.
//
// One thread, the loop's. The client must outlive it, and it must outlive its requests (stop(), then idle()).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/latency_histogram.hpp"
#include "client/client.hpp"

namespace zz::apps {

class KvLoad {
 public:
  static constexpr std::size_t kPayloadMin = 7;  // "put k v"

  struct Options {
    std::uint32_t outstanding = 1;
    std::size_t payload_bytes = 8;  // of a whole operation, at least kPayloadMin
  };
  // What happened since the last look.
  struct Interval {
    LatencyHistogram latency;  // of right replies
    std::uint64_t errors = 0;  // wrong replies, refusals, time-outs
  };

  KvLoad(client::Client& client, ServiceId service, const Options& options);

  void start();
  // No new requests from now on.
  void stop() { running_ = false; }
  [[nodiscard]] bool idle() const { return in_flight_ == 0; }
  [[nodiscard]] Interval take();
  // The first error, in words; empty when there was none.
  [[nodiscard]] const std::string& first_error() const { return first_error_; }

  // After stop() and idle(): reads every key back and calls `done` once with the number of keys whose value is none
  // that was ever put there.
  void read_back(std::function<void(std::uint64_t wrong)> done);

 private:
  struct Operation {
    SharedBytes put;
    SharedBytes get;
    std::string value;
  };
  void send_one();
  void on_answer(std::int64_t sent_ns, const client::Answer& answer);
  void fail(const client::Answer& answer);
  void check_key(const Operation& operation, const client::Answer& answer);

  client::Client& client_;
  ServiceId service_;
  Options options_;
  std::vector<Operation> operations_;  // every key with every value it is given
  std::size_t next_ = 0;
  std::uint32_t in_flight_ = 0;
  bool running_ = false;
  Interval interval_;
  std::string first_error_;
  std::uint64_t wrong_keys_ = 0;
  std::function<void(std::uint64_t)> read_done_;
};

}  // namespace zz::apps
