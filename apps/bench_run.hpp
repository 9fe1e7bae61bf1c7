#pragma once

// What the measurements of `zz bench` share: a loop that ends when the user wants it to, a directory for a cluster made
// for the run, and what is printed.

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

namespace zz::apps {

// A directory that goes with its owner.
class TemporaryDirectory {
 public:
  static Result<TemporaryDirectory> make();  // below $TMPDIR
  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// An io_context, and whether the user wants the measurement to end (SIGINT, SIGTERM). One thread.
class BenchLoop {
 public:
  using Clock = std::chrono::steady_clock;
  BenchLoop();
  boost::asio::io_context& context() { return loop_; }
  [[nodiscard]] bool interrupted();
  // Runs until `done` or the deadline; whether it is done.
  template <class Done>
  bool run_until(Clock::time_point deadline, Done done) {
    while (!done() && !interrupted_ && Clock::now() < deadline) {
      loop_.run_until(std::min(deadline, Clock::now() + kStep));
      loop_.restart();
    }
    return done();
  }

 private:
  static constexpr auto kStep = std::chrono::milliseconds(50);
  boost::asio::io_context loop_{1};
  boost::asio::signal_set signals_;
  bool interrupted_ = false;
};

// A line of progress, on stderr.
void say(std::string_view line);
Error interrupted();
// To three digits after the point: more than enough for what is measured.
double rounded(double value);

}  // namespace zz::apps
