#pragma once

// FuseMount: a FileSystem as a directory that ordinary programs use (docs/decisions/0020): the driver of the core, on
// Linux's FUSE (libfuse 3, low level).
//
// The kernel keeps pages, names and attributes without a time limit, since nobody but it changes the files; writes go
// through at once, because with the kernel's own write-back it would show the service its own clock. What a shared
// mapping holds comes later: settle() at the end of each request.
//
// Invariants:
//  1. An operation that needs what is absent waits, with its arguments, and others pass it. It is answered once
//     supplied() finds everything there.
//  2. After settle() what the service wrote, mappings too, is in the state, at the agreed time of the request that
//     ends.
//  3. unmount() and destruction unmount, whoever still has files open there; they get errors from then on.
//
// A replaced state (adopt, revert) needs a new mount: the kernel's pages and names are of the old one, and so is what
// the service has in its own memory. Destroy this, call FileSystem::replaced(), mount again, start the service again.
// Until then whatever comes from this mount fails (ESTALE) and changes nothing.
//
// A program that waits for what is absent cannot even be killed, so before anybody waits for its end: unmount().
//
// Threads: one of its own serves the kernel. It touches the core, and so the store's head, under `head`, which
// everybody else who touches them takes too. No function here may be called with `head` held. Nobody may use the
// mounted directory on a thread that its operations wait for (the one that supplies), nor at best anywhere in this
// process: a process that is killed while it waits for its own answer does not end until somebody unmounts by force.
// Nor map its files in this process: munmap(2) waits for their write-back with the lock that our thread's next mmap(2)
// needs, and both stop for ever.
//
// fsync: returns once shared mappings are in the state. How safe the state is on disk is the replica's matter: a
// replica that forgets is replaced, and its state fetched.

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "execution/statefs/file_system.hpp"

namespace zz::execution::statefs {

struct MountOptions {
  std::string path;         // an existing directory; what it holds is hidden while mounted
  bool allow_other = true;  // than the user that mounts
};

struct MountCounters {
  std::uint64_t served = 0;
  std::uint64_t parked = 0;             // had to wait for what was absent
  std::uint64_t waiting = 0;            // do now
  std::uint64_t written_back = 0;       // writes from shared mappings
  std::chrono::microseconds waited{0};  // how long there was one that waited
};

class FuseMount {
 public:
  // What an operation waits for; on the mount's thread or in supplied(), without `head`. May come more than once.
  using OnMissing = std::function<void(const std::vector<Want>&)>;

  // Takes off a dead process's mount first. Errors: no /dev/fuse or no permission for it, no such directory.
  static Result<std::unique_ptr<FuseMount>> mount(FileSystem& files, std::mutex& head, const MountOptions& options,
                                                  OnMissing on_missing);
  ~FuseMount();
  FuseMount(const FuseMount&) = delete;
  FuseMount& operator=(const FuseMount&) = delete;

  // Ends what waits, and settle() on other threads, with errors. settle() may still be called then, and fails.
  void unmount();
  // The store took something: what waits is tried again. Any thread.
  void supplied();
  // settle() would have nothing to do. Any thread.
  [[nodiscard]] bool is_settled() const;
  // Blocks until invariant 2 holds, for as long as what it needs is absent: on a thread that does not supply. Costs
  // nothing while no file is open for writing. Errors: the mount is gone.
  Result<void> settle();
  [[nodiscard]] MountCounters counters() const;

 private:
  struct State;
  explicit FuseMount(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace zz::execution::statefs
