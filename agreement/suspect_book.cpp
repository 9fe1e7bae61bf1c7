#include "agreement/suspect_book.hpp"

namespace zz::agreement {

bool same_statement(const Suspect& a, const Suspect& b) {
  return a.service == b.service && a.epoch == b.epoch && a.slot == b.slot && a.incarnation == b.incarnation &&
         a.n == b.n && a.why == b.why && a.agreeing == b.agreeing;
}

SuspectBook::SuspectBook(std::size_t slots, std::size_t nodes) : nodes_(nodes), entries_(slots * nodes) {}

bool SuspectBook::refresh(const Suspect& suspect, Micros now) {
  std::optional<Entry>& entry = at(suspect.slot, suspect.signer);
  if (!entry || !same_statement(entry->suspect, suspect) || entry->suspect.signature != suspect.signature) return false;
  entry->heard_at = now;
  return true;
}

void SuspectBook::put(const Suspect& suspect, Micros now) {
  std::optional<Entry>& entry = at(suspect.slot, suspect.signer);
  if (!entry) ++held_;
  entry = Entry{suspect, now};
}

void SuspectBook::withdraw(SlotId slot, NodeId signer) {
  std::optional<Entry>& entry = at(slot, signer);
  if (entry) --held_;
  entry.reset();
}

void SuspectBook::forget(SlotId slot) {
  for (std::uint16_t i = 0; i < nodes_; ++i) withdraw(slot, NodeId{i});
}

void SuspectBook::clear() {
  for (std::optional<Entry>& entry : entries_) entry.reset();
  held_ = 0;
}

std::vector<Suspect> SuspectBook::fresh(Micros now) const {
  std::vector<Suspect> out;
  out.reserve(held_);
  for (const std::optional<Entry>& entry : entries_) {
    if (entry && now.value - entry->heard_at.value < kSuspectLife.value) out.push_back(entry->suspect);
  }
  return out;
}

}  // namespace zz::agreement
