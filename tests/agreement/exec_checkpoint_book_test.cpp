// The words of slots about the state after a checkpoint (docs/protocol.md §6).

#include "agreement/exec_checkpoint_book.hpp"

#include <gtest/gtest.h>

namespace zz::agreement {
namespace {

using Effect = ExecCheckpointBook::Effect;

constexpr Digest kRight{{1}};
constexpr Digest kOther{{2}};
constexpr Digest kThird{{3}};

Effect say(ExecCheckpointBook& book, std::uint16_t slot, std::uint64_t n, const Digest& root, std::int64_t at = 0) {
  EXPECT_EQ(book.admit(SlotId{slot}, Seq{n}, root), Refusal::kNone);
  return book.cast(SlotId{slot}, Seq{n}, root, Micros{at}).effect;
}

TEST(ExecCheckpointBook, GPlusOneEqualWordsSettleARoot) {
  ExecCheckpointBook book(2);
  book.open(Seq{4});
  EXPECT_EQ(say(book, 0, 4, kRight), Effect::kCounted);
  EXPECT_EQ(say(book, 1, 4, kOther), Effect::kCounted);
  EXPECT_EQ(say(book, 2, 4, kRight), Effect::kCounted);
  const ExecCheckpointBook::Cast cast = book.cast(SlotId{4}, Seq{4}, kRight, Micros{7});
  EXPECT_EQ(cast.effect, Effect::kSettled);
  EXPECT_EQ(cast.dissenting, bit_of(SlotId{1}));
  EXPECT_EQ(book.find(Seq{4})->root, kRight);
  EXPECT_EQ(say(book, 3, 4, kThird), Effect::kWrong);
  EXPECT_EQ(book.agreeing(Seq{4}), bit_of(SlotId{0}) | bit_of(SlotId{2}) | bit_of(SlotId{4}));
}

TEST(ExecCheckpointBook, TheFirstWordOfASlotCounts) {
  ExecCheckpointBook book(1);
  book.open(Seq{4});
  say(book, 0, 4, kRight);
  EXPECT_EQ(book.admit(SlotId{0}, Seq{4}, kRight), Refusal::kDuplicate);
  EXPECT_EQ(book.admit(SlotId{0}, Seq{4}, kOther), Refusal::kConflict);
  say(book, 1, 4, kRight);
  EXPECT_EQ(book.admit(SlotId{0}, Seq{4}, kRight), Refusal::kDuplicate);
  EXPECT_EQ(book.admit(SlotId{0}, Seq{4}, kOther), Refusal::kConflict);
  EXPECT_EQ(say(book, 2, 4, kOther), Effect::kWrong);
  EXPECT_EQ(book.admit(SlotId{2}, Seq{4}, kRight), Refusal::kConflict);
  EXPECT_EQ(book.admit(SlotId{2}, Seq{4}, kOther), Refusal::kDuplicate);
}

TEST(ExecCheckpointBook, OnlyCheckpointsThatAreHeldAreSpokenOf) {
  ExecCheckpointBook book(1);
  const std::uint64_t many = ExecCheckpointBook::kKept + 10;
  for (std::uint64_t n = 4; n <= 4 * many; n += 4) book.open(Seq{n});
  EXPECT_EQ(book.held().size(), many) << "none is settled";
  EXPECT_EQ(book.admit(SlotId{0}, Seq{5}, kRight), Refusal::kMalformed);
  book.presume(Seq{4 * many});
  EXPECT_EQ(book.held().size(), ExecCheckpointBook::kKept);
  EXPECT_EQ(book.admit(SlotId{0}, Seq{40}, kRight), Refusal::kDuplicate);
  EXPECT_EQ(book.admit(SlotId{0}, Seq{44}, kRight), Refusal::kNone);
}

TEST(ExecCheckpointBook, WhereNoGPlusOneAgreeItHangsUnlessItIsConfirmed) {
  ExecCheckpointBook book(1);
  book.open(Seq{4});
  say(book, 0, 4, kRight);
  say(book, 1, 4, kOther);
  EXPECT_EQ(say(book, 2, 4, kThird), Effect::kHung);
  EXPECT_TRUE(book.find(Seq{4})->hung);
  const ExecCheckpointBook::Cast cast = book.confirm(Seq{4}, kOther, Micros{1});
  EXPECT_EQ(cast.effect, Effect::kSettled);
  EXPECT_EQ(cast.dissenting, bit_of(SlotId{0}) | bit_of(SlotId{2}));
  EXPECT_FALSE(book.find(Seq{4})->hung);
  EXPECT_EQ(book.confirm(Seq{4}, kRight, Micros{1}).effect, Effect::kNone) << "settled once";
  EXPECT_EQ(book.confirm(Seq{8}, kRight, Micros{1}).effect, Effect::kNone) << "not held";
}

TEST(ExecCheckpointBook, AWordIsOwedOnceGPlusOneOthersSpokeAndNotAfterALaterOne) {
  ExecCheckpointBook book(1);
  book.open(Seq{4});
  book.open(Seq{8});
  EXPECT_EQ(book.confirm(Seq{4}, kRight, Micros{1}).effect, Effect::kSettled);
  EXPECT_FALSE(book.owes(SlotId{0}, Seq{4}, *book.find(Seq{4}))) << "nobody has spoken here";
  EXPECT_EQ(say(book, 1, 4, kRight, 5), Effect::kAgrees);
  EXPECT_EQ(say(book, 2, 4, kRight, 6), Effect::kAgrees);
  EXPECT_EQ(book.find(Seq{4})->agreed_at, Micros{6});
  EXPECT_TRUE(book.owes(SlotId{0}, Seq{4}, *book.find(Seq{4})));
  EXPECT_FALSE(book.owes(SlotId{1}, Seq{4}, *book.find(Seq{4})));
  say(book, 0, 8, kRight);
  EXPECT_FALSE(book.owes(SlotId{0}, Seq{4}, *book.find(Seq{4})));
}

TEST(ExecCheckpointBook, AnEndedIncarnationsWordsAreAsIfNeverSaid) {
  ExecCheckpointBook book(1);
  book.open(Seq{4});
  say(book, 0, 4, kOther);
  book.forget(SlotId{0});
  EXPECT_EQ(say(book, 0, 4, kRight), Effect::kCounted);
  EXPECT_EQ(say(book, 1, 4, kRight), Effect::kSettled);
  book.forget(SlotId{1});
  EXPECT_EQ(book.find(Seq{4})->root, kRight) << "settled for good";
  EXPECT_EQ(book.agreeing(Seq{4}), bit_of(SlotId{0}));
  EXPECT_EQ(book.last_word(SlotId{1}), Seq{});
}

TEST(ExecCheckpointBook, WhoBeganWithAStableCheckpointAgreesWithAllBeforeIt) {
  ExecCheckpointBook book(1);
  book.open(Seq{4});
  book.open(Seq{8});
  book.open(Seq{12});
  say(book, 0, 4, kRight);
  say(book, 1, 4, kRight);
  book.presume(Seq{8});
  book.begin(SlotId{2}, Seq{8});
  EXPECT_EQ(book.agreeing(Seq{4}), 7);
  EXPECT_EQ(say(book, 2, 8, kRight), Effect::kCounted) << "what it began with it may say itself";
  EXPECT_EQ(say(book, 2, 12, kRight), Effect::kCounted);
}

}  // namespace
}  // namespace zz::agreement
