#include "vmpool/ballots.hpp"

#include <algorithm>
#include <tuple>

#include "base/assert.hpp"
#include "vmpool/pool.hpp"

namespace zz::vmpool {
namespace {

// Every change of the table has its own n; the epoch never falls as n grows.
bool older(const agreement::EpochNotice& a, const agreement::EpochNotice& b) {
  return std::tie(a.n, a.epoch) < std::tie(b.n, b.epoch);
}

}  // namespace

Refusal WakeBallot::admit(NodeId node, Epoch epoch) const {
  const auto& said = said_[node.value];
  if (!said || *said < epoch) return Refusal::kNone;
  return *said == epoch ? Refusal::kDuplicate : Refusal::kStaleEpoch;
}

bool WakeBallot::add(NodeId node, Epoch epoch) {
  ZZ_ASSERT(admit(node, epoch) == Refusal::kNone);
  said_[node.value] = epoch;
  const auto equal = std::count(said_.begin(), said_.end(), std::optional<Epoch>(epoch));
  return equal > static_cast<std::ptrdiff_t>(f_);
}

void WakeBallot::clear() { std::fill(said_.begin(), said_.end(), std::nullopt); }

bool NoticeBoard::well_formed(const agreement::EpochNotice& notice) const {
  const std::size_t slots = 2 * std::size_t{shape_.g} + 1;
  if (notice.incarnations.size() != slots || notice.evicted_through.size() != slots) return false;
  if (notice.active.size() != shape_.g + 1 || notice.active.back().value >= slots) return false;
  const auto too_large = [](Incarnation i) { return i > kIncarnationMax; };
  if (std::any_of(notice.incarnations.begin(), notice.incarnations.end(), too_large)) return false;
  if (std::any_of(notice.evicted_through.begin(), notice.evicted_through.end(), too_large)) return false;
  const auto not_ascending = [](SlotId a, SlotId b) { return a >= b; };
  return std::adjacent_find(notice.active.begin(), notice.active.end(), not_ascending) == notice.active.end();
}

Refusal NoticeBoard::add(NodeId node, const agreement::EpochNotice& notice) {
  if (!well_formed(notice)) return Refusal::kMalformed;
  auto& latest = latest_[node.value];
  if (latest && older(notice, *latest)) return Refusal::kStaleEpoch;
  if (latest && !older(*latest, notice)) {
    // A reconnecting node repeats itself; saying something else about the same n is another matter.
    return *latest == notice ? Refusal::kNone : Refusal::kConflict;
  }
  latest = notice;
  if (believed_ && !older(*believed_, notice)) return Refusal::kNone;
  const auto equal = std::count(latest_.begin(), latest_.end(), latest);
  if (equal > static_cast<std::ptrdiff_t>(shape_.f)) {
    believed_ = notice;
    changed_ = true;
  }
  return Refusal::kNone;
}

bool NoticeBoard::take_changed() { return std::exchange(changed_, false); }

}  // namespace zz::vmpool
