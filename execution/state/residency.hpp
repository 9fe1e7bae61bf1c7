#pragma once

// Residency: which objects' bytes are in memory. Second chance (the clock algorithm; Corbató, 1969) over the resident
// leaves of all versions; bytes leave memory only if the disk has them. Any thread.
//
// A leaf's `bytes` and `slot` are read and written under the mutex only; its `record` is written under it. A leaf in
// the ring is alive: whoever frees one takes it out first.

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "execution/state/disk.hpp"
#include "execution/state/node.hpp"

namespace zz::execution::state {

class Residency {
 public:
  Residency(std::uint64_t memory_bytes, Disk* disk) : memory_bytes_(memory_bytes), disk_(disk) {}

  // Gives a leaf its bytes, which are right. Absent ones are so no longer.
  void admit(Leaf* leaf, ByteView bytes);
  // Nothing: absent. Read from disk if need be, and then verified. kKeep: it is to stay in memory, which the caller
  // makes room for.
  enum class After { kKeep, kLeave };
  std::optional<SharedBytes> get(Leaf* leaf, After after);
  // A leaf is about to be freed, or a node's record is not needed any more.
  void forget(Leaf* leaf);
  void forget_record(Record record);
  // The leaf's bytes are in `record` now.
  void moved(Leaf* leaf, Record record);
  // Records, not spilled, that nobody in memory needs any more, since the last call.
  std::vector<Record> take_dead();

  // Makes the digest of a leaf whose bytes came from execution. False: another thread is at it.
  bool digest(Leaf* leaf);

  // Up to `objects` cold ones leave while more than `above` bytes are resident. False: nothing more to do. A leaf that
  // loses its last reference meanwhile is handed to `freed`, to be freed by the caller.
  bool trim(std::size_t objects, std::uint64_t above, std::vector<Leaf*>& freed);
  [[nodiscard]] std::uint64_t low_water() const { return memory_bytes_ - memory_bytes_ / 8; }
  [[nodiscard]] bool over() const;
  [[nodiscard]] std::uint64_t memory_bytes() const { return memory_bytes_; }

  struct Counters {
    std::uint64_t objects = 0;
    std::uint64_t bytes = 0;
    std::uint64_t spilled = 0;
    std::uint64_t written = 0;
    std::uint64_t loaded = 0;
    std::uint64_t damaged = 0;
  };
  [[nodiscard]] Counters counters() const;
  void count_damaged() {
    const std::lock_guard lock(mutex_);
    ++counters_.damaged;
  }
  [[nodiscard]] std::uint64_t absent() const { return absent_.load(std::memory_order_relaxed); }
  void add_absent() { absent_.fetch_add(1, std::memory_order_relaxed); }
  void take_absent() { absent_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  void link(Leaf* leaf, std::shared_ptr<const std::uint8_t[]> bytes);  // under the mutex
  void unlink(Leaf* leaf);                                             // under the mutex
  Leaf* coldest();                                                     // under the mutex; with a reference
  bool spill(Leaf* leaf);
  void bury(Record record);  // under the mutex
  void sweep_spilled();

  const std::uint64_t memory_bytes_;
  Disk* const disk_;  // null: none
  std::atomic<std::uint64_t> absent_{0};
  std::atomic<std::uint64_t> resident_bytes_{0};
  mutable std::mutex mutex_;
  std::vector<Leaf*> ring_;
  std::size_t hand_ = 0;
  std::vector<Record> dead_;        // records to delete with the next persist
  std::vector<Record> dead_spill_;  // spilled ones
  Counters counters_;
};

}  // namespace zz::execution::state
