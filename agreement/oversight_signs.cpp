// Signs of trouble, the episodes they make up, and the WAKEs they are answered with (docs/protocol.md §9).

#include <algorithm>
#include <utility>

#include "agreement/oversight_state.hpp"

namespace zz::agreement {

Micros Oversight::State::overdue_limit() const {
  return std::clamp(Micros{spans.overdue_factor * (spread_x8 / 8)}, spans.overdue_floor, spans.overdue_ceiling);
}

bool Oversight::State::in_grace(SlotId slot) const {
  const SlotWatch& watch = at(slot);
  return watch.catch_up_to > book.last_vote(slot) && now < watch.grace_until &&
         !passed(watch.progress_at, spans.overdue_ceiling);
}

bool Oversight::State::requests_wait() const {
  for (Seq n = book.closed_through().next(); n <= book.last_opened(); n = n.next()) {
    const Ballot* ballot = book.find(n);
    if (!ballot->closed && ballot->references > 0) return true;
  }
  return false;
}

// ---- noticing
// ----------------------------------------------------------------------------------------------------

// An active slot is gone soon; a woken one is only cut off, and given up much later, as is one that does not wake up.
void Oversight::State::watch_channels() {
  const Micros to_wake{std::max(spans.execution_timeout.value, 2 * spans.wake_budget.value)};  // and to be asked again
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    const SlotId slot{i};
    SlotWatch& watch = slots[i];
    const bool active = table.is_active(slot);
    const bool cut_off = watch.ever_connected && watch.channels == 0;
    const Micros patience = active ? spans.gone : spans.execution_timeout;
    const bool sleeps_on =
        !active && watch.awaited_since && !watch.ever_connected && passed(*watch.awaited_since, to_wake);
    const bool gone = (active && watch.dead) || (cut_off && passed(watch.down_since, patience)) || sleeps_on;
    if (gone == watch.gone) continue;
    watch.gone = gone;
    watch.gone_at = gone ? book.last_opened() : Seq{};
    dirty = true;
    if (gone && active) {
      // The first open batch shows it; with none open, a replacement has to agree on the last one.
      const Seq open = book.closed_through().next();
      raise(Sign::kGone, std::min(open, book.last_opened()), slot);
    }
  }
}

// Which active slot keeps this batch waiting for too long, if any.
std::optional<SlotId> Oversight::State::overdue_slot(const Ballot& ballot) const {
  // Those that lie have not answered either.
  const SlotMask missing = without(table.active(), without(ballot.voted, wrong()));
  for (const SlotId slot : slots_of(missing)) {
    if (at(slot).ever_connected && in_grace(slot)) continue;
    const bool voting_began = ballot.voted != 0 && at(slot).ever_connected;
    const Micros began = voting_began ? ballot.first_vote_at : ballot.opened_at;
    if (!passed(std::max(began, epoch_since), voting_began ? overdue_limit() : spans.execution_timeout)) continue;
    if (voting_began || requests_wait()) return slot;
  }
  return std::nullopt;
}

void Oversight::State::watch_deadlines() {
  const Micros shortest = std::min(overdue_limit(), spans.execution_timeout);
  for (Seq n = book.closed_through().next(); n <= book.last_opened(); n = n.next()) {
    const Ballot* ballot = book.find(n);
    if (!passed(ballot->opened_at, shortest)) return;  // and later ones were opened later
    if (ballot->closed || ballot->sign_open || ballot->hung) continue;
    if (const auto slot = overdue_slot(*ballot); slot) raise(Sign::kOverdue, n, slot);
  }
}

// Who owes votes for what is closed.
void Oversight::State::watch_debts() {
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    const SlotId slot{i};
    SlotWatch& watch = slots[i];
    const bool active = table.is_active(slot);
    const Seq last_vote = book.last_vote(slot);
    if (watch.late_at.value != 0) {
      if (!watch.late_made_good || now < watch.unforgiven_until) continue;
      watch.late_at = Seq{};
      watch.late_in_root = watch.late_made_good = false;
    }
    if (active) {
      const auto debt = book.owed(slot);
      if (debt && passed(debt->closed_at, spans.late) && !in_grace(slot)) {
        watch.late_at = debt->n;
      } else if (const auto n = late_root(slot); n) {
        watch.late_at = *n;
        watch.late_in_root = true;
      }
    } else if (watch.channels > 0 && last_vote < book.closed_through() &&
               passed(watch.progress_at, spans.execution_timeout)) {
      watch.late_at = last_vote.next();  // woken, and going nowhere
    }
  }
}

// A woken slot is surplus when nothing happened for a while that it could have been needed for.
void Oversight::State::watch_quiet() {
  const Ballot* oldest = book.find(book.closed_through().next());
  const bool busy = episode.open || (oldest != nullptr && passed(oldest->opened_at, spans.late));
  if (busy) quiet_since = now;
  if (passed(quiet_mark_at, spans.late)) {
    quiet_mark = book.closed_through();
    quiet_mark_at = now;
  }
  const Micros span{2 * spans.late.value};
  const bool quiet = !busy && passed(quiet_since, span);
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    SlotWatch& watch = slots[i];
    watch.surplus = quiet && !rejuvenating && !table.is_active(SlotId{i}) && watch.channels > 0 &&
                    passed(watch.up_since, span) && book.last_vote(SlotId{i}) >= quiet_mark;
  }
}

// ---- signs and episodes
// ------------------------------------------------------------------------------------------

void Oversight::State::open_episode(Sign sign, Seq n, std::optional<SlotId> slot) {
  dirty = true;
  if (!episode.open) {
    episode = {.open = true, .woke = false, .sign = sign, .n = n, .epoch = table.epoch(), .slot = slot};
    ++stats.divergences;
  } else if (episode.epoch != table.epoch()) {
    episode.sign = sign;
    episode.n = n;
    episode.epoch = table.epoch();
    episode.slot = slot;
  }
}

void Oversight::State::raise(Sign sign, Seq n, std::optional<SlotId> slot) {
  open_episode(sign, n, slot);
  Ballot* ballot = book.find(n);
  bool is_news = false;
  if (ballot != nullptr && !book.is_closed(n)) {
    if (!std::exchange(ballot->sign_open, true)) ++open_signs;
    is_news = !std::exchange(ballot->diverged, true);
  } else if (!idle_watch) {
    idle_watch = n;
    is_news = true;
  }
  if (is_news) report_diverged(sign, n, slot);
}

void Oversight::State::report_diverged(Sign sign, Seq n, std::optional<SlotId> slot) const {
  Event event{.kind = EventKind::kDiverged, .n = n, .epoch = table.epoch(), .why = to_string(sign)};
  if (slot) {
    event.slot = *slot;
    event.incarnation = table.incarnation(*slot);
  }
  report(event);
}

// Votes of slots that are known to lie are no news.
void Oversight::State::raise_mismatch(Seq n) {
  const Ballot* ballot = book.find(n);
  if (ballot == nullptr || book.is_closed(n) || ballot->sign_open || ballot->candidates.size() < 2) return;
  const SlotMask liars = wrong();
  const auto views = std::count_if(ballot->candidates.begin(), ballot->candidates.end(),
                                   [liars](const Ballot::Candidate& c) { return without(c.voters, liars) != 0; });
  if (views < 2) return;
  alarm_if_beyond_bound(n, *ballot);
  raise(Sign::kMismatch, n, std::nullopt);
}

// Whichever view is right: those of the others and who was convicted are more than g. Who was convicted may be away, so
// that the batch neither closes nor hangs, and nobody else is convicted.
void Oversight::State::alarm_if_beyond_bound(Seq n, const Ballot& ballot) {
  const SlotMask convicted = convictions.convicted();
  if (convicted == 0 || convictions.beyond_bound() || ballot.hung) return;  // said, or about to be
  SlotMask voters = 0;
  for (const Ballot::Candidate& view : ballot.candidates) voters |= view.voters;
  const bool beyond = std::ranges::all_of(ballot.candidates, [&](const Ballot::Candidate& right) {
    return size_of(convicted | without(voters, right.voters)) > table.g();
  });
  if (beyond) alarm_beyond_bound(n);
}

void Oversight::State::alarm_beyond_bound(Seq n) {
  if (beyond_bound_at && !passed(*beyond_bound_at, kForgiven)) return;
  beyond_bound_at = now;
  ++stats.not_deterministic;
  report({.kind = EventKind::kNotDeterministic, .n = n, .epoch = table.epoch(), .why = "convictions"});
}

// In a new epoch everything is looked at afresh.
void Oversight::State::restart_signs() {
  open_signs = 0;
  for (Seq n = book.closed_through().next(); n <= book.last_opened(); n = n.next()) book.find(n)->sign_open = false;
  for (Seq n = book.closed_through().next(); n <= book.last_opened(); n = n.next()) raise_mismatch(n);
  restart_root_signs();
}

bool Oversight::State::in_trouble() const {
  if (open_signs > 0 || idle_watch || unanswered) return true;
  const std::vector<SlotId> active = slots_of(table.active());
  return std::any_of(active.begin(), active.end(), [this](SlotId slot) {
    return contains(blamed(), slot) || book.owed(slot).has_value() || owes_root(slot);
  });
}

void Oversight::State::update_episode() {
  if (idle_watch) {
    const bool replaced = size_of(standing(*idle_watch)) > table.g();
    const bool made_good = (table.active() & blamed()) == 0;
    if (replaced || made_good) {
      report({.kind = EventKind::kSettled, .n = *idle_watch, .epoch = table.epoch()});
      idle_watch.reset();
    }
  }
  if (episode.open && !in_trouble()) episode.open = false;
}

// ---- waking
// ------------------------------------------------------------------------------------------------------

bool Oversight::State::needs_more_votes() const {
  if (open_signs > 0 || unanswered) return true;
  // A slot that is to blame stays until g+1 others agree.
  const std::vector<SlotId> doubtful = slots_of(static_cast<SlotMask>(table.active() & blamed()));
  return std::any_of(doubtful.begin(), doubtful.end(),
                     [this](SlotId slot) { return !charge_against(slot).has_value(); });
}

bool Oversight::State::sleeps(SlotId slot) const {
  const SlotWatch& watch = at(slot);
  return !table.is_active(slot) && table.incarnation(slot).value != 0 && !watch.ever_connected && !watch.dead;
}

// A woken slot that has not said yet what it is needed for, and gets on.
bool Oversight::State::may_still_settle(SlotId slot) const {
  const SlotWatch& watch = at(slot);
  if (table.is_active(slot) || watch.channels == 0 || contains(blamed(), slot)) return false;
  if (passed(watch.progress_at, spans.execution_timeout)) return false;
  if (episode.sign == Sign::kCheckpoint) return roots.last_word(slot) < episode.n;
  return book.last_vote(slot) < std::min(book.closed_through().next(), book.last_opened());
}

void Oversight::State::send_wakes() {
  if (!episode.open || !needs_more_votes()) {
    if (rejuvenating) return;
    for (SlotWatch& watch : slots) watch.awaited_since.reset();
    return;
  }
  const bool one_by_one = cluster.services[id.value].wake == crypto::WakePolicy::kOneByOne;
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (one_by_one && may_still_settle(SlotId{i})) return;
  }
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (!sleeps(SlotId{i})) continue;
    // Who does not report for duty in time is asked again, and the next one too.
    const bool given_up = slots[i].awaited_since && passed(*slots[i].awaited_since, spans.wake_budget);
    if (ask_to_wake(SlotId{i}, episode.sign, episode.n) && !std::exchange(episode.woke, true)) {
      ++stats.wakes;
      remember_delay();
    }
    if (one_by_one && !given_up) return;
  }
}

// False if it was asked already, and is given its time.
bool Oversight::State::ask_to_wake(SlotId slot, Sign sign, Seq n) {
  SlotWatch& watch = at(slot);
  if (!watch.awaited_since) watch.awaited_since = now;
  if (watch.wake_epoch == table.epoch() && !passed(watch.wake_at, spans.wake_budget)) return false;
  watch.wake_epoch = table.epoch();
  watch.wake_at = now;
  Wake wake{id, self, table.epoch(), slot, table.incarnation(slot), n, static_cast<std::uint8_t>(sign), {}};
  wake.signature = key.sign(wake_fields(cluster.id, wake));
  out.wakes.push_back({cluster.services[id.value].slots[slot.value].host, wake});
  report({.kind = EventKind::kWakeRequested,
          .n = n,
          .epoch = wake.epoch,
          .slot = slot,
          .incarnation = wake.incarnation,
          .why = to_string(sign)});
  return true;
}

// A slot for whose delay others were woken is forgiven once: sending it to sleep costs no more than sending them back,
// and it could go on like that for ever. This node's opinion lasts as long as others need to come to the same.
void Oversight::State::remember_delay() {
  if (episode.sign != Sign::kOverdue || !episode.slot || !table.is_active(*episode.slot)) return;
  SlotWatch& watch = at(*episode.slot);
  const bool again = watch.delayed_at && !passed(*watch.delayed_at, kForgiven);
  watch.delayed_at = now;
  if (!again || watch.late_at.value != 0) return;
  watch.late_at = episode.n;
  watch.unforgiven_until = Micros{now.value + 2 * spans.wake_budget.value + spans.execution_timeout.value};
}

}  // namespace zz::agreement
