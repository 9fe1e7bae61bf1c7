#pragma once

// Transaction: what one operation reads and changes of a state, all or nothing. The object store's operations change
// one object each; an operation of the file system changes several, and any of them may need a part that is absent.
// So changes are kept here, seen by later reads, and reach the store in commit(), which first makes sure that nothing
// can stop it half-way.
//
// The first failure sticks: after it functions change nothing, and outcome() is the operation's. One thread, that of
// the store's head. Lives no longer than the operation; bytes given to put() as a view must live as long.
//
// Orphans are the objects of inodes that nothing names any more but that somebody holds open. They are no state: they
// are kept here in memory, beside the store, until they are let go.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "execution/statefs/layout.hpp"

namespace zz::execution::statefs {

using state::Want;

// What became of an operation. Errors are positive errno values.
struct [[nodiscard]] Outcome {
  int error = 0;
  std::vector<Want> missing;  // not empty: nothing changed; call again once the store has them
  [[nodiscard]] bool ok() const { return error == 0 && missing.empty(); }
};

constexpr std::size_t kMissingMax = 64;  // about as many are asked for at once

struct Limits {
  std::uint64_t objects_max = 1ull << 24;  // both as in the store's StoreOptions
  std::uint64_t bytes_max = 1ull << 40;
  std::uint64_t orphan_bytes_max = 256ull << 20;  // ENOSPC above; part of the agreed configuration
};

struct Counters {
  std::uint64_t missing = 0;  // times that an operation needed what was absent
  std::uint64_t damaged = 0;  // objects that were not what their place demands: EIO
  std::uint64_t full = 0;     // ENOSPC
};

struct Orphans {
  std::set<std::uint64_t> inodes;
  std::map<std::uint64_t, SharedBytes> objects;  // by id
  std::uint64_t bytes = 0;
};

class Transaction {
 public:
  Transaction(state::ObjectStore& store, Orphans& orphans, const Limits& limits, Counters& counters)
      : store_(store), orphans_(orphans), limits_(limits), counters_(counters) {}

  // Nothing: there is no such object, or the operation failed. After others were found absent it goes on to look, so
  // that one round fetches all that an operation is known to need.
  std::optional<SharedBytes> get(ObjectId id);
  // The first object from `from` up to `last`.
  struct Found {
    ObjectId id;
    std::uint32_t length = 0;
  };
  std::optional<Found> next(ObjectId from, ObjectId last);
  [[nodiscard]] bool exists(ObjectId id) { return next(id, id).has_value(); }

  void put(ObjectId id, Bytes bytes) { changes_[id.value] = SharedBytes(std::move(bytes)); }
  void put_view(ObjectId id, ByteView bytes) { changes_[id.value] = SharedBytes(nullptr, bytes); }
  void put(ObjectId id, SharedBytes bytes) { changes_[id.value] = std::move(bytes); }
  void erase(ObjectId id) { changes_[id.value] = std::nullopt; }

  // All objects of the inode leave the state; `keep`: they become an orphan's.
  void bury(Inode inode, bool keep);

  void fail(int error);
  void damaged();  // EIO, counted
  [[nodiscard]] bool failed() const { return !outcome_.ok(); }
  [[nodiscard]] const Outcome& outcome() const { return outcome_; }
  // Nothing changes unless all of it does.
  Outcome commit();

 private:
  [[nodiscard]] bool is_orphan(std::uint64_t id) const {
    return !orphans_.inodes.empty() && orphans_.inodes.contains(id >> kPartBits);
  }
  std::optional<Found> look_for(ObjectId from, ObjectId last);  // next(), failed or not
  bool is_possible(std::uint64_t& orphan_bytes, std::set<std::uint64_t>& growing);
  void missing(const Want& want);

  state::ObjectStore& store_;
  Orphans& orphans_;
  const Limits& limits_;
  Counters& counters_;
  Outcome outcome_;
  std::map<std::uint64_t, std::optional<SharedBytes>> changes_;
  std::map<std::uint64_t, SharedBytes> buried_;  // what becomes an orphan's
  std::optional<std::uint64_t> orphan_;          // its inode
};

}  // namespace zz::execution::statefs
