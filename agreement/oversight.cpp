#include "agreement/oversight.hpp"

#include <algorithm>
#include <utility>

#include "agreement/epoch_rules.hpp"
#include "agreement/oversight_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

Micros from_ms(std::uint32_t ms) { return Micros{std::int64_t{ms} * 1'000}; }

}  // namespace

std::string_view to_string(Sign sign) {
  switch (sign) {
    case Sign::kMismatch:
      return "mismatch";
    case Sign::kOverdue:
      return "overdue";
    case Sign::kGone:
      return "gone";
    case Sign::kCheckpoint:
      return "checkpoint";
    case Sign::kRejuvenation:
      return "rejuvenation";
  }
  return "unknown";
}

OversightSpans::OversightSpans(const crypto::Timing& timing)
    : overdue_floor(from_ms(timing.overdue_floor_ms)),
      overdue_ceiling(std::max(from_ms(timing.overdue_ceiling_ms), overdue_floor)),
      execution_timeout(from_ms(timing.execution_timeout_ms)),
      gone(from_ms(timing.gone_ms)),
      late(from_ms(timing.late_ms)),
      wake_budget(from_ms(timing.wake_budget_ms)),
      tick_gap(std::max(kTickGapMax, Micros{4 * from_ms(timing.tick_ms).value})),
      overdue_factor(timing.overdue_factor) {}

Oversight::State::State(const crypto::ClusterFile& cluster_file, ServiceId service_id, NodeId self_id,
                        const crypto::SecretKey& own_key, Observer& events)
    : cluster(cluster_file),
      id(service_id),
      self(self_id),
      key(own_key),
      observer(events),
      spans(cluster_file.timing),
      table(service_id, cluster_file.f, cluster_file.services[service_id.value].g),
      book(cluster_file.services[service_id.value].g),
      roots(cluster_file.services[service_id.value].g),
      suspects(table.slots(), cluster_file.nodes.size()),
      slots(table.slots()),
      convictions(table.g(), from_ms(cluster_file.timing.quarantine_ms)) {
  ZZ_ASSERT(cluster.services[id.value].slots.size() == table.slots() && self.value < cluster.nodes.size());
}

void Oversight::State::report(Event event) const {
  event.service = id;
  event.node = self;
  observer.on_event(event);
}

SlotMask Oversight::State::wrong() const {
  SlotMask found = 0;
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (slots[i].wrong_at.value != 0) found |= bit_of(SlotId{i});
  }
  return found;
}

SlotMask Oversight::State::blamed() const {
  SlotMask found = wrong();
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (slots[i].late_at.value != 0 || slots[i].gone || slots[i].dead) found |= bit_of(SlotId{i});
  }
  return found;
}

SlotMask Oversight::State::standing(Seq n) const {
  SlotMask found = without(book.agreeing(n), blamed());
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (slots[i].channels == 0) found = without(found, bit_of(SlotId{i}));
  }
  return found;
}

void Oversight::State::advance_clock(Micros monotonic) {
  const std::int64_t gap = last_tick ? monotonic.value - last_tick->value : 0;
  if (gap > 0) now.value += std::min(gap, spans.tick_gap.value);
  last_tick = monotonic;
}

void Oversight::State::review() {
  dirty = false;
  update_episode();
  send_wakes();
  for (std::uint16_t i = 0; i < slots.size(); ++i) speak_about(SlotId{i});
  propose_change();
  propose_joins();
}

// ---- votes
// -------------------------------------------------------------------------------------------------------

Refusal Oversight::State::on_vote(SlotId slot, Incarnation incarnation, Vote&& vote) {
  if (!table.known(slot) || vote.slot != slot) return Refusal::kUnknownSlot;
  if (vote.incarnation != incarnation || !table.is_current(slot, incarnation)) return Refusal::kStaleIncarnation;
  if (vote.n.value == 0) return Refusal::kMalformed;
  if (vote.n > book.last_opened()) return keep_ahead(slot, std::move(vote));
  if (vote.epoch != table.epoch_at(vote.n)) return Refusal::kStaleEpoch;
  return count(slot, vote.n, std::move(vote.replies));
}

Refusal Oversight::State::keep_ahead(SlotId slot, Vote&& vote) {
  SlotWatch& watch = at(slot);
  if (const auto held = watch.ahead.find(vote.n); held != watch.ahead.end()) {
    const bool same = held->second.epoch == vote.epoch && held->second.replies == vote.replies;
    return same ? Refusal::kDuplicate : Refusal::kConflict;
  }
  if (vote.replies.size() > kAheadDigestsMax) return Refusal::kQueueFull;
  while (watch.ahead.size() >= kVotesAheadMax || watch.ahead_digests + vote.replies.size() > kAheadDigestsMax) {
    const auto oldest = watch.ahead.begin();
    if (oldest->first > vote.n) return Refusal::kOutOfWindow;
    watch.ahead_digests -= oldest->second.replies.size();
    watch.ahead.erase(oldest);
  }
  watch.ahead_digests += vote.replies.size();
  watch.ahead.emplace(vote.n, SlotWatch::Ahead{vote.epoch, std::move(vote.replies)});
  return Refusal::kNone;
}

// Votes for n that came before n did.
void Oversight::State::judge_ahead(Seq n) {
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    SlotWatch& watch = slots[i];
    const auto held = watch.ahead.find(n);
    if (held == watch.ahead.end()) continue;
    SlotWatch::Ahead vote = std::move(held->second);
    watch.ahead_digests -= vote.replies.size();
    watch.ahead.erase(held);
    const Refusal why =
        vote.epoch == table.epoch() ? count(SlotId{i}, n, std::move(vote.replies)) : Refusal::kStaleEpoch;
    if (why == Refusal::kNone) continue;
    report({.kind = EventKind::kRefused, .n = n, .slot = SlotId{i}, .why = to_string(why)});
  }
}

Refusal Oversight::State::count(SlotId slot, Seq n, std::vector<Digest>&& replies) {
  VoteBook::Cast cast = book.cast(slot, n, std::move(replies), now);
  if (cast.effect == VoteBook::Effect::kNone) return cast.refusal;
  SlotWatch& watch = at(slot);
  watch.progress_at = now;
  if (n == watch.late_at && !watch.late_in_root) watch.late_made_good = true;
  switch (cast.effect) {
    case VoteBook::Effect::kCounted:
      raise_mismatch(n);
      break;
    case VoteBook::Effect::kClosed:
      on_closed(n, std::move(cast.closing));
      break;
    case VoteBook::Effect::kHung:
      raise_mismatch(n);
      ++stats.not_deterministic;
      report({.kind = EventKind::kNotDeterministic, .n = n, .epoch = table.epoch()});
      tell_difference(n, nullptr, book.find(n)->candidates);
      break;
    case VoteBook::Effect::kWrong:
      if (watch.wrong_at.value == 0) tell_difference(n, nullptr, {{std::move(replies), bit_of(slot)}});
      mark_wrong(slot, n);
      if (table.is_active(slot) && !episode.open) raise(Sign::kMismatch, n, slot);
      break;
    case VoteBook::Effect::kAgrees:
      // Somebody may have waited for this slot's opinion.
      if (episode.open || !suspects.empty()) dirty = true;
      break;
    case VoteBook::Effect::kNone:
      break;
  }
  return cast.refusal;
}

void Oversight::State::on_closed(Seq n, VoteBook::Closing&& closing) {
  Ballot* ballot = book.find(n);
  ZZ_ASSERT(ballot != nullptr);
  learn_spread(n, *ballot, closing);
  if (std::exchange(ballot->sign_open, false)) --open_signs;
  if (std::exchange(ballot->diverged, false)) {
    report({.kind = EventKind::kSettled, .n = n, .epoch = table.epoch()});
  }
  report({.kind = EventKind::kClosed, .n = n, .epoch = table.epoch()});
  if (without(closing.dissenting, wrong()) != 0) tell_difference(n, &closing, closing.others);
  for (const SlotId slot : slots_of(closing.dissenting)) mark_wrong(slot, n);
  out.closed.push_back({n, std::move(closing.replies), slots_of(closing.agreeing)});
  if (episode.open) dirty = true;
}

void Oversight::State::tell_difference(Seq n, const VoteBook::Closing* closing,
                                       const std::vector<Ballot::Candidate>& others) {
  OversightOutput::Difference difference{n, table.epoch(), !book.is_closed(n), {}};
  const auto add = [&](const std::vector<Digest>& replies, SlotMask voters, bool agrees) {
    OversightOutput::Difference::Side side{{}, replies, agrees};
    for (const SlotId slot : slots_of(voters)) side.slots.emplace_back(slot, table.incarnation(slot));
    difference.sides.push_back(std::move(side));
  };
  if (closing != nullptr) add(closing->replies, closing->agreeing, true);
  for (const Ballot::Candidate& other : others) add(other.replies, other.voters, false);
  out.differences.push_back(std::move(difference));
}

Refusal Oversight::State::on_closings(NodeId from, const Closings& message) {
  if (from.value >= cluster.nodes.size()) return Refusal::kUnknownPeer;
  if (from == self) return Refusal::kWrongRole;
  if (message.first_n.value == 0 || message.digests.empty()) return Refusal::kMalformed;
  closings.erase(closings.begin(), closings.upper_bound(book.closed_through()));
  Refusal worst = Refusal::kNone;
  for (std::size_t i = 0; i < message.digests.size(); ++i) {
    if (message.first_n.value > book.last_opened().value || i > book.last_opened().value - message.first_n.value) break;
    const Seq n{message.first_n.value + i};
    const Digest& digest = message.digests[i];
    if (digest.is_zero() || book.is_closed(n)) continue;
    VoteSet& words = closings[n];
    const Refusal why = words.add(from, digest);
    if (why == Refusal::kConflict) worst = why;
    if (why != Refusal::kNone || words.count(digest) <= cluster.f) continue;
    VoteBook::Cast cast = book.confirm(n, digest, now);
    if (cast.effect == VoteBook::Effect::kClosed) on_closed(n, std::move(cast.closing));
  }
  return worst;
}

// Only what the active slots did among themselves, in step, is usual; a stop of seconds must not make the next one
// unremarkable.
void Oversight::State::learn_spread(Seq n, const Ballot& ballot, const VoteBook::Closing& closing) {
  if (closing.dissenting != 0 || without(closing.agreeing, table.active()) != 0) return;
  if (size_of(closing.agreeing) <= table.g()) return;
  for (const SlotId slot : slots_of(closing.agreeing)) {
    if (n <= at(slot).catch_up_to) return;
  }
  const std::int64_t sample = std::min(ballot.closed_at.value - ballot.first_vote_at.value, 2 * overdue_limit().value);
  spread_x8 += sample - spread_x8 / 8;
}

void Oversight::State::mark_wrong(SlotId slot, Seq n) {
  if (at(slot).wrong_at.value == 0) at(slot).wrong_at = n;
  dirty = true;
}

void Oversight::State::presume_closed(Seq n) {
  ZZ_ASSERT(n <= book.last_opened());
  bool was_behind = false;
  for (Seq i = book.closed_through().next(); i <= n; i = i.next()) {
    Ballot* ballot = book.find(i);
    if (ballot->closed) continue;
    was_behind = true;
    if (std::exchange(ballot->sign_open, false)) --open_signs;
    if (std::exchange(ballot->diverged, false)) {
      report({.kind = EventKind::kSettled, .n = i, .epoch = table.epoch()});
    }
  }
  book.presume_closed(n);
  if (n > presumed_through) {
    presumed_through = n;
    presume_roots(n);
  }
  if (!was_behind) return;
  dirty = true;
  // It was this node that did not get on.
  for (SlotWatch& watch : slots) watch.progress_at = now;
}

// ---- the order
// ---------------------------------------------------------------------------------------------------

void Oversight::State::apply(Seq n, const EpochChange& change) {
  if (!table.applies(change)) {
    // Evidence that was too old: what is known now may do better.
    if (change.epoch == table.epoch().next()) proposed.reset();
    dirty = true;
    return;
  }
  for (const SlotId slot : change.evicted) {
    const Suspicion why = verdict(table, change.proof, slot);
    if (why == Suspicion::kSurplus && !table.is_active(slot)) continue;
    if (why == Suspicion::kSurplus) {
      ++stats.rejuvenations;
      fresh_since = agreed_time;
      requests_since_fresh = 0;
      continue;
    }
    ++stats.evictions;
    if (why == Suspicion::kWrong) convict(n, slot);
    report({.kind = EventKind::kEvicted,
            .n = n,
            .epoch = change.epoch,
            .slot = slot,
            .incarnation = table.incarnation(slot),
            .why = to_string(why)});
  }
  const SlotMask before = table.active();
  ZZ_ASSERT(table.apply(n, change));
  for (const SlotId slot : change.evicted) end_incarnation(slot);
  for (const SlotId slot : slots_of(without(table.active(), before))) {
    book.expect(slot, n);
    SlotWatch& watch = at(slot);
    watch.surplus = false;
    active_since[slot.value] = n;
    watch.catch_up_to = n;
    watch.progress_at = now;
    watch.grace_until = Micros{now.value + spans.execution_timeout.value};
  }
  suspects.clear();
  for (SlotWatch& watch : slots) watch.said.reset();
  proposed.reset();
  convicted_since.reset();
  epoch_since = now;
  restart_signs();
  // Who was woken to stand in may have been found wrong since. That was no trouble before it became active.
  for (const SlotId slot : slots_of(static_cast<SlotMask>(table.active() & wrong()))) {
    const SlotWatch& watch = at(slot);
    if (!episode.open) raise(watch.wrong_in_root ? Sign::kCheckpoint : Sign::kMismatch, watch.wrong_at, slot);
  }
  out.table_changed = true;
  dirty = true;
  report({.kind = EventKind::kEpochChanged, .n = n, .epoch = table.epoch()});
}

void Oversight::State::convict(Seq n, SlotId slot) {
  const bool known = convictions.beyond_bound();
  convictions.convict(slot, agreed_time);
  if (!known && convictions.beyond_bound()) alarm_beyond_bound(n);
}

void Oversight::State::apply(Seq n, const Join& join) {
  dirty = true;
  if (!table.apply(n, join)) return;
  end_incarnation(join.slot);
  if (table.is_active(join.slot)) {
    book.expect(join.slot, book.closed_through());
    active_since[join.slot.value] = n;
  }
  out.table_changed = true;
  report(
      {.kind = EventKind::kJoined, .n = n, .epoch = table.epoch(), .slot = join.slot, .incarnation = join.incarnation});
}

void Oversight::State::end_incarnation(SlotId slot) {
  SlotWatch fresh;
  fresh.join = std::move(at(slot).join);
  fresh.join_since = at(slot).join_since;
  fresh.join_proposed_at = at(slot).join_proposed_at;
  at(slot) = std::move(fresh);
  book.release(slot);
  book.forget(slot);
  roots.forget(slot);
  suspects.forget(slot);
}

// ---- the public face
// ---------------------------------------------------------------------------------------------

Oversight::Oversight(const crypto::ClusterFile& cluster, ServiceId service, NodeId self, const crypto::SecretKey& key,
                     Observer& observer)
    : state_(std::make_unique<State>(cluster, service, self, key, observer)) {}

Oversight::~Oversight() = default;

bool Oversight::applies(const SystemOp& op) const {
  const auto* join = std::get_if<Join>(&op);
  if (join != nullptr && state_->table.known(join->slot) && state_->quarantine_of(join->slot).value > 0) return false;
  return std::visit([this](const auto& one) { return state_->table.applies(one); }, op);
}

Refusal Oversight::admissible(const SystemOp& op) const {
  return std::visit([this](const auto& one) { return check(state_->cluster, state_->id, one); }, op);
}

void Oversight::tick(Micros now) {
  state_->advance_clock(now);
  state_->watch_channels();
  state_->watch_deadlines();
  state_->watch_roots();
  state_->watch_debts();
  state_->watch_quiet();
  state_->watch_rejuvenation();
  state_->review();
}

void Oversight::deliver(const Delivery& batch) {
  const BatchHeader& header = *batch.header;
  state_->agreed_time = batch.time;
  state_->agreed_at = state_->now;
  if (state_->fresh_since.value == 0) state_->fresh_since = batch.time;
  state_->requests_since_fresh += header.references.size();
  state_->book.open(header.n, static_cast<std::uint32_t>(header.references.size()), state_->now);
  state_->judge_ahead(header.n);
  for (const SystemOp& op : header.system) {
    std::visit([&](const auto& one) { state_->apply(header.n, one); }, op);
  }
}

void Oversight::presume_closed(Seq n) { state_->presume_closed(n); }

Refusal Oversight::step(SlotId slot, Incarnation incarnation, const Vote& vote) {
  return state_->on_vote(slot, incarnation, Vote(vote));
}

Refusal Oversight::step(SlotId slot, Incarnation incarnation, Vote&& vote) {
  return state_->on_vote(slot, incarnation, std::move(vote));
}

Refusal Oversight::step(SlotId slot, Incarnation incarnation, const ExecCheckpoint& message) {
  return state_->on_exec_checkpoint(slot, incarnation, message);
}

void Oversight::checkpoint_due(Seq n) {
  ZZ_ASSERT(n == state_->book.last_opened());
  state_->roots.open(n);
  state_->judge_roots_ahead(n);
}

void Oversight::confirm_root(Seq n, const Digest& root) { state_->confirm_root(n, root); }

void Oversight::subscribed(SlotId slot, Incarnation incarnation, Seq from) {
  state_->on_subscribe(slot, incarnation, from);
}

void Oversight::fetches(SlotId slot, Incarnation incarnation) {
  if (state_->table.is_current(slot, incarnation)) state_->at(slot).fetched_at = state_->now;
}

void Oversight::unanswered(std::optional<Seq> n) {
  const std::optional<Seq> before = std::exchange(state_->unanswered, n);
  if (before == n) return;
  state_->dirty = true;
  if (before) state_->report({.kind = EventKind::kSettled, .n = *before, .epoch = state_->table.epoch()});
  if (!n) return;
  state_->open_episode(Sign::kOverdue, *n, std::nullopt);
  state_->report_diverged(Sign::kOverdue, *n, std::nullopt);
}

Refusal Oversight::step(NodeId from, const Closings& closings) { return state_->on_closings(from, closings); }

Refusal Oversight::step(const Suspect& suspect) { return state_->on_suspect(suspect); }

Refusal Oversight::step(const Join& join) { return state_->on_join(join); }

Refusal Oversight::step(HostId from, const SlotDead& dead) {
  if (!state_->table.known(dead.slot)) return Refusal::kUnknownSlot;
  if (state_->cluster.services[state_->id.value].slots[dead.slot.value].host != from) return Refusal::kNotAllowed;
  if (!state_->table.is_current(dead.slot, dead.incarnation)) return Refusal::kStaleIncarnation;
  SlotWatch& watch = state_->at(dead.slot);
  if (std::exchange(watch.dead, true)) return Refusal::kDuplicate;
  state_->watch_channels();
  return Refusal::kNone;
}

void Oversight::channel_up(SlotId slot, Incarnation incarnation) {
  if (!is_current(slot, incarnation)) return;
  SlotWatch& watch = state_->at(slot);
  ++watch.channels;
  if (std::exchange(watch.ever_connected, true)) return;
  watch.up_since = watch.progress_at = state_->now;
  watch.catch_up_to = state_->book.last_opened();
  watch.grace_until = Micros{state_->now.value + state_->spans.execution_timeout.value};
}

void Oversight::channel_down(SlotId slot, Incarnation incarnation) {
  if (!is_current(slot, incarnation)) return;
  SlotWatch& watch = state_->at(slot);
  if (watch.channels == 0 || --watch.channels > 0) return;
  watch.down_since = state_->now;
}

bool Oversight::has_output() {
  if (state_->dirty) state_->review();
  return !state_->out.empty();
}

OversightOutput Oversight::take_output() {
  if (state_->dirty) state_->review();
  return std::exchange(state_->out, {});
}

EpochNotice Oversight::notice() const { return state_->table.notice(); }

std::optional<std::pair<SlotId, Incarnation>> Oversight::holder_of(const crypto::PublicKey& key) const {
  return state_->table.holder_of(key);
}

Epoch Oversight::epoch() const { return state_->table.epoch(); }

bool Oversight::is_current(SlotId slot, Incarnation incarnation) const {
  return state_->table.is_current(slot, incarnation);
}

Seq Oversight::closed_through() const { return state_->book.closed_through(); }

std::optional<Digest> Oversight::closed_digest(Seq n) const { return state_->book.closed_digest(n); }

Digest Oversight::table_digest() const { return state_->table.digest(); }

std::vector<SlotView> Oversight::slots() const {
  std::vector<SlotView> out;
  for (std::uint16_t i = 0; i < state_->slots.size(); ++i) {
    const SlotId slot{i};
    out.push_back({state_->table.incarnation(slot), state_->table.is_active(slot), state_->at(slot).channels > 0,
                   state_->book.last_vote(slot), state_->quarantine_of(slot)});
  }
  return out;
}

const OversightStats& Oversight::stats() const { return state_->stats; }

}  // namespace zz::agreement
