#include "tests/sim/draw.hpp"

#include <algorithm>
#include <array>
#include <deque>

#include "tests/sim/adversary.hpp"

namespace zz::sim {

namespace {

const crypto::SecretKey& key_of(std::deque<crypto::SecretKey>& keys, std::uint8_t kind, std::size_t index) {
  ZZ_ASSERT(crypto::init().ok());
  while (keys.size() <= index) {
    std::array<std::uint8_t, 32> seed{};
    seed[0] = kind;
    seed[1] = static_cast<std::uint8_t>(keys.size());
    keys.push_back(crypto::SecretKey::from_seed(seed));
  }
  return keys[index];
}

crypto::PublicKey silent_key(std::uint8_t kind, std::size_t index) {  // of a party that signs nothing
  crypto::PublicKey out;
  out.bytes[0] = kind;
  out.bytes[1] = static_cast<std::uint8_t>(index);
  return out;
}

template <class Id>
std::vector<Id> shuffled(Prng& prng, std::size_t count) {
  std::vector<Id> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(Id{static_cast<typename Id::rep>(i)});
  for (std::size_t i = count; i > 1; --i) std::swap(out[i - 1], out[prng.below(i)]);
  return out;
}

crypto::ClusterFile make_cluster(const Plan& plan, const Draw& draw, Prng& prng) {
  crypto::ClusterFile out;
  out.name = "sim";
  out.id.bytes[0] = 0x51;
  out.f = plan.f;
  const std::size_t slots = 2 * std::size_t{plan.g} + 1;
  for (std::uint16_t i = 0; i < std::max<std::size_t>(out.n(), slots); ++i) {
    out.hosts.push_back({HostId{i}, host_key(HostId{i}).public_key()});
  }
  for (std::uint16_t i = 0; i < out.n(); ++i) {
    out.nodes.push_back({NodeId{i}, HostId{i}, {}, node_key(NodeId{i}).public_key()});
  }
  for (std::uint32_t i = 0; i < draw.clients + draw.hostile_clients; ++i) {
    out.clients.push_back({ClientId{i}, "client" + std::to_string(i), silent_key(0xc1, i), false});
  }
  crypto::ServiceEntry service;
  service.name = "kv";
  service.adapter = "kv";
  service.g = plan.g;
  for (std::uint16_t i = 0; i < slots; ++i) service.slots.push_back({SlotId{i}, HostId{i}});
  out.services.push_back(std::move(service));
  crypto::Limits& limits = out.limits;
  limits.window_batches = 32;
  limits.checkpoint_batches = static_cast<std::uint32_t>(between(prng, 4, 16));
  limits.checkpoint_requests = chance(prng, 20) ? 20 : 10'000;
  limits.client_window = 16;
  limits.batch_requests_max = 16;
  limits.sessions_max = 256;
  crypto::Timing& timing = out.timing;
  timing.tick_ms = 10;
  timing.view_timeout_ms = 500;
  timing.view_timeout_max_ms = 4'000;
  timing.body_timeout_ms = 300;
  timing.progress_ms = static_cast<std::uint32_t>(between(prng, 10, 20)) * 10;
  timing.execution_timeout_ms = 2'000;
  timing.quarantine_ms = 1'000;
  timing.hedge_ms = 50;
  return out;
}

std::set<Fault> draw_faults(Prng& prng) {
  std::set<Fault> out;
  for (std::size_t i = 0; i < kFaults; ++i) {
    if (chance(prng, 45)) out.insert(static_cast<Fault>(i));
  }
  if (chance(prng, 3)) out.clear();  // a calm day
  return out;
}

void draw_byzantine(const Plan& plan, Prng& prng, Draw& out) {
  out.node_kinds.resize(3 * std::size_t{plan.f} + 1);
  out.slot_vices.resize(2 * std::size_t{plan.g} + 1);
  if (plan.byzantine_nodes) {
    for (const auto& [node, kind] : *plan.byzantine_nodes) out.node_kinds[node.value] = kind;
  } else if (out.has(Fault::kByzantineNode)) {
    const auto order = shuffled<NodeId>(prng, out.node_kinds.size());
    const std::uint64_t many = 1 + prng.below(plan.f);
    const auto& kinds = adversary_kinds();
    for (std::uint64_t i = 0; i < many; ++i) {
      const std::uint64_t draw = prng.below(kinds.size() + 1);
      out.node_kinds[order[i].value] = draw < kinds.size() ? kinds[draw] : std::string(kTwin);
    }
  }
  if (plan.byzantine_slots) {
    for (const auto& [slot, vice] : *plan.byzantine_slots) out.slot_vices[slot.value] = vice;
  } else if (out.has(Fault::kByzantineSlot)) {
    const auto order = shuffled<SlotId>(prng, out.slot_vices.size());
    const std::uint64_t many = 1 + prng.below(plan.g);
    for (std::uint64_t i = 0; i < many; ++i) {
      out.slot_vices[order[i].value] = static_cast<SlotVice>(prng.below(static_cast<std::uint64_t>(SlotVice::kCount)));
    }
  }
}

// Who is healed in the end. The Byzantine ones, and those that lose what they promised, never are.
void draw_core(const Plan& plan, Prng& prng, Draw& out) {
  const auto byzantine = static_cast<std::size_t>(std::count_if(out.node_kinds.begin(), out.node_kinds.end(),
                                                                [](const std::string& kind) { return !kind.empty(); }));
  std::size_t may_break = plan.f > byzantine ? plan.f - byzantine : 0;
  const bool breaks = out.has(Fault::kDamage) || out.has(Fault::kLostSync);
  for (const NodeId node : shuffled<NodeId>(prng, out.node_kinds.size())) {
    if (!out.node_kinds[node.value].empty()) continue;
    const bool fixed = plan.core && plan.core->contains(node);
    if (breaks && may_break > 0 && !fixed) {
      --may_break;
      out.fragile.insert(node);
    } else if (plan.core ? fixed : out.core.size() < 2 * std::size_t{plan.f} + 1) {
      out.core.insert(node);
    }
  }
  for (const SlotId slot : shuffled<SlotId>(prng, out.slot_vices.size())) {
    if (!out.slot_vices[slot.value] && out.core_slots.size() < plan.g + std::size_t{1}) out.core_slots.insert(slot);
  }
}

void draw_weather(Prng& prng, Draw& out) {
  static constexpr std::array<std::int64_t, 5> kBases = {200, 1'000, 3'000, 8'000, 15'000};
  Weather& weather = out.weather;
  weather.delay_min = kBases[prng.below(kBases.size())];
  weather.delay_max = weather.delay_min * between(prng, 1, 4);
  if (out.has(Fault::kDelay)) weather.slow_percent = static_cast<std::uint32_t>(between(prng, 1, 15));
  if (out.has(Fault::kLoss)) weather.loss_percent = static_cast<std::uint32_t>(between(prng, 1, 30));
  if (out.has(Fault::kDuplicate)) weather.duplicate_percent = static_cast<std::uint32_t>(between(prng, 1, 50));
  weather.reorder = out.has(Fault::kReorder);
  out.disk.most = between(prng, 100, 5'000);
  if (out.has(Fault::kSlowDisk)) out.disk.slow_percent = static_cast<std::uint32_t>(between(prng, 1, 4));
  if (out.has(Fault::kSlowBoot)) out.hypervisor.most = between(prng, 100'000, 1'500'000);
  if (out.has(Fault::kBootFailure)) out.hypervisor.failure_percent = static_cast<std::uint32_t>(between(prng, 2, 15));
}

// How the service is kept, from a stream of its own: what else a seed draws does not depend on it. The stream is one in
// which no run of seeds.txt that is older than it draws any of it, so that those stay what they are kept for.
void draw_service(const Plan& plan, crypto::ServiceEntry& service) {
  constexpr std::uint64_t kStream = 274;
  Prng prng(plan.seed * 0x9e3779b97f4a7c15ULL + plan.f * 1'000 + plan.g + kStream * 1'000'003);
  if (chance(prng, 8)) service.wake = crypto::WakePolicy::kOneByOne;
  if (!chance(prng, 6)) return;
  const bool by_time = chance(prng, 50);
  service.rejuvenate_every_ms = by_time ? static_cast<std::uint32_t>(between(prng, 4'000, 20'000)) : 0;
  service.rejuvenate_every_requests = by_time ? 0 : static_cast<std::uint32_t>(between(prng, 40, 150));
}

}  // namespace

const crypto::SecretKey& node_key(NodeId id) {
  static std::deque<crypto::SecretKey> keys;
  return key_of(keys, 0xa1, id.value);
}

const crypto::SecretKey& host_key(HostId id) {
  static std::deque<crypto::SecretKey> keys;
  return key_of(keys, 0xb2, id.value);
}

Draw draw(const Plan& plan) {
  Prng prng(plan.seed * 0x9e3779b97f4a7c15ULL + plan.f * 1'000 + plan.g);
  Draw out;
  out.faults = draw_faults(prng);
  if (plan.faults) out.faults = *plan.faults;
  draw_byzantine(plan, prng, out);
  draw_core(plan, prng, out);
  draw_weather(prng, out);
  out.clients = plan.clients.value_or(static_cast<std::uint32_t>(between(prng, 2, 6)));
  for (std::uint32_t i = 0; i < out.clients; ++i) {
    out.workers.push_back(static_cast<std::uint32_t>(between(prng, 1, 5)));
  }
  if (out.has(Fault::kHostileClient)) out.hostile_clients = static_cast<std::uint32_t>(between(prng, 1, 2));
  out.gst = Micros{between(prng, 20'000, 45'000) * 1'000};
  if (plan.gst) out.gst = *plan.gst;
  out.cluster = make_cluster(plan, out, prng);
  if (!plan.faults) draw_service(plan, out.cluster.services.front());  // a scenario says itself what it is about
  if (plan.configure) plan.configure(out.cluster);
  out.parties.nodes = static_cast<std::uint16_t>(out.cluster.n());
  out.parties.slots = out.parties.hosts = static_cast<std::uint16_t>(2 * plan.g + 1);
  out.parties.clients = static_cast<std::uint16_t>(out.clients + out.hostile_clients);
  return out;
}

}  // namespace zz::sim
