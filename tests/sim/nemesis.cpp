#include "tests/sim/nemesis.hpp"

#include <algorithm>
#include <utility>

#include "tests/sim/world.hpp"

namespace zz::sim {

namespace {

constexpr std::int64_t kMs = 1'000;
constexpr std::int64_t kSecond = 1'000'000;

// Faults that set in once and are part of the weather, or of who takes part.
bool is_constant(Fault fault) {
  switch (fault) {
    case Fault::kDelay:
    case Fault::kLoss:
    case Fault::kDuplicate:
    case Fault::kReorder:
    case Fault::kTornWrite:
    case Fault::kSlowDisk:
    case Fault::kSlowBoot:
    case Fault::kBootFailure:
    case Fault::kByzantineNode:
    case Fault::kByzantineSlot:
    case Fault::kHostileClient:
    case Fault::kCount:
      return true;
    default:
      return false;
  }
}

}  // namespace

Nemesis::Nemesis(World& world, const Draw& draw, std::uint64_t seed) : world_(world), draw_(draw), prng_(seed) {}

void Nemesis::begin() {
  for (const Fault fault : draw_.faults) {
    if (is_constant(fault)) {
      world_.kernel().count(std::string("fault.") + std::string(to_string(fault)));
      continue;
    }
    world_.kernel().after(between(prng_, 300 * kMs, 6 * kSecond),
                          {Happening::Kind::kFault, static_cast<Party>(fault), 0, 0, nullptr});
  }
}

void Nemesis::again(Fault fault) {
  const bool rare = fault == Fault::kCrashAll || fault == Fault::kDamage || fault == Fault::kLostSync;
  const std::int64_t pause = rare ? between(prng_, 5 * kSecond, 25 * kSecond) : between(prng_, 800 * kMs, 8 * kSecond);
  world_.kernel().after(pause, {Happening::Kind::kFault, static_cast<Party>(fault), 0, 0, nullptr});
}

void Nemesis::later(std::int64_t delay, std::function<void()> action) {
  actions_.push_back(std::move(action));
  world_.kernel().after(delay, {Happening::Kind::kHeal, 0, 0, actions_.size() - 1, nullptr});
}

void Nemesis::heal(std::uint64_t action) {
  const std::function<void()> now = std::move(actions_[action]);
  now();
}

NodeId Nemesis::any_node() { return NodeId{static_cast<std::uint16_t>(prng_.below(world_.nodes()))}; }

std::optional<NodeId> Nemesis::any_correct() {
  for (int tries = 0; tries < 8; ++tries) {
    const NodeId node = any_node();
    if (!world_.node_at(node).byzantine() && world_.node_at(node).alive()) return node;
  }
  return std::nullopt;
}

Party Nemesis::any_other(Party node) {
  const std::size_t count = chance(prng_, 60) ? world_.nodes() : world_.parties().count();
  Party out = node;
  while (out == node) out = static_cast<Party>(prng_.below(count));
  return out;
}

void Nemesis::inject(Fault fault) {
  if (world_.kernel().stable_phase) return;
  const std::string name = std::string("fault.") + std::string(to_string(fault));
  again(fault);
  Kernel& kernel = world_.kernel();
  Network& network = world_.network();
  switch (fault) {
    case Fault::kOneWayCut:
      one_way_cut();
      break;
    case Fault::kPartition:
      partition();
      break;
    case Fault::kClog: {
      const Party a = any_node().value;
      const Party b = any_other(a);
      const bool out = chance(prng_, 50);
      network.clog(out ? a : b, out ? b : a, Micros{kernel.now.value + between(prng_, 50 * kMs, 4 * kSecond)});
      break;
    }
    case Fault::kSwizzle:
      swizzle();
      break;
    case Fault::kReset: {
      const std::int64_t many = between(prng_, 1, 4);
      for (std::int64_t i = 0; i < many; ++i) {
        const Party a = any_node().value;
        network.reset(a, any_other(a));
      }
      break;
    }
    case Fault::kCrash:
      crash(false);
      break;
    case Fault::kCrashAll:
      crash(true);
      break;
    case Fault::kDamage:
      return lose_promises(true);
    case Fault::kLostSync:
      return lose_promises(false);
    case Fault::kPause:
      if (const auto node = any_correct()) {
        const std::int64_t most = chance(prng_, 20) ? 8 * kSecond : 1'500 * kMs;
        world_.pause(*node, Micros{between(prng_, 20 * kMs, most)});
      }
      break;
    case Fault::kDrift:
      // A tenth on f nodes, a fiftieth on the others.
      for (std::uint16_t i = 0; i < world_.nodes(); ++i) {
        const std::int64_t most = draw_.core.contains(NodeId{i}) ? 20'000 : 100'000;
        world_.set_drift(NodeId{i}, between(prng_, -most, most));
      }
      break;
    case Fault::kClockJump: {
      // At most f clocks are far off at any time.
      const std::int64_t hour = 3'600 * kSecond;
      for (std::uint16_t i = 0; i < world_.nodes(); ++i) world_.jump_clock(NodeId{i}, Micros{});
      for (std::uint32_t i = 0; i < draw_.cluster.f; ++i) {
        const std::int64_t most = chance(prng_, 40) ? 5 * kSecond : hour;
        const Micros offset{between(prng_, -most, most)};
        world_.jump_clock(any_node(), offset);
      }
      break;
    }
    case Fault::kGuestCrash:
    case Fault::kHostCrash: {
      const SlotId slot{static_cast<std::uint16_t>(prng_.below(world_.parties().slots))};
      if (!world_.may_lose(slot)) return;
      const HostId host{slot.value};
      if (fault == Fault::kGuestCrash) {
        world_.kill_guest(slot);
      } else {
        world_.crash_host(host);
        later(between(prng_, 100 * kMs, 5 * kSecond), [this, host] { world_.restart_host(host); });
      }
      break;
    }
    default:
      return;
  }
  kernel.count(name);
}

void Nemesis::one_way_cut() {
  const Party node = any_node().value;
  const Party other = any_other(node);
  const bool out = chance(prng_, 50);
  const Party from = out ? node : other;
  const Party to = out ? other : node;
  Network& network = world_.network();
  network.cut(from, to);
  if (chance(prng_, 30)) network.reset(from, to);  // noticed: it cannot come back until it is healed
  later(between(prng_, 50 * kMs, 5 * kSecond), [&network, from, to] { network.heal(from, to); });
}

void Nemesis::partition() {
  const std::uint16_t n = world_.nodes();
  std::vector<std::set<NodeId>> groups;
  std::vector<NodeId> order;
  for (std::uint16_t i = 0; i < n; ++i) order.push_back(NodeId{i});
  for (std::size_t i = n; i > 1; --i) std::swap(order[i - 1], order[prng_.below(i)]);
  switch (prng_.below(4)) {
    case 0: {  // one node from everybody
      const bool outgoing = chance(prng_, 70);
      const bool incoming = chance(prng_, 70);
      World::Hook heal = world_.isolate(order[0], incoming, outgoing);
      later(between(prng_, 100 * kMs, 6 * kSecond), [this, heal] { heal(world_); });
      return;
    }
    case 1: {  // halves, of any size
      groups.resize(2);
      for (const NodeId node : order) groups[prng_.below(2)].insert(node);
      break;
    }
    case 2: {  // two halves with one node between them
      groups.resize(2);
      for (std::size_t i = 1; i < n; ++i) groups[i % 2].insert(order[i]);
      groups[0].insert(order[0]);
      groups[1].insert(order[0]);
      break;
    }
    default:  // a ring: each hears its neighbours
      for (std::size_t i = 0; i < n; ++i) groups.push_back({order[i], order[(i + 1) % n]});
      break;
  }
  World::Hook heal = world_.partition(groups);
  later(between(prng_, 100 * kMs, 6 * kSecond), [this, heal] { heal(world_); });
}

void Nemesis::swizzle() {
  const Party node = any_node().value;
  Network& network = world_.network();
  std::vector<Party> others;
  for (Party other = 0; other < world_.parties().count(); ++other) {
    if (other != node && (world_.parties().is_node(other) || chance(prng_, 50))) others.push_back(other);
  }
  std::int64_t at = 0;
  for (const Party other : others) {
    at += between(prng_, 1 * kMs, 200 * kMs);
    later(at, [&network, node, other] {
      network.cut(node, other);
      network.cut(other, node);
    });
  }
  for (std::size_t i = others.size(); i > 1; --i) std::swap(others[i - 1], others[prng_.below(i)]);
  for (const Party other : others) {
    at += between(prng_, 1 * kMs, 500 * kMs);
    later(at, [&network, node, other] {
      network.heal(node, other);
      network.heal(other, node);
    });
  }
}

void Nemesis::crash(bool all) {
  const auto kind = draw_.has(Fault::kTornWrite) ? CrashKind::kTorn : CrashKind::kClean;
  for (std::uint16_t i = 0; i < world_.nodes(); ++i) {
    const NodeId node{i};
    if (world_.node_at(node).byzantine() || !world_.node_at(node).alive()) continue;
    if (!all && !chance(prng_, 100 / world_.nodes())) continue;
    world_.crash(node, kind);
    const std::int64_t most = chance(prng_, 15) ? 12 * kSecond : 2 * kSecond;
    later(between(prng_, 100 * kMs, most), [this, node] { world_.restart(node); });
  }
}

void Nemesis::lose_promises(bool noticed) {
  for (const NodeId node : draw_.fragile) {
    if (!world_.node_at(node).alive() || chance(prng_, 50)) continue;
    world_.kernel().count(noticed ? "fault.damage" : "fault.lost-sync");
    world_.crash(node, noticed ? CrashKind::kDamaged : CrashKind::kRollback);
    later(between(prng_, 100 * kMs, 4 * kSecond), [this, node] { world_.restart(node); });
  }
}

}  // namespace zz::sim
