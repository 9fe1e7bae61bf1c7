#pragma once

// FileSystem: the state of a service as files, over an ObjectStore (docs/decisions/0020). A core: it knows no clock, no
// kernel and no disk. Its driver is FuseMount.
//
//   agreed time  set by the driver before each request; every time that an operation writes is it, unless the service
//                names one. So equal operations at equal agreed times give equal objects, times and inodes included.
//   hold         said of an inode that is open somewhere. Not state: what is unlinked while held leaves the state at
//                once and lives on beside it, in memory, until it is released.
//
// Invariants:
//  1. The state depends on the sequence of changing operations, their arguments and agreed times alone: not on lookups,
//     reads, listings, holds, releases, nor on what of the store is present.
//  2. An outcome that is not ok() changed nothing. With `missing` the same call does the rest once the store has it.
//  3. Every inode in the state is reached from the root; a file's links are the entries that name it.
//  4. Once the head was replaced, every operation is ESTALE until replaced(): nobody's next write goes into a state
//     that it does not know.
//  5. Nothing in the state makes an operation crash or loop: what is not as it must be is EIO, and counted.
//
// Permissions are the caller's (the kernel's default_permissions); names are bytes without '/' and NUL.
// Thread: the one that owns the store's head. The store must outlive it. Calls are bounded by what they touch: an
// unlink or truncation visits every block that goes.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "execution/statefs/directory.hpp"
#include "execution/statefs/layout.hpp"
#include "execution/statefs/transaction.hpp"

namespace zz::execution::statefs {

struct Attributes {  // as stat(2) shows them
  Inode inode;
  Record record;
  [[nodiscard]] std::uint64_t sectors() const;  // of 512 bytes that are stored
};
struct [[nodiscard]] AttributesOutcome : Outcome {
  Attributes attributes;
};
struct [[nodiscard]] ReadOutcome : Outcome {
  std::vector<SharedBytes> pieces;  // in order; together shorter than asked for at the end of the file
};
struct [[nodiscard]] BytesOutcome : Outcome {
  SharedBytes bytes;
};
struct [[nodiscard]] ListOutcome : Outcome {
  std::vector<ListedEntry> entries;
};
struct [[nodiscard]] OffsetOutcome : Outcome {
  std::uint64_t offset = 0;
};
struct [[nodiscard]] NamesOutcome : Outcome {
  std::vector<std::string> names;
};

struct Owner {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

struct NewInode {
  std::uint32_t mode = 0;  // type and permissions, the umask applied
  Owner owner;             // a parent with S_ISGID gives its own group
  std::uint64_t device = 0;
  std::string_view target;  // of a symbolic link
};

struct Change {
  std::optional<std::uint32_t> permissions;  // 07777
  std::optional<std::uint32_t> uid, gid;
  std::optional<std::uint64_t> size;
  bool accessed_now = false, modified_now = false;  // the agreed time
  std::optional<Time> modified;                     // as the service names it
};

enum class RenameMode : std::uint8_t { kReplace, kNoReplace, kExchange };
enum class AllocateMode : std::uint8_t { kGrow, kZero, kZeroGrow };  // fallocate: 0; PUNCH_HOLE; ZERO_RANGE
enum class AttributeMode : std::uint8_t { kAny, kCreate, kReplace };
enum class SeekTo : std::uint8_t { kData, kHole };

struct Usage {
  std::uint64_t objects = 0, objects_max = 0;
  std::uint64_t bytes = 0, bytes_max = 0;
};

// Of a file that is looked up and absent, so many come with its record.
constexpr std::uint64_t kBlocksAlong = 8;

class FileSystem {
 public:
  explicit FileSystem(state::ObjectStore& store, const Limits& limits = {});

  // Makes an empty root directory if the state has none yet.
  Outcome format(const Owner& owner, std::uint32_t permissions);
  void set_time(Micros agreed) { now_ = to_time(agreed); }
  // The store's head was replaced (adopt, revert): what was held is gone.
  void replaced();
  [[nodiscard]] bool is_current() const { return replacements_ == store_.replacements(); }

  // ---- names. ENOENT, ENOTDIR, EEXIST, ENAMETOOLONG, EINVAL, ENOSPC

  AttributesOutcome lookup(Inode directory, std::string_view name);
  AttributesOutcome make(Inode directory, std::string_view name, const NewInode& what);
  AttributesOutcome link(Inode inode, Inode directory, std::string_view name);  // EPERM of a directory, EMLINK
  Outcome unlink(Inode directory, std::string_view name);                       // EISDIR
  Outcome rmdir(Inode directory, std::string_view name);                        // ENOTEMPTY
  Outcome rename(Inode from, std::string_view name, Inode to, std::string_view new_name, RenameMode mode);
  // "." (offset 1), ".." (2), then the names in the order of their hashes, from behind `after` on, about `limit` of
  // them. Offsets stay valid whatever is made or removed meanwhile; what is neither is listed once.
  ListOutcome list(Inode directory, std::uint64_t after, std::size_t limit);

  // ---- inodes. ESTALE: there is no such inode

  AttributesOutcome stat(Inode inode);
  AttributesOutcome change(Inode inode, const Change& change);
  BytesOutcome target(Inode inode);  // of a symbolic link
  ReadOutcome read(Inode inode, std::uint64_t offset, std::uint64_t length);
  Outcome write(Inode inode, std::uint64_t offset, ByteView bytes);  // all of it; EFBIG, ENOSPC
  Outcome allocate(Inode inode, std::uint64_t offset, std::uint64_t length, AllocateMode mode);
  OffsetOutcome seek(Inode inode, std::uint64_t offset, SeekTo to);  // ENXIO

  // Extended attributes: ENODATA, EEXIST; ENOSPC: all of an inode's fit in one object, 64 KiB.
  BytesOutcome attribute(Inode inode, std::string_view name);
  NamesOutcome attribute_names(Inode inode);
  Outcome set_attribute(Inode inode, std::string_view name, ByteView value, AttributeMode mode);
  Outcome remove_attribute(Inode inode, std::string_view name);

  [[nodiscard]] Usage usage() const;

  // ---- not state

  // Each hold is released once. Of an inode that does not exist: no harm.
  void hold(Inode inode) { ++held_[inode.value]; }
  void release(Inode inode);
  [[nodiscard]] std::size_t held() const { return held_.size(); }
  [[nodiscard]] std::size_t orphans() const { return orphans_.inodes.size(); }
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  Transaction begin();
  std::optional<Record> load(Transaction& tx, Inode inode);  // fails with ESTALE
  static void ask_along(Transaction& tx, const FoundEntry& entry);
  std::optional<Record> load_directory(Transaction& tx, Inode inode);
  std::optional<Record> load_file(Transaction& tx, Inode inode);
  void store(Transaction& tx, Inode inode, const Record& record);
  void touch(Record& record) const { record.modified = record.changed = now_; }
  // One name less; without any the inode leaves the state.
  void drop_link(Transaction& tx, Inode inode, Record& record);
  [[nodiscard]] bool is_below(Transaction& tx, Inode inode, Inode directory);
  std::vector<Attribute> load_attributes(Transaction& tx, Inode inode, const Record& record, SharedBytes& keep);
  struct Side;
  void rename_over(Transaction& tx, Side& from, Side& to);
  void exchange(Transaction& tx, Side& from, Side& to);

  state::ObjectStore& store_;
  Limits limits_;
  std::uint64_t replacements_ = 0;  // of the head, when it was last known
  Time now_;
  std::map<std::uint64_t, std::uint64_t> held_;  // inode -> holds
  Orphans orphans_;
  Counters counters_;
};

}  // namespace zz::execution::statefs
