// Replies that differed: what is asked for and what is kept (docs/protocol.md §11).

#include "agreement/evidence_book.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

Digest digest_of(const std::string& reply) { return reply_digest(as_bytes(reply)); }

// Batch 7 of three requests. Slots 0 and 2 agree on "same" and the right reply; slot 1 says something else to the
// second request.
struct Trial {
  Trial() {
    auto header = std::make_shared<BatchHeader>();
    header->n = Seq{7};
    for (std::uint64_t i = 1; i <= 3; ++i) {
      Request request{ClientId{4}, SessionId{9}, RequestNumber{i}, 0, SharedBytes::copy("op " + std::to_string(i)), {}};
      header->references.push_back(reference_of(request));
      batch.requests.push_back(std::make_shared<const Request>(std::move(request)));
    }
    batch.header = std::move(header);
    batch.time = Micros{1'700'000'000'000'000};
    difference.n = Seq{7};
    difference.sides.push_back({{{SlotId{0}, Incarnation{1}}, {SlotId{2}, Incarnation{3}}}, replies(right), true});
    difference.sides.push_back({{{SlotId{1}, Incarnation{1}}}, replies(wrong), false});
  }
  [[nodiscard]] static std::vector<Digest> replies(const std::string& second) {
    return {digest_of("same"), digest_of(second), digest_of("same")};
  }
  bool say(std::uint16_t slot, std::uint64_t incarnation, const std::string& body, std::uint32_t index = 1) {
    return book.bodies(SlotId{slot}, Incarnation{incarnation}, Replies{Seq{7}, {{index, SharedBytes::copy(body)}}});
  }

  std::string right = std::string(200, 'x') + "right, and so on";
  std::string wrong = std::string(200, 'x') + "rigged";
  Delivery batch;
  OversightOutput::Difference difference;
  EvidenceBook book;
};

TEST(EvidenceBook, AsksEverySlotForTheFirstReplyThatDiffers) {
  Trial t;
  t.book.open(t.batch, t.difference);
  const auto asks = t.book.take_asks();
  ASSERT_THAT(asks, SizeIs(3));
  for (const EvidenceBook::Ask& ask : asks) {
    EXPECT_EQ(ask.wanted.n, Seq{7});
    ASSERT_THAT(ask.wanted.items, SizeIs(1));
    EXPECT_EQ(ask.wanted.items[0].index, 1u);
    EXPECT_EQ(ask.wanted.items[0].number, RequestNumber{2});
  }
  EXPECT_THAT(t.book.take_asks(), IsEmpty());
  EXPECT_THAT(t.book.take_done(), IsEmpty());
}

TEST(EvidenceBook, IsCompleteWithOneFittingBodyPerSide) {
  Trial t;
  t.book.open(t.batch, t.difference);
  EXPECT_FALSE(t.say(2, 3, t.right)) << "it may be wanted for a client, too";
  EXPECT_TRUE(t.say(1, 1, "not what it voted for")) << "a liar's words are nobody else's business";
  EXPECT_THAT(t.book.take_done(), IsEmpty());
  EXPECT_FALSE(t.say(1, 2, t.wrong)) << "another life";
  EXPECT_THAT(t.book.take_done(), IsEmpty());
  EXPECT_TRUE(t.say(1, 1, t.wrong));
  const auto done = t.book.take_done();
  ASSERT_THAT(done, SizeIs(1));
  EXPECT_EQ(done[0].differing, 1u);
  EXPECT_EQ(done[0].requests, 3u);
  EXPECT_EQ(done[0].request->op.text(), "op 2");
  ASSERT_THAT(done[0].sides, SizeIs(2));
  EXPECT_TRUE(done[0].sides[0].agrees);
  EXPECT_EQ(done[0].sides[1].body->text(), t.wrong);
  EXPECT_FALSE(t.say(1, 1, t.wrong)) << "it is over";
}

TEST(EvidenceBook, DoesNotWaitForEverForALiar) {
  Trial t;
  t.book.tick(Micros{1'000});
  t.book.open(t.batch, t.difference);
  EXPECT_FALSE(t.say(0, 1, t.right));
  t.book.tick(Micros{EvidenceBook::kPatience.value + 999});
  EXPECT_THAT(t.book.take_done(), IsEmpty());
  t.book.tick(Micros{EvidenceBook::kPatience.value + 1'000});
  const auto done = t.book.take_done();
  ASSERT_THAT(done, SizeIs(1));
  EXPECT_TRUE(done[0].sides[0].body.has_value());
  EXPECT_FALSE(done[0].sides[1].body.has_value());
}

TEST(EvidenceBook, HoldsFewCasesAtATimeAndFewInAnEpoch) {
  Trial t;
  const auto open = [&t](std::uint64_t times) {
    for (std::uint64_t i = 0; i < times; ++i) t.book.open(t.batch, t.difference);
    std::int64_t at = 0;
    std::size_t done = 0;
    for (int i = 0; i < 2; ++i) t.book.tick(Micros{at += EvidenceBook::kPatience.value});
    done = t.book.take_done().size();
    t.book.tick(Micros{});
    return done;
  };
  EXPECT_EQ(open(10), EvidenceBook::kCasesMax);
  EXPECT_EQ(open(10), EvidenceBook::kCasesPerEpoch - EvidenceBook::kCasesMax);
  EXPECT_EQ(open(10), 0u);
  t.difference.epoch = Epoch{1};
  EXPECT_EQ(open(10), EvidenceBook::kCasesMax);
}

TEST(EvidenceBook, NothingThatAgreesIsACase) {
  Trial t;
  t.difference.sides[1].replies = t.difference.sides[0].replies;
  t.book.open(t.batch, t.difference);
  EXPECT_THAT(t.book.take_asks(), IsEmpty());
}

TEST(OversightDifferences, AreTheFirstLieOfASlotWithTheClosing) {
  OversightDesk desk;
  desk.start();
  const auto differences = [&desk](std::uint16_t slot, std::uint64_t n, const std::string& say) {
    EXPECT_EQ(desk.core->step(SlotId{slot}, desk.incarnation(slot), desk.make_vote(slot, n, say)), Refusal::kNone);
    return desk.core->take_output().differences;
  };
  const std::uint64_t n = desk.deliver(2);
  desk.up(2);
  desk.replay(2, n - 1);
  EXPECT_THAT(differences(0, n, "wrong"), IsEmpty());
  EXPECT_THAT(differences(1, n, "right"), IsEmpty()) << "nobody knows yet who is right";
  const auto told = differences(2, n, "right");
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_FALSE(told[0].hung);
  ASSERT_THAT(told[0].sides, SizeIs(2));
  EXPECT_TRUE(told[0].sides[0].agrees);
  EXPECT_EQ(told[0].sides[0].slots.size(), 2u);
  EXPECT_EQ(told[0].sides[1].slots, (std::vector<std::pair<SlotId, Incarnation>>{{SlotId{0}, Incarnation{1}}}));
  EXPECT_EQ(told[0].sides[1].replies, replies_saying(Seq{n}, 2, "wrong"));
  const std::uint64_t next = desk.deliver(1);
  EXPECT_THAT(differences(1, next, "right"), IsEmpty());
  EXPECT_THAT(differences(2, next, "right"), IsEmpty());
  EXPECT_THAT(differences(0, next, "wrong"), IsEmpty()) << "it is known to lie";
}

TEST(OversightDifferences, AfterTheCloseAndWithoutAnyAreToldToo) {
  OversightDesk desk;
  desk.start();
  const auto differences = [&desk](std::uint16_t slot, std::uint64_t n, const std::string& say) {
    EXPECT_EQ(desk.core->step(SlotId{slot}, desk.incarnation(slot), desk.make_vote(slot, n, say)), Refusal::kNone);
    return desk.core->take_output().differences;
  };
  const std::uint64_t n = desk.deliver(1);
  desk.up(2);
  desk.replay(2, n - 1);
  EXPECT_THAT(differences(0, n, "right"), IsEmpty());
  EXPECT_THAT(differences(1, n, "right"), IsEmpty());
  const auto late = differences(2, n, "wrong");
  ASSERT_THAT(late, SizeIs(1));
  ASSERT_THAT(late[0].sides, SizeIs(1)) << "who asks has the closing";
  EXPECT_FALSE(late[0].sides[0].agrees);
  OversightDesk other;
  other.start();
  const std::uint64_t hung = other.deliver(1);
  other.up(2);
  other.replay(2, hung - 1);
  for (const std::uint16_t slot : {std::uint16_t{0}, std::uint16_t{1}})
    other.vote(slot, hung, "say " + std::to_string(slot));
  EXPECT_EQ(other.core->step(SlotId{2}, other.incarnation(2), other.make_vote(2, hung, "say 2")), Refusal::kNone);
  const auto told = other.core->take_output().differences;
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_TRUE(told[0].hung);
  EXPECT_THAT(told[0].sides, SizeIs(3));
}

}  // namespace
}  // namespace zz::agreement
