#pragma once

// ServiceState: what one request of an in-process service reads and changes of the slot's state: the objects below
// 2^63. Changes are kept here, seen by later reads, and reach the store in commit(), all or none. What is absent is
// remembered in missing(): the request is to be run again from its beginning once the store has it.
//
// One thread, that of the store's head, which must outlive it. Lives for one run of one request.

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

// Of the whole store, the slot's own objects included, which are the same on every replica. The service is refused
// what would exceed them. Part of the agreed configuration; the store's own limits are to be above them by
// SlotState::reserve().
struct ServiceLimits {
  std::uint64_t objects_max = 1ull << 23;
  std::uint64_t bytes_max = 1ull << 39;
};

class ServiceState {
 public:
  ServiceState(state::ObjectStore& store, const ServiceLimits& limits) : store_(store), limits_(limits) {}

  // Ids below kOwnFirst, bytes up to kObjectBytesMax. Nothing: there is no such object, or it is absent.
  std::optional<SharedBytes> read(state::ObjectId id);
  // The first object at or above `from`. Nothing: there is none below kOwnFirst, or what is there is absent.
  std::optional<state::ObjectId> next(state::ObjectId from);
  void write(state::ObjectId id, Bytes bytes) { change(id, std::move(bytes)); }
  void erase(state::ObjectId id) { change(id, std::nullopt); }

  // What reads and a commit() lacked; not empty: nothing may come of this run.
  [[nodiscard]] const std::vector<state::Want>& missing() const { return missing_; }
  // kDone, kMissing (missing() says what) or kFull; nothing changes but with kDone.
  state::Status commit();

 private:
  struct Change {
    state::ObjectId id;
    std::optional<Bytes> bytes;  // nothing: erased
  };
  void change(state::ObjectId id, std::optional<Bytes> bytes);
  [[nodiscard]] const Change* changed(state::ObjectId id) const;
  [[nodiscard]] bool fits();

  state::ObjectStore& store_;
  ServiceLimits limits_;
  std::vector<Change> changes_;  // ascending ids
  std::vector<state::Want> missing_;
};

}  // namespace zz::execution
