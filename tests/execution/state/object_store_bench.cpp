// What the object store costs: writes and reads, the pause of a checkpoint, the digest work beside execution, memory
// per object, and what the disk takes. Times of operations are the thread's CPU time; those of pauses are wall time.
//
// The pause is what an executor's checkpoint takes: the slot's own state is written and a snapshot taken, after the
// requests of one interval that its sessions made in turn.
//
//   object_store_bench [objects] [bytes each] [percent changed per checkpoint] [sessions] [directory]

#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/prng.hpp"
#include "execution/slot_state.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution::state {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kRequestsPerCheckpoint = 10'000;
constexpr std::size_t kReplyBytes = 100;

double cpu_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

double wall_us(Clock::time_point since) {
  return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
}

std::size_t heap_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

struct Load {
  std::uint64_t objects;
  std::uint64_t bytes;
  std::uint64_t percent;
  std::uint64_t sessions;
  const char* directory;  // null: memory only
};

class Bench {
 public:
  explicit Bench(const Load& load) : load_(load), content_(load.bytes, 7) {
    StoreOptions options;
    if (load.directory != nullptr) options.path = load.directory;
    options.memory_bytes = ~std::uint64_t{0} >> 1;
    auto opened = ObjectStore::open(options);
    if (!opened) {
      std::fprintf(stderr, "%s\n", opened.error().c_str());
      std::exit(1);
    }
    store_ = std::move(opened->store);
    SlotState::Options own;
    own.sessions.sessions_max = static_cast<std::uint32_t>(load.sessions);
    own.sessions.client_sessions_max = own.sessions.sessions_max;
    own_ = std::make_unique<SlotState>(own, *store_);
  }

  void run() {
    fill();
    for (int round = 0; round < 5; ++round) checkpoint(round);
    reads();
    if (load_.directory != nullptr) persists();
  }

 private:
  void write(std::uint64_t id) {
    content_[0] = static_cast<std::uint8_t>(prng_.next());
    if (store_->write(ObjectId{id}, content_).status != Status::kDone) std::abort();
  }

  double digest(const Snapshot& snapshot) {
    const double before = cpu_us();
    while (store_->digest_some(snapshot, 1 << 20) != Progress::kDone) {
    }
    return cpu_us() - before;
  }

  void fill() {
    const std::size_t heap = heap_bytes();
    const double before = cpu_us();
    for (std::uint64_t id = 0; id < load_.objects; ++id) write(id);
    const double spent = cpu_us() - before;
    last_ = *store_->snapshot();
    const double digests = digest(last_);
    const double each = static_cast<double>(heap_bytes() - heap) / static_cast<double>(load_.objects);
    std::printf("%llu objects of %llu bytes: %.2f us per new object, first digests %.0f ms\n", ull(load_.objects),
                ull(load_.bytes), spent / static_cast<double>(load_.objects), digests / 1e3);
    std::printf("memory: %.0f bytes per object beside its bytes\n", each - static_cast<double>(load_.bytes));
  }

  void checkpoint(int round) {
    const std::uint64_t changed = load_.objects * load_.percent / 100;
    std::vector<double> writes;
    writes.reserve(changed);
    for (std::uint64_t i = 0; i < changed; ++i) {
      const auto start = Clock::now();
      write(prng_.below(load_.objects));
      writes.push_back(wall_us(start));
    }
    const Bytes reply(kReplyBytes, 1);
    const double recording = cpu_us();
    for (std::uint64_t i = 0; i < kRequestsPerCheckpoint; ++i) {
      const std::uint64_t request = requests_++;
      own_->sessions().record(ClientId{0}, SessionId{request % load_.sessions},
                              RequestNumber{1 + request / load_.sessions}, Digest{}, reply);
    }
    const double recorded = cpu_us() - recording;
    const auto start = Clock::now();
    own_->save({Seq{static_cast<std::uint64_t>(round) + 1}, Digest{}, Micros{1}});
    const double saved = wall_us(start);
    Snapshot snapshot = *store_->snapshot();
    const double pause = wall_us(start);
    // What execution notices after it: the first writes copy their paths.
    const double digests = digest(snapshot);
    const double before = cpu_us();
    last_ = std::move(snapshot);
    const double dropping = cpu_us() - before;
    while (store_->reclaim_some(10'000)) {
    }
    const double reclaiming = cpu_us() - before - dropping;
    std::sort(writes.begin(), writes.end());
    double sum = 0;
    for (const double one : writes) sum += one;
    const double n = static_cast<double>(changed);
    std::printf(
        "checkpoint %d, %llu changed: pause %.1f us, of which %.1f are the slot's own (+ %.1f us to drop the last), "
        "write %.2f us mean, %.2f p99, %.1f "
        "max; "
        "digests %.1f ms (%.2f us each), freeing %.1f ms beside\n",
        round, ull(changed), pause, saved, dropping, sum / n, writes[writes.size() * 99 / 100], writes.back(),
        digests / 1e3, digests / n, reclaiming / 1e3);
    std::printf("  at 5,000 changed objects a second: %.1f %% of a core for digests; %.2f us to record a reply\n",
                digests / n * 5'000 / 1e4, recorded / kRequestsPerCheckpoint);
  }

  void reads() {
    constexpr std::uint64_t kReads = 300'000;
    std::uint64_t sink = 0;
    const double before = cpu_us();
    for (std::uint64_t i = 0; i < kReads; ++i) {
      sink += store_->read(ObjectId{prng_.below(load_.objects)}).bytes.view()[0];
    }
    const double spent = cpu_us() - before;
    std::printf("read: %.2f us%s\n", spent / kReads, sink == 0 ? "." : "");
  }

  void persists() {
    for (int round = 0; round < 3; ++round) {
      const std::uint64_t changed = round == 0 ? 0 : load_.objects * load_.percent / 100;
      for (std::uint64_t i = 0; i < changed; ++i) write(prng_.below(load_.objects));
      Snapshot snapshot = *store_->snapshot();
      digest(snapshot);
      const double before = cpu_us();
      const auto start = Clock::now();
      if (!store_->begin_persist(snapshot, {})) std::abort();
      for (;;) {
        const auto progress = store_->persist_some(1 << 20);
        if (!progress) std::abort();
        if (*progress == Progress::kDone) break;
      }
      const double objects = static_cast<double>(round == 0 ? load_.objects : changed);
      std::printf("persist %d (%.0f objects): %.0f ms, CPU %.2f us per object\n", round, objects, wall_us(start) / 1e3,
                  (cpu_us() - before) / objects);
      last_ = snapshot;
      snapshot.reset();
      while (store_->reclaim_some(10'000)) {
      }
    }
    last_.reset();
    own_.reset();
    store_.reset();
    StoreOptions options;
    options.path = load_.directory;
    const std::size_t heap = heap_bytes();
    const auto start = Clock::now();
    auto opened = ObjectStore::open(options);
    if (!opened || !opened->persisted) std::abort();
    std::printf("open: %.0f ms; memory: %.0f bytes per object that is not resident\n", wall_us(start) / 1e3,
                static_cast<double>(heap_bytes() - heap) / static_cast<double>(load_.objects));
    const double before = cpu_us();
    constexpr std::uint64_t kReads = 20'000;
    const auto reading = Clock::now();
    for (std::uint64_t i = 0; i < kReads; ++i) {
      if (opened->store->read(ObjectId{prng_.below(load_.objects)}).status != Status::kDone) std::abort();
    }
    std::printf("read from disk, verified: %.1f us (CPU %.1f us)\n", wall_us(reading) / kReads,
                (cpu_us() - before) / kReads);
  }

  static unsigned long long ull(std::uint64_t value) { return value; }

  Load load_;
  Bytes content_;
  Prng prng_{1};
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<SlotState> own_;
  std::uint64_t requests_ = 0;
  Snapshot last_;
};

}  // namespace
}  // namespace zz::execution::state

int main(int argc, char** argv) {
  const auto argument = [&](int i, unsigned long long otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const zz::execution::state::Load load{argument(1, 100'000), argument(2, 4'096), argument(3, 1), argument(4, 16),
                                        argc > 5 ? argv[5] : nullptr};
  if (load.objects * load.percent < 100 || load.percent > 100 || load.bytes == 0 || load.sessions == 0 ||
      load.sessions > 4'096 || load.bytes > zz::execution::state::kObjectBytesMax) {
    std::fprintf(
        stderr,
        "usage: object_store_bench [objects] [bytes 1..65536] [percent 1..100] [sessions 1..4096] [directory]\n");
    return 2;
  }
  zz::execution::state::Bench bench(load);
  bench.run();
  return 0;
}
