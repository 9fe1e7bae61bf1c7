#pragma once

// SlotStore: the object store of one slot, and what works on it beside execution: digests (StateKeeper), fetching what
// is absent (StateFetcher), and giving parts to other slots (StateSource). A driver; the executor's and the adapter's
// owner passes their wishes on to it.
//
// The directory outlives the slot's incarnations: every kPersistEvery the newest stable state is written to it, or what
// is here of it, and what was written counts even if a life ends in the middle. What an earlier life left there,
// whoever it was, is never read as it is: the head begins empty, and of what the disk holds that is reused whose digest
// a certified root leads to. A state is written with its certificate, so that one that nobody else has any more can be
// begun with once more. A directory that some life did not live to open is removed.
//
// Neither fetching in the background nor the disk competes with the first votes on an adopted state: both wait until
// settled(), or for kSettle. Nor does what is fetched, or what requests write, fill memory faster than the keeper makes
// room in it: crowded(). That would be the loop's work then, and a disk that is busy takes its time.
//
// What others ask for in the background is read from disk by a thread of its own, kReadingMax questions of a node at a
// time; one that asks for more gets empty answers. What others wait for (paths) is hot, and answered at once.
//
// After the disk failed, by being full, say, nothing is written to it any more. A state that fits into memory lives on
// there; with one that does not, this life ends (Callbacks::failed).
//
// Threads: everything on the loop's, without `head`. `head` is the mutex of the store's head: a mounted state file
// system takes it on its own thread, and so does everybody here and elsewhere around what the store does not mark as
// "beside".

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "base/result.hpp"
#include "execution/executor.hpp"
#include "execution/state/object_store.hpp"
#include "execution/state_fetcher.hpp"
#include "execution/state_keeper.hpp"
#include "execution/state_source.hpp"

namespace zz::execution {

class SlotStore {
 public:
  struct Options {
    state::StoreOptions store;
    StateFetcherConfig fetcher;
    StateSource::Options source;
  };
  // What comes of it, on the loop's thread.
  struct Callbacks {
    std::function<void(NodeId, agreement::Body)> send;
    std::function<void(Seq, const Digest&)> digested;
    std::function<void()> supplied;                      // parts came that somebody waits for
    std::function<void()> whole;                         // nothing of the adopted state is absent any more
    std::function<void()> stale;                         // nobody gives what is wanted: a newer certificate may help
    std::function<void(const std::string& why)> failed;  // it cannot go on for long; said at every tick
  };

  static constexpr Micros kPersistEvery{10'000'000};
  static constexpr Micros kSettle{1'000'000};
  static constexpr std::uint32_t kReadingMax = 16;  // two slots' that have kRequestsMax in flight

  // Errors: those of ObjectStore::open.
  static Result<std::unique_ptr<SlotStore>> open(boost::asio::io_context& loop, const Options& options,
                                                 Callbacks callbacks);

  ~SlotStore();  // waits for the answer at hand, and for the keeper's piece of work
  SlotStore(const SlotStore&) = delete;
  SlotStore& operator=(const SlotStore&) = delete;

  [[nodiscard]] state::ObjectStore& objects() { return *store_; }
  [[nodiscard]] std::mutex& head() { return head_; }

  void tick(Micros now);
  void node_up(NodeId node) { fetcher_.node_up(node); }
  void node_down(NodeId node) { fetcher_.node_down(node); }

  // The head is now the state of the stable checkpoint n, of which little may be here.
  void adopted(Seq n);
  // The head was cleared, and is whole.
  void replays();
  // Execution has voted since, and has caught up with the order.
  void settled();
  // That is the certified state: what is still absent is fetched of that.
  void stable(const agreement::CertificatePtr& certificate, const state::Snapshot& snapshot);
  // Of the state that is whole on disk, written by this life or an earlier one; not verified. Null: there is none.
  [[nodiscard]] const agreement::CertificatePtr& kept() const { return kept_; }
  void want(std::span<const state::Want> wants) { fetcher_.want(wants); }
  [[nodiscard]] bool fetching() const { return fetcher_.active(); }
  // Memory is nearly full: who would write waits until a tick finds it otherwise. Not said of a disk that has failed.
  [[nodiscard]] bool crowded() const;
  // Execution waits for something that is fetched.
  [[nodiscard]] bool urgent() const { return fetcher_.urgent(); }
  [[nodiscard]] const StateFetcherStats& fetched() const { return fetcher_.stats(); }
  Refusal step(NodeId from, const agreement::StateParts& answer);
  // Another slot asks, through that node; `snapshot` may be null. Answers now or later.
  Refusal step(NodeId from, const agreement::FetchState& wish, const state::Snapshot& snapshot);
  // Has the root computed; again and again the same until it is there.
  void digest(const Executor::ToDigest& task);
  // Says what is to be asked. At the end of each turn.
  void turn();

 private:
  SlotStore(boost::asio::io_context& loop, const Options& options, std::unique_ptr<state::ObjectStore> store,
            Callbacks callbacks);

  void pace();
  [[nodiscard]] bool filled(std::uint64_t parts_of_64) const;
  void watch_disk();
  void read(NodeId from, agreement::FetchState wish, state::Snapshot snapshot);

  boost::asio::io_context& loop_;
  Callbacks callbacks_;
  std::mutex head_;
  const std::uint64_t memory_bytes_;
  std::unique_ptr<state::ObjectStore> store_;
  StateFetcher fetcher_;
  StateSource source_;
  StateSource reader_source_;           // the reader's alone
  std::vector<std::uint32_t> reading_;  // questions with the reader, by node
  Seq digesting_;                       // 0: nothing
  Seq source_of_;                       // the checkpoint whose state is fetched
  Micros now_;
  Micros settle_at_;   // held until then
  Micros persist_at_;  // not before
  agreement::CertificatePtr kept_;
  bool persisting_ = false;
  bool disk_failed_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  StateKeeper keeper_;                  // its thread works on the store
  boost::asio::thread_pool reader_{1};  // and so does this
};

}  // namespace zz::execution
