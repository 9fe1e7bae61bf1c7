#pragma once

// SlotState: what a slot knows besides its service's objects, as objects of the same store (slot_layout.hpp): how far
// it is, who executes, and which requests were answered how. So one root digest covers everything that decides its
// votes.
//
// save() makes the objects those of a batch. After ObjectStore::adopt(), load() is called until it is done, each time
// that parts arrived: it wants everything but the bodies of replies, as many parts at a time as are known of. What is
// loaded comes from a certified root, and is still checked: damage has a name, and is no crash.
//
// One thread, that of the store's head; the store must outlive it, and have reserve() more room than the service gets.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agreement/slot_table.hpp"
#include "execution/session_table.hpp"
#include "execution/slot_layout.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

// After batch n.
struct SlotHead {
  Seq n;
  Digest history;  // H_n
  Micros time;     // the agreed time of n
};

class SlotState {
 public:
  struct Options {
    ServiceId service;
    std::uint32_t f = 1;
    std::uint32_t g = 1;
    SessionLimits sessions;
  };
  SlotState(const Options& options, state::ObjectStore& store);
  SlotState(const SlotState&) = delete;
  SlotState& operator=(const SlotState&) = delete;

  [[nodiscard]] SessionTable& sessions() { return *sessions_; }
  [[nodiscard]] const SessionTable& sessions() const { return *sessions_; }
  [[nodiscard]] agreement::SlotTable& slots() { return slots_; }
  [[nodiscard]] const agreement::SlotTable& slots() const { return slots_; }

  // The store holds nothing of a slot: there is no checkpoint behind it.
  [[nodiscard]] bool is_new() const;
  void save(const SlotHead& head);

  // The store has another state.
  void begin_load();
  struct Loading {
    std::optional<SlotHead> head;    // done
    std::vector<state::Want> wants;  // all that is missing or much of it, each time: who was told may have forgotten
    std::string damage;              // what is wrong; not empty: it will never be done
  };
  Loading load();

  // What it may need of the store at most.
  static state::Totals reserve(const SessionLimits& limits);

 private:
  static void guess(const state::Want& root, std::vector<state::Want>& wants);
  bool find_missing(std::vector<state::Want>& wants);
  Loading decode();

  Options options_;
  state::ObjectStore& store_;
  std::unique_ptr<SessionTable> sessions_;
  agreement::SlotTable slots_;
  state::ObjectId cursor_{kOwnFirst};  // everything of the slot's before it is there
};

}  // namespace zz::execution
