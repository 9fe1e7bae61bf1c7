#include "agreement/slot_log.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/assert.hpp"

namespace zz::agreement {

Refusal VoteSet::add(NodeId from, const Digest& digest) {
  ZZ_ASSERT(from.value < kNodesMax);
  const std::uint32_t bit = 1u << from.value;
  if ((voted_ & bit) != 0) return digests_[from.value] == digest ? Refusal::kDuplicate : Refusal::kConflict;
  voted_ |= bit;
  digests_[from.value] = digest;
  return Refusal::kNone;
}

std::uint32_t VoteSet::count(const Digest& digest) const {
  std::uint32_t equal = 0;
  for (std::uint16_t i = 0; i < kNodesMax; ++i) {
    if (has(NodeId{i}, digest)) ++equal;
  }
  return equal;
}

bool VoteSet::has(NodeId from, const Digest& digest) const {
  return (voted_ >> from.value & 1u) != 0 && digests_[from.value] == digest;
}

std::optional<Digest> VoteSet::said_by(std::uint32_t least) const {
  for (std::uint16_t i = 0; i < kNodesMax; ++i) {
    if ((voted_ >> i & 1u) != 0 && count(digests_[i]) >= least) return digests_[i];
  }
  return std::nullopt;
}

SlotLog::SlotLog(std::uint32_t window) : slots_(window) { ZZ_ASSERT(window > 0); }

Slot& SlotLog::at(Seq n, View view) {
  ZZ_ASSERT(in_window(n));
  Slot& slot = slots_[n.value % slots_.size()];
  if (slot.n.value == 0) {
    slot.n = n;
    slot.view = view;
  }
  ZZ_ASSERT(slot.n == n && slot.view == view);
  return slot;
}

Slot* SlotLog::find(Seq n) {
  if (!in_window(n)) return nullptr;
  Slot& slot = slots_[n.value % slots_.size()];
  return slot.n == n ? &slot : nullptr;
}

void SlotLog::fill(Slot& slot, HeaderPtr header, const Digest& digest) {
  ZZ_ASSERT(slot.phase == Phase::kEmpty && slot.bodies.size() == header->references.size());
  ZZ_ASSERT(!slot.chosen || slot.digest == digest);
  slot.header = std::move(header);
  slot.digest = digest;
  slot.phase = Phase::kPrePrepared;
  slot.by_request.clear();
  if (slot.chosen) chosen_time_ = std::max(chosen_time_, slot.header->time);
  top_ = std::max(top_, slot.n);
}

bool SlotLog::time_fits(Seq n, Micros time, Seq delivered, Micros delivered_time) {
  Micros below = std::max(delivered_time, chosen_time_);
  for (std::uint64_t i = n.value - 1; i > delivered.value; --i) {
    const Slot* slot = find(Seq{i});
    if (slot == nullptr || !slot->header || slot->chosen) continue;
    below = std::max(below, slot->header->time);
    break;
  }
  if (time <= below) return false;
  for (std::uint64_t i = n.value + 1; i <= top_.value; ++i) {
    const Slot* slot = find(Seq{i});
    if (slot != nullptr && slot->header) return slot->chosen || time < slot->header->time;
  }
  return true;
}

Micros SlotLog::last_time(Micros delivered_time) {
  Micros last = std::max(delivered_time, chosen_time_);
  for (std::uint64_t i = top_.value; i > low_.value; --i) {
    const Slot* slot = find(Seq{i});
    if (slot == nullptr || !slot->header || slot->chosen) continue;
    return std::max(last, slot->header->time);
  }
  return last;
}

void SlotLog::reset(Slot& slot) {
  slot.n = Seq{};
  slot.prepares.clear();
  slot.commits.clear();
  slot.chosen = false;
  drop_proposal(slot);
}

void SlotLog::drop_proposal(Slot& slot) {
  slot.phase = Phase::kEmpty;
  slot.header.reset();
  slot.bodies.clear();  // keeps the capacity
  slot.by_request.clear();
  slot.missing = slot.unvouched = slot.empty = 0;
  slot.clock_ok = slot.fetching = false;
}

void SlotLog::set_low(Seq n) {
  ZZ_ASSERT(n >= low_);
  const std::uint64_t first = low_.value + 1;
  const std::uint64_t last = std::min(n.value, low_.value + slots_.size());
  for (std::uint64_t i = first; i <= last; ++i) reset(slots_[i % slots_.size()]);
  low_ = n;
  top_ = std::max(top_, n);
}

void SlotLog::clear(Seq top) {
  for (Slot& slot : slots_) reset(slot);
  top_ = std::max(low_, top);
  chosen_time_ = Micros{};
}

std::size_t SlotLog::index_of(Slot& slot, const Reference& reference) {
  const std::vector<Reference>& all = slot.header->references;
  if (slot.by_request.size() != all.size()) {
    slot.by_request.resize(all.size());
    std::iota(slot.by_request.begin(), slot.by_request.end(), 0u);
    std::sort(slot.by_request.begin(), slot.by_request.end(),
              [&all](std::uint32_t a, std::uint32_t b) { return all[a] < all[b]; });
  }
  const auto at = std::lower_bound(slot.by_request.begin(), slot.by_request.end(), reference,
                                   [&all](std::uint32_t i, const Reference& r) { return all[i] < r; });
  return at != slot.by_request.end() && all[*at] == reference ? *at : all.size();
}

RequestPtr SlotLog::Search::find(const Reference& reference) {
  std::size_t index = 0;
  if (slot_ == nullptr) {
    if (looked_) return nullptr;
    looked_ = true;
    for (std::uint64_t n = log_.low_.value + 1; n <= log_.top_.value && slot_ == nullptr; ++n) {
      Slot* slot = log_.find(Seq{n});
      if (slot == nullptr || !slot->header) continue;
      index = index_of(*slot, reference);
      if (index < slot->header->references.size()) slot_ = slot;
    }
    if (slot_ == nullptr) return nullptr;
  } else {
    const std::vector<Reference>& all = slot_->header->references;
    index = next_ < all.size() && all[next_] == reference ? next_ : index_of(*slot_, reference);
    if (index == all.size()) return nullptr;
  }
  next_ = index + 1;
  return slot_->bodies[index];
}

}  // namespace zz::agreement
