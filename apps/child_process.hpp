#pragma once

// ChildProcess: one process that this one has started and is responsible for. It gets SIGTERM when the thread that
// started it ends, however that happens (PR_SET_PDEATHSIG); it is in a process group of its own, so that Ctrl-C on a
// terminal reaches only its parent, which ends it in order. One thread.

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace zz::apps {

struct ChildCommand {
  std::string name;                    // for people: "node-0"
  std::string program;                 // path of the executable
  std::vector<std::string> arguments;  // with argv[0]
  std::string log;                     // file that gets its output; an older one is kept as <log>.1
};

class ChildProcess {
 public:
  // Reads nothing, and inherits no descriptor but the log. Error when the program could not be executed.
  static Result<ChildProcess> start(ChildCommand command);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  // Kills it (SIGKILL) and waits, if it still runs.
  ~ChildProcess();

  [[nodiscard]] const std::string& name() const { return command_.name; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Looks without waiting.
  [[nodiscard]] bool running();
  // Waits until it has ended; false when the deadline came first.
  bool wait_until(std::chrono::steady_clock::time_point deadline);
  void send_signal(int number);
  // "ended with status 1" or "was killed by signal 9 (Killed)". Requires that it has ended.
  [[nodiscard]] std::string how_it_ended() const;
  // Whether SIGKILL ended it: then what it said last explains nothing. Requires that it has ended.
  [[nodiscard]] bool was_killed() const;
  // What it said last, without time and level; empty when it said nothing.
  [[nodiscard]] std::string last_words() const;

 private:
  ChildProcess(ChildCommand command, pid_t pid) : command_(std::move(command)), pid_(pid) {}
  ChildCommand command_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int status_ = 0;  // of waitpid
};

}  // namespace zz::apps
