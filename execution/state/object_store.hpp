#pragma once

// ObjectStore: the state of one service: objects of up to 64 KiB under 64-bit ids, with copy-on-write snapshots, a
// Merkle tree over them (parts.hpp) and, given a directory, a disk under them (docs/protocol.md §6, §10).
//
//   head       the state that execution reads and writes
//   snapshot   an immutable earlier head; taking one costs nothing, keeping it costs what changed since
//   absent     said of an object or an inner node of which only the verified digest is known: its bytes were not
//              fetched yet, or the disk lost them. Execution that needs it is told what to fetch (Want), and goes on
//              once supply() took it.
//   persisted  a snapshot that is whole on disk and comes back from open()
//
// Invariants:
//  1. Nothing unverified is ever read: bytes that did not come from write() are handed out only after they were hashed
//     to the digest in their verified parent; bytes that the disk gives back are hashed each time.
//  2. Equal sets of (id, bytes) have equal roots, whatever was written, erased, fetched, spilled or restarted before.
//  3. A failed read of an absent thing changes nothing.
//  4. Resident object bytes stay about below memory_bytes where a directory is given and its disk works, aside from
//     what readers hold and RocksDB's own buffers (100 MiB at most). The tree itself is always in memory: about 120
//     bytes per object (docs/decisions/0019).
//  5. open() gives back the last snapshot whose persist_some() returned kDone, or a later one, or none and says why.
//     What was written of a later one, all but the last kPartBytes, is there for adopt() to reuse.
//  6. After a failed write to the disk nothing is written to it any more; disk_error() says so. What is in memory stays
//     right and readable.
//
// Threads: one thread (the loop's) owns the head: everything without a note. "Beside" functions may run on other
// threads at the same time, each at most once at a time; the store starts none (RocksDB has its own). Snapshots may be
// copied, used and dropped on any thread, and may outlive the store.
//
// Blocking: read() and part() of an object that is not in memory read the disk (one small read). write() and supply()
// above memory_bytes first write cold objects to it, unless trim_some() runs ahead of them.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/refusal.hpp"
#include "base/result.hpp"
#include "execution/state/parts.hpp"

namespace zz::execution::state {

struct StoreOptions {
  std::string path;                           // directory, made when missing; empty: memory only
  std::uint64_t memory_bytes = 256ull << 20;  // of resident objects' bytes
  // Of the state; part of the agreed configuration, since a write above them has an outcome the service sees.
  std::uint64_t objects_max = 1ull << 24;
  std::uint64_t bytes_max = 1ull << 40;
  // Alive or not yet reclaimed; the persisted one and one being persisted count.
  std::uint32_t snapshots_max = 8;
};

enum class PartKind : std::uint8_t { kRoot, kNode, kObject };

// A part that is absent: where it belongs, what it must hash to, and how long it may be.
struct Want {
  PartKind kind = PartKind::kRoot;
  Place place;                  // of a root record: {}
  std::uint64_t bytes_max = 0;  // of an object: its exact length
  Digest digest;
  ObjectId toward{};  // what was looked for, below that place or at it: more that is absent may be on the way there
  bool operator==(const Want&) const = default;
};

struct Part {
  PartKind kind = PartKind::kRoot;
  Place place;
  SharedBytes bytes;  // an object's bytes, or an encoding of parts.hpp
};

enum class Status : std::uint8_t {
  kDone,      // read: found
  kNone,      // read, erase, next: there is no such object, and that is proven
  kMissing,   // needs `want` first; nothing changed
  kOversize,  // longer than kObjectBytesMax; nothing changed
  kFull,      // above objects_max or bytes_max; nothing changed
};

struct [[nodiscard]] Outcome {
  Status status = Status::kDone;
  Want want;  // with kMissing
};
struct [[nodiscard]] ReadOutcome : Outcome {
  SharedBytes bytes;  // with kDone; stays valid and unchanged as long as it is held
};
struct [[nodiscard]] NextOutcome : Outcome {
  ObjectId id;               // with kDone
  std::uint32_t length = 0;  // its bytes; the object itself may be absent
};

class Version;  // opaque
using Snapshot = std::shared_ptr<const Version>;

// Of the persisted snapshot: what the caller attached to it.
constexpr std::size_t kLabelBytesMax = 1 << 20;
// Of a snapshot that is being written: after so many it is noted what of it is there.
constexpr std::uint64_t kPartBytes = 64 << 20;

enum class Progress : std::uint8_t {
  kMore,     // call again
  kDone,     // nothing is left to do
  kMissing,  // an absent part is in the way: supply it, then call again
};

struct StoreCounters {
  std::uint64_t objects_resident = 0;
  std::uint64_t bytes_resident = 0;
  std::uint64_t absent = 0;   // objects and inner nodes, over all versions
  std::uint64_t spilled = 0;  // objects written to disk to make room
  std::uint64_t written = 0;  // objects of snapshots, to disk
  std::uint64_t loaded = 0;   // objects read back from disk
  std::uint64_t damaged = 0;  // objects and nodes that the disk lost or changed; they count as absent
  std::uint64_t supplied = 0;
  std::uint64_t reused = 0;  // subtrees that adopt() did not have to fetch
  RefusalCounts refused;     // of supply()
};

class ObjectStore {
 public:
  struct Opened {
    std::unique_ptr<ObjectStore> store;  // its head is the persisted snapshot, or empty
    Snapshot persisted;                  // null: there was none
    Bytes label;                         // of persisted
    std::string damage;                  // what was found wrong and where it went; else empty
  };
  // Errors: not permitted, no space, in use by another process, written by a newer program.
  static Result<Opened> open(const StoreOptions& options);
  ~ObjectStore();
  ObjectStore(const ObjectStore&) = delete;
  ObjectStore& operator=(const ObjectStore&) = delete;

  // ---- the head

  // kDone, kNone or kMissing.
  ReadOutcome read(ObjectId id);
  // Sets the whole object. kDone, kMissing (an inner node on its path), kOversize or kFull. The old bytes are not
  // needed.
  Outcome write(ObjectId id, ByteView bytes);
  // kDone, kNone or kMissing (an inner node on its path).
  Outcome erase(ObjectId id);
  // The first object whose id is at least `from`: kDone, kNone or kMissing (an inner node). The largest id has no next.
  [[nodiscard]] NextOutcome next(ObjectId from) const;
  // Of the head; known whole once its root record is there, zero before.
  [[nodiscard]] Totals totals() const;
  // Nothing of the head is absent, so nothing can be kMissing but what the disk lost. False says nothing.
  [[nodiscard]] bool whole() const;

  // ---- versions

  // The head as it is now; nothing while snapshots_max are alive or not reclaimed, or the head's root record is absent.
  [[nodiscard]] std::optional<Snapshot> snapshot();
  // The head becomes what it was then.
  void revert(const Snapshot& to);
  // The head becomes empty. What it was, such as the persisted snapshot after open(), stays for adopt() to reuse, and
  // nobody reads it before.
  void clear();
  // How often the head was replaced, by revert(), clear() or adopt(): who keeps what it read of the head is to drop it.
  [[nodiscard]] std::uint64_t replacements() const;
  // As read(), but what comes from the disk is not kept in memory. Any thread.
  ReadOutcome read(const Snapshot& snapshot, ObjectId id);
  // Any thread.
  [[nodiscard]] static Totals totals(const Snapshot& snapshot);
  // The root digest. Nothing before digest_some() is done with it, unless nothing was changed since the head was
  // adopted or digested. Any thread.
  [[nodiscard]] static std::optional<Digest> root(const Snapshot& snapshot);

  // Computes digests of what changed since the last snapshot that has them, until about `bytes` were hashed. Beside.
  Progress digest_some(const Snapshot& snapshot, std::uint64_t bytes);
  // Frees what dropped snapshots and abandoned heads held, up to `nodes` tree nodes. False: nothing left. Beside. Not
  // called, memory and snapshot places are not given back. On several threads at once: one of them does it, the others
  // are told that something is left.
  bool reclaim_some(std::size_t nodes);

  // ---- the disk

  // Starts to write `snapshot`, whose root() is known, with `label` (up to kLabelBytesMax). What another persist had
  // not finished is abandoned. Errors: no directory, no digests yet, disk_error(). Not while persist_some() runs.
  Result<void> begin_persist(const Snapshot& snapshot, Bytes label);
  // Writes about `bytes` more; kDone: it is whole and synced; kMissing: what comes before the absent part is written.
  // An error is for good. Beside.
  Result<Progress> persist_some(std::uint64_t bytes);
  // Takes up to `objects` cold objects out of memory while more than 7/8 of memory_bytes are resident, writing those to
  // disk that are not there. False: nothing to do. Beside.
  bool trim_some(std::size_t objects);
  // Why nothing is written any more; empty while all is well. Any thread.
  [[nodiscard]] std::string disk_error() const;

  // ---- giving state to others

  // What `want` asks for, if the snapshot holds it; an object or node with another digest is not handed out. Requires
  // root(snapshot). Any thread.
  [[nodiscard]] std::optional<Part> part(const Snapshot& snapshot, const Want& want);
  // All parts from the inner node at `below` or deeper (root record first if `with_root`) down to object `id`, so that
  // one answer serves a first touch: each is verified by the one before. Ends early where the snapshot lacks a part;
  // where there is no such object the last node proves it. Requires root(snapshot). Any thread.
  struct PathQuery {
    ObjectId id;
    std::uint8_t below = 0;  // nibbles; what is above it the asker holds
    bool with_root = true;
  };
  [[nodiscard]] std::vector<Part> path(const Snapshot& snapshot, const PathQuery& query);

  // ---- taking state from others

  // The head becomes the state with this root digest, known by nothing else; the caller has it from a stable
  // certificate. What the head before (and an unfinished one before that) holds is reused wherever digests are equal.
  void adopt(const Digest& root);
  // Takes a part of the head or a snapshot. kOversize, kMalformed, kWrongDigest: the source lies; kDuplicate: it is
  // there; kNotWanted: nothing of that place is absent. Counted; nothing but kNone changes anything.
  Refusal supply(const Part& part);
  // Absent parts of the head, in id order from `cursor` on.
  struct Missing {
    std::vector<Want> wants;
    std::optional<ObjectId> next;  // where to go on; nothing: the end was reached
  };
  // Up to `limit` of them, looking at no more than `visits` nodes (>= 1024). From {} to the end without a want: the
  // head is complete.
  Missing missing(ObjectId cursor, std::size_t limit, std::size_t visits);

  [[nodiscard]] StoreCounters counters() const;

 private:
  struct State;
  explicit ObjectStore(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace zz::execution::state
