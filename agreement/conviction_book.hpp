#pragma once

// ConvictionBook: who was evicted as wrong in the last hour of agreed time, and how long a slot stays out for it
// (docs/protocol.md §11). A function of the order alone, so it is the same at all nodes. One thread.
//
// 2g convictions are free, of slots that had none before. From then on each one keeps its slot out for the base span,
// eight times as long as the one before, up to kForgiven. So neither a slot that lies again and again nor a service
// that is not deterministic can have replicas wake for ever. No correct slot is ever wrong while at most g are faulty,
// so none is ever kept out; who is late may only have a bad network, and counts for nothing here.

#include <array>
#include <cstdint>
#include <deque>

#include "agreement/slot_table.hpp"
#include "base/ids.hpp"

namespace zz::agreement {

inline constexpr Micros kForgiven{3'600'000'000};
inline constexpr std::size_t kConvictionsMax = 64;  // the oldest are forgotten first
inline constexpr std::int64_t kQuarantineGrowth = 8;

class ConvictionBook {
 public:
  // `quarantine`: the base span; 0 = nobody is kept out.
  ConvictionBook(std::uint32_t g, Micros quarantine) : g_(g), quarantine_(quarantine) {}

  // The slot was wrong; at this agreed time, which never goes back.
  void convict(SlotId slot, Micros now);
  // The agreed time from which on the slot may join again. 0: at any time.
  [[nodiscard]] Micros released_at(SlotId slot) const { return released_at_[slot.value]; }
  // Who was wrong within kForgiven of the last conviction.
  [[nodiscard]] SlotMask convicted() const;
  // More than g distinct slots were wrong within kForgiven of the last conviction: too many lie, or the service is not
  // deterministic.
  [[nodiscard]] bool beyond_bound() const;

 private:
  struct Conviction {
    SlotId slot;
    Micros at;
  };

  std::uint32_t g_;
  Micros quarantine_;
  std::deque<Conviction> recent_;
  std::array<Micros, kSlotsMax> released_at_{};
};

}  // namespace zz::agreement
