#include "execution/state/residency.hpp"

#include <algorithm>
#include <cstring>

namespace zz::execution::state {
namespace {

using Held = std::shared_ptr<const std::uint8_t[]>;

Held hold(ByteView bytes) {
  auto held = std::make_shared_for_overwrite<std::uint8_t[]>(bytes.size());
  if (!bytes.empty()) std::memcpy(held.get(), bytes.data(), bytes.size());
  return held;
}

SharedBytes shared(const Held& held, std::size_t length) { return {held, ByteView(held.get(), length)}; }

}  // namespace

void Residency::link(Leaf* leaf, Held bytes) {
  leaf->bytes = std::move(bytes);
  leaf->slot = static_cast<std::uint32_t>(ring_.size());
  ring_.push_back(leaf);
  resident_bytes_.fetch_add(leaf->length, std::memory_order_relaxed);
}

void Residency::unlink(Leaf* leaf) {
  if (leaf->slot == kNoSlot) return;
  ring_.back()->slot = leaf->slot;
  ring_[leaf->slot] = ring_.back();
  ring_.pop_back();
  leaf->slot = kNoSlot;
  leaf->bytes.reset();
  resident_bytes_.fetch_sub(leaf->length, std::memory_order_relaxed);
}

void Residency::admit(Leaf* leaf, ByteView bytes) {
  ZZ_ASSERT(bytes.size() == leaf->length);
  Held held = hold(bytes);
  Record damaged = 0;
  {
    const std::lock_guard lock(mutex_);
    if (leaf->slot != kNoSlot) return;
    link(leaf, std::move(held));
    if (leaf->absent.load(std::memory_order_relaxed)) {
      damaged = leaf->record.load(std::memory_order_relaxed);
      if ((damaged & kSpillBit) != 0) {
        bury(damaged);
        damaged = 0;
        leaf->record.store(0, std::memory_order_relaxed);
      }
    }
  }
  // The persisted snapshot says this record; it is made whole before the bytes may leave memory on its account.
  if (damaged != 0 && disk_ != nullptr) disk_->repair(damaged, bytes);
  if (leaf->absent.exchange(false, std::memory_order_release)) take_absent();
}

std::optional<SharedBytes> Residency::get(Leaf* leaf, After after) {
  Record tried = 0;
  for (;;) {
    Record record = 0;
    {
      const std::lock_guard lock(mutex_);
      if (leaf->slot != kNoSlot) {
        if (after == After::kKeep) leaf->touched.store(true, std::memory_order_relaxed);
        return shared(leaf->bytes, leaf->length);
      }
      record = leaf->record.load(std::memory_order_relaxed);
      if (leaf->is_absent()) return std::nullopt;
      ZZ_ASSERT(record != 0 && disk_ != nullptr);
      if (record == tried) {  // it did not move meanwhile: the disk lost it
        leaf->absent.store(true, std::memory_order_release);
        add_absent();
        ++counters_.damaged;
        return std::nullopt;
      }
    }
    tried = record;
    const std::optional<Bytes> bytes = disk_->get(record);
    if (!bytes || bytes->size() != leaf->length || object_digest(leaf->id(), *bytes) != leaf->digest) continue;
    Held held = hold(*bytes);
    SharedBytes out = shared(held, leaf->length);
    const std::lock_guard lock(mutex_);
    ++counters_.loaded;
    if (after == After::kKeep && leaf->slot == kNoSlot) link(leaf, std::move(held));
    return out;
  }
}

void Residency::forget(Leaf* leaf) {
  if (leaf->is_absent()) take_absent();
  const std::lock_guard lock(mutex_);
  unlink(leaf);
  const Record record = leaf->record.load(std::memory_order_relaxed);
  bury(record);
}

void Residency::forget_record(Record record) {
  if (record == 0) return;
  const std::lock_guard lock(mutex_);
  bury(record);
}

void Residency::moved(Leaf* leaf, Record record) {
  const std::lock_guard lock(mutex_);
  const Record old = leaf->record.exchange(record, std::memory_order_relaxed);
  bury(old);
  ++counters_.written;
}

void Residency::bury(Record record) {
  if (record == 0) return;
  ((record & kSpillBit) != 0 ? dead_spill_ : dead_).push_back(record);
}

void Residency::sweep_spilled() {
  constexpr std::size_t kAtOnce = 256;
  std::vector<Record> dead;
  {
    const std::lock_guard lock(mutex_);
    if (dead_spill_.size() < kAtOnce) return;
    dead.swap(dead_spill_);
  }
  disk_->remove_spilled(dead);
}

std::vector<Record> Residency::take_dead() {
  const std::lock_guard lock(mutex_);
  return std::exchange(dead_, {});
}

bool Residency::digest(Leaf* leaf) {
  if (leaf->digest_ready()) return true;
  if (!leaf->claim_digest()) return leaf->digest_ready();
  const std::optional<SharedBytes> bytes = get(leaf, After::kLeave);
  ZZ_ASSERT(bytes);  // what leaves memory has its digest
  leaf->set_digest(object_digest(leaf->id(), bytes->view()));
  return true;
}

Leaf* Residency::coldest() {
  constexpr std::size_t kLooksMax = 1'024;  // the hand goes on from there next time
  for (std::size_t i = 0; i < std::min(kLooksMax, 2 * ring_.size()); ++i) {
    if (hand_ >= ring_.size()) hand_ = 0;
    Leaf* const leaf = ring_[hand_++];
    if (leaf->touched.exchange(false, std::memory_order_relaxed)) continue;
    if (leaf->is_absent()) continue;  // being repaired
    if (disk_->failed() && leaf->record.load(std::memory_order_relaxed) == 0) continue;
    if (try_ref(leaf)) return leaf;
  }
  return nullptr;
}

bool Residency::spill(Leaf* leaf) {
  if (!digest(leaf)) return false;
  Held held;
  {
    const std::lock_guard lock(mutex_);
    if (leaf->record.load(std::memory_order_relaxed) != 0 || leaf->slot == kNoSlot) return true;
    held = leaf->bytes;
  }
  const std::optional<Record> record = disk_->spill({held.get(), leaf->length});
  if (!record) return false;
  const std::lock_guard lock(mutex_);
  if (leaf->record.load(std::memory_order_relaxed) != 0) {
    bury(*record);
  } else {
    leaf->record.store(*record, std::memory_order_relaxed);
    ++counters_.spilled;
  }
  return true;
}

bool Residency::trim(std::size_t objects, std::uint64_t above, std::vector<Leaf*>& freed) {
  if (disk_ == nullptr) return false;
  sweep_spilled();
  for (std::size_t i = 0; i < objects; ++i) {
    Leaf* leaf = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (resident_bytes_.load(std::memory_order_relaxed) <= above) return false;
      leaf = coldest();
      if (leaf == nullptr) return false;
    }
    if (spill(leaf)) {
      const std::lock_guard lock(mutex_);
      if (leaf->record.load(std::memory_order_relaxed) != 0 && !leaf->is_absent()) unlink(leaf);
    }
    if (leaf->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) freed.push_back(leaf);
  }
  return true;
}

bool Residency::over() const {
  return disk_ != nullptr && resident_bytes_.load(std::memory_order_relaxed) > memory_bytes_;
}

Residency::Counters Residency::counters() const {
  const std::lock_guard lock(mutex_);
  Counters counters = counters_;
  counters.objects = ring_.size();
  counters.bytes = resident_bytes_.load(std::memory_order_relaxed);
  return counters;
}

}  // namespace zz::execution::state
