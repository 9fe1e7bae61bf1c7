#pragma once

// StateSource: what an executor answers to FETCH-STATE (docs/protocol.md §10): parts of a snapshot that it keeps, in
// the order asked for, without those that it has not.
//
// One thread, the store's. Every answer is bounded (agreement::kStateBytesMax, kStatePartsMax), and so is what one node
// can make this executor read and hold in a turn: a node that has used up its share gets empty answers, which send the
// asker elsewhere. Blocking: as ObjectStore::part().

#include <cstdint>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

// Parts for one node that were not sent yet; each part that is asked for costs kStateWantCost at least, had or not.
inline constexpr std::size_t kStateBytesWaiting = 4u << 20;
inline constexpr std::size_t kStateWantCost = 1'024;

class StateSource {
 public:
  struct Options {
    SlotId self;
    std::uint32_t nodes = 4;  // 3f+1
  };
  struct Answer {
    Refusal refusal = Refusal::kNone;
    agreement::StateParts parts;  // to be sent in any case; empty when refused
  };
  struct Stats {
    std::uint64_t answers = 0;  // with parts
    std::uint64_t empty = 0;
    std::uint64_t bytes = 0;
    RefusalCounts refused;
  };

  // `store` must outlive it.
  StateSource(const Options& options, state::ObjectStore& store);

  // What `snapshot`, this slot's of wish.n, has of it; null: it is not kept (any more). kUnknownSlot: another slot is
  // asked; kMalformed: no such kind or place, or more than may be asked for at once; kQuota: the node's share is used
  // up.
  Answer answer(NodeId from, const agreement::FetchState& wish, const state::Snapshot& snapshot);
  // The answers until now have left: a new turn.
  void sent();

  [[nodiscard]] const Stats& stats() const { return stats_; }

 private:
  Answer refuse(Answer answer, Refusal why);

  Options options_;
  state::ObjectStore& store_;
  std::vector<std::uint64_t> waiting_;  // per node
  Stats stats_;
};

}  // namespace zz::execution
