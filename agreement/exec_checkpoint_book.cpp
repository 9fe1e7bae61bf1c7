#include "agreement/exec_checkpoint_book.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace zz::agreement {

ExecCheckpointBook::ExecCheckpointBook(std::uint32_t g) : g_(g), all_(static_cast<SlotMask>((1u << (2 * g + 1)) - 1)) {
  ZZ_ASSERT(g > 0 && 2 * g + 1 <= kSlotsMax);
}

void ExecCheckpointBook::open(Seq n) {
  ZZ_ASSERT(n > dropped_through_ && (held_.empty() || held_.rbegin()->first < n));
  held_.emplace_hint(held_.end(), n, ExecCheckpoints{});
  trim();
}

Refusal ExecCheckpointBook::admit(SlotId slot, Seq n, const Digest& root) const {
  ZZ_ASSERT(contains(all_, slot));
  const auto found = held_.find(n);
  if (found == held_.end()) return n <= dropped_through_ ? Refusal::kDuplicate : Refusal::kMalformed;
  const ExecCheckpoints& words = found->second;
  if (!contains(words.said, slot)) return Refusal::kNone;
  bool same = false;
  if (words.root) {
    same = (root == *words.root) == contains(words.agreeing, slot);
  } else {
    same = std::any_of(words.candidates.begin(), words.candidates.end(),
                       [&](const ExecCheckpoints::Candidate& c) { return c.root == root && contains(c.slots, slot); });
  }
  return same ? Refusal::kDuplicate : Refusal::kConflict;
}

ExecCheckpointBook::Cast ExecCheckpointBook::cast(SlotId slot, Seq n, const Digest& root, Micros now) {
  ExecCheckpoints* words = find(n);
  ZZ_ASSERT(words != nullptr && contains(all_, slot) && !contains(words->said, slot));
  words->said |= bit_of(slot);
  last_word_[slot.value] = std::max(last_word_[slot.value], n);
  if (words->root) {
    if (root != *words->root) return {Effect::kWrong, 0};
    words->agreeing |= bit_of(slot);
    if (size_of(words->agreeing) == g_ + 1) words->agreed_at = now;
    return {Effect::kAgrees, 0};
  }
  auto candidate = std::find_if(words->candidates.begin(), words->candidates.end(),
                                [&root](const ExecCheckpoints::Candidate& c) { return c.root == root; });
  if (candidate == words->candidates.end()) candidate = words->candidates.insert(candidate, {root, 0});
  candidate->slots |= bit_of(slot);
  if (size_of(candidate->slots) > g_) return settle(*words, root, now);
  if (words->said != all_ || words->presumed) return {Effect::kCounted, 0};
  words->hung = true;
  return {Effect::kHung, 0};
}

ExecCheckpointBook::Cast ExecCheckpointBook::confirm(Seq n, const Digest& root, Micros now) {
  ExecCheckpoints* words = find(n);
  if (words == nullptr || words->root) return {};
  return settle(*words, root, now);
}

ExecCheckpointBook::Cast ExecCheckpointBook::settle(ExecCheckpoints& words, const Digest& root, Micros now) {
  for (const ExecCheckpoints::Candidate& candidate : words.candidates) {
    if (candidate.root == root) words.agreeing = candidate.slots;
  }
  words.root = root;
  words.candidates = {};
  words.hung = false;
  words.agreed_at = now;
  return {Effect::kSettled, without(words.said, words.agreeing)};
}

void ExecCheckpointBook::presume(Seq n) {
  for (auto& [at, words] : held_) {
    if (at > n) break;
    words.presumed = true;
    words.hung = false;
  }
  trim();
}

void ExecCheckpointBook::forget(SlotId slot) {
  const SlotMask bit = bit_of(slot);
  for (auto& [n, words] : held_) {
    words.said = without(words.said, bit);
    words.agreeing = without(words.agreeing, bit);
    words.hung = false;
    words.owed_since[slot.value].reset();
    for (ExecCheckpoints::Candidate& candidate : words.candidates) candidate.slots = without(candidate.slots, bit);
    std::erase_if(words.candidates, [](const ExecCheckpoints::Candidate& candidate) { return candidate.slots == 0; });
  }
  last_word_[slot.value] = Seq{};
}

void ExecCheckpointBook::begin(SlotId slot, Seq n) {
  for (auto& [at, words] : held_) {
    if (at > n) break;
    if (!words.root || contains(words.said, slot)) continue;
    words.said |= bit_of(slot);
    words.agreeing |= bit_of(slot);
  }
  last_word_[slot.value] = std::max(last_word_[slot.value], n);
}

ExecCheckpoints* ExecCheckpointBook::find(Seq n) {
  const auto found = held_.find(n);
  return found == held_.end() ? nullptr : &found->second;
}

SlotMask ExecCheckpointBook::agreeing(Seq n) const {
  if (const auto found = held_.find(n); found != held_.end()) return found->second.agreeing;
  SlotMask out = 0;
  for (std::uint16_t i = 0; i < 2 * g_ + 1; ++i) {
    if (last_word_[i] >= n) out |= bit_of(SlotId{i});
  }
  return out;
}

bool ExecCheckpointBook::owes(SlotId slot, Seq n, const ExecCheckpoints& words) const {
  return size_of(words.agreeing) > g_ && !contains(words.said, slot) && last_word_[slot.value] < n;
}

void ExecCheckpointBook::trim() {
  while (held_.size() > kKept && (held_.begin()->second.root || held_.begin()->second.presumed)) {
    dropped_through_ = held_.begin()->first;
    held_.erase(held_.begin());
  }
}

}  // namespace zz::agreement
