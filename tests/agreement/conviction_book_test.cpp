#include "agreement/conviction_book.hpp"

#include <gtest/gtest.h>

namespace zz::agreement {
namespace {

constexpr std::int64_t kSecond = 1'000'000;
constexpr Micros kBase{60 * kSecond};

Micros at(std::int64_t seconds) { return Micros{seconds * kSecond}; }

TEST(ConvictionBook, WithinTheBoundNobodyIsKeptOut) {
  ConvictionBook book(2, kBase);
  for (std::uint16_t i = 0; i < 4; ++i) {
    book.convict(SlotId{i}, at(10 + i));
    EXPECT_EQ(book.released_at(SlotId{i}), Micros{}) << i;
  }
}

TEST(ConvictionBook, BeyondItEachOneIsKeptOutEightTimesAsLong) {
  ConvictionBook book(1, kBase);
  for (std::uint16_t i = 0; i < 2; ++i) book.convict(SlotId{i}, at(10));
  book.convict(SlotId{2}, at(10));
  EXPECT_EQ(book.released_at(SlotId{2}), at(10 + 60));
  book.convict(SlotId{0}, at(20));
  EXPECT_EQ(book.released_at(SlotId{0}), at(20 + 480));
  book.convict(SlotId{1}, at(30));
  EXPECT_EQ(book.released_at(SlotId{1}), at(30 + 3'600)) << "never longer than it is remembered";
}

TEST(ConvictionBook, TheSameSlotAgainIsKeptOutAtOnce) {
  ConvictionBook book(2, kBase);
  book.convict(SlotId{3}, at(10));
  book.convict(SlotId{3}, at(20));
  EXPECT_EQ(book.released_at(SlotId{3}), at(20 + 60));
  EXPECT_FALSE(book.beyond_bound()) << "one liar";
}

TEST(ConvictionBook, AfterAnHourNothingIsHeldAgainstAnybody) {
  ConvictionBook book(1, kBase);
  for (int i = 0; i < 4; ++i) book.convict(SlotId{0}, at(10 + i));
  book.convict(SlotId{1}, at(20 + 3'600));
  EXPECT_EQ(book.released_at(SlotId{1}), Micros{});
  EXPECT_FALSE(book.beyond_bound());
}

TEST(ConvictionBook, MoreThanGDistinctSlotsAreBeyondTheBound) {
  ConvictionBook book(2, kBase);
  for (int i = 0; i < 3; ++i) book.convict(SlotId{0}, at(10));
  book.convict(SlotId{4}, at(10));
  EXPECT_FALSE(book.beyond_bound());
  book.convict(SlotId{2}, at(11));
  EXPECT_TRUE(book.beyond_bound());
}

TEST(ConvictionBook, HoldsNoMoreThanItsBound) {
  ConvictionBook book(1, Micros{});
  for (std::size_t i = 0; i < kConvictionsMax; ++i) book.convict(SlotId{0}, at(10));
  book.convict(SlotId{1}, at(10));
  EXPECT_TRUE(book.beyond_bound());
  for (std::size_t i = 0; i < kConvictionsMax; ++i) book.convict(SlotId{2}, at(11));
  EXPECT_FALSE(book.beyond_bound()) << "the first ones made room";
  EXPECT_EQ(book.released_at(SlotId{2}), at(11)) << "kept out for no time";
}

}  // namespace
}  // namespace zz::agreement
