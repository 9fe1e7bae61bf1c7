#include "execution/statefs/transaction.hpp"

#include <algorithm>
#include <cerrno>

#include "base/assert.hpp"

namespace zz::execution::statefs {

using state::Status;

void Transaction::fail(int error) {
  if (failed()) return;
  outcome_.error = error;
  if (error == ENOSPC) ++counters_.full;
}

void Transaction::damaged() {
  if (failed()) return;
  ++counters_.damaged;
  outcome_.error = EIO;
}

void Transaction::missing(const Want& want) {
  if (outcome_.missing.empty()) ++counters_.missing;
  if (outcome_.missing.empty() || outcome_.missing.back() != want) outcome_.missing.push_back(want);
}

std::optional<SharedBytes> Transaction::get(ObjectId id) {
  if (outcome_.error != 0) return std::nullopt;
  if (const auto change = changes_.find(id.value); change != changes_.end()) return change->second;
  if (is_orphan(id.value)) {
    const auto object = orphans_.objects.find(id.value);
    return object == orphans_.objects.end() ? std::nullopt : std::optional(object->second);
  }
  state::ReadOutcome out = store_.read(id);
  if (out.status == Status::kDone) return std::move(out.bytes);
  if (out.status == Status::kMissing) missing(out.want);
  return std::nullopt;
}

std::optional<Transaction::Found> Transaction::next(ObjectId from, ObjectId last) {
  if (failed()) return std::nullopt;
  return look_for(from, last);
}

std::optional<Transaction::Found> Transaction::look_for(ObjectId from, ObjectId last) {
  if (from > last) return std::nullopt;
  std::optional<Found> stored;
  if (is_orphan(from.value)) {
    for (auto at = orphans_.objects.lower_bound(from.value); at != orphans_.objects.end(); ++at) {
      if (at->first > last.value) break;
      if (changes_.contains(at->first)) continue;
      stored = Found{ObjectId{at->first}, static_cast<std::uint32_t>(at->second.size())};
      break;
    }
  } else {
    for (ObjectId at = from; at <= last; at = at.next()) {
      const state::NextOutcome out = store_.next(at);
      if (out.status == Status::kMissing) {
        // What is asked for may lie behind `last`: then it does not matter, but the store cannot say so.
        missing(out.want);
        return std::nullopt;
      }
      if (out.status != Status::kDone || out.id > last) break;
      at = out.id;
      if (changes_.contains(at.value)) continue;
      stored = Found{at, out.length};
      break;
    }
  }
  for (auto at = changes_.lower_bound(from.value); at != changes_.end(); ++at) {
    if (at->first > last.value || (stored && at->first > stored->id.value)) break;
    if (at->second) return Found{ObjectId{at->first}, static_cast<std::uint32_t>(at->second->size())};
  }
  return stored;
}

void Transaction::bury(Inode inode, bool keep) {
  if (failed()) return;
  const ObjectId last = part_of(inode, (1u << kPartBits) - 1);
  std::vector<ObjectId> gone;
  for (std::optional<Found> found = look_for(record_of(inode), last); found; found = look_for(found->id.next(), last)) {
    gone.push_back(found->id);
    if (!keep) continue;
    if (auto bytes = get(found->id)) buried_[found->id.value] = std::move(*bytes);
    if (outcome_.missing.size() >= kMissingMax) return;
  }
  if (failed()) return;
  for (const ObjectId id : gone) erase(id);
  if (keep) orphan_ = inode.value;
}

// Nothing may stop half-way what commit() does: every path is there, and there is room for all of it.
bool Transaction::is_possible(std::uint64_t& orphan_bytes, std::set<std::uint64_t>& growing) {
  state::Totals totals = store_.totals();
  state::Totals added;
  std::uint64_t kept_bytes = totals.bytes;  // once what is erased has gone
  bool writes = false;
  for (const auto& [id, change] : changes_) {
    if (is_orphan(id)) {
      const auto object = orphans_.objects.find(id);
      if (object != orphans_.objects.end()) orphan_bytes -= object->second.size();
      if (change) orphan_bytes += change->size();
      continue;
    }
    const state::NextOutcome out = store_.next(ObjectId{id});
    if (out.status == Status::kMissing) {
      missing(out.want);
      continue;
    }
    const bool is_there = out.status == Status::kDone && out.id.value == id;
    const std::uint64_t before = is_there ? out.length : 0;
    if (is_there) --totals.objects;
    totals.bytes -= before;
    if (!change) {
      kept_bytes -= before;
      continue;
    }
    ZZ_ASSERT(change->size() <= state::kObjectBytesMax);
    writes = true;
    if (!is_there || change->size() > before) growing.insert(id);
    if (is_there) {
      ++totals.objects;
    } else {
      ++added.objects;
    }
    totals.bytes += std::min<std::uint64_t>(before, change->size());
    added.bytes += change->size() - std::min<std::uint64_t>(before, change->size());
  }
  if (failed()) return false;
  for (const auto& [id, object] : buried_) orphan_bytes += object.size();
  // The store judges each write by what is there then: most after what is erased, and at the end.
  const bool full = (writes && (totals.objects + added.objects > limits_.objects_max ||
                                totals.bytes + added.bytes > limits_.bytes_max || kept_bytes > limits_.bytes_max)) ||
                    (orphan_bytes > orphans_.bytes && orphan_bytes > limits_.orphan_bytes_max);
  if (full) fail(ENOSPC);
  return !full;
}

Outcome Transaction::commit() {
  if (failed()) return outcome_;
  std::uint64_t orphan_bytes = orphans_.bytes;
  std::set<std::uint64_t> growing;
  if (!is_possible(orphan_bytes, growing)) return outcome_;
  // What shrinks makes room first, so that the store's own limits are not met on the way.
  for (const auto& [id, change] : changes_) {
    if (!change && !is_orphan(id)) static_cast<void>(store_.erase(ObjectId{id}));
  }
  for (const bool grows : {false, true}) {
    for (const auto& [id, change] : changes_) {
      if (!change || is_orphan(id) || growing.contains(id) != grows) continue;
      const state::Outcome out = store_.write(ObjectId{id}, change->view());
      ZZ_ASSERT(out.status == Status::kDone);
    }
  }
  for (const auto& [id, change] : changes_) {
    if (!is_orphan(id)) continue;
    if (change) {
      orphans_.objects[id] = SharedBytes::copy(change->view());  // it may be a view
    } else {
      orphans_.objects.erase(id);
    }
  }
  if (orphan_) orphans_.inodes.insert(*orphan_);
  orphans_.objects.merge(buried_);
  orphans_.bytes = orphan_bytes;
  return outcome_;
}

}  // namespace zz::execution::statefs
