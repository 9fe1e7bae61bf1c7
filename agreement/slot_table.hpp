#pragma once

// SlotTable: who executes a service, as the order has decided it (docs/protocol.md §9, §11): the epoch, the
// active slots, and each slot's current incarnation with its key. A function of the ordered system operations
// alone, so it is the same wherever the same prefix of the order was applied.
//
// Epoch 0: slots 0..g are active, nobody has joined. One thread; no time, no IO. apply() may be given
// anything that was ordered: what does not apply changes nothing.
//
// Invariants:
//  1. g+1 slots are active, at every time.
//  2. Incarnations of a slot only grow; an evicted one never comes back.
//  3. An EPOCH in batch n counts from n+1 on.
//  4. No two slots hold the same key.

#include <bit>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"
#include "base/ids.hpp"
#include "crypto/cluster.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

// A set of slots; bit i is slot i.
using SlotMask = std::uint16_t;
inline constexpr std::size_t kSlotsMax = 2 * crypto::kFaultsMax + 1;
static_assert(kSlotsMax <= 16);

// Requires slot < kSlotsMax.
constexpr SlotMask bit_of(SlotId slot) { return static_cast<SlotMask>(1u << slot.value); }
constexpr bool contains(SlotMask set, SlotId slot) { return (set & bit_of(slot)) != 0; }
constexpr std::uint32_t size_of(SlotMask set) { return static_cast<std::uint32_t>(std::popcount(set)); }
constexpr SlotMask without(SlotMask set, SlotMask taken) { return static_cast<SlotMask>(set & ~taken); }
// Ascending.
std::vector<SlotId> slots_of(SlotMask set);
// Nothing unless strictly ascending and below `slots`.
std::optional<SlotMask> mask_of(const std::vector<SlotId>& ascending, std::size_t slots);

inline constexpr std::size_t kTableBytesMax = 64 + 48 * kSlotsMax;  // of SlotTable::encode()

class SlotTable {
 public:
  // 0 < f, g <= kFaultsMax.
  SlotTable(ServiceId service, std::uint32_t f, std::uint32_t g);

  // The system operation of batch n, in order. True when it changed the table.
  bool apply(Seq n, const SystemOp& op);
  bool apply(Seq n, const EpochChange& change);
  bool apply(Seq n, const Join& join);

  // Epoch is the next one; the evicted are current incarnations; the active ones are joined, not evicted, and
  // either were active or are named in a carried suspect's `agreeing`; nobody else leaves the active set.
  [[nodiscard]] bool applies(const EpochChange& change) const;
  // The incarnation is newer than all before it, and its key is nobody else's. An active slot stays active: its own
  // host says that the life before is over.
  [[nodiscard]] bool applies(const Join& join) const;
  // The active set after `evicted` are gone: those that stay, filled up in ascending order with joined slots
  // that the proof says agree, first those that f+1 signers name. Nothing when that does not make g+1.
  [[nodiscard]] std::optional<SlotMask> next_active(SlotMask evicted, const std::vector<Suspect>& proof) const;

  [[nodiscard]] std::uint32_t f() const { return f_; }
  [[nodiscard]] std::uint32_t g() const { return g_; }
  [[nodiscard]] std::size_t slots() const { return entries_.size(); }
  [[nodiscard]] bool known(SlotId slot) const { return slot.value < entries_.size(); }
  [[nodiscard]] Epoch epoch() const { return epoch_; }
  // The epoch in which batch n is executed. Requires 1 <= n <= the last applied batch + 1, and n above what
  // forget_through() was given or what decode() gave back.
  [[nodiscard]] Epoch epoch_at(Seq n) const;
  [[nodiscard]] SlotMask active() const { return active_; }
  // The following require known(slot).
  [[nodiscard]] bool is_active(SlotId slot) const { return contains(active_, slot); }
  [[nodiscard]] Incarnation incarnation(SlotId slot) const { return entries_[slot.value].incarnation; }
  [[nodiscard]] const crypto::PublicKey& key(SlotId slot) const { return entries_[slot.value].key; }
  [[nodiscard]] Incarnation evicted_through(SlotId slot) const { return entries_[slot.value].evicted_through; }
  // False for unknown slots and for "none joined".
  [[nodiscard]] bool is_current(SlotId slot, Incarnation incarnation) const {
    return known(slot) && incarnation.value != 0 && entries_[slot.value].incarnation == incarnation;
  }
  [[nodiscard]] std::optional<std::pair<SlotId, Incarnation>> holder_of(const crypto::PublicKey& key) const;
  [[nodiscard]] EpochNotice notice() const;
  // Of all that decides what the table says and does from here on, earlier epochs' bounds included.
  [[nodiscard]] Digest digest() const;

  // Nothing at or below n is asked for any more: the list of epochs does not grow for ever. Changes no digest.
  void forget_through(Seq n);

  // The table as of a checkpoint, for tables whose past nobody asks for: equal tables have equal bytes, whatever was
  // forgotten. At most kTableBytesMax.
  [[nodiscard]] Bytes encode() const;
  // Nothing: not what encode() gives for this service, f and g.
  [[nodiscard]] static std::optional<SlotTable> decode(ServiceId service, std::uint32_t f, std::uint32_t g,
                                                       ByteView bytes);

 private:
  struct Entry {
    Incarnation incarnation;  // 0 = none
    Incarnation evicted_through;
    crypto::PublicKey key;  // of `incarnation`
  };
  struct Change {
    Seq n;  // from n+1 on
    Epoch epoch;
  };

  ServiceId service_;
  std::uint32_t f_;
  std::uint32_t g_;
  Epoch epoch_;
  Seq changed_at_;
  SlotMask active_;
  std::vector<Entry> entries_;  // by slot
  Epoch before_changes_;
  std::vector<Change> changes_;  // ascending; what was not forgotten
  Digest changes_digest_;        // of the whole list, forgotten or not
};

}  // namespace zz::agreement
