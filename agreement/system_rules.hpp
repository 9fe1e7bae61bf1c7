#pragma once

// What the ordering core asks before it accepts a proposal that carries system operations.

#include "agreement/messages.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

// Stateless with respect to the order: the answer depends only on the operation and the cluster file, so it
// is the same at every correct node and at every time. Whether an admissible operation still applies is
// decided when it is delivered (Oversight::deliver), equally everywhere.
class SystemRules {
 public:
  virtual ~SystemRules() = default;
  [[nodiscard]] virtual Refusal admissible(const SystemOp& op) const = 0;
  // Whether it would change anything at this place of the order: only such an operation is worth proposing. Never asked
  // of a proposal.
  [[nodiscard]] virtual bool applies(const SystemOp& op) const {
    static_cast<void>(op);
    return true;
  }
};

}  // namespace zz::agreement
