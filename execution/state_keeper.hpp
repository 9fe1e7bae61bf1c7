#pragma once

// StateKeeper: the work on a slot's store that must not stop execution: digests of snapshots, writing the persisted
// one, freeing what was dropped, and taking cold objects out of memory. A driver; it owns one thread, the only one that
// calls the store's "beside" functions. Writing a snapshot takes a quarter of the thread's time at most: a first one,
// of gigabytes, leaves the processors to those who have to answer.
//
// Functions are called on the loop's thread; callbacks come on it too, in the order of the calls of one kind, and never
// after destruction. The loop and the store must outlive it.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

class StateKeeper {
 public:
  using Digested = std::function<void(const Digest& root)>;
  // Errors: the state is not whole here, the disk's.
  using Persisted = std::function<void(const Result<void>&)>;

  StateKeeper(boost::asio::io_context& loop, state::ObjectStore& store);
  ~StateKeeper();  // waits for the piece of work at hand, a few milliseconds; the rest is dropped
  StateKeeper(const StateKeeper&) = delete;
  StateKeeper& operator=(const StateKeeper&) = delete;

  // Goes before everything else.
  void digest(state::Snapshot snapshot, Digested done);
  // Requires a root. One that was not finished yet is given up: its callback never comes.
  void persist(state::Snapshot snapshot, Bytes label, Persisted done);
  // Something may be there to free or to take out of memory: after a snapshot was dropped or a state adopted, and every
  // now and then.
  void tidy();

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;
};

}  // namespace zz::execution
