#include "tests/sim/stall.hpp"

#include <algorithm>

#include "tests/sim/world.hpp"

namespace zz::sim {

Micros answer_bound(const crypto::ClusterFile& cluster) {
  const std::int64_t views = std::int64_t{10} * cluster.timing.view_timeout_ms << cluster.f;
  return Micros{(views + 2 * std::int64_t{cluster.timing.wake_budget_ms}) * 1'000};
}

Stall::Stall(const World& world) : world_(world), bound_(answer_bound(world.drawn().cluster)) {
  std::vector<NodeId> chosen;
  find_groups(2 * std::size_t{world.drawn().cluster.f} + 1, 0, chosen);
}

void Stall::find_groups(std::size_t size, std::uint16_t from, std::vector<NodeId>& chosen) {
  if (chosen.size() == size) {
    groups_.push_back({chosen, std::vector<Micros>(world_.drawn().clients)});
    return;
  }
  for (std::uint16_t i = from; i < world_.nodes(); ++i) {
    if (world_.node_at(NodeId{i}).byzantine()) continue;
    chosen.push_back(NodeId{i});
    find_groups(size, static_cast<std::uint16_t>(i + 1), chosen);
    chosen.pop_back();
  }
}

bool Stall::timely(NodeId id) const {
  const SimNode& node = world_.node_at(id);
  return node.alive() && !node.paused() && !node.amnesiac();
}

bool Stall::timely(const Group& group) const {
  if (!std::all_of(group.nodes.begin(), group.nodes.end(), [this](NodeId node) { return timely(node); })) return false;
  for (const NodeId a : group.nodes) {
    for (const NodeId b : group.nodes) {
      if (a != b && !world_.network().clear(a.value, b.value)) return false;
    }
  }
  std::uint32_t slots = 0;
  for (std::uint16_t i = 0; i < world_.parties().slots; ++i) {
    const SimHost& host = world_.host_at(HostId{i});
    if (host.byzantine() || !host.alive()) continue;
    const bool reached = std::all_of(group.nodes.begin(), group.nodes.end(), [&](NodeId node) {
      return world_.network().clear_both(node.value, host.party()) &&
             world_.network().clear_both(node.value, host.slot_party());
    });
    if (reached) ++slots;
  }
  return slots > world_.drawn().cluster.services.front().g;
}

bool Stall::timely(const Group& group, std::size_t client) const {
  const Party party = world_.parties().client(client);
  return std::all_of(group.nodes.begin(), group.nodes.end(),
                     [&](NodeId node) { return world_.network().clear_both(node.value, party); });
}

std::optional<std::string> Stall::look(Micros now) {
  if (const std::uint64_t answered = world_.answered(); answered != answered_) {
    answered_ = answered;
    answered_at_ = now;
  }
  for (Group& group : groups_) {
    const bool all = timely(group);
    for (std::size_t client = 0; client < group.since.size(); ++client) {
      Micros& since = group.since[client];
      const auto waiting = world_.waiting(client);
      if (!all || !waiting || !timely(group, client)) {
        since = now;
        continue;
      }
      const Micros began = std::max({since, waiting->since, answered_at_});
      const Micros passed{now.value - began.value};
      longest_ = std::max(longest_, passed);
      if (passed < bound_) continue;
      std::string who;
      for (const NodeId node : group.nodes) who += " " + std::to_string(node.value);
      return "nothing was answered for " + std::to_string(passed.value / 1'000) + " ms, though client " +
             std::to_string(client) + " waits and the nodes" + who + " are timely";
    }
  }
  return std::nullopt;
}

}  // namespace zz::sim
