#pragma once

// The life of a slot on its host, as data: states and the only transitions there are. The pool core asserts
// every move against this table; tests walk it. Plain values, any thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace zz::vmpool {

enum class SlotState : std::uint8_t {
  kAbsent,      // no guest
  kBooting,     // a new incarnation starts
  kFreezing,    // booted, going to sleep
  kAsleep,      // frozen, without key
  kWaking,      // thawed where it slept, then handed its key
  kAwake,       // holds its key
  kDestroying,  // the guest is being taken away
  kFailed,      // waits before the next try
};
inline constexpr std::size_t kSlotStates = 8;

constexpr std::string_view to_string(SlotState state) {
  constexpr std::array<std::string_view, kSlotStates> kNames = {"absent", "booting", "freezing",   "asleep",
                                                                "waking", "awake",   "destroying", "failed"};
  return kNames[static_cast<std::size_t>(state)];
}

struct Transition {
  SlotState from;
  SlotState to;
  std::string_view when;
};

inline constexpr std::array kTransitions = {
    Transition{SlotState::kAbsent, SlotState::kBooting, "the pool starts"},
    Transition{SlotState::kBooting, SlotState::kFreezing, "booted, to sleep"},
    Transition{SlotState::kBooting, SlotState::kWaking, "booted, active from the beginning"},
    Transition{SlotState::kBooting, SlotState::kFailed, "boot failed: there is no guest"},
    Transition{SlotState::kBooting, SlotState::kDestroying, "evicted or stopped"},
    Transition{SlotState::kFreezing, SlotState::kAsleep, "frozen"},
    Transition{SlotState::kFreezing, SlotState::kDestroying, "died, not frozen, evicted or stopped"},
    Transition{SlotState::kAsleep, SlotState::kWaking, "f+1 WAKEs, or the order says active"},
    Transition{SlotState::kAsleep, SlotState::kDestroying, "died, evicted or stopped"},
    Transition{SlotState::kWaking, SlotState::kAwake, "handed over"},
    Transition{SlotState::kWaking, SlotState::kDestroying, "died, not thawed, evicted or stopped"},
    Transition{SlotState::kAwake, SlotState::kDestroying, "died, evicted or stopped"},
    Transition{SlotState::kDestroying, SlotState::kBooting, "destroyed, the next incarnation follows"},
    Transition{SlotState::kDestroying, SlotState::kFailed, "destroyed after a failure, or not destroyed"},
    Transition{SlotState::kDestroying, SlotState::kAbsent, "destroyed, the pool stops"},
    Transition{SlotState::kFailed, SlotState::kBooting, "back-off is over"},
    Transition{SlotState::kFailed, SlotState::kDestroying, "back-off is over and the guest is still there"},
    Transition{SlotState::kFailed, SlotState::kAbsent, "the pool stops"},
};

constexpr bool is_legal(SlotState from, SlotState to) {
  for (const Transition& t : kTransitions) {
    if (t.from == from && t.to == to) return true;
  }
  return false;
}

// A living guest that has been, or is being, announced to the agreement nodes.
constexpr bool is_announced(SlotState state) {
  return state == SlotState::kAsleep || state == SlotState::kWaking || state == SlotState::kAwake;
}

}  // namespace zz::vmpool
