#include "agreement/conviction_book.hpp"

#include <algorithm>

namespace zz::agreement {

void ConvictionBook::convict(SlotId slot, Micros now) {
  std::erase_if(recent_, [now](const Conviction& old) { return now.value - old.at.value >= kForgiven.value; });
  const auto before =
      std::count_if(recent_.begin(), recent_.end(), [slot](const auto& old) { return old.slot == slot; });
  if (recent_.size() >= kConvictionsMax) recent_.pop_front();
  recent_.push_back({slot, now});
  const std::int64_t beyond =
      std::max<std::int64_t>(before, static_cast<std::int64_t>(recent_.size()) - 2 * static_cast<std::int64_t>(g_));
  if (beyond <= 0) return;
  std::int64_t span = quarantine_.value;
  for (std::int64_t i = 1; i < beyond && span < kForgiven.value; ++i) span *= kQuarantineGrowth;
  released_at_[slot.value] = Micros{now.value + std::min(span, std::max(quarantine_.value, kForgiven.value))};
}

SlotMask ConvictionBook::convicted() const {
  SlotMask wrong = 0;
  for (const Conviction& one : recent_) wrong |= bit_of(one.slot);
  return wrong;
}

bool ConvictionBook::beyond_bound() const { return size_of(convicted()) > g_; }

}  // namespace zz::agreement
