#pragma once

// GuestProcess: one guest of the ProcessBackend and the one thing that is being done to it. Loop thread only; owned by
// the backend's State through a shared_ptr, so that handlers of a guest that is gone find it closed, never freed.

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agreement/agent_link.hpp"
#include "vmpool/hypervisor.hpp"
#include "vmpool/process/freezer.hpp"

namespace zz::vmpool {

// Repeats a step until it says it is done, fails or runs out of time; a newer task ends an older one.
class PacedTask {
 public:
  using Step = std::function<Result<bool>()>;  // true: done
  explicit PacedTask(boost::asio::io_context& loop) : timer_(loop) {}

  struct Plan {
    std::string doing;  // for the error: "<doing>: no success within 2000 ms"
    int limit_ms = 0;
    Step step;
    Hypervisor::Done done;
  };
  // `done` is called later, once.
  void run(std::weak_ptr<void> owner, Plan plan);
  // Ends a running task with an error.
  void cancel(const std::string& why);
  [[nodiscard]] bool running() const { return plan_.step != nullptr; }

 private:
  void schedule(std::chrono::microseconds wait);
  void poll();
  void finish(Result<void> result);

  boost::asio::steady_timer timer_;
  std::weak_ptr<void> owner_;
  Plan plan_;
  std::uint64_t number_ = 0;
  std::chrono::steady_clock::time_point until_;
  int rounds_ = 0;
};

// The host's end of an agent's control channel: bounded lines both ways.
class AgentChannel : public std::enable_shared_from_this<AgentChannel> {
 public:
  struct Callbacks {
    std::function<void(const agreement::FromAgent&)> on_line;
    std::function<void(std::string why)> on_end;  // once; also after a line that is not one of the protocol
  };
  AgentChannel(boost::asio::io_context& loop, int fd, Callbacks callbacks);
  void start();
  // `written` is called once the kernel has the line, or with an error. Never from inside this call.
  void send(const agreement::ToAgent& message, Hypervisor::Done written);
  // No callback after this, except that waiting writes end with an error.
  void close();

 private:
  void read();
  void take(std::size_t size);
  void write();
  void end(const std::string& why);
  void fail_writes();

  boost::asio::local::stream_protocol::socket socket_;
  Callbacks callbacks_;
  std::array<char, 1'024> buffer_{};
  std::string inbox_;
  struct Line {
    std::string text;
    Hypervisor::Done written;
  };
  std::deque<Line> outbox_;
  bool writing_ = false;
  bool open_ = true;
};

struct GuestProcess {
  explicit GuestProcess(boost::asio::io_context& loop) : task(loop), limit(loop) {}

  enum class Phase : std::uint8_t { kStarting, kRunning, kDead, kDestroying };

  GuestId id;
  std::uint64_t number = 0;  // the warden's name for it
  std::string name;
  std::string work;
  std::string log;
  Phase phase = Phase::kStarting;
  bool spawn_answered = false;
  bool ready = false;   // the agent said so
  bool exited = false;  // nothing spawned, or its first process was reaped
  bool frozen = false;
  bool silenced = false;    // by a fault: stays frozen whatever the pool wants
  bool dying = false;       // the task kills it, other than to destroy it
  bool forgetting = false;  // destroying: the warden removes what is left
  std::unique_ptr<Freezer> freezer;
  std::shared_ptr<AgentChannel> channel;
  PacedTask task;                   // freezing, crashing, destroying
  boost::asio::steady_timer limit;  // of a boot, a fault's answer or the warden's
  Hypervisor::Done boot;
  Hypervisor::Done fault;  // waits for the agent's word
  std::vector<Hypervisor::Done> destroys;
};

}  // namespace zz::vmpool
