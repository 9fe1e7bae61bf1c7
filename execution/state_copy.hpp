#pragma once

// StateCopy: a plain directory and a state file system that are made equal, for a service whose state is not mounted
// (docs/decisions/0020, "Without FUSE").
//
//   save()     the state becomes what the directory holds: names, kinds, bytes, permissions, owners, hard links
//   restore()  the directory becomes what the state holds, times of modification included
//
// Regular files, directories and symbolic links; anything else is an error that names it. Extended attributes are lost.
//
// Invariants:
//  1. What save() makes of the state is a function of the state before, of what the directory holds, and of the
//     agreed time: not of the directory's times, inode numbers, order or holes. By these it only knows what it need not
//     read.
//  2. An inode of the state stays with the first of its names, in the order of the walk, as long as that has the same
//     kind. What was renamed is a new one.
//  3. restore() changes the directory only once all of the state is here.
//  4. A call that fails may leave its work half done: another has to follow. In a state that was replaced nothing is
//     written: the call waits for stop().
//
// Threads: save() and restore() block, for the disk and for absent parts; one at a time, on a thread that does not
// supply. They take `head` for each operation of the state. Nobody else writes the directory or the service's objects
// meanwhile. Everything else may be called on any thread, without `head`.

#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "execution/statefs/file_system.hpp"

namespace zz::execution {

struct CopyCounters {
  std::uint64_t entries = 0;  // looked at
  std::uint64_t read = 0;     // files whose bytes were
  std::uint64_t changes = 0;  // of the state
};

class StateCopy {
 public:
  // What restore() or save() waits for, on their thread; again as long as it lacks something.
  using OnMissing = std::function<void(const std::vector<state::Want>&)>;
  // Inode numbers of files that somebody maps as shared; nothing: nobody knows which.
  using Mapped = std::optional<std::set<ino_t>>;

  // `path` is a directory. All must outlive it.
  StateCopy(statefs::FileSystem& files, state::ObjectStore& store, std::mutex& head, std::string path,
            OnMissing on_missing);

  // What is stored through a mapping does not always show in a file's times, so `mapped` ones are read again.
  Result<void> save(Micros agreed, const Mapped& mapped);
  Result<void> restore();
  // The store took something.
  void supplied();
  // Has save() and restore() fail, soon, until go_on().
  void stop();
  void go_on();
  [[nodiscard]] CopyCounters counters() const { return {entries_, read_, changes_}; }

 private:
  class Saving;
  class Restoring;
  // What lstat(2) says of a file whose bytes are those in the state.
  struct Signature {
    dev_t device = 0;
    ino_t inode = 0;
    std::int64_t size = 0;
    statefs::Time modified, changed;
    bool operator==(const Signature&) const = default;
  };
  struct Known {
    Signature signature;
    bool is_certain = false;  // a change would show in it
  };
  using KnownFiles = std::unordered_map<std::uint64_t, Known>;  // by the state's inode

  static Signature signature_of(const struct stat& status);
  static bool is_certain(const Signature& signature, const statefs::Time& read_at);

  // An operation of files_, again until nothing that it needs is absent; ECANCELED once it is stopped.
  template <class Operation>
  auto run(Operation operation);
  template <class Operation>
  Result<void> change(const std::string& path, Operation operation);
  bool wait(std::unique_lock<std::mutex>& head, const std::vector<state::Want>& wants);
  Result<void> fetch_all();
  Result<std::vector<statefs::ListedEntry>> entries_of(statefs::Inode directory, const std::string& path);

  statefs::FileSystem& files_;
  state::ObjectStore& store_;
  std::mutex& head_;
  const std::string path_;
  const OnMissing on_missing_;
  KnownFiles known_;  // of the last save() or restore() that went well
  // Under head_:
  bool is_stopped_ = false;
  std::uint64_t arrivals_ = 0;
  std::condition_variable changed_;  // either of them
  std::atomic<std::uint64_t> entries_{0}, read_{0}, changes_{0};
};

}  // namespace zz::execution
