#pragma once

// SystemQueue: the system operations that this node wants ordered, until they are (docs/protocol.md §11). A part of
// Replica; one thread, no IO.
//
// Invariants:
//  1. At most kSystemOpsMax operations, no two with equal content.
//  2. An operation leaves only when it is delivered, when a delivered one has overtaken it (an EPOCH for a later
//     epoch, a JOIN of a later incarnation of the slot), or when it does not apply any more.

#include <map>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"
#include "agreement/system_rules.hpp"

namespace zz::agreement {

inline constexpr std::size_t kSystemOpsMax = 64;          // waiting here
inline constexpr std::size_t kSystemOpsPerBatchMax = 16;  // in one proposal

// Equal for operations of equal content, signatures included.
Digest system_op_digest(const SystemOp& op);

class SystemQueue {
 public:
  [[nodiscard]] bool contains(const Digest& digest) const;
  // False when full. Requires that it is not contained.
  bool add(const Digest& digest, SystemOp op);
  // Whether one waits that no batch carries yet.
  [[nodiscard]] bool due() const { return due_ > 0; }
  // Whether take() would give any.
  [[nodiscard]] bool due(Seq joined_before) const;
  // The oldest ones that are due, for batch n; no JOIN of a slot that had two delivered above `joined_before`.
  [[nodiscard]] std::vector<SystemOp> take(Seq n, Seq joined_before);
  // No batch carries anything any more: a view change.
  void release_all();
  // What waits and no batch carries, oldest first.
  [[nodiscard]] std::vector<SystemOp> waiting() const;
  // Forgets what `rules` say would change nothing any more.
  void prune(const SystemRules& rules);
  // One was delivered, whoever proposed it.
  void delivered(Seq n, const SystemOp& op);

 private:
  struct Item {
    Digest digest;
    SystemOp op;
    Seq carried_by;  // 0: by none
  };
  [[nodiscard]] bool is_held_back(const SystemOp& op, Seq joined_before) const;

  std::vector<Item> items_;  // oldest first
  std::size_t due_ = 0;
  std::map<SlotId, std::pair<Seq, Seq>> joined_;  // the last two JOINs of each slot, the older one first
};

}  // namespace zz::agreement
