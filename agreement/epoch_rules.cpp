#include "agreement/epoch_rules.hpp"

#include <algorithm>
#include <tuple>

namespace zz::agreement {
namespace {

const crypto::ServiceEntry* find_service(const crypto::ClusterFile& cluster, ServiceId service) {
  return service.value < cluster.services.size() ? &cluster.services[service.value] : nullptr;
}

bool belongs_to_a_party(const crypto::ClusterFile& cluster, const crypto::PublicKey& key) {
  const auto holds = [&key](const auto& party) { return party.key == key; };
  return std::any_of(cluster.nodes.begin(), cluster.nodes.end(), holds) ||
         std::any_of(cluster.hosts.begin(), cluster.hosts.end(), holds) ||
         std::any_of(cluster.clients.begin(), cluster.clients.end(), holds);
}

bool in_order(const Suspect& a, const Suspect& b) { return std::tie(a.slot, a.signer) < std::tie(b.slot, b.signer); }

// The shape of a proof: distinct, ascending, all of one epoch, one incarnation and f+1 signers per evicted slot.
Refusal check_proof_form(const crypto::ClusterFile& cluster, ServiceId service, const EpochChange& change,
                         SlotMask evicted) {
  if (change.proof.size() > std::size_t{size_of(evicted)} * cluster.n()) return Refusal::kOversize;
  std::array<std::uint32_t, kSlotsMax> signers{};
  for (std::size_t i = 0; i < change.proof.size(); ++i) {
    const Suspect& suspect = change.proof[i];
    if (const Refusal why = check_form(cluster, service, suspect); why != Refusal::kNone) return why;
    if (!contains(evicted, suspect.slot) || suspect.epoch.next() != change.epoch) return Refusal::kMalformed;
    if (i > 0) {
      const Suspect& before = change.proof[i - 1];
      if (!in_order(before, suspect)) return Refusal::kMalformed;
      if (before.slot == suspect.slot && before.incarnation != suspect.incarnation) return Refusal::kMalformed;
    }
    ++signers[suspect.slot.value];
  }
  for (const SlotId slot : change.evicted) {
    if (signers[slot.value] <= cluster.f) return Refusal::kNotReady;
  }
  return Refusal::kNone;
}

}  // namespace

Refusal check_form(const crypto::ClusterFile& cluster, ServiceId service, const Suspect& suspect) {
  const crypto::ServiceEntry* entry = find_service(cluster, service);
  if (entry == nullptr || suspect.service != service) return Refusal::kUnknownService;
  if (suspect.signer.value >= cluster.nodes.size()) return Refusal::kUnknownPeer;
  if (suspect.slot.value >= entry->slots.size()) return Refusal::kUnknownSlot;
  if (suspect.incarnation.value == 0 || suspect.why > Suspicion::kSurplus) return Refusal::kMalformed;
  if (!mask_of(suspect.agreeing, entry->slots.size())) return Refusal::kMalformed;
  return Refusal::kNone;
}

bool signed_by_node(const crypto::ClusterFile& cluster, const Suspect& suspect) {
  return crypto::verify(cluster.nodes[suspect.signer.value].key, suspect_fields(cluster.id, suspect),
                        suspect.signature);
}

Refusal check(const crypto::ClusterFile& cluster, ServiceId service, const Join& join) {
  const crypto::ServiceEntry* entry = find_service(cluster, service);
  if (entry == nullptr || join.service != service) return Refusal::kUnknownService;
  if (join.slot.value >= entry->slots.size()) return Refusal::kUnknownSlot;
  if (join.incarnation.value == 0 || join.incarnation > kIncarnationMax) return Refusal::kMalformed;
  const HostId host = entry->slots[join.slot.value].host;
  if (host.value >= cluster.hosts.size()) return Refusal::kUnknownPeer;
  if (belongs_to_a_party(cluster, join.key)) return Refusal::kNotAllowed;
  const crypto::PublicKey& key = cluster.hosts[host.value].key;
  return crypto::verify(key, join_fields(cluster.id, join), join.signature) ? Refusal::kNone : Refusal::kBadSignature;
}

Refusal check(const crypto::ClusterFile& cluster, ServiceId service, const EpochChange& change) {
  const crypto::ServiceEntry* entry = find_service(cluster, service);
  if (entry == nullptr) return Refusal::kUnknownService;
  const auto evicted = mask_of(change.evicted, entry->slots.size());
  const auto active = mask_of(change.active, entry->slots.size());
  if (!evicted || *evicted == 0 || !active || size_of(*active) != entry->g + 1) return Refusal::kMalformed;
  if ((*evicted & *active) != 0 || change.epoch.value == 0) return Refusal::kMalformed;
  if (const Refusal why = check_proof_form(cluster, service, change, *evicted); why != Refusal::kNone) return why;
  const auto good = [&cluster](const Suspect& suspect) { return signed_by_node(cluster, suspect); };
  return std::all_of(change.proof.begin(), change.proof.end(), good) ? Refusal::kNone : Refusal::kBadSignature;
}

Suspicion verdict(const SlotTable& table, const std::vector<Suspect>& proof, SlotId slot) {
  std::uint32_t wrong = 0;
  std::uint32_t late = 0;
  std::uint32_t surplus = 0;
  for (const Suspect& suspect : proof) {
    if (suspect.slot != slot) continue;
    if (suspect.why == Suspicion::kWrong) ++wrong;
    if (suspect.why == Suspicion::kLate) ++late;
    if (suspect.why == Suspicion::kSurplus) ++surplus;
  }
  if (wrong > table.f()) return Suspicion::kWrong;
  const bool nobody_correct_blames = wrong + late <= table.f() && (surplus > table.f() || !table.is_active(slot));
  return nobody_correct_blames ? Suspicion::kSurplus : Suspicion::kLate;
}

std::optional<EpochChange> compose_epoch_change(const SlotTable& table, const std::vector<Suspect>& suspects) {
  std::array<std::vector<Suspect>, kSlotsMax> against;
  for (const Suspect& suspect : suspects) {
    if (suspect.epoch != table.epoch() || !table.is_current(suspect.slot, suspect.incarnation)) continue;
    against[suspect.slot.value].push_back(suspect);
  }
  for (const Suspicion least : {Suspicion::kSurplus, Suspicion::kLate, Suspicion::kWrong}) {
    EpochChange change;
    SlotMask evicted = 0;
    for (std::uint16_t i = 0; i < table.slots(); ++i) {
      if (against[i].size() <= table.f() || verdict(table, against[i], SlotId{i}) > least) continue;
      evicted |= bit_of(SlotId{i});
      change.proof.insert(change.proof.end(), against[i].begin(), against[i].end());
    }
    if (evicted == 0) continue;
    const auto active = table.next_active(evicted, change.proof);
    if (!active) continue;
    change.epoch = table.epoch().next();
    change.active = slots_of(*active);
    change.evicted = slots_of(evicted);
    return change;
  }
  return std::nullopt;
}

}  // namespace zz::agreement
