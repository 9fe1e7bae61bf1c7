#pragma once

// ServiceHome: a slot's object store as the directory that a service of its own process keeps its state in
// (docs/decisions/0020): import of the initial state, the mount, what a request needs before and after it, and the way
// back when a request ends the service.
//
//   copies   said of a home without a mount: the directory is a plain one. restore() makes it what the state is, save()
//            the state what it is; in between the state is as old as the last of these. Then "mounted" below means that
//            the directory is in use.
//
// The owner's duty: before unmount() it has the service killed, but not waited for (a process that waits for what is
// absent dies only with the mount); after roll_back() or replaced() it starts a new one, whose memory is of this state.
//
// Invariants:
//  1. Between keep() and roll_back() nobody but the service writes the head, so that rolling back undoes what the
//     service did and nothing else. Parts may be supplied.
//  2. Of a head that was replaced the service sees and changes nothing before replaced() (FileSystem's invariant 4).
//  3. A home that copies writes the head in save() and import() alone.
//
// Threads: all functions on the loop's, without `head`. `head` is the mutex of the store's head: the mount's thread
// takes it for each operation of the service, that which copies for each of its own, and so does everybody else around
// whatever of the store is not marked "beside" (the executor's step, tick, next_invocation and complete; supply;
// snapshot; adopt). Nobody keeps it while he waits or reads a disk at length. settle(), save() and restore() wait on a
// thread of their own.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "execution/state_copy.hpp"
#include "execution/statefs/file_system.hpp"
#include "execution/statefs/fuse_mount.hpp"

namespace zz::execution {

// The slot's store, as its driver gives it to an adapter. All must outlive the adapter.
struct ServiceStore {
  state::ObjectStore* objects = nullptr;
  std::mutex* head = nullptr;
  statefs::Limits limits;
  // What the service waits for; on the loop's thread, and again each time that it still lacks something.
  std::function<void(const std::vector<state::Want>&)> on_missing;
};

class ServiceHome {
 public:
  ServiceHome(boost::asio::io_context& loop, ServiceStore store, std::string path);
  ~ServiceHome();  // unmounts
  ServiceHome(const ServiceHome&) = delete;
  ServiceHome& operator=(const ServiceHome&) = delete;

  // It copies from now on. Before mount().
  void copy();
  [[nodiscard]] bool copies() const { return copy_ != nullptr; }

  // Errors: no FUSE, no permission for it; of one that copies: no such directory.
  Result<void> mount();
  void unmount();
  // Puts the initial state in, unless the head has files already or is to be fetched. Call it while nothing uses the
  // mount. Coroutines end early once the home is unmounted; they must not outlive it.
  boost::asio::awaitable<Result<void>> import(std::string from);
  // One that copies: has the directory be what the head is; waits for all that is absent of it. Before the service is
  // started. Else nothing.
  boost::asio::awaitable<Result<void>> restore();

  // ---- around a request

  void set_time(Micros agreed);
  // Remembers the head, to roll back to; one that copies need not. False: no snapshot is to be had now; try again soon.
  bool keep();
  // What the service did is in the state when this ends; it waits for what that needs and is absent.
  boost::asio::awaitable<Result<void>> settle();
  void forget();  // what keep() remembered
  // The head as it was; requires keep(), that it is unmounted, and that it does not copy.
  void roll_back();
  // One that copies: has the head be what the directory is. Between requests. Else nothing.
  boost::asio::awaitable<Result<void>> save(Micros agreed, StateCopy::Mapped mapped);

  // ---- the state from elsewhere

  void supplied();
  // The head was replaced by others; requires that it is unmounted.
  void replaced();
  // For how long the service has waited for what was absent, in all.
  [[nodiscard]] std::chrono::microseconds waited() const;
  [[nodiscard]] std::string path() const { return path_; }

 private:
  [[nodiscard]] bool is_mounted() const { return mount_ != nullptr || is_in_use_; }
  struct Task;
  boost::asio::awaitable<Result<void>> beside(std::function<Result<void>()> work);
  void start(const std::shared_ptr<Task>& task, std::function<Result<void>()> work);
  [[nodiscard]] statefs::FuseMount::OnMissing teller();

  boost::asio::io_context& loop_;
  ServiceStore store_;
  const std::string path_;
  statefs::FileSystem files_;
  state::Snapshot kept_;
  bool has_asked_ = false;                      // keep() has, since something was supplied
  std::chrono::microseconds waited_before_{0};  // on mounts that are gone
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  std::mutex beside_mutex_;
  std::condition_variable beside_ended_;
  std::uint64_t unmounts_ = 0;   // under beside_mutex_: what was asked for before one is not begun after it
  bool is_beside_busy_ = false;  // under beside_mutex_
  std::unique_ptr<StateCopy> copy_;
  bool is_in_use_ = false;  // of one that copies
  std::unique_ptr<statefs::FuseMount> mount_;
  boost::asio::thread_pool beside_{1};
};

}  // namespace zz::execution
