#include "execution/service_state.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "execution/slot_layout.hpp"

namespace zz::execution {

using state::ObjectId;
using state::Status;

namespace {

constexpr auto kBefore = [](const auto& change, ObjectId id) { return change.id < id; };

}  // namespace

const ServiceState::Change* ServiceState::changed(ObjectId id) const {
  const auto at = std::lower_bound(changes_.begin(), changes_.end(), id, kBefore);
  return at != changes_.end() && at->id == id ? &*at : nullptr;
}

void ServiceState::change(ObjectId id, std::optional<Bytes> bytes) {
  ZZ_ASSERT(id.value < kOwnFirst && (!bytes || bytes->size() <= state::kObjectBytesMax));
  auto at = std::lower_bound(changes_.begin(), changes_.end(), id, kBefore);
  if (at == changes_.end() || at->id != id) at = changes_.insert(at, Change{id, std::nullopt});
  at->bytes = std::move(bytes);
}

std::optional<SharedBytes> ServiceState::read(ObjectId id) {
  ZZ_ASSERT(id.value < kOwnFirst);
  if (const Change* const change = changed(id)) {
    if (!change->bytes) return std::nullopt;
    return SharedBytes::copy(*change->bytes);
  }
  state::ReadOutcome out = store_.read(id);
  if (out.status == Status::kMissing) missing_.push_back(out.want);
  if (out.status != Status::kDone) return std::nullopt;
  return std::move(out.bytes);
}

std::optional<ObjectId> ServiceState::next(ObjectId from) {
  while (from.value < kOwnFirst) {
    const auto mine = std::lower_bound(changes_.begin(), changes_.end(), from, kBefore);
    const state::NextOutcome out = store_.next(from);
    if (out.status == Status::kMissing) {
      missing_.push_back(out.want);
      return std::nullopt;
    }
    const bool stored = out.status == Status::kDone && out.id.value < kOwnFirst;
    const bool mine_first = mine != changes_.end() && (!stored || mine->id <= out.id);
    if (!mine_first) return stored ? std::optional(out.id) : std::nullopt;
    if (mine->bytes) return mine->id;
    from = mine->id.next();
  }
  return std::nullopt;
}

// Counts what is there and what is to be, and finds out whether every path is here; most often neither can matter.
bool ServiceState::fits() {
  state::Totals totals = store_.totals();
  state::Totals most = totals;
  for (const Change& change : changes_) {
    if (!change.bytes) continue;
    most.objects += 1;
    most.bytes += change.bytes->size();
  }
  if (store_.whole() && most.objects <= limits_.objects_max && most.bytes <= limits_.bytes_max) return true;
  bool grows = false;
  for (const Change& change : changes_) {
    const state::NextOutcome out = store_.next(change.id);
    if (out.status == Status::kMissing) {
      missing_.push_back(out.want);
      continue;
    }
    const bool there = out.status == Status::kDone && out.id == change.id;
    totals.objects -= there ? 1 : 0;
    totals.bytes -= there ? out.length : 0;
    if (!change.bytes) continue;
    totals.objects += 1;
    totals.bytes += change.bytes->size();
    grows = grows || !there || change.bytes->size() > out.length;
  }
  return !grows || (totals.objects <= limits_.objects_max && totals.bytes <= limits_.bytes_max);
}

Status ServiceState::commit() {
  const bool fit = changes_.empty() || fits();
  if (!missing_.empty()) return Status::kMissing;
  if (!fit) return Status::kFull;
  // What is erased makes room first.
  for (const Change& change : changes_) {
    if (!change.bytes) static_cast<void>(store_.erase(change.id));
  }
  for (const Change& change : changes_) {
    if (!change.bytes) continue;
    const state::Outcome out = store_.write(change.id, *change.bytes);
    ZZ_ASSERT(out.status == Status::kDone);
  }
  return Status::kDone;
}

}  // namespace zz::execution
