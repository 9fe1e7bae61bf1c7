// Admissibility of epoch changes by their signatures, their composition, the slot table, and the vote book.

#include <gtest/gtest.h>

#include <set>

#include "agreement/epoch_rules.hpp"
#include "agreement/slot_table.hpp"
#include "agreement/vote_book.hpp"
#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

constexpr ServiceId kService{0};

// Slot 1 convicted by nodes 0 and 1; slots 0 and 2 go on.
EpochChange good_change(const Parties& parties) {
  EpochChange change{Epoch{1}, slot_list({0, 2}), slot_list({1}), {}};
  for (std::uint16_t i = 0; i < 2; ++i) {
    change.proof.push_back(parties.suspect({.signer = i, .slot = 1, .agreeing = slot_list({0, 2})}));
  }
  return change;
}

SlotTable joined_table(std::uint32_t f, std::uint32_t g) {
  SlotTable table(kService, f, g);
  for (std::uint16_t i = 0; i < 2 * g + 1; ++i) {
    Join join;
    join.slot = SlotId{i};
    join.incarnation = Incarnation{1};
    join.key = Parties::slot_key(SlotId{i}, Incarnation{1});
    EXPECT_TRUE(table.apply(Seq{i + 1u}, join));
  }
  return table;
}

TEST(EpochRules, AChangeWithFPlusOneSignedSuspectsPerEvictedSlotIsAdmissible) {
  const Parties parties(1, 1);
  EXPECT_EQ(check(parties.cluster, kService, good_change(parties)), Refusal::kNone);
}

// Hosts refuse tables with such a value: one in the order would end all notices.
TEST(EpochRules, AJoinBeyondTheLargestIncarnationIsRefusedThoughItsHostSignedIt) {
  const Parties parties(1, 1);
  EXPECT_EQ(check(parties.cluster, kService, parties.join(SlotId{2}, kIncarnationMax)), Refusal::kNone);
  EXPECT_EQ(check(parties.cluster, kService, parties.join(SlotId{2}, kIncarnationMax.next())), Refusal::kMalformed);
}

TEST(EpochRules, AChangeWithFSuspectsOrOneSignerTwiceIsNot) {
  const Parties parties(1, 1);
  EpochChange change = good_change(parties);
  change.proof.pop_back();
  EXPECT_EQ(check(parties.cluster, kService, change), Refusal::kNotReady);
  change.proof.push_back(parties.suspect({.signer = 0, .slot = 1, .agreeing = slot_list({0, 2}), .n = 2}));
  EXPECT_EQ(check(parties.cluster, kService, change), Refusal::kMalformed);
}

TEST(EpochRules, AChangeWithAForgedSuspectIsNot) {
  const Parties parties(1, 1);
  EpochChange change = good_change(parties);
  change.proof[1].signature.bytes[5] ^= 1;
  EXPECT_EQ(check(parties.cluster, kService, change), Refusal::kBadSignature);
  change = good_change(parties);
  change.proof[1].agreeing = slot_list({0});
  EXPECT_EQ(check(parties.cluster, kService, change), Refusal::kBadSignature);
}

TEST(EpochRules, AChangeMustFitItsProof) {
  const Parties parties(1, 1);
  const auto verdict_on = [&parties](const EpochChange& change) { return check(parties.cluster, kService, change); };
  EpochChange change = good_change(parties);
  change.epoch = Epoch{2};
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed) << "suspects of another epoch";
  change = good_change(parties);
  std::swap(change.proof[0], change.proof[1]);
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed) << "not ascending";
  change = good_change(parties);
  change.evicted = slot_list({2});
  change.active = slot_list({0, 1});
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed) << "suspects of another slot";
  change = good_change(parties);
  change.proof[1] = parties.suspect({.signer = 1, .slot = 1, .incarnation = 2});
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed) << "two incarnations";
  change = good_change(parties);
  change.evicted.clear();
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed);
  change = good_change(parties);
  change.active = slot_list({0, 1});
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed) << "active and evicted";
  change = good_change(parties);
  change.active = slot_list({0});
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed) << "not g+1";
  change = good_change(parties);
  change.active = slot_list({2, 0});
  EXPECT_EQ(verdict_on(change), Refusal::kMalformed);
  change = good_change(parties);
  change.proof.resize(100, change.proof[0]);
  EXPECT_EQ(verdict_on(change), Refusal::kOversize);
  change = good_change(parties);
  change.proof[0].service = ServiceId{1};
  parties.sign(change.proof[0]);
  EXPECT_EQ(verdict_on(change), Refusal::kUnknownService) << "suspects of another service";
  EXPECT_EQ(check(parties.cluster, ServiceId{1}, good_change(parties)), Refusal::kUnknownService);
}

TEST(EpochRules, WrongNeedsTheWordOfFPlusOneSignersAndSoDoesSurplusOfAnActiveSlot) {
  const Parties parties(1, 1);
  const SlotTable table = joined_table(1, 1);
  const auto with = [&](std::uint16_t slot, Suspicion first, Suspicion second) {
    return verdict(table,
                   {parties.suspect({.signer = 0, .slot = slot, .why = first}),
                    parties.suspect({.signer = 1, .slot = slot, .why = second})},
                   SlotId{slot});
  };
  EXPECT_EQ(with(2, Suspicion::kWrong, Suspicion::kWrong), Suspicion::kWrong);
  EXPECT_EQ(with(2, Suspicion::kWrong, Suspicion::kLate), Suspicion::kLate);
  EXPECT_EQ(with(2, Suspicion::kWrong, Suspicion::kSurplus), Suspicion::kSurplus);
  EXPECT_EQ(with(1, Suspicion::kWrong, Suspicion::kSurplus), Suspicion::kLate);
  EXPECT_EQ(with(1, Suspicion::kSurplus, Suspicion::kSurplus), Suspicion::kSurplus);
}

TEST(EpochRules, AComposedChangeKeepsTheBlamelessAndFillsUpInAscendingOrder) {
  const Parties parties(1, 2);
  const SlotTable table = joined_table(1, 2);
  std::vector<Suspect> suspects;
  for (std::uint16_t i = 0; i < 2; ++i) {
    suspects.push_back(parties.suspect({.signer = i, .slot = 1, .agreeing = slot_list({0, 2, 3, 4})}));
  }
  const auto change = compose_epoch_change(table, suspects);
  ASSERT_TRUE(change.has_value());
  EXPECT_EQ(change->active, slot_list({0, 2, 3}));
  EXPECT_EQ(check(parties.cluster, kService, *change), Refusal::kNone);
  EXPECT_TRUE(table.applies(*change));
}

TEST(EpochRules, AComposedChangePrefersSlotsThatFPlusOneSignersName) {
  const Parties parties(1, 1);
  const SlotTable table = joined_table(1, 2);
  std::vector<Suspect> suspects;
  suspects.push_back(parties.suspect({.signer = 0, .slot = 1, .agreeing = slot_list({0, 2, 3, 4})}));
  suspects.push_back(parties.suspect({.signer = 1, .slot = 1, .agreeing = slot_list({0, 2, 4})}));
  EXPECT_EQ(compose_epoch_change(table, suspects)->active, slot_list({0, 2, 4}));
}

TEST(EpochRules, AComposedChangeLeavesTheSurplusAloneWhenItIsNeeded) {
  const Parties parties(1, 1);
  const SlotTable table = joined_table(1, 1);
  std::vector<Suspect> suspects;
  for (std::uint16_t i = 0; i < 2; ++i) {
    suspects.push_back(parties.suspect({.signer = i, .slot = 0, .agreeing = slot_list({1, 2})}));
  }
  for (std::uint16_t i = 0; i < 2; ++i) {
    suspects.push_back(
        parties.suspect({.signer = i, .slot = 2, .why = Suspicion::kSurplus, .agreeing = slot_list({0, 1})}));
  }
  const auto change = compose_epoch_change(table, suspects);
  ASSERT_TRUE(change.has_value());
  EXPECT_EQ(change->evicted, slot_list({0}));
  EXPECT_EQ(change->active, slot_list({1, 2}));
}

TEST(EpochRules, NothingIsComposedWithoutGPlusOneSlotsToGoOnWith) {
  const Parties parties(1, 1);
  const SlotTable table = joined_table(1, 1);
  std::vector<Suspect> suspects;
  for (std::uint16_t i = 0; i < 2; ++i) {
    suspects.push_back(parties.suspect({.signer = i, .slot = 0, .agreeing = slot_list({1})}));
  }
  EXPECT_FALSE(compose_epoch_change(table, suspects).has_value());
}

TEST(SlotTable, AnActiveSetThatDropsABlamelessSlotOrTakesAStrangerDoesNotApply) {
  const Parties parties(1, 2);
  const SlotTable table = joined_table(1, 2);
  EpochChange change{Epoch{1}, slot_list({0, 2, 3}), slot_list({1}), {}};
  for (std::uint16_t i = 0; i < 2; ++i) {
    change.proof.push_back(parties.suspect({.signer = i, .slot = 1, .agreeing = slot_list({0, 2, 3})}));
  }
  EXPECT_TRUE(table.applies(change));
  change.active = slot_list({0, 2, 4});
  EXPECT_FALSE(table.applies(change)) << "nobody says slot 4 agrees";
  for (Suspect& suspect : change.proof) suspect.agreeing = slot_list({0, 2, 3, 4});
  change.active = slot_list({0, 3, 4});
  EXPECT_FALSE(table.applies(change)) << "slot 2 did nothing";
  change.active = slot_list({0, 2, 3});
  change.epoch = Epoch{2};
  EXPECT_FALSE(table.applies(change));
  change.epoch = Epoch{1};
  change.proof[0].incarnation = change.proof[1].incarnation = Incarnation{2};
  EXPECT_FALSE(table.applies(change)) << "not the current incarnation";
}

TEST(SlotTable, AnActiveSetWithASlotThatHasNotJoinedDoesNotApply) {
  const Parties parties(1, 1);
  SlotTable table(kService, 1, 1);
  ASSERT_TRUE(table.apply(Seq{1}, parties.join(SlotId{0}, Incarnation{1})));
  ASSERT_TRUE(table.apply(Seq{2}, parties.join(SlotId{1}, Incarnation{1})));
  const EpochChange change = good_change(parties);
  EXPECT_FALSE(table.applies(change));
  ASSERT_TRUE(table.apply(Seq{3}, parties.join(SlotId{2}, Incarnation{1})));
  EXPECT_TRUE(table.applies(change));
}

TEST(SlotTable, RemembersWhichEpochEveryBatchBelongsTo) {
  const Parties parties(1, 1);
  SlotTable table = joined_table(1, 1);
  EXPECT_EQ(table.epoch_at(Seq{4}), Epoch{0});
  ASSERT_TRUE(table.apply(Seq{10}, good_change(parties)));
  ASSERT_TRUE(table.apply(Seq{11}, parties.join(SlotId{1}, Incarnation{2})));
  EpochChange second{Epoch{2}, slot_list({1, 2}), slot_list({0}), {}};
  for (std::uint16_t i = 0; i < 2; ++i) {
    second.proof.push_back(parties.suspect({.signer = i, .slot = 0, .agreeing = slot_list({1, 2}), .epoch = 1}));
  }
  ASSERT_TRUE(table.apply(Seq{20}, second));
  EXPECT_EQ(table.epoch_at(Seq{10}), Epoch{0});
  EXPECT_EQ(table.epoch_at(Seq{11}), Epoch{1});
  EXPECT_EQ(table.epoch_at(Seq{20}), Epoch{1});
  EXPECT_EQ(table.epoch_at(Seq{21}), Epoch{2});
  const EpochNotice notice = table.notice();
  EXPECT_EQ(notice.n, Seq{20});
  EXPECT_EQ(notice.incarnations, (std::vector{Incarnation{0}, Incarnation{2}, Incarnation{1}}));
  EXPECT_EQ(notice.evicted_through, (std::vector{Incarnation{1}, Incarnation{1}, Incarnation{0}}));
}

TEST(VoteBook, ForgetsAnEndedIncarnationsVotesInOpenBatches) {
  VoteBook book(1);
  book.open(Seq{1}, 1, Micros{});
  const auto cast = [&book](std::uint16_t slot, const std::string& say) {
    return book.cast(SlotId{slot}, Seq{1}, replies_saying(Seq{1}, 1, say), Micros{}).effect;
  };
  EXPECT_EQ(cast(0, "a"), VoteBook::Effect::kCounted);
  EXPECT_EQ(cast(1, "b"), VoteBook::Effect::kCounted);
  book.forget(SlotId{1});
  EXPECT_EQ(book.last_vote(SlotId{1}), Seq{0});
  EXPECT_EQ(book.find(Seq{1})->candidates.size(), 1u);
  EXPECT_EQ(cast(1, "a"), VoteBook::Effect::kClosed) << "the next incarnation votes anew";
}

TEST(VoteBook, HoldsClosedBallotsOnlyForSlotsThatOweAVote) {
  VoteBook book(1);
  book.expect(SlotId{0}, Seq{});
  book.expect(SlotId{1}, Seq{});
  const auto close_with = [&book](std::uint64_t n, std::uint16_t a, std::uint16_t b) {
    book.open(Seq{n}, 1, Micros{});
    for (const std::uint16_t slot : {a, b}) {
      static_cast<void>(book.cast(SlotId{slot}, Seq{n}, replies_saying(Seq{n}, 1, "a"), Micros{}));
    }
  };
  for (std::uint64_t n = 1; n <= 10; ++n) close_with(n, 0, 1);
  EXPECT_EQ(book.find(Seq{9}), nullptr);
  EXPECT_NE(book.find(Seq{10}), nullptr);
  for (std::uint64_t n = 11; n <= 20; ++n) close_with(n, 0, 2);
  ASSERT_TRUE(book.owed(SlotId{1}).has_value());
  EXPECT_EQ(book.owed(SlotId{1})->n, Seq{11});
  EXPECT_NE(book.find(Seq{11}), nullptr);
  EXPECT_EQ(book.agreeing(Seq{15}), bit_of(SlotId{0}) | bit_of(SlotId{2}));
  book.release(SlotId{1});
  EXPECT_EQ(book.find(Seq{11}), nullptr);
  EXPECT_FALSE(book.owed(SlotId{1}).has_value());
  EXPECT_EQ(book.agreeing(Seq{15}), bit_of(SlotId{0}) | bit_of(SlotId{2})) << "still known without the ballots";
  EXPECT_EQ(book.agreeing(Seq{5}), bit_of(SlotId{0}) | bit_of(SlotId{1}) | bit_of(SlotId{2}));
}

TEST(VoteBook, HoldsNoMoreBallotsThanItsBoundForASlotThatOwesForEver) {
  VoteBook book(1);
  book.expect(SlotId{1}, Seq{});
  for (std::uint64_t n = 1; n <= kBallotsMax + 100; ++n) {
    book.open(Seq{n}, 0, Micros{});
    for (const std::uint16_t slot : std::initializer_list<std::uint16_t>{0, 2})
      static_cast<void>(book.cast(SlotId{slot}, Seq{n}, {}, Micros{}));
  }
  EXPECT_EQ(book.find(Seq{100}), nullptr);
  EXPECT_NE(book.find(Seq{kBallotsMax}), nullptr);
  EXPECT_EQ(book.closed_through(), Seq{kBallotsMax + 100});
}

TEST(SlotTable, TheDigestCoversAllThatDecidesWhatComes) {
  const Parties parties(1, 1);
  const auto joined = [&parties](Seq at) {
    SlotTable table(ServiceId{0}, 1, 1);
    for (std::uint16_t i = 0; i < 3; ++i) EXPECT_TRUE(table.apply(at, parties.join(SlotId{i}, Incarnation{1})));
    return table;
  };
  const SlotTable base = joined(Seq{1});
  EXPECT_EQ(base.digest(), joined(Seq{1}).digest());
  std::set<Digest> seen{SlotTable(ServiceId{0}, 1, 1).digest(), SlotTable(ServiceId{1}, 1, 1).digest(), base.digest(),
                        joined(Seq{2}).digest()};
  EXPECT_EQ(seen.size(), 4u);
  SlotTable other = base;
  Join join = parties.join(SlotId{2}, Incarnation{2});
  ASSERT_TRUE(other.apply(Seq{2}, join));
  EXPECT_TRUE(seen.insert(other.digest()).second) << "an incarnation";
  other = base;
  join.key.bytes[3] ^= 1;
  ASSERT_TRUE(other.apply(Seq{2}, join));
  EXPECT_TRUE(seen.insert(other.digest()).second) << "its key";
  // The same table now, but with other epochs before.
  std::vector<Digest> ends;
  for (const Seq early : {Seq{10}, Seq{11}}) {
    SlotTable table = base;
    ASSERT_TRUE(table.apply(early, good_change(parties)));
    EXPECT_TRUE(seen.insert(table.digest()).second) << "an epoch";
    ASSERT_TRUE(table.apply(Seq{20}, parties.join(SlotId{1}, Incarnation{2})));
    ends.push_back(table.digest());
  }
  EXPECT_NE(ends[0], ends[1]) << "which epoch batch 11 belongs to decides about votes for it";
}

TEST(VoteBook, PresumesBatchesClosedUntilVotesCloseThem) {
  VoteBook book(1);
  const auto cast = [&book](std::uint16_t slot, std::uint64_t n, const std::string& say) {
    return book.cast(SlotId{slot}, Seq{n}, replies_saying(Seq{n}, 1, say), Micros{});
  };
  book.expect(SlotId{0}, Seq{});
  book.expect(SlotId{1}, Seq{});
  for (std::uint64_t n = 1; n <= 4; ++n) book.open(Seq{n}, 1, Micros{});
  cast(0, 3, "a");
  cast(1, 3, "a");
  cast(0, 4, "a");
  cast(1, 4, "a");
  book.presume_closed(Seq{2});
  EXPECT_EQ(book.closed_through(), Seq{4});
  EXPECT_TRUE(book.is_closed(Seq{1}));
  EXPECT_FALSE(book.closed_digest(Seq{1}));
  EXPECT_EQ(cast(1, 1, "b").effect, VoteBook::Effect::kCounted);
  EXPECT_EQ(cast(1, 1, "a").refusal, Refusal::kConflict) << "a vote is still final";
  EXPECT_EQ(cast(0, 1, "a").effect, VoteBook::Effect::kCounted);
  const VoteBook::Cast closing = cast(2, 1, "a");
  EXPECT_EQ(closing.effect, VoteBook::Effect::kClosed);
  EXPECT_EQ(closing.closing.dissenting, bit_of(SlotId{1}));
  EXPECT_EQ(book.closed_digest(Seq{1}), vote_digest(Seq{1}, replies_saying(Seq{1}, 1, "a")));
  cast(0, 2, "a");
  cast(2, 2, "a");
  EXPECT_TRUE(book.closed_digest(Seq{2}));
  EXPECT_FALSE(book.owed(SlotId{1})) << "nobody owes a vote for what was presumed closed";
}

TEST(VoteBook, APresumptionForgivesNoDebtForWhatVotesHaveClosedHere) {
  VoteBook book(1);
  book.expect(SlotId{1}, Seq{});
  for (std::uint64_t n = 1; n <= 3; ++n) book.open(Seq{n}, 0, Micros{});
  for (const std::uint16_t slot : std::initializer_list<std::uint16_t>{0, 2}) {
    static_cast<void>(book.cast(SlotId{slot}, Seq{2}, {}, Micros{}));
  }
  book.presume_closed(Seq{3});
  ASSERT_TRUE(book.owed(SlotId{1}));
  EXPECT_EQ(book.owed(SlotId{1})->n, Seq{2});
}

TEST(VoteBook, HoldsPresumedBallotsAsLongAsTheirVotesMayBeSaidAgain) {
  VoteBook book(1);
  for (std::uint64_t n = 1; n <= 5'000; ++n) {
    book.open(Seq{n}, 1, Micros{});
    book.presume_closed(Seq{n});
  }
  EXPECT_EQ(book.find(Seq{5'000 - kPresumedMax}), nullptr);
  EXPECT_NE(book.find(Seq{5'000 - kPresumedMax + 1}), nullptr);
  VoteBook wide(1);
  for (std::uint64_t n = 1; n <= 1'000; ++n) {
    wide.open(Seq{n}, 1'024, Micros{});
    wide.presume_closed(Seq{n});
  }
  EXPECT_EQ(wide.find(Seq{1'000 - kPresumedDigestsMax / 1'024}), nullptr);
  EXPECT_NE(wide.find(Seq{1'000 - kPresumedDigestsMax / 1'024 + 1}), nullptr);
}

TEST(VoteBook, CallsNobodyWrongWhereItDoesNotKnowTheClosing) {
  VoteBook book(1);
  for (std::uint64_t n = 1; n <= 5'000; ++n) {
    book.open(Seq{n}, 1, Micros{});
    book.presume_closed(Seq{n});
  }
  ASSERT_EQ(book.find(Seq{7}), nullptr);
  VoteBook::Cast cast = book.cast(SlotId{0}, Seq{7}, replies_saying(Seq{7}, 1, "whatever"), Micros{});
  EXPECT_EQ(cast.refusal, Refusal::kNone);
  EXPECT_EQ(cast.effect, VoteBook::Effect::kCounted);
  EXPECT_EQ(book.last_vote(SlotId{0}), Seq{7});
  cast = book.cast(SlotId{0}, Seq{6}, replies_saying(Seq{6}, 1, "else"), Micros{});
  EXPECT_EQ(cast.refusal, Refusal::kDuplicate);
  EXPECT_EQ(cast.effect, VoteBook::Effect::kNone);
  EXPECT_FALSE(book.closed_digest(Seq{7}));
}

}  // namespace
}  // namespace zz::agreement
