#pragma once

// Disk: the object store's records, in RocksDB. Any thread; commit() by one at a time.
//
//   PATH/objects              the RocksDB directory: column families default (records), spill, meta
//   PATH/objects.damaged      the last one that was damaged, set aside for people
//
// Invariants:
//  1. A batch is written whole or not at all, and batches in order. What the last synced batch says survives a power
//     cut.
//  2. The manifest names a snapshot all of whose records were written before it.
//  3. Records that neither the manifest nor a part of a snapshot names (put_part) are gone after open(), and so is what
//     was spilled.
//  4. After a failed write nothing is written any more.
// What records hold is not trusted: whoever reads one hashes it.

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "execution/state/node.hpp"

namespace zz::execution::state {

// What the persisted snapshot is.
struct Manifest {
  Digest root;
  RootImage image;
  Record top = 0;          // record of the top node
  Record next_record = 1;  // no record of this snapshot is this or above
  Bytes label;
};

class Disk {
 public:
  struct Opened {
    std::unique_ptr<Disk> disk;
    std::optional<Manifest> manifest;
    std::optional<Manifest> part;  // of a later snapshot, as far as it was written
    std::string damage;            // what was found wrong; else empty
  };
  // Errors: not permitted, no space, in use, written by a newer program.
  static Result<Opened> open(const std::string& path);
  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  // Nothing: not there, or unreadable.
  [[nodiscard]] std::optional<Bytes> get(Record record) const;
  // Nothing: error().
  std::optional<Record> spill(ByteView bytes);
  void remove_spilled(const std::vector<Record>& records);
  // Writes a record again, with what it is known to have held.
  void repair(Record record, ByteView bytes);

  // The current batch. Records are numbered by the caller, ascending.
  void put(Record record, ByteView bytes);
  void remove(Record record);
  // No part of a snapshot is there any more.
  void put_manifest(const Manifest& manifest);
  // What is written of a snapshot that is not whole on disk yet. Takes the place of another part.
  void put_part(const Manifest& part);
  // Records of earlier snapshots that versions in memory still need; they are gone after the next open().
  void put_doomed(const std::vector<Record>& records);
  bool commit(bool sync);

  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  [[nodiscard]] std::string error() const;

 private:
  struct Rocks;
  Disk(std::string path, std::unique_ptr<Rocks> rocks);
  bool fail(const std::string& what);

  std::string path_;
  std::unique_ptr<Rocks> rocks_;
  std::atomic<Record> next_spill_{1};
  std::atomic<bool> failed_{false};
  mutable std::mutex error_mutex_;
  std::string error_;
};

}  // namespace zz::execution::state
