// The second half of a run of World: the healing, and what must follow from it (L1 to L7, I25).

#include <algorithm>
#include <string>

#include "tests/sim/stall.hpp"
#include "tests/sim/witness.hpp"
#include "tests/sim/world.hpp"

namespace zz::sim {

namespace {

constexpr std::int64_t kMs = 1'000;
constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kAllBound = 180 * kSecond;    // L1: from the healing to the last answer
constexpr std::int64_t kSettleBound = 20 * kSecond;  // L3, L5
constexpr std::int64_t kQuiet = 2 * kSecond;
constexpr std::int64_t kCalmBound = 20 * kSecond;       // I25: until as many slots are awake as are needed
constexpr std::uint64_t kEventsPerSecondMax = 200'000;  // L6

std::int64_t seconds(Micros time) { return time.value / kSecond; }

}  // namespace

// ---- the healing -----------------------------------------------------------------------------------------------

void World::stabilise() {
  kernel_.stable_phase = true;
  healed_at_ = kernel_.now;
  network_.heal_core();
  for (const NodeId id : draw_.core) {
    SimNode& node = node_at(id);
    node.disk_speed = DiskSpeed{};
    node.clock.set_offset(0);
    node.clock.set_drift(kernel_.now, between(prng_, -20'000, 20'000));
    if (node.paused()) node.resume(node.pauses());
    if (!node.alive())
      kernel_.after(between(prng_, 0, kSecond), {Happening::Kind::kNodeStart, id.value, 0, 0, nullptr});
  }
  for (const SlotId slot : draw_.core_slots) {
    SimHost& host = *hosts_[slot.value];
    host.speed = HypervisorSpeed{};
    if (!host.alive())
      kernel_.after(between(prng_, 0, kSecond), {Happening::Kind::kHostStart, slot.value, 0, 0, nullptr});
  }
  if (!plan_.liveness) return enter(Phase::kDone);
  for (std::uint16_t i = 0; i < parties().nodes; ++i) {
    if (!draw_.core.contains(NodeId{i})) bad_for_ever(NodeId{i});
  }
  for (std::uint16_t i = 0; i < parties().slots; ++i) {
    if (!draw_.core_slots.contains(SlotId{i})) bad_for_ever(SlotId{i});
  }
  enter(Phase::kAnswering);
}

// What becomes of a node outside the core. Byzantine ones go on as they were.
void World::bad_for_ever(NodeId id) {
  SimNode& node = node_at(id);
  if (node.byzantine()) return;
  const std::uint64_t fate = prng_.below(6);
  const bool restarts = fate != 0 || !draw_.has(Fault::kCrash);
  if (restarts && !node.alive()) {
    kernel_.after(between(prng_, 0, 3 * kSecond), {Happening::Kind::kNodeStart, id.value, 0, 0, nullptr});
  }
  if (fate == 0 && draw_.has(Fault::kCrash)) {
    kernel_.count("for-ever.crashed");
    node.crash(CrashKind::kClean);
  } else if (fate <= 3 && (draw_.has(Fault::kOneWayCut) || draw_.has(Fault::kPartition))) {
    kernel_.count("for-ever.cut-off");
    static_cast<void>(isolate(id, fate != 2, fate != 3));
  } else if (fate == 4 && draw_.has(Fault::kCrash)) {
    kernel_.count("for-ever.flapping");
    flap(id);
  }
}

void World::flap(NodeId id) {
  if (node_at(id).alive()) {
    crash(id);
  } else {
    restart(id);
  }
  after(Micros{between(prng_, 500 * kMs, 4 * kSecond)}, [id](World& world) { world.flap(id); });
}

// Of a slot outside the core. It may take its state along only when enough others have theirs.
void World::bad_for_ever(SlotId slot) {
  SimHost& host = *hosts_[slot.value];
  if (host.byzantine()) return;
  if (!host.alive()) {
    kernel_.after(between(prng_, 0, 3 * kSecond), {Happening::Kind::kHostStart, slot.value, 0, 0, nullptr});
  }
  const bool dies = draw_.has(Fault::kHostCrash) && chance(prng_, 50);
  const bool flaps = !dies && draw_.has(Fault::kGuestCrash) && chance(prng_, 50);
  if (!dies && !flaps) return;
  slots_flap_ = true;
  lose(slot, dies);
}

void World::lose(SlotId slot, bool for_good) {
  if (may_lose(slot)) {
    kernel_.count(for_good ? "for-ever.host-dead" : "for-ever.guest-flapping");
    if (for_good) return crash_host(HostId{slot.value});
    kill_guest(slot);
  }
  after(Micros{between(prng_, 500 * kMs, 3 * kSecond)}, [slot, for_good](World& world) { world.lose(slot, for_good); });
}

// ---- liveness --------------------------------------------------------------------------------------------------

void World::enter(Phase phase) {
  phase_ = phase;
  phase_began_ = kernel_.now;
  const auto many = static_cast<std::uint32_t>(clients_.size());
  const auto allot = [&](std::uint32_t count, std::int64_t think) {
    for (std::uint32_t i = 0; i < many; ++i) {
      const std::uint32_t share = count / many + (i < count % many ? 1 : 0);
      if (share > 0) clients_[i]->allot(share, think);
    }
  };
  if (phase == Phase::kAnswering) allot(for_later_, 50 * kMs);
  if (phase == Phase::kTrickle) {
    answered_at_ = kernel_.now;
    allot(for_trickle_, 400 * kMs);
  }
}

void World::late(std::string_view invariant, const std::string& what) {
  fail(std::string(invariant) + " " + what + " (" + describe() + ")");
}

void World::check_phase() {
  const std::int64_t passed = kernel_.now.value - phase_began_.value;
  const bool answered =
      std::all_of(clients_.begin(), clients_.end(), [](const auto& client) { return client->done(); });
  switch (phase_) {
    case Phase::kSafety:
    case Phase::kDone:
      return;
    case Phase::kAnswering:
    case Phase::kTrickle: {
      if (answered) {
        if (phase_ == Phase::kAnswering) answering_took_ = Micros{passed};
        return enter(phase_ == Phase::kAnswering ? Phase::kTrickle : Phase::kSettling);
      }
      for (const auto& client : clients_) {
        const auto waiting = client->oldest();
        if (!waiting) continue;
        const Micros since = std::max(waiting->since, phase_began_);
        if (kernel_.now.value - since.value < answer_bound(draw_.cluster).value) continue;
        return late("L1", "request " + std::to_string(waiting->number.value) + " of client " +
                              std::to_string(client->id().value) + ", submitted at " +
                              std::to_string(seconds(waiting->since)) + " s, is not answered " +
                              std::to_string((kernel_.now.value - since.value) / kSecond) + " s later");
      }
      if (passed >= kAllBound) late("L1", "requests remain to be submitted");
      return;
    }
    case Phase::kSettling:
      if (settled()) return enter(Phase::kQuiet);
      if (passed >= kSettleBound) late("L3", "the core has not come to one place in the order");
      return;
    case Phase::kQuiet:
      if (passed < kQuiet || kernel_.now < plan_.end_at_least) return;
      // A batch may just be under way: hostile clients, and slots that come and go, are never quiet.
      if (!settled() &&
          kernel_.now.value < std::max(phase_began_.value + kQuiet, plan_.end_at_least.value) + kSettleBound)
        return;
      if (must_be_calm() && awake() != plan_.g + std::size_t{1}) {
        if (passed < kCalmBound) return;
        return late("I25", std::to_string(awake()) + " slots are awake, and all are well");
      }
      check_settled();
      return enter(Phase::kDone);
  }
}

bool World::settled() const {
  std::optional<NodeStatus> first;
  for (const NodeId id : draw_.core) {
    const NodeStatus status = node_at(id).status();
    if (!first) first = status;
    const bool same = status.delivered == first->delivered && status.view == first->view && !status.changing;
    // Requests of hostile clients may keep the order growing: then close is enough.
    const bool close = !hostile_.empty() && status.view == first->view &&
                       status.delivered.value + 8 > first->delivered.value &&
                       first->delivered.value + 8 > status.delivered.value;
    if (!same && !close) return false;
    if (status.stable.value + 2 * draw_.cluster.limits.checkpoint_batches < status.delivered.value) return false;
  }
  return std::all_of(draw_.core_slots.begin(), draw_.core_slots.end(), [this](SlotId slot) {
    const SimHost& host = *hosts_[slot.value];
    return !host.on_duty() || host.all_here();
  });
}

void World::check_settled() {
  if (!settled()) return late("L5", "the core does not stay together, or its checkpoints lag");
  // A hostile client can have each node left once. A node that the network cut off before the healing hears of its view
  // with the next PROGRESS, of the order with another, and may complain a timeout later.
  if (!hostile_.empty()) return;
  const crypto::Timing& timing = draw_.cluster.timing;
  const std::int64_t repair = kMs * (std::int64_t{timing.view_timeout_ms} + timing.progress_ms);
  const Micros since{std::max(answered_at_.value, healed_at_.value + 2 * repair)};
  if (const auto change = kernel_.witness->needless_change(draw_.core, since)) {
    late("L2", "a primary of the core was left after everything had been answered: " + *change);
  }
}

void World::check_complaints() {
  if (plan_.beyond_bound) return;
  if (!kernel_.stable_phase) {
    if (const auto stuck = stall_->look(kernel_.now)) late("L7", *stuck);
    return;
  }
  const crypto::Timing& timing = draw_.cluster.timing;
  const std::int64_t views = std::int64_t{10} * timing.view_timeout_ms << plan_.f;  // L1's bound, without its slack
  const Micros before{kernel_.now.value - (views + timing.wake_budget_ms) * kMs};
  if (before < healed_at_) return;
  if (const auto complaint = kernel_.witness->open_complaint(draw_.core, before)) late("L4", *complaint);
}

// No slot is faulty or made to fail for ever, and no client goes on giving nodes different requests, which keep a node
// without a body now and then: nothing is left that could keep more than g+1 awake.
bool World::must_be_calm() const {
  return !slots_flap_ && hostile_.empty() &&
         std::none_of(hosts_.begin(), hosts_.end(), [](const auto& host) { return host->byzantine(); });
}

std::size_t World::awake() const {
  return static_cast<std::size_t>(std::count_if(hosts_.begin(), hosts_.end(), [](const auto& host) {
    return host->alive() && host->pool_slot().state == vmpool::SlotState::kAwake;
  }));
}

void World::check_limits() {
  if (kernel_.now.value - second_began_.value < kSecond) return;
  const std::uint64_t events = kernel_.events - second_events_;
  if (events > kEventsPerSecondMax && !plan_.beyond_bound) {
    late("L6", std::to_string(events) + " events in one second");
  }
  second_began_ = kernel_.now;
  second_events_ = kernel_.events;
}

std::string World::describe() const {
  std::string out = "at " + std::to_string(kernel_.now.value / kMs) + " ms:";
  for (const auto& node : nodes_) {
    const NodeStatus status = node->status();
    out += " node " + std::to_string(node->id().value);
    if (node->byzantine()) {
      out += " " + node->kind();
      continue;
    }
    if (node->amnesiac()) out += " amnesiac";
    if (!draw_.core.contains(node->id())) out += " outside";
    if (!status.alive) {
      out += " dead";
      continue;
    }
    out += " view " + std::to_string(status.view.value) + (status.changing ? " changing" : "") + " n " +
           std::to_string(status.delivered.value) + " closed " +
           std::to_string(node->instance().oversight().closed_through().value) + " stable " +
           std::to_string(status.stable.value) + " waiting " + std::to_string(status.waiting) + " timeout " +
           std::to_string(status.view_timeout.value / kMs);
    if (status.stats.view_changes > 0)
      out += " complained last: " + std::string(to_string(status.stats.last_complaint));
    out += ";";
  }
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    const SimHost& host = *hosts_[i];
    out += " slot " + std::to_string(i) + (host.byzantine() ? " byzantine" : "") +
           (draw_.core_slots.contains(SlotId{static_cast<std::uint16_t>(i)}) ? "" : " outside");
    if (host.alive()) {
      out += " incarnation " + std::to_string(host.pool_slot().incarnation.value) + " " +
             std::string(vmpool::to_string(host.pool_slot().state)) + (host.pool_slot().joined ? " joined" : "");
    } else {
      out += " host dead";
    }
    if (host.on_duty()) out += " n " + std::to_string(host.executor().executed().value);
    if (host.on_duty() && !host.executor().running()) out += " loading";
    if (host.on_duty() && !host.all_here()) out += " fetching";
    if (host.on_duty() && host.executor().mid_batch()) out += " mid-batch";
    out += ";";
  }
  return out;
}

}  // namespace zz::sim
