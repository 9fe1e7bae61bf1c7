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
  for (; set != 0; set = static_cast<SlotMask>(set & (set - 1))) {
    out.push_back(SlotId{static_cast<std::uint16_t>(std::countr_zero(set))});
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
  return after == changes_.begin() ? before_changes_ : std::prev(after)->epoch;
}

void SlotTable::forget_through(Seq n) {
  const auto end = std::partition_point(changes_.begin(), changes_.end(), [n](const Change& c) { return c.n <= n; });
  if (end == changes_.begin()) return;
  before_changes_ = std::prev(end)->epoch;
  changes_.erase(changes_.begin(), end);
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

// Little-endian: epoch, changed_at (8 bytes each), the active set (2), the digest of the epochs (32), then per slot:
// incarnation, evicted through (8 each), key (32).
Bytes SlotTable::encode() const {
  Bytes out;
  const auto put = [&out](std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  };
  put(epoch_.value, 8);
  put(changed_at_.value, 8);
  put(active_, 2);
  out.insert(out.end(), changes_digest_.bytes.begin(), changes_digest_.bytes.end());
  for (const Entry& entry : entries_) {
    put(entry.incarnation.value, 8);
    put(entry.evicted_through.value, 8);
    out.insert(out.end(), entry.key.bytes.begin(), entry.key.bytes.end());
  }
  return out;
}

std::optional<SlotTable> SlotTable::decode(ServiceId service, std::uint32_t f, std::uint32_t g, ByteView bytes) {
  SlotTable out(service, f, g);
  constexpr std::size_t kHead = 8 + 8 + 2 + 32;
  constexpr std::size_t kPerSlot = 8 + 8 + 32;
  if (bytes.size() != kHead + out.slots() * kPerSlot) return std::nullopt;
  const auto take = [&bytes](std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = count; i-- > 0;) value = value << 8 | bytes[i];
    bytes = bytes.subspan(count);
    return value;
  };
  const auto take_32 = [&bytes](std::array<std::uint8_t, 32>& to) {
    std::copy_n(bytes.begin(), to.size(), to.begin());
    bytes = bytes.subspan(to.size());
  };
  out.epoch_ = Epoch{take(8)};
  out.before_changes_ = out.epoch_;
  out.changed_at_ = Seq{take(8)};
  out.active_ = static_cast<SlotMask>(take(2));
  take_32(out.changes_digest_.bytes);
  if (size_of(out.active_) != g + 1 || out.active_ >> out.slots() != 0) return std::nullopt;
  for (Entry& entry : out.entries_) {
    const Incarnation incarnation{take(8)};
    entry.evicted_through = Incarnation{take(8)};
    crypto::PublicKey key;
    take_32(key.bytes);
    const bool joined = incarnation.value != 0;
    if (joined ? incarnation <= entry.evicted_through || out.holder_of(key) : key != crypto::PublicKey{}) {
      return std::nullopt;
    }
    entry.incarnation = incarnation;
    entry.key = key;
  }
  return out;
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
