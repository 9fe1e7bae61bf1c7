#pragma once

// The operating system's processes, as /proc shows them: who descends from whom, who is stopped, and signals that hit
// exactly the process that was looked at, never a later one with the same number. Linux. No state, any thread.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace zz::vmpool {

struct ProcessInfo {
  pid_t pid = 0;
  pid_t parent = 0;
  char state = '?';               // of the first thread: R, S, D, T, t, Z, X, ...
  std::uint64_t cpu_ticks = 0;    // user and system time of all its threads, in clock ticks
  std::uint64_t start_ticks = 0;  // since boot; with pid it names a process for ever
  [[nodiscard]] bool same_as(const ProcessInfo& other) const {
    return pid == other.pid && start_ticks == other.start_ticks;
  }
};

// Nothing when there is no such process.
std::optional<ProcessInfo> read_process(pid_t pid);
std::vector<pid_t> list_pids();
// All processes that can be seen, in no particular order of age; a snapshot with gaps, so callers repeat.
std::vector<ProcessInfo> list_processes();
// Those of `table` that are `root` or descend from it, without the dead, ascending by pid.
std::vector<ProcessInfo> family_of(const std::vector<ProcessInfo>& table, pid_t root);

// Ended, whether or not its parent took notice. A process whose first thread alone ended is not gone.
bool is_gone(const ProcessInfo& process);
// Every thread is stopped (or the process is gone).
bool is_stopped(const ProcessInfo& process);
// False when that very process is no longer there.
bool send_signal(const ProcessInfo& process, int signal);

// Kills processes that may be forking: stops all of them first, so that none is missed, then kills.
class FamilyKiller {
 public:
  // `family`: those that are seen now. True when they and all that earlier rounds saw are gone; else call it again
  // soon, with what is seen then.
  [[nodiscard]] bool round(const std::vector<ProcessInfo>& family);

 private:
  std::vector<ProcessInfo> doomed_;
  int rounds_ = 0;
};

}  // namespace zz::vmpool
