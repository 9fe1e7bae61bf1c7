#pragma once

// PacedLoad: puts and gets on the small keys of a key-value service, in turn and on random keys, at a steady rate
// whatever the replies do, or as many at a time as are allowed. Every reply is checked: a value has a sum at its end.
//
// One thread, the loop's. Loop and client must outlive it, and it must outlive its requests (stop(), then idle()).

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/prng.hpp"
#include "client/client.hpp"

namespace zz::apps {

class PacedLoad {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::uint32_t keys = 10'000;
    std::uint32_t rate = 0;  // requests a second; 0: as many as `outstanding` allows
    std::uint32_t outstanding = 100;
  };
  PacedLoad(boost::asio::io_context& loop, client::Client& client, ServiceId service, const Options& options);

  // Puts every key once, `outstanding` at a time; then it is idle.
  void fill();
  void start();
  void stop();
  [[nodiscard]] bool idle() const { return in_flight_ == 0; }

  // The next request that is sent counts: when its right reply comes is answered_at().
  void watch_next();
  [[nodiscard]] std::optional<Clock::time_point> answered_at() const { return answered_at_; }

  [[nodiscard]] std::uint64_t answered() const { return answered_; }
  [[nodiscard]] std::uint64_t errors() const { return errors_; }
  // The first one, in words; empty when there was none.
  [[nodiscard]] const std::string& first_error() const { return first_error_; }

 private:
  enum class Mode { kIdle, kFilling, kRunning };
  void tick();
  void top_up();
  bool send_one();
  void on_answer(bool put, bool watched, const client::Answer& answer);

  client::Client& client_;
  ServiceId service_;
  Options options_;
  boost::asio::steady_timer timer_;
  Prng prng_{1};
  Mode mode_ = Mode::kIdle;
  std::uint64_t sent_ = 0;
  std::uint32_t in_flight_ = 0;
  Clock::time_point paced_at_;
  double owed_ = 0;  // requests
  bool watch_next_ = false;
  std::optional<Clock::time_point> answered_at_;
  std::uint64_t answered_ = 0;
  std::uint64_t errors_ = 0;
  std::string first_error_;
};

}  // namespace zz::apps
