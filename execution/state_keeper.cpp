#include "execution/state_keeper.hpp"

#include <boost/asio/post.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace zz::execution {

namespace {

namespace asio = boost::asio;
using state::Progress;
using state::Snapshot;
using Clock = std::chrono::steady_clock;

// What is done between two looks at what is more urgent.
constexpr std::uint64_t kDigestPiece = 1u << 20;   // bytes hashed, about a millisecond
constexpr std::uint64_t kPersistPiece = 1u << 20;  // bytes written
constexpr int kPersistShare = 4;                   // of the time, one in so many parts
constexpr std::size_t kReclaimPiece = 4'096;       // tree nodes freed
constexpr std::size_t kTrimPiece = 64;             // objects written and let go

}  // namespace

class StateKeeper::Worker {
 public:
  Worker(asio::io_context& loop, state::ObjectStore& store)
      : loop_(loop), store_(store), thread_([this] { work(); }) {}

  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  void digest(Snapshot snapshot, Digested done) {
    const std::lock_guard lock(mutex_);
    digests_.push_back({std::move(snapshot), std::move(done)});
    wake_.notify_one();
  }

  void persist(Snapshot snapshot, Bytes label, Persisted done) {
    const std::lock_guard lock(mutex_);
    next_persist_ = PersistTask{std::move(snapshot), std::move(label), std::move(done)};
    wake_.notify_one();
  }

  void tidy() {
    const std::lock_guard lock(mutex_);
    tidy_ = true;
    wake_.notify_one();
  }

 private:
  struct DigestTask {
    Snapshot snapshot;
    Digested done;
  };
  struct PersistTask {
    Snapshot snapshot;
    Bytes label;
    Persisted done;
  };

  void work() {
    std::unique_lock lock(mutex_);
    while (!ending_) {
      if (!digests_.empty()) {
        const DigestTask task = digests_.front();  // others are only added behind it
        lock.unlock();
        digest_piece(task);
      } else if (std::exchange(tidy_, false)) {
        lock.unlock();
        // One after the other, or a store that is always full would never free anything.
        const bool freed = store_.reclaim_some(kReclaimPiece);
        const bool trimmed = store_.trim_some(kTrimPiece);
        if (freed || trimmed) tidy();
      } else if (next_persist_) {
        persist_ = std::exchange(next_persist_, std::nullopt);
        lock.unlock();
        begin_persist();
      } else if (persist_ && Clock::now() < persist_at_) {
        wake_.wait_until(lock, persist_at_);
        continue;
      } else if (persist_) {
        lock.unlock();
        const auto begun = Clock::now();
        persist_piece();
        const auto ended = Clock::now();
        persist_at_ = ended + (kPersistShare - 1) * (ended - begun);
      } else {
        wake_.wait(lock);
        continue;
      }
      lock.lock();
    }
  }

  void digest_piece(const DigestTask& task) {
    if (store_.digest_some(task.snapshot, kDigestPiece) != Progress::kDone) return;
    tell([done = task.done, root = *state::ObjectStore::root(task.snapshot)] { done(root); });
    const std::lock_guard lock(mutex_);
    digests_.pop_front();
  }

  void begin_persist() {
    const Result<void> begun = store_.begin_persist(persist_->snapshot, std::move(persist_->label));
    if (!begun) persisted(begun);
  }

  void persist_piece() {
    const Result<Progress> progress = store_.persist_some(kPersistPiece);
    if (!progress) return persisted(Error{progress.error()});
    if (*progress == Progress::kDone) return persisted({});
    if (*progress == Progress::kMissing) return persisted(Error{"the state is not whole here yet"});
  }

  void persisted(Result<void> result) {
    tell([done = std::move(persist_->done), result = std::move(result)] { done(result); });
    persist_.reset();
  }

  // On the loop, unless the keeper is gone by then.
  template <class Function>
  void tell(Function function) {
    asio::post(loop_, [alive = std::weak_ptr<int>(alive_), function = std::move(function)] {
      if (alive.lock()) function();
    });
  }

  asio::io_context& loop_;
  state::ObjectStore& store_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  std::mutex mutex_;  // of the five below
  std::condition_variable wake_;
  bool ending_ = false;
  bool tidy_ = false;
  std::deque<DigestTask> digests_;
  std::optional<PersistTask> next_persist_;
  std::optional<PersistTask> persist_;  // the worker's alone
  Clock::time_point persist_at_;        // likewise: the next piece not before
  std::thread thread_;                  // last: it uses the others
};

StateKeeper::StateKeeper(asio::io_context& loop, state::ObjectStore& store)
    : worker_(std::make_unique<Worker>(loop, store)) {}
StateKeeper::~StateKeeper() = default;

void StateKeeper::digest(Snapshot snapshot, Digested done) { worker_->digest(std::move(snapshot), std::move(done)); }
void StateKeeper::persist(Snapshot snapshot, Bytes label, Persisted done) {
  worker_->persist(std::move(snapshot), std::move(label), std::move(done));
}
void StateKeeper::tidy() { worker_->tidy(); }

}  // namespace zz::execution
