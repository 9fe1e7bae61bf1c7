#include "agreement/vote_book.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace zz::agreement {

VoteBook::VoteBook(std::uint32_t g) : g_(g), all_(static_cast<SlotMask>((1u << (2 * g + 1)) - 1)) {
  ZZ_ASSERT(g > 0 && 2 * g + 1 <= kSlotsMax);
}

void VoteBook::open(Seq n, std::uint32_t references, Micros now) {
  ZZ_ASSERT(n == last_opened().next());
  Ballot& ballot = ballots_.emplace_back();
  ballot.references = references;
  ballot.opened_at = now;
  references_held_ += references;
  digests_.emplace_back();
  trim();
}

bool VoteBook::is_closed(Seq n) const {
  if (n <= closed_through_) return true;
  const Ballot* ballot = find(n);
  return ballot != nullptr && ballot->closed;
}

std::optional<Digest> VoteBook::closed_digest(Seq n) const {
  if (n.value == 0 || n > last_opened() || digests_[n.value - 1].is_zero()) return std::nullopt;
  return digests_[n.value - 1];
}

void VoteBook::presume_closed(Seq n) {
  ZZ_ASSERT(n <= last_opened());
  if (n <= closed_through_) return;
  for (Seq i = closed_through_.next(); i <= n; i = i.next()) find(i)->presumed = !find(i)->closed;
  closed_through_ = n;
  extend_closed_through();
  trim();
}

void VoteBook::extend_closed_through() {
  while (closed_through_ < last_opened() && is_closed(closed_through_.next())) {
    closed_through_ = closed_through_.next();
  }
}

Ballot* VoteBook::find(Seq n) {
  if (n < first_held() || n > last_opened()) return nullptr;
  return &ballots_[n.value - first_held().value];
}

const Ballot* VoteBook::find(Seq n) const {
  if (n < first_held() || n > last_opened()) return nullptr;
  return &ballots_[n.value - first_held().value];
}

SlotMask VoteBook::agreeing(Seq n) const {
  if (n.value == 0) return 0;
  const Ballot* ballot = find(n);
  SlotMask out = ballot != nullptr ? ballot->agreeing : SlotMask{0};
  const bool by_order = ballot == nullptr || (ballot->presumed && !ballot->closed && ballot->candidates.size() < 2);
  for (std::uint16_t i = 0; i < 2 * g_ + 1; ++i) {
    const bool began = began_at_[i] >= n && (ballot == nullptr || !contains(ballot->voted, SlotId{i}));
    if (began || (by_order && last_vote_[i] >= n)) out |= bit_of(SlotId{i});
  }
  return out;
}

VoteBook::Cast VoteBook::cast(SlotId slot, Seq n, std::vector<Digest>&& replies, Micros now) {
  ZZ_ASSERT(n.value > 0 && n <= last_opened() && contains(all_, slot));
  Ballot* ballot = find(n);
  if (ballot != nullptr && replies.size() != ballot->references) return {Refusal::kMalformed, Effect::kNone, {}};
  if (ballot == nullptr || ballot->closed) return cast_on_closed(slot, n, replies, ballot);

  std::size_t choice = 0;
  while (choice < ballot->candidates.size() && ballot->candidates[choice].replies != replies) ++choice;
  const bool is_new = choice == ballot->candidates.size();
  if (contains(ballot->voted, slot)) {
    const bool same = !is_new && contains(ballot->candidates[choice].voters, slot);
    return {same ? Refusal::kDuplicate : Refusal::kConflict, Effect::kNone, {}};
  }
  if (is_new) ballot->candidates.push_back({std::move(replies), 0});
  Ballot::Candidate& candidate = ballot->candidates[choice];
  candidate.voters |= bit_of(slot);
  if (ballot->voted == 0) ballot->first_vote_at = now;
  ballot->voted |= bit_of(slot);
  last_vote_[slot.value] = std::max(last_vote_[slot.value], n);
  const bool confirmed = ballot->confirmed && vote_digest(n, candidate.replies) == *ballot->confirmed;
  if (confirmed) return close(*ballot, n, choice, now);
  if (ballot->hung) return {Refusal::kNone, Effect::kCounted, {}};
  if (size_of(candidate.voters) > g_) return close(*ballot, n, choice, now);
  if (ballot->voted != all_ || ballot->presumed) return {Refusal::kNone, Effect::kCounted, {}};
  ballot->hung = true;
  return {Refusal::kNone, Effect::kHung, {}};
}

VoteBook::Cast VoteBook::confirm(Seq n, const Digest& digest, Micros now) {
  Ballot* ballot = find(n);
  if (ballot == nullptr || ballot->closed) return {};
  ballot->confirmed = digest;
  for (std::size_t i = 0; i < ballot->candidates.size(); ++i) {
    if (vote_digest(n, ballot->candidates[i].replies) == digest) return close(*ballot, n, i, now);
  }
  return {};
}

VoteBook::Cast VoteBook::cast_on_closed(SlotId slot, Seq n, const std::vector<Digest>& replies, Ballot* ballot) {
  const bool again = ballot != nullptr ? contains(ballot->voted, slot) : n <= last_vote_[slot.value];
  const auto closing = closed_digest(n);
  if (!closing) {  // presumed closed long ago
    last_vote_[slot.value] = std::max(last_vote_[slot.value], n);
    return {again ? Refusal::kDuplicate : Refusal::kNone, again ? Effect::kNone : Effect::kCounted, {}};
  }
  const bool equal = vote_digest(n, replies) == *closing;
  last_vote_[slot.value] = std::max(last_vote_[slot.value], n);
  if (ballot != nullptr) {
    ballot->voted |= bit_of(slot);
    if (equal && !again) ballot->agreeing |= bit_of(slot);
    if (!equal) ballot->agreeing = without(ballot->agreeing, bit_of(slot));
    trim();
  }
  if (!equal) return {again ? Refusal::kConflict : Refusal::kNone, Effect::kWrong, {}};
  return {again ? Refusal::kDuplicate : Refusal::kNone, again ? Effect::kNone : Effect::kAgrees, {}};
}

VoteBook::Cast VoteBook::close(Ballot& ballot, Seq n, std::size_t winner, Micros now) {
  Cast out{Refusal::kNone, Effect::kClosed, {}};
  Ballot::Candidate& candidate = ballot.candidates[winner];
  digests_[n.value - 1] = vote_digest(n, candidate.replies);
  out.closing.replies = std::move(candidate.replies);
  out.closing.agreeing = candidate.voters;
  out.closing.dissenting = without(ballot.voted, candidate.voters);
  ballot.agreeing = candidate.voters;
  ballot.closed = true;
  ballot.closed_at = now;
  out.closing.others = std::exchange(ballot.candidates, {});
  out.closing.others.erase(out.closing.others.begin() + static_cast<std::ptrdiff_t>(winner));
  extend_closed_through();
  return out;
}

void VoteBook::begin(SlotId slot, Seq n) {
  ZZ_ASSERT(n <= closed_through_);
  began_at_[slot.value] = n;
  last_vote_[slot.value] = std::max(last_vote_[slot.value], n);
  settled_through_ = Seq{};
  trim();
}

void VoteBook::forget(SlotId slot) {
  const SlotMask bit = bit_of(slot);
  for (Ballot& ballot : ballots_) {
    ballot.voted = without(ballot.voted, bit);
    ballot.agreeing = without(ballot.agreeing, bit);
    for (Ballot::Candidate& candidate : ballot.candidates) candidate.voters = without(candidate.voters, bit);
    std::erase_if(ballot.candidates, [](const Ballot::Candidate& candidate) { return candidate.voters == 0; });
  }
  last_vote_[slot.value] = began_at_[slot.value] = Seq{};
  settled_through_ = Seq{};
}

void VoteBook::expect(SlotId slot, Seq after) {
  owing_ |= bit_of(slot);
  owes_after_[slot.value] = after;
  settled_through_ = Seq{};
}

void VoteBook::release(SlotId slot) {
  owing_ = without(owing_, bit_of(slot));
  trim();
}

std::optional<VoteBook::Debt> VoteBook::owed(SlotId slot) const {
  if (!contains(owing_, slot)) return std::nullopt;
  for (Seq n = std::max(first_held(), settled_through_.next()); n <= last_opened(); n = n.next()) {
    const Ballot& ballot = *find(n);
    if (!ballot.closed || ballot.presumed || contains(ballot.voted, slot)) continue;
    if (n > std::max(owes_after_[slot.value], began_at_[slot.value])) return Debt{n, ballot.closed_at};
  }
  return std::nullopt;
}

// Nobody owes a vote for it any more.
bool VoteBook::settled(const Ballot& ballot, Seq n) const {
  if (ballot.presumed) return true;
  const SlotMask missing = without(owing_, ballot.voted);
  if (missing == 0) return true;
  const std::vector<SlotId> slots = slots_of(missing);
  return std::all_of(slots.begin(), slots.end(),
                     [&](SlotId slot) { return n <= std::max(owes_after_[slot.value], began_at_[slot.value]); });
}

bool VoteBook::droppable(const Ballot& ballot, Seq n) const {
  if (!ballot.closed) {
    const bool held_long = last_opened().value - n.value >= kPresumedMax || references_held_ > kPresumedDigestsMax;
    return ballot.presumed && held_long;
  }
  return ballots_.size() > kBallotsMax || settled(ballot, n);
}

void VoteBook::trim() {
  while (ballots_.size() > 1 && droppable(ballots_.front(), first_held())) {
    references_held_ -= ballots_.front().references;
    ballots_.pop_front();
  }
  settled_through_ = std::max(settled_through_, Seq{first_held().value - 1});
  while (settled_through_ < last_opened() && settled(*find(settled_through_.next()), settled_through_.next())) {
    settled_through_ = settled_through_.next();
  }
}

}  // namespace zz::agreement
