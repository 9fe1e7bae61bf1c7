// What slots say of the state after a checkpoint, and the signs of trouble in it (docs/protocol.md §6, §9).

#include <algorithm>
#include <utility>

#include "agreement/oversight_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {

// ---- words
// -------------------------------------------------------------------------------------------------------

Refusal Oversight::State::on_exec_checkpoint(SlotId slot, Incarnation incarnation, const ExecCheckpoint& message) {
  if (message.service != id) return Refusal::kUnknownService;
  if (!table.known(slot) || message.slot != slot) return Refusal::kUnknownSlot;
  if (message.incarnation != incarnation || !table.is_current(slot, incarnation)) return Refusal::kStaleIncarnation;
  if (message.n.value == 0) return Refusal::kMalformed;
  const bool ahead = message.n > book.last_opened();
  const Refusal why = ahead ? admit_ahead(slot, message.n, message.root) : roots.admit(slot, message.n, message.root);
  if (why != Refusal::kNone) return why;
  if (!crypto::verify(table.key(slot), exec_checkpoint_fields(cluster.id, message), message.signature)) {
    return Refusal::kBadSignature;
  }
  if (!ahead) {
    count_root(slot, message.n, message.root);
    return Refusal::kNone;
  }
  auto& held = at(slot).roots_ahead;
  if (held.size() >= kRootsAheadMax) held.erase(held.begin());
  held.emplace(message.n, message.root);
  return Refusal::kNone;
}

Refusal Oversight::State::admit_ahead(SlotId slot, Seq n, const Digest& root) const {
  const std::uint64_t span = std::uint64_t{kRootsAheadMax} * cluster.limits.checkpoint_batches;
  if (n.value - book.last_opened().value > span) return Refusal::kOutOfWindow;
  const auto& held = at(slot).roots_ahead;
  if (const auto found = held.find(n); found != held.end()) {
    return found->second == root ? Refusal::kDuplicate : Refusal::kConflict;
  }
  const bool no_room = held.size() >= kRootsAheadMax && held.begin()->first > n;
  return no_room ? Refusal::kOutOfWindow : Refusal::kNone;
}

// Words about n, or what was no checkpoint before n, that came before n did.
void Oversight::State::judge_roots_ahead(Seq n) {
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    auto& held = slots[i].roots_ahead;
    while (!held.empty() && held.begin()->first <= n) {
      const auto [at_n, root] = *held.begin();
      held.erase(held.begin());
      const Refusal why = roots.admit(SlotId{i}, at_n, root);
      if (why == Refusal::kNone) {
        count_root(SlotId{i}, at_n, root);
      } else {
        report({.kind = EventKind::kRefused, .n = at_n, .slot = SlotId{i}, .why = to_string(why)});
      }
    }
  }
}

void Oversight::State::count_root(SlotId slot, Seq n, const Digest& root) {
  const ExecCheckpointBook::Cast cast = roots.cast(slot, n, root, now);
  SlotWatch& watch = at(slot);
  if (watch.late_in_root && n >= watch.late_at) watch.late_made_good = true;
  switch (cast.effect) {
    case ExecCheckpointBook::Effect::kCounted:
      raise_root_mismatch(n);
      break;
    case ExecCheckpointBook::Effect::kSettled:
      on_root(n, cast.dissenting);
      break;
    case ExecCheckpointBook::Effect::kHung:
      raise_root_mismatch(n);
      tell_roots(n, *roots.find(n));
      ++stats.not_deterministic;
      report(
          {.kind = EventKind::kNotDeterministic, .n = n, .epoch = table.epoch(), .why = to_string(Sign::kCheckpoint)});
      break;
    case ExecCheckpointBook::Effect::kWrong:
      tell_wrong_root(slot, n, root);
      mark_wrong_root(slot, n);
      break;
    case ExecCheckpointBook::Effect::kAgrees:
      if (episode.open || !suspects.empty()) dirty = true;  // somebody may have waited for it
      break;
    case ExecCheckpointBook::Effect::kNone:
      break;
  }
}

void Oversight::State::confirm_root(Seq n, const Digest& root) {
  const ExecCheckpointBook::Cast cast = roots.confirm(n, root, now);
  if (cast.effect == ExecCheckpointBook::Effect::kSettled) on_root(n, cast.dissenting);
}

void Oversight::State::on_root(Seq n, SlotMask dissenting) {
  end_root_sign(n, *roots.find(n));
  for (const SlotId slot : slots_of(dissenting)) mark_wrong_root(slot, n);
  out.roots.push_back({n, *roots.find(n)->root});
  if (episode.open) dirty = true;
}

void Oversight::State::mark_wrong_root(SlotId slot, Seq n) {
  SlotWatch& watch = at(slot);
  if (watch.wrong_at.value == 0) watch.wrong_in_root = true;
  mark_wrong(slot, n);
  if (table.is_active(slot) && !episode.open) raise(Sign::kCheckpoint, n, slot);
}

// 2f+1 nodes have settled n, and with it all before: whatever is open here was open here alone.
void Oversight::State::presume_roots(Seq n) {
  for (auto& [at_n, words] : roots.held()) {
    if (at_n > n) break;
    end_root_sign(at_n, words);
  }
  roots.presume(n);
  // Whoever began with the state of a stable checkpoint has no votes for what lies before.
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    SlotWatch& watch = slots[i];
    if (watch.began_at.value == 0 || watch.began_at > n) continue;
    book.begin(SlotId{i}, watch.began_at);
    roots.begin(SlotId{i}, watch.began_at);
    watch.began_at = Seq{};
    dirty = true;
  }
}

void Oversight::State::on_subscribe(SlotId slot, Incarnation incarnation, Seq from) {
  if (from.value <= 1 || !table.is_current(slot, incarnation)) return;
  SlotWatch& watch = at(slot);
  if (book.has_voted(slot) || !watch.ahead.empty()) return;
  watch.began_at = Seq{from.value - 1};
  presume_roots(presumed_through);
}

// ---- signs
// -------------------------------------------------------------------------------------------------------

void Oversight::State::raise_root(Seq n, std::optional<SlotId> slot) {
  ExecCheckpoints* words = roots.find(n);
  ZZ_ASSERT(words != nullptr && !words->root);
  open_episode(Sign::kCheckpoint, n, slot);
  if (!std::exchange(words->sign_open, true)) ++open_signs;
  if (!std::exchange(words->diverged, true)) report_diverged(Sign::kCheckpoint, n, slot);
}

// Words of slots that are known to lie are no news.
void Oversight::State::raise_root_mismatch(Seq n) {
  const ExecCheckpoints* words = roots.find(n);
  if (words == nullptr || words->root || words->presumed || words->sign_open) return;
  const SlotMask liars = wrong();
  const auto views = std::count_if(words->candidates.begin(), words->candidates.end(),
                                   [liars](const auto& c) { return without(c.slots, liars) != 0; });
  if (views < 2) return;
  tell_roots(n, *words);
  raise_root(n, std::nullopt);
}

// For evidence: not of those that are known to lie.
void Oversight::State::tell_roots(Seq n, const ExecCheckpoints& words) {
  OversightOutput::RootDifference told{n, table.epoch(), words.hung, {}};
  for (const ExecCheckpoints::Candidate& view : words.candidates) {
    OversightOutput::RootDifference::Side side{{}, view.root, false};
    for (const SlotId slot : slots_of(without(view.slots, wrong()))) {
      side.slots.emplace_back(slot, table.incarnation(slot));
    }
    if (!side.slots.empty()) told.sides.push_back(std::move(side));
  }
  if (told.sides.size() >= 2) out.root_differences.push_back(std::move(told));
}

void Oversight::State::tell_wrong_root(SlotId slot, Seq n, const Digest& root) {
  const ExecCheckpoints& words = *roots.find(n);
  if (at(slot).wrong_at.value != 0 || words.agreeing == 0) return;
  OversightOutput::RootDifference told{n, table.epoch(), false, {{{}, *words.root, true}, {{}, root, false}}};
  for (const SlotId right : slots_of(words.agreeing)) {
    told.sides[0].slots.emplace_back(right, table.incarnation(right));
  }
  told.sides[1].slots.emplace_back(slot, table.incarnation(slot));
  out.root_differences.push_back(std::move(told));
}

void Oversight::State::end_root_sign(Seq n, ExecCheckpoints& words) {
  if (std::exchange(words.sign_open, false)) {
    --open_signs;
    dirty = true;
  }
  if (std::exchange(words.diverged, false)) {
    report({.kind = EventKind::kSettled, .n = n, .epoch = table.epoch()});
  }
}

void Oversight::State::restart_root_signs() {
  for (auto& [n, words] : roots.held()) words.sign_open = false;
  for (auto& [n, words] : roots.held()) raise_root_mismatch(n);
}

// An active slot that has voted for a checkpoint, and says nothing of its state for as long as an execution may take:
// the digest of a big state may take as long. Who is behind with its votes owes nothing yet.
void Oversight::State::watch_roots() {
  Seq spoken = book.closed_through();  // by all active ones
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (table.is_active(SlotId{i})) spoken = std::min(spoken, roots.last_word(SlotId{i}));
  }
  for (auto it = roots.held().lower_bound(spoken); it != roots.held().end(); ++it) {
    auto& [n, words] = *it;
    if (n > book.closed_through()) return;
    for (const SlotId slot : slots_of(without(table.active(), words.said))) {
      if (book.last_vote(slot) < n || roots.last_word(slot) > n) continue;
      std::optional<Micros>& since = words.owed_since[slot.value];
      if (!since) since = now;
      const bool settled = words.root || words.presumed || words.hung || words.sign_open;
      if (settled || contains(wrong(), slot) || in_grace(slot)) continue;
      if (passed(std::max(*since, epoch_since), spans.execution_timeout)) raise_root(n, slot);
    }
  }
}

// The first checkpoint that g+1 others have spoken of in time, and this slot has not.
std::optional<Seq> Oversight::State::late_root(SlotId slot) const {
  if (in_grace(slot)) return std::nullopt;
  for (auto it = roots.unspoken(slot); it != roots.held().end(); ++it) {
    const auto& [n, words] = *it;
    const std::optional<Micros>& since = words.owed_since[slot.value];
    if (!since || !roots.owes(slot, n, words)) continue;
    if (passed(*since, spans.execution_timeout) && passed(words.agreed_at, spans.late)) return n;
  }
  return std::nullopt;
}

bool Oversight::State::owes_root(SlotId slot) const {
  return std::any_of(roots.unspoken(slot), roots.held().end(), [&](const auto& entry) {
    return entry.second.owed_since[slot.value] && roots.owes(slot, entry.first, entry.second);
  });
}

}  // namespace zz::agreement
