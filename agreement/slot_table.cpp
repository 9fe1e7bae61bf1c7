#include "agreement/slot_table.hpp"

#include <algorithm>
#include <array>

#include "base/assert.hpp"
#include "crypto/digest.hpp"

namespace zz::agreement {
namespace {

// Who is named as agreeing, by how many distinct signers.
struct Mentions {
  SlotMask any = 0;
  SlotMask by_many = 0;  // by at least `enough` signers
};

Mentions mentions_in(const std::vector<Suspect>& proof, std::uint32_t enough) {
  std::array<std::uint64_t, kSlotsMax> signers{};  // one bit per node
  static_assert(3 * crypto::kFaultsMax + 1 <= 64);
  for (const Suspect& suspect : proof) {
    for (const SlotId slot : suspect.agreeing) {
      if (slot.value < kSlotsMax && suspect.signer.value < 64) {
        signers[slot.value] |= std::uint64_t{1} << suspect.signer.value;
      }
    }
  }
  Mentions out;
  for (std::uint16_t i = 0; i < kSlotsMax; ++i) {
    const auto count = static_cast<std::uint32_t>(std::popcount(signers[i]));
    if (count > 0) out.any |= bit_of(SlotId{i});
    if (count >= enough) out.by_many |= bit_of(SlotId{i});
  }
  return out;
}

}  // namespace

std::vector<SlotId> slots_of(SlotMask set) {
  std::vector<SlotId> out;
  out.reserve(size_of(set));
  for (std::uint16_t i = 0; i < kSlotsMax; ++i) {
    if (contains(set, SlotId{i})) out.push_back(SlotId{i});
  }
  return out;
}

std::optional<SlotMask> mask_of(const std::vector<SlotId>& ascending, std::size_t slots) {
  SlotMask out = 0;
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    if (ascending[i].value >= slots || ascending[i].value >= kSlotsMax) return std::nullopt;
    if (i > 0 && ascending[i] <= ascending[i - 1]) return std::nullopt;
    out |= bit_of(ascending[i]);
  }
  return out;
}

SlotTable::SlotTable(ServiceId service, std::uint32_t f, std::uint32_t g)
    : service_(service),
      f_(f),
      g_(g),
      active_(static_cast<SlotMask>((1u << (g + 1)) - 1)),
      entries_(std::size_t{2} * g + 1) {
  ZZ_ASSERT(f > 0 && f <= crypto::kFaultsMax && g > 0 && g <= crypto::kFaultsMax);
}

bool SlotTable::apply(Seq n, const SystemOp& op) {
  return std::visit([&](const auto& one) { return apply(n, one); }, op);
}

bool SlotTable::apply(Seq n, const EpochChange& change) {
  if (!applies(change)) return false;
  for (const SlotId slot : change.evicted) {
    Entry& entry = entries_[slot.value];
    entry.evicted_through = entry.incarnation;
    entry.incarnation = Incarnation{};
    entry.key = crypto::PublicKey{};
  }
  active_ = *mask_of(change.active, slots());
  epoch_ = change.epoch;
  changed_at_ = n;
  changes_.push_back({n, epoch_});
  crypto::DigestWriter changes("zz epochs");
  changes_digest_ = changes.digest(changes_digest_).id(n).id(epoch_).finish();
  return true;
}

bool SlotTable::apply(Seq n, const Join& join) {
  if (!applies(join)) return false;
  Entry& entry = entries_[join.slot.value];
  entry.incarnation = join.incarnation;
  entry.key = join.key;
  changed_at_ = n;
  return true;
}

bool SlotTable::applies(const EpochChange& change) const {
  if (change.epoch != epoch_.next()) return false;
  const auto evicted = mask_of(change.evicted, slots());
  const auto active = mask_of(change.active, slots());
  if (!evicted || *evicted == 0 || !active || size_of(*active) != g_ + 1 || (*active & *evicted) != 0) return false;
  SlotMask proven = 0;
  for (const Suspect& suspect : change.proof) {
    if (!known(suspect.slot) || !contains(*evicted, suspect.slot)) return false;
    if (!is_current(suspect.slot, suspect.incarnation)) return false;
    proven |= bit_of(suspect.slot);
  }
  if (proven != *evicted) return false;
  const SlotMask staying = without(active_, *evicted);
  if (without(staying, *active) != 0) return false;
  if (without(*active, staying | mentions_in(change.proof, f_ + 1).any) != 0) return false;
  return std::all_of(change.active.begin(), change.active.end(),
                     [this](SlotId slot) { return incarnation(slot).value != 0; });
}

bool SlotTable::applies(const Join& join) const {
  if (join.service != service_ || !known(join.slot)) return false;
  const Entry& entry = entries_[join.slot.value];
  if (join.incarnation <= entry.evicted_through || join.incarnation <= entry.incarnation) return false;
  const auto holder = holder_of(join.key);
  return !holder || holder->first == join.slot;
}

std::optional<SlotMask> SlotTable::next_active(SlotMask evicted, const std::vector<Suspect>& proof) const {
  SlotMask next = without(active_, evicted);
  SlotMask joined = 0;
  for (std::uint16_t i = 0; i < slots(); ++i) {
    if (entries_[i].incarnation.value != 0) joined |= bit_of(SlotId{i});
  }
  if (without(next, joined) != 0) return std::nullopt;
  const Mentions agreeing = mentions_in(proof, f_ + 1);
  for (const SlotMask candidates : {agreeing.by_many, agreeing.any}) {
    for (const SlotId slot : slots_of(without(candidates & joined, evicted))) {
      if (size_of(next) <= g_) next |= bit_of(slot);
    }
  }
  if (size_of(next) != g_ + 1) return std::nullopt;
  return next;
}

Epoch SlotTable::epoch_at(Seq n) const {
  // The last change before n; most questions are about the newest epoch.
  if (changes_.empty() || changes_.back().n < n) return epoch_;
  const auto after = std::partition_point(changes_.begin(), changes_.end(), [n](const Change& c) { return c.n < n; });
  return after == changes_.begin() ? Epoch{} : std::prev(after)->epoch;
}

std::optional<std::pair<SlotId, Incarnation>> SlotTable::holder_of(const crypto::PublicKey& key) const {
  for (std::uint16_t i = 0; i < slots(); ++i) {
    if (entries_[i].incarnation.value != 0 && entries_[i].key == key) {
      return std::make_pair(SlotId{i}, entries_[i].incarnation);
    }
  }
  return std::nullopt;
}

Digest SlotTable::digest() const {
  crypto::DigestWriter out("zz slot table");
  out.id(service_).u64(f_).u64(g_).id(epoch_).id(changed_at_).u64(active_).digest(changes_digest_);
  for (const Entry& entry : entries_) {
    out.id(entry.incarnation).id(entry.evicted_through).bytes(entry.key.bytes);
  }
  return out.finish();
}

EpochNotice SlotTable::notice() const {
  EpochNotice out;
  out.service = service_;
  out.epoch = epoch_;
  out.n = changed_at_;
  out.active = slots_of(active_);
  for (const Entry& entry : entries_) {
    out.incarnations.push_back(entry.incarnation);
    out.evicted_through.push_back(entry.evicted_through);
  }
  return out;
}

}  // namespace zz::agreement
