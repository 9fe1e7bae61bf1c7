#include "apps/narrator.hpp"

#include <fmt/format.h>

namespace zz::apps {
namespace {

void tell_slots(const std::string& name, const ClusterStatus& before, const ClusterStatus& now,
                std::vector<std::string>& lines) {
  for (const SlotStatus& slot : now.slots) {
    const SlotStatus* const old = before.find(slot.slot);
    if (old == nullptr) continue;
    if (slot.incarnation == 0 && old->incarnation != 0) {
      lines.push_back(fmt::format("{}: slot {} is destroyed; its host makes a new one", name, slot.slot));
    } else if (slot.incarnation != old->incarnation) {
      lines.push_back(fmt::format("{}: slot {} is there again, with a fresh replica (incarnation {}, {})", name,
                                  slot.slot, slot.incarnation, slot.active ? "active" : "asleep"));
    } else if (slot.active && !old->active) {
      lines.push_back(fmt::format("{}: slot {} is an active replica now", name, slot.slot));
    } else if (!slot.active && slot.connected && !old->connected) {
      lines.push_back(fmt::format("{}: slot {} woke up and catches up", name, slot.slot));
    }
    if (slot.active && old->active && slot.incarnation == old->incarnation && !slot.connected && old->connected) {
      lines.push_back(fmt::format("{}: active slot {} lost its connections", name, slot.slot));
    }
  }
}

}  // namespace

std::vector<std::string> Narrator::look(const std::vector<nlohmann::json>& answers) {
  std::vector<std::string> lines;
  tell_nodes(answers, lines);
  for (const crypto::ServiceEntry& service : cluster_.services) {
    const ClusterStatus now = combine(answers, service.name, cluster_.f);
    if (now.answered <= cluster_.f) continue;  // nothing that a correct node stands behind
    tell_service(service, now, lines);
  }
  return lines;
}

void Narrator::tell_nodes(const std::vector<nlohmann::json>& answers, std::vector<std::string>& lines) {
  std::set<std::uint32_t> silent;
  for (std::uint32_t id = 0; id < cluster_.n(); ++id) silent.insert(id);
  for (const nlohmann::json& answer : answers) {
    const auto node = answer.find("node");
    if (node != answer.end() && node->is_number_unsigned()) silent.erase(node->get<std::uint32_t>());
  }
  for (const std::uint32_t id : silent) {
    if (!silent_.contains(id)) lines.push_back(fmt::format("agreement node {} does not answer", id));
  }
  for (const std::uint32_t id : silent_) {
    if (!silent.contains(id)) lines.push_back(fmt::format("agreement node {} answers again", id));
  }
  silent_ = std::move(silent);
}

void Narrator::tell_service(const crypto::ServiceEntry& service, const ClusterStatus& now,
                            std::vector<std::string>& lines) {
  const auto found = before_.find(service.id);
  if (found == before_.end()) {
    before_.emplace(service.id, now);
    return;
  }
  const ClusterStatus& before = found->second;
  if (now.divergences > before.divergences) {
    lines.push_back(fmt::format("{}: replicas disagree, or one is late or gone, near batch {} (divergence {})",
                                service.name, now.ordered, now.divergences));
  }
  if (now.wakes > before.wakes) {
    lines.push_back(fmt::format("{}: f+1 nodes asked for help: the sleeping replicas wake", service.name));
  }
  if (now.settled > before.settled) {
    lines.push_back(fmt::format("{}: settled: g+1 = {} replicas agree again (longest so far {:.1f} ms)", service.name,
                                service.g + 1, static_cast<double>(now.first_correct_us) / 1'000.0));
  }
  if (now.evictions > before.evictions) {
    lines.push_back(fmt::format("{}: the faulty replica is evicted (eviction {}, epoch {})", service.name,
                                now.evictions, now.epoch));
  }
  if (now.not_deterministic > before.not_deterministic) {
    lines.push_back(
        fmt::format("{}: ALARM: all replicas answered and no g+1 agree; the service is not deterministic, "
                    "or more than g replicas are faulty",
                    service.name));
  }
  tell_slots(service.name, before, now, lines);
  // Slots are unknown while the nodes are on both sides of an epoch change; what was known stays until then.
  std::vector<SlotStatus> slots = now.slots.empty() ? before.slots : now.slots;
  found->second = now;
  found->second.slots = std::move(slots);
}

}  // namespace zz::apps
