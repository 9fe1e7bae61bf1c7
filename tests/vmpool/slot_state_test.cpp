#include "vmpool/slot_state.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "vmpool/hypervisor.hpp"

namespace zz::vmpool {
namespace {

// The whole relation, row by row: from the state of the row to the states of the columns, in the order of the enum.
constexpr std::array<std::string_view, kSlotStates> kExpected = {
    ".X......",  // absent:     booting
    "..X.X.XX",  // booting:    freezing waking destroying failed
    "...X..X.",  // freezing:   asleep destroying
    "....X.X.",  // asleep:     waking destroying
    ".....XX.",  // waking:     awake destroying
    "......X.",  // awake:      destroying
    "XX.....X",  // destroying: absent booting failed
    "XX....X.",  // failed:     absent booting destroying
};

TEST(SlotState, AllowsExactlyTheTransitionsOfTheTable) {
  for (std::size_t from = 0; from < kSlotStates; ++from) {
    for (std::size_t to = 0; to < kSlotStates; ++to) {
      EXPECT_EQ(is_legal(static_cast<SlotState>(from), static_cast<SlotState>(to)), kExpected[from][to] == 'X')
          << to_string(static_cast<SlotState>(from)) << " > " << to_string(static_cast<SlotState>(to));
    }
  }
}

TEST(SlotState, NamesEveryTransitionOnceAndSaysWhy) {
  std::set<std::pair<SlotState, SlotState>> seen;
  for (const Transition& t : kTransitions) {
    EXPECT_TRUE(seen.insert({t.from, t.to}).second);
    EXPECT_FALSE(t.when.empty());
  }
}

TEST(SlotState, IsAnnouncedExactlyWhileTheNodesMayCountOnTheGuest) {
  for (std::size_t i = 0; i < kSlotStates; ++i) {
    const auto state = static_cast<SlotState>(i);
    const bool expected = state == SlotState::kAsleep || state == SlotState::kWaking || state == SlotState::kAwake;
    EXPECT_EQ(is_announced(state), expected) << to_string(state);
  }
}

TEST(Hypervisor, NamesFaultsTheWayTheyAreParsed) {
  for (const auto* name : {"wrong-reply", "silent", "slow", "crash"}) {
    const auto kind = parse_fault(name);
    ASSERT_TRUE(kind);
    EXPECT_EQ(to_string(*kind), name);
  }
  for (const auto* name : {"", "Silent", "silent ", "wrong"}) EXPECT_FALSE(parse_fault(name));
}

TEST(Hypervisor, NamesAGuestByServiceSlotAndIncarnation) {
  EXPECT_EQ(to_string(GuestId{ServiceId{3}, SlotId{1}, Incarnation{12}}), "s3-slot1-12");
}

}  // namespace
}  // namespace zz::vmpool
