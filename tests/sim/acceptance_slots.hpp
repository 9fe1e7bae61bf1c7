#pragma once

// What the acceptance cases of execution (EX, CT) have in common: slots that fall ill at a time, in the ways of Ill,
// and the question whether a service is healthy again.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tests/sim/acceptance_parts.hpp"

namespace zz::sim {

inline constexpr std::int64_t kExecutionTimeout = 2'000 * kMs;  // of all simulated clusters (draw.cpp)
inline constexpr Micros kIllAt{3 * kSecond};                    // the first fault of a slots_plan()
inline constexpr Micros kCalmAt{27 * kSecond};                  // when all of it is to be over

// What is wrong with a slot's guest. Its next guest is well.
enum class Ill : std::uint8_t {
  kWrong,     // its replies, roots and parts of state
  kSilent,    // it says nothing of what it executes
  kCrashed,   // it ended
  kDiverged,  // its state is another one, and it knows nothing of it
  kSlow,      // what it says comes up to 2.5 s late
};
inline constexpr std::array<Ill, 5> kIlls = {Ill::kWrong, Ill::kSilent, Ill::kCrashed, Ill::kDiverged, Ill::kSlow};

// That slot falls ill now; of no effect when it has no guest on duty. Counted as "acceptance.ill.<kind>".
void fall_ill(World& world, SlotId slot, Ill ill);
// One byte of the state changes, or, `unread`, an object more is there than the service knows of.
bool diverge(SimHost& host, bool unread);
// The run fails unless g+1 slots are awake, have all of the state and are close to the order, and the others sleep.
void expect_healthy(World& world);
// Whoever is convicted again stays away for as long as with the default, not as short as simulated clusters have it.
void usual_quarantine(crypto::ClusterFile& cluster);
[[nodiscard]] std::vector<SlotId> active_slots(const World& world);

// A calm run of 30 s and more with 300 requests, of whose slots these do what the scenario says.
Plan slots_plan(std::uint64_t seed, std::uint32_t g, std::initializer_list<std::uint16_t> scripted);

}  // namespace zz::sim
