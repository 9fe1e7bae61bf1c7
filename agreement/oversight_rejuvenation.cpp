// A healthy active slot is swapped for a fresh one every so often (docs/protocol.md §11): by the path of a wake-up that
// was not needed, only that it is not the woken slot that goes back to sleep.

#include <algorithm>

#include "agreement/oversight_state.hpp"

namespace zz::agreement {

// Trouble comes first.
bool Oversight::State::rejuvenation_due() const {
  const crypto::ServiceEntry& service = cluster.services[id.value];
  if (episode.open || (blamed() & table.active()) != 0) return false;
  const Micros every{std::int64_t{service.rejuvenate_every_ms} * 1'000};
  if (every.value != 0 && fresh_since.value != 0 && agreed_now().value - fresh_since.value >= every.value) return true;
  return service.rejuvenate_every_requests != 0 && requests_since_fresh >= service.rejuvenate_every_requests;
}

// The active slot whose present life has been active for longest.
SlotId Oversight::State::stalest() const {
  const std::vector<SlotId> active = slots_of(table.active());
  return *std::min_element(active.begin(), active.end(),
                           [this](SlotId a, SlotId b) { return active_since[a.value] < active_since[b.value]; });
}

void Oversight::State::watch_rejuvenation() {
  const std::optional<SlotId> before = rejuvenating;
  rejuvenating.reset();
  if (rejuvenation_due()) rejuvenating = stalest();
  if (before != rejuvenating) dirty = true;
  if (!rejuvenating) return;
  // Who is awake is waited for, also while it catches up.
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (!table.is_active(SlotId{i}) && slots[i].channels > 0) return;
  }
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    if (!sleeps(SlotId{i})) continue;
    const bool given_up = slots[i].awaited_since && passed(*slots[i].awaited_since, spans.wake_budget);
    static_cast<void>(ask_to_wake(SlotId{i}, Sign::kRejuvenation, book.last_opened()));
    if (!given_up) return;
  }
}

// Where a woken slot has voted too, so that it can stand in.
std::optional<Seq> Oversight::State::stood_in_for() const {
  for (std::uint16_t i = 0; i < slots.size(); ++i) {
    const SlotId slot{i};
    if (table.is_active(slot) || slots[i].channels == 0) continue;
    const Seq n = std::min(book.last_vote(slot), book.closed_through());
    if (n.value != 0 && n >= quiet_mark && contains(standing(n), slot)) return n;
  }
  return std::nullopt;
}

}  // namespace zz::agreement
