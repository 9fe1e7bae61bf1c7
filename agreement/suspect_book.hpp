#pragma once

// SuspectBook: the suspicions of the current epoch, at most one per slot and signer (docs/protocol.md §11). A
// signer repeats a suspicion as long as it holds, so one that is not heard again for kSuspectLife counts no
// more: two short troubles far apart must not add up to a conviction. One thread; callers check signatures
// and clear the book when the epoch changes.

#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "base/ids.hpp"

namespace zz::agreement {

inline constexpr Micros kSuspectResend{250'000};
inline constexpr Micros kSuspectLife{8 * kSuspectResend.value};

// The same but for signer and signature.
bool same_statement(const Suspect& a, const Suspect& b);

class SuspectBook {
 public:
  SuspectBook(std::size_t slots, std::size_t nodes);

  // True when exactly this suspicion is here already; it then counts as heard again.
  bool refresh(const Suspect& suspect, Micros now);
  // Replaces the signer's earlier suspicion of that slot. Requires slot < slots and signer < nodes.
  void put(const Suspect& suspect, Micros now);
  void withdraw(SlotId slot, NodeId signer);
  void forget(SlotId slot);
  void clear();
  // Those heard within their life, ascending by slot, then signer.
  [[nodiscard]] std::vector<Suspect> fresh(Micros now) const;
  [[nodiscard]] bool empty() const { return held_ == 0; }

 private:
  struct Entry {
    Suspect suspect;
    Micros heard_at;
  };
  std::optional<Entry>& at(SlotId slot, NodeId signer) { return entries_[slot.value * nodes_ + signer.value]; }

  std::size_t nodes_;
  std::vector<std::optional<Entry>> entries_;  // [slot * nodes + signer]
  std::size_t held_ = 0;
};

}  // namespace zz::agreement
