#include "tests/sim/acceptance_slots.hpp"

#include <algorithm>
#include <string>

namespace zz::sim {

using execution::state::ObjectId;
using execution::state::Status;

namespace {

constexpr std::array<std::string_view, kIlls.size()> kIllNames = {"wrong", "silent", "crashed", "diverged", "slow"};
constexpr std::uint64_t kServiceIds = std::uint64_t{1} << 63;
constexpr std::uint64_t kNobodysId = kServiceIds - 1;
constexpr std::uint64_t kCloseBy = 8;  // batches

}  // namespace

void fall_ill(World& world, SlotId slot, Ill ill) {
  SimHost& host = world.host_at(HostId{slot.value});
  if (!host.on_duty()) return;
  switch (ill) {
    case Ill::kWrong:
      host.fall_ill(SlotVice::kWrong);
      break;
    case Ill::kSilent:
      host.fall_ill(SlotVice::kSilent);
      break;
    case Ill::kCrashed:
      host.kill_guest();
      break;
    case Ill::kDiverged:
      if (!diverge(host, false)) return;
      break;
    case Ill::kSlow:
      host.fall_ill(SlotVice::kLate);
      break;
  }
  world.kernel().count("acceptance.ill." + std::string(kIllNames[static_cast<std::size_t>(ill)]));
}

bool diverge(SimHost& host, bool unread) {
  execution::state::ObjectStore& store = host.store();
  if (unread) return store.write(ObjectId{kNobodysId}, as_bytes("x")).status == Status::kDone;
  const auto found = store.next(ObjectId{0});
  if (found.status != Status::kDone || found.id.value >= kServiceIds) return false;
  const auto read = store.read(found.id);
  if (read.status != Status::kDone || read.bytes.empty()) return false;
  Bytes bytes(read.bytes.view().begin(), read.bytes.view().end());
  bytes.back() ^= 1;  // of a value
  return store.write(found.id, bytes).status == Status::kDone;
}

std::vector<SlotId> active_slots(const World& world) {
  return world.node_at(NodeId{0}).instance().oversight().notice().active;
}

void expect_healthy(World& world) {
  std::size_t awake = 0;
  std::string wrong;
  const Seq delivered = world.status(NodeId{0}).delivered;
  for (std::uint16_t i = 0; i < world.parties().slots; ++i) {
    const SimHost& host = world.host_at(HostId{i});
    const std::string name = " slot " + std::to_string(i);
    if (!host.alive()) {
      wrong += name + "'s host is dead;";
      continue;
    }
    const vmpool::PoolSlot slot = host.pool_slot();
    if (!slot.joined) wrong += name + " is not joined;";
    if (slot.state == vmpool::SlotState::kAwake) {
      ++awake;
    } else if (slot.state != vmpool::SlotState::kAsleep) {
      wrong += name + " is " + std::string(to_string(slot.state)) + ";";
    }
    if (host.on_duty() && !host.all_here()) wrong += name + " lacks state;";
    if (host.on_duty() && host.executor().executed().value + kCloseBy < delivered.value) wrong += name + " is behind;";
  }
  if (awake != world.drawn().cluster.services.front().g + std::size_t{1}) {
    wrong += " " + std::to_string(awake) + " slots are awake;";
  }
  if (!wrong.empty()) world.fail("the service is not healthy again:" + wrong);
}

void usual_quarantine(crypto::ClusterFile& cluster) { cluster.timing.quarantine_ms = crypto::Timing{}.quarantine_ms; }

Plan slots_plan(std::uint64_t seed, std::uint32_t g, std::initializer_list<std::uint16_t> scripted) {
  Plan plan = calm(seed);
  plan.g = g;
  plan.requests = 300;
  plan.gst = Micros{18 * kSecond};
  plan.end_at_least = Micros{30 * kSecond};
  plan.byzantine_slots.emplace();
  for (const std::uint16_t slot : scripted) plan.byzantine_slots->emplace_back(SlotId{slot}, SlotVice::kScripted);
  return plan;
}

}  // namespace zz::sim
