#pragma once

// Freezer: holds all processes of one guest, however they fork, and stops, resumes and kills them as a whole
// (docs/protocol.md §9: asleep means using no CPU).
//
// Three kinds. With control groups (version 2, or the version 1 freezer) a process cannot leave by forking, by starting
// a session or by losing its parent. Without permission for those, the guest's first process is made the reaper of its
// descendants (PR_SET_CHILD_SUBREAPER, set by whoever starts it), so its family tree stays whole, and is stopped and
// killed by signals. A guest that forks and ends without pause can stay unseen by signals; control groups hold it.
//
// One thread. No call waits: freeze() starts it and frozen() says when it is done; kill_round() is repeated until it
// returns true. The caller chooses the pace.
//
// Invariants:
//  1. frozen() is true only when every thread of every process of the guest is stopped.
//  2. kill_round() returns true only when no process of the guest is left. A forking guest cannot outrun it: everything
//     is stopped before anything is killed, where the kernel does not kill a group as one.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace zz::vmpool {

enum class FreezerKind : std::uint8_t { kCgroupV2, kCgroupV1, kSignals };
std::string_view to_string(FreezerKind kind);  // cgroup-v2 | cgroup-v1 | signals

// Where this process may keep the control groups of its guests.
struct FreezerHome {
  FreezerKind kind = FreezerKind::kSignals;
  std::string directory;  // parent of the guests' groups; empty for signals
};

// Finds the best kind that works by trying it: makes the group `name`, has a process join and freezes it. With
// `wanted`, only that kind; the error says what is missing. Forks: call it before there are threads.
Result<FreezerHome> open_freezer(std::string_view name, std::optional<FreezerKind> wanted = std::nullopt);
// Kills whatever is in the guests' groups and removes them and the home itself. Blocks, at most `timeout_ms`.
Result<void> clear_freezer(const FreezerHome& home, int timeout_ms);

class Freezer {
 public:
  // A new, empty holder for `guest` (a name that is fit for a directory).
  static Result<std::unique_ptr<Freezer>> make(const FreezerHome& home, std::string_view guest);
  virtual ~Freezer() = default;

  // A process joins by writing "0" to this file before it executes anything; empty: it need not.
  [[nodiscard]] virtual std::string join_path() const = 0;
  // The guest's first process. Must be called before anything below.
  virtual void set_first(pid_t pid) = 0;
  virtual Result<void> freeze() = 0;
  [[nodiscard]] virtual bool frozen() = 0;
  virtual Result<void> thaw() = 0;
  [[nodiscard]] virtual bool kill_round() = 0;
  // Requires that kill_round() returned true. May fail for a moment while the kernel cleans up: try again.
  virtual Result<void> remove() = 0;
  [[nodiscard]] virtual std::vector<pid_t> processes() const = 0;  // ascending
};

}  // namespace zz::vmpool
