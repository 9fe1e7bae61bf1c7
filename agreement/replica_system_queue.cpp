#include "agreement/replica_system_queue.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace zz::agreement {
namespace {

// Whether `done`, delivered, leaves no use for `waiting`.
bool overtakes(const SystemOp& done, const SystemOp& waiting) {
  const auto* new_epoch = std::get_if<EpochChange>(&done);
  const auto* old_epoch = std::get_if<EpochChange>(&waiting);
  if (new_epoch != nullptr && old_epoch != nullptr) return old_epoch->epoch < new_epoch->epoch;
  const auto* new_join = std::get_if<Join>(&done);
  const auto* old_join = std::get_if<Join>(&waiting);
  if (new_join == nullptr || old_join == nullptr) return false;
  return old_join->slot == new_join->slot && old_join->incarnation < new_join->incarnation;
}

}  // namespace

Digest system_op_digest(const SystemOp& op) {
  BatchHeader alone;
  alone.system.push_back(op);
  return batch_digest(alone);
}

bool SystemQueue::contains(const Digest& digest) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Item& item) { return item.digest == digest; });
}

bool SystemQueue::add(const Digest& digest, SystemOp op) {
  ZZ_ASSERT(!contains(digest));
  if (items_.size() >= kSystemOpsMax) return false;
  items_.push_back({digest, std::move(op), Seq{}});
  ++due_;
  return true;
}

bool SystemQueue::is_held_back(const SystemOp& op, Seq joined_before) const {
  const auto* join = std::get_if<Join>(&op);
  if (join == nullptr) return false;
  const auto at = joined_.find(join->slot);
  return at != joined_.end() && at->second.first > joined_before;
}

bool SystemQueue::due(Seq joined_before) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Item& item) {
    return item.carried_by.value == 0 && !is_held_back(item.op, joined_before);
  });
}

std::vector<SystemOp> SystemQueue::take(Seq n, Seq joined_before) {
  std::vector<SystemOp> out;
  for (Item& item : items_) {
    if (out.size() == kSystemOpsPerBatchMax) break;
    if (item.carried_by.value != 0) continue;
    if (is_held_back(item.op, joined_before)) continue;
    item.carried_by = n;
    --due_;
    out.push_back(item.op);
  }
  return out;
}

void SystemQueue::release_all() {
  for (Item& item : items_) item.carried_by = Seq{};
  due_ = items_.size();
}

std::vector<SystemOp> SystemQueue::waiting() const {
  std::vector<SystemOp> out;
  for (const Item& item : items_) {
    if (item.carried_by.value == 0) out.push_back(item.op);
  }
  return out;
}

void SystemQueue::prune(const SystemRules& rules) {
  std::erase_if(items_, [&](const Item& item) {
    const bool gone = item.carried_by.value == 0 && !rules.applies(item.op);
    if (gone) --due_;
    return gone;
  });
}

void SystemQueue::delivered(Seq n, const SystemOp& op) {
  if (const auto* join = std::get_if<Join>(&op)) joined_[join->slot] = {joined_[join->slot].second, n};
  const Digest digest = system_op_digest(op);
  std::erase_if(items_, [&](const Item& item) {
    const bool gone = item.digest == digest || overtakes(op, item.op);
    if (gone && item.carried_by.value == 0) --due_;
    return gone;
  });
}

}  // namespace zz::agreement
