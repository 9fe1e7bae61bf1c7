#pragma once

// StopSignals: SIGINT, SIGTERM and SIGHUP as something to ask for, instead of something that interrupts. Made at the
// start of a command, before any thread: it blocks the signals in this thread and in those it starts later. One thread.

#include <signal.h>

namespace zz::apps {

class StopSignals {
 public:
  StopSignals();
  // Gives the signals their old meaning back; those that came meanwhile are dropped.
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Whether one of them has come since the start.
  [[nodiscard]] bool requested();

 private:
  int fd_ = -1;
  bool seen_ = false;
  sigset_t before_{};
};

}  // namespace zz::apps
