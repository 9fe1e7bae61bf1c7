#pragma once

// Clients of the simulated cluster. SimClient drives a real client::Session in a closed loop: each of its workers
// submits, waits for the reply, thinks, and submits again, as long as requests are allotted. HostileClient says what it
// likes. One thread, virtual time.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/session.hpp"
#include "tests/sim/kernel.hpp"
#include "tests/sim/network.hpp"

namespace zz::sim {

class SimClient {
 public:
  SimClient(Kernel& kernel, Network& network, ClientId id, std::uint32_t workers, std::uint64_t seed);

  // Another `count` requests, with thinking times up to `think_max` from now on.
  void allot(std::uint32_t count, std::int64_t think_max);
  void submit();
  void deliver(Party node, const MessagePtr& message);
  void link_up(Party node);
  void tick();

  [[nodiscard]] std::uint64_t submitted() const { return submitted_; }
  [[nodiscard]] std::uint64_t answered() const { return answered_; }
  [[nodiscard]] bool done() const { return left_ == 0 && idle_ == workers_; }
  // Oldest request without an answer: its number and when it was submitted.
  struct Waiting {
    RequestNumber number;
    Micros since;
  };
  [[nodiscard]] std::optional<Waiting> oldest() const;
  [[nodiscard]] Micros longest_wait() const { return longest_wait_; }
  // What no correct client should ever see, as text.
  [[nodiscard]] const std::optional<std::string>& complaint() const { return complaint_; }
  [[nodiscard]] ClientId id() const { return id_; }
  [[nodiscard]] const client::SessionStats& stats() const { return session_.stats(); }

 private:
  void carry_out();
  [[nodiscard]] SharedBytes next_op();
  void start_worker(std::int64_t delay);

  Kernel& kernel_;
  Network& network_;
  ClientId id_;
  Prng prng_;
  client::Session session_;
  std::uint32_t workers_;
  std::uint32_t idle_;  // workers without work
  std::uint32_t left_ = 0;
  std::int64_t think_max_ = 0;
  std::map<RequestNumber, Micros> open_;
  std::uint64_t submitted_ = 0;
  std::uint64_t answered_ = 0;
  Micros longest_wait_{};
  std::optional<std::string> complaint_;
};

class HostileClient {
 public:
  HostileClient(Kernel& kernel, Network& network, ClientId id, std::uint64_t seed);
  void act();

 private:
  void send(Party node, SessionId session, RequestNumber number, const SharedBytes& op);

  Kernel& kernel_;
  Network& network_;
  ClientId id_;
  Prng prng_;
  std::uint64_t kind_;
  SessionId session_;
  std::uint64_t next_ = 1;
};

}  // namespace zz::sim
