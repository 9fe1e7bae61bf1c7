// Suspicions, the epoch changes they add up to, and the joins of new incarnations (docs/protocol.md §11).

#include <algorithm>

#include "agreement/epoch_rules.hpp"
#include "agreement/oversight_state.hpp"

namespace zz::agreement {
namespace {

// After the first conviction others get this long to come in, so that one change serves all.
constexpr Micros kGather{50'000};
// What was handed out for ordering and is not ordered is handed out again.
constexpr Micros kProposeAgain{1'000'000};
// Who asked for parts of the state within kFetches lacks some. For that others are spared kSpares at most: 10 GiB come
// in that time, and a liar may ask for ever.
constexpr Micros kFetches{15'000'000};
constexpr Micros kSpares{180'000'000};

}  // namespace

// What this node holds against a slot, if it may say so by now: an active slot is blamed only once g+1 others
// agree that could make up the next active set.
std::optional<Oversight::State::Charge> Oversight::State::charge_against(SlotId slot) const {
  const SlotWatch& watch = at(slot);
  if (table.incarnation(slot).value == 0) return std::nullopt;
  const bool active = table.is_active(slot);
  Charge charge{Suspicion::kLate, book.closed_through(), 0};
  bool in_root = false;  // shown by the state after the batch
  if (watch.wrong_at.value != 0) {
    charge.why = Suspicion::kWrong;
    charge.n = watch.wrong_at;
    in_root = watch.wrong_in_root;
  } else if (watch.late_at.value != 0) {
    charge.n = watch.late_at;
    in_root = watch.late_in_root;
  } else if (watch.gone) {
    if (active) charge.n = watch.gone_at;
  } else if (watch.surplus) {
    charge.why = Suspicion::kSurplus;
  } else if (const auto n = rejuvenating == slot ? stood_in_for() : std::nullopt; n) {
    charge.why = Suspicion::kSurplus;
    charge.n = *n;
  } else {
    return std::nullopt;
  }
  if (!book.is_closed(charge.n)) return std::nullopt;
  charge.agreeing = without(standing(charge.n), bit_of(slot));
  if (in_root) charge.agreeing &= roots.agreeing(charge.n);
  if (active && size_of(charge.agreeing) <= table.g()) return std::nullopt;
  if (active && !prefer_unconvicted(charge.agreeing)) return std::nullopt;
  return charge;
}

// Whoever was convicted lately takes another's place only when nobody else can: else two that lie now and then would be
// woken and sleep in turn. False: somebody else was asked, and may still come.
bool Oversight::State::prefer_unconvicted(SlotMask& agreeing) const {
  const SlotMask preferred = without(agreeing, without(convictions.convicted(), table.active()));
  if (preferred == agreeing) return true;
  if (size_of(preferred) > table.g()) {
    agreeing = preferred;
    return true;
  }
  const auto out_of_question =
      static_cast<SlotMask>(agreeing | table.active() | convictions.convicted() | blamed());
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    const auto& awaited_since = slots[i].awaited_since;
    if (contains(out_of_question, SlotId{i}) || !awaited_since) continue;
    if (!passed(*awaited_since, spans.wake_budget)) return false;
  }
  return true;
}

// A slot that is slow stays while fewer than g others have all of the state: it may be the only one that has. Nothing
// but its turn depends on it, since g+1 others agree.
bool Oversight::State::spares(SlotId slot, const Charge& charge) {
  SlotWatch& watch = at(slot);
  const std::vector<SlotId> others = slots_of(charge.agreeing);
  const auto whole = std::ranges::count_if(others, [this](SlotId other) {
    return !at(other).fetched_at || passed(*at(other).fetched_at, kFetches);
  });
  const bool slow = table.is_active(slot) && charge.why == Suspicion::kLate && watch.channels > 0;
  if (!slow || whole >= static_cast<std::int64_t>(table.g())) {
    watch.spared_since.reset();
    return false;
  }
  if (!watch.spared_since) watch.spared_since = now;
  return !passed(*watch.spared_since, kSpares);
}

void Oversight::State::speak_about(SlotId slot) {
  SlotWatch& watch = at(slot);
  const auto charge = charge_against(slot);
  if (!charge || spares(slot, *charge)) {
    if (watch.said) suspects.withdraw(slot, self);
    watch.said.reset();
    return;
  }
  if (watch.said && watch.said->why == charge->why && !passed(watch.said_at, kSuspectResend)) return;
  Suspect suspect{
      id, self, table.epoch(), slot, table.incarnation(slot), charge->n, charge->why, slots_of(charge->agreeing), {}};
  if (watch.said && same_statement(*watch.said, suspect)) {
    suspect.signature = watch.said->signature;
  } else {
    suspect.signature = key.sign(suspect_fields(cluster.id, suspect));
  }
  watch.said = suspect;
  watch.said_at = now;
  if (!suspects.refresh(suspect, now)) suspects.put(suspect, now);
  const auto bit = static_cast<std::uint8_t>(1u << static_cast<unsigned>(charge->why));
  if ((watch.reported & bit) == 0) {
    watch.reported |= bit;
    report({.kind = EventKind::kSuspected,
            .n = charge->n,
            .epoch = table.epoch(),
            .slot = slot,
            .incarnation = suspect.incarnation,
            .why = to_string(charge->why)});
  }
  out.suspects.push_back(std::move(suspect));
}

void Oversight::State::propose_change() {
  if (suspects.empty()) {
    convicted_since.reset();
    return;
  }
  auto change = compose_epoch_change(table, suspects.fresh(now));
  if (!change) {
    convicted_since.reset();
    return;
  }
  if (!convicted_since) convicted_since = now;
  const bool others_follow = std::any_of(slots.begin(), slots.end(), [&](const SlotWatch& watch) {
    return watch.said && watch.said->why != Suspicion::kSurplus &&
           !std::binary_search(change->evicted.begin(), change->evicted.end(), watch.said->slot);
  });
  if (others_follow && !passed(*convicted_since, kGather)) return;
  if (proposed && proposed->active == change->active && proposed->evicted == change->evicted) {
    if (!passed(proposed_at, kProposeAgain)) return;
    change = proposed;  // the same bytes, so that it is known to be the same
  }
  proposed = change;
  proposed_at = now;
  out.propose.emplace_back(std::move(*change));
}

Refusal Oversight::State::on_suspect(const Suspect& suspect) {
  if (const Refusal why = check_form(cluster, id, suspect); why != Refusal::kNone) return why;
  if (suspect.epoch != table.epoch()) return Refusal::kStaleEpoch;
  if (!table.is_current(suspect.slot, suspect.incarnation)) return Refusal::kStaleIncarnation;
  if (suspect.signer == self) return Refusal::kDuplicate;
  if (suspects.refresh(suspect, now)) return Refusal::kDuplicate;
  if (!signed_by_node(cluster, suspect)) return Refusal::kBadSignature;
  suspects.put(suspect, now);
  dirty = true;
  return Refusal::kNone;
}

// A join that cannot be ordered yet (its predecessor is active and alive) waits here, one per slot.
Refusal Oversight::State::on_join(const Join& join) {
  if (join.service != id) return Refusal::kUnknownService;
  if (!table.known(join.slot)) return Refusal::kUnknownSlot;
  if (table.is_current(join.slot, join.incarnation)) return Refusal::kDuplicate;
  if (join.incarnation <= table.evicted_through(join.slot) || join.incarnation < table.incarnation(join.slot)) {
    return Refusal::kStaleIncarnation;
  }
  SlotWatch& watch = at(join.slot);
  if (watch.join && watch.join->incarnation > join.incarnation) return Refusal::kStaleIncarnation;
  if (watch.join && watch.join->incarnation == join.incarnation) {
    return watch.join->key == join.key ? Refusal::kDuplicate : Refusal::kConflict;
  }
  if (const Refusal why = check(cluster, id, join); why != Refusal::kNone) return why;
  watch.join = join;
  watch.join_since = now;
  if (table.incarnation(join.slot).value == 0) watch.join_proposed_at.reset();  // an empty slot need not wait
  dirty = true;
  return Refusal::kNone;
}

// An active slot whose host began a new life: while others of the active set live, they and the woken ones settle what
// is open sooner than a fresh replica replays it, and the slot goes to sleep by an eviction. A set of which nobody is
// left takes the new lives at once, and an eviction that does not come is not waited for longer than a vote is.
bool Oversight::State::is_up_for_eviction(SlotId slot) const {
  if (!table.is_active(slot) || table.incarnation(slot).value == 0) return false;
  if (passed(at(slot).join_since, spans.execution_timeout)) return false;
  const SlotMask doubted = blamed();
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    const SlotId other{i};
    if (other != slot && table.is_active(other) && slots[i].channels > 0 && without(bit_of(other), doubted) != 0) {
      return true;
    }
  }
  return false;
}

// A node holds the JOIN of a slot in quarantine back. That the order carries it earlier takes a faulty primary and a
// faulty host, and costs a wake-up.
Micros Oversight::State::quarantine_of(SlotId slot) const {
  if (table.incarnation(slot).value != 0) return {};
  return Micros{std::max<std::int64_t>(convictions.released_at(slot).value - agreed_now().value, 0)};
}

void Oversight::State::propose_joins() {
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    SlotWatch& watch = slots[i];
    if (!watch.join) continue;
    const Incarnation waiting = watch.join->incarnation;
    if (waiting <= table.incarnation(SlotId{i}) || waiting <= table.evicted_through(SlotId{i})) {
      watch.join.reset();
      continue;
    }
    if (!table.applies(*watch.join) || is_up_for_eviction(SlotId{i}) || quarantine_of(SlotId{i}).value > 0) continue;
    if (watch.join_proposed_at && !passed(*watch.join_proposed_at, kProposeAgain)) continue;
    watch.join_proposed_at = now;
    out.propose.emplace_back(*watch.join);
  }
}

}  // namespace zz::agreement
