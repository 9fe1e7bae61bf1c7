#include "agreement/reply_book.hpp"

#include <gtest/gtest.h>

#include <string>

namespace zz::agreement {
namespace {

constexpr ClientId kClient{7};

// A book of node `self` among four, and a way to make batches of one session's requests.
class ReplyBookTest : public testing::Test {
 protected:
  static ReplyBookConfig config(std::uint16_t self) {
    ReplyBookConfig out;
    out.self = NodeId{self};
    out.client_window = 4;
    out.sessions_max = 3;
    return out;
  }

  static Delivery batch(std::uint64_t n, SessionId session, std::initializer_list<std::uint64_t> numbers,
                        ClientId client = kClient) {
    auto header = std::make_shared<BatchHeader>();
    header->n = Seq{n};
    Delivery out;
    for (const std::uint64_t number : numbers) {
      auto request = std::make_shared<Request>();
      request->client = client;
      request->session = session;
      request->number = RequestNumber{number};
      header->references.push_back(reference_of(*request));
      out.requests.push_back(request);
    }
    out.header = header;
    return out;
  }

  static SharedBytes text(const std::string& value) { return SharedBytes::copy(value); }
  static Digest digest_of(const std::string& value) { return reply_digest(as_bytes(value)); }
};

TEST_F(ReplyBookTest, HomeNodeAcknowledgesWithTheBodyOnceClosed) {
  ReplyBook book(config(1));
  const SessionId session{5};  // home is node 1
  const Delivery b = batch(1, session, {1});
  book.open(b);
  ASSERT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{0, text("yes")}}}), Refusal::kNone);
  EXPECT_TRUE(book.take_output().acks.empty()) << "told before g+1 votes agreed";
  book.close(*b.header, {digest_of("yes")});
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  ASSERT_EQ(out.acks[0].acks.items.size(), 1u);
  EXPECT_TRUE(out.acks[0].acks.items[0].has_body);
  EXPECT_EQ(out.acks[0].acks.items[0].body.text(), "yes");
  EXPECT_EQ(out.acks[0].acks.items[0].reply_digest, digest_of("yes"));
}

TEST_F(ReplyBookTest, HomeNodeWaitsForTheBodyThatFitsTheVotes) {
  ReplyBook book(config(1));
  const Delivery b = batch(1, SessionId{5}, {1});
  book.open(b);
  ASSERT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{0, text("a lie")}}}), Refusal::kNone);
  book.close(*b.header, {digest_of("yes")});
  EXPECT_TRUE(book.take_output().acks.empty());
  EXPECT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{0, text("another lie")}}}), Refusal::kConflict);
  EXPECT_TRUE(book.take_output().acks.empty());
  EXPECT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{0, text("yes")}}}), Refusal::kNone);
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items[0].body.text(), "yes");
}

TEST_F(ReplyBookTest, TheFNodesAfterHomeAcknowledgeTheDigestAndTheRestStaySilent) {
  const SessionId session{5};  // home 1, so node 2 acknowledges at f = 1, nodes 3 and 0 do not
  for (const std::uint16_t self : {std::uint16_t{2}, std::uint16_t{3}, std::uint16_t{0}}) {
    ReplyBook book(config(self));
    const Delivery b = batch(1, session, {1});
    book.open(b);
    book.close(*b.header, {digest_of("yes")});
    const ReplyBookOutput out = book.take_output();
    if (self == 2) {
      ASSERT_EQ(out.acks.size(), 1u);
      EXPECT_FALSE(out.acks[0].acks.items[0].has_body);
      EXPECT_EQ(out.acks[0].acks.items[0].reply_digest, digest_of("yes"));
    } else {
      EXPECT_TRUE(out.acks.empty()) << "node " << self;
    }
  }
}

TEST_F(ReplyBookTest, AnyNodeAnswersWhenAskedAndFetchesTheBody) {
  ReplyBook book(config(3));
  const SessionId session{5};
  const Delivery b = batch(1, session, {1, 2});
  book.open(b);
  book.close(*b.header, {digest_of("one"), digest_of("two")});
  static_cast<void>(book.take_output());
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{2}), Refusal::kNone);
  ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_FALSE(out.acks[0].acks.items[0].has_body);
  ASSERT_EQ(out.fetch.size(), 1u);
  EXPECT_EQ(out.fetch[0].n, Seq{1});
  ASSERT_EQ(out.fetch[0].items.size(), 1u);
  EXPECT_EQ(out.fetch[0].items[0].index, 1u);
  ASSERT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{1, text("two")}}}), Refusal::kNone);
  out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items[0].body.text(), "two");
}

TEST_F(ReplyBookTest, ARequestAskedForWhileOpenIsAnsweredOnClose) {
  ReplyBook book(config(3));
  const SessionId session{5};
  const Delivery b = batch(1, session, {1});
  book.open(b);
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{1}), Refusal::kNone);
  EXPECT_TRUE(book.take_output().acks.empty());
  book.close(*b.header, {digest_of("one")});
  const ReplyBookOutput out = book.take_output();
  EXPECT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.fetch.size(), 1u);
}

TEST_F(ReplyBookTest, AnUnknownRequestCannotBeAskedFor) {
  ReplyBook book(config(3));
  EXPECT_EQ(book.ask(kClient, SessionId{5}, RequestNumber{1}), Refusal::kSessionExpired);
  const Delivery b = batch(1, SessionId{5}, {1});
  book.open(b);
  EXPECT_EQ(book.ask(kClient, SessionId{5}, RequestNumber{9}), Refusal::kSessionExpired);
  EXPECT_EQ(book.ask(ClientId{8}, SessionId{5}, RequestNumber{1}), Refusal::kSessionExpired) << "another client's";
}

TEST_F(ReplyBookTest, BodiesOutsideTheBatchAreMalformed) {
  ReplyBook book(config(1));
  const Delivery b = batch(1, SessionId{5}, {1});
  book.open(b);
  EXPECT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{1, text("x")}}}), Refusal::kMalformed);
}

TEST_F(ReplyBookTest, TheSessionUnusedForLongestMakesRoom) {
  ReplyBook book(config(1));
  for (const std::uint64_t session : {1u, 2u, 3u}) book.open(batch(session, SessionId{session}, {1}));
  book.open(batch(4, SessionId{1}, {2}));  // 1 is fresh again
  book.open(batch(5, SessionId{4}, {1}));  // 2 goes
  EXPECT_EQ(book.ask(kClient, SessionId{2}, RequestNumber{1}), Refusal::kSessionExpired);
  EXPECT_EQ(book.ask(kClient, SessionId{1}, RequestNumber{1}), Refusal::kNone);
  EXPECT_EQ(book.ask(kClient, SessionId{4}, RequestNumber{1}), Refusal::kNone);
}

TEST_F(ReplyBookTest, AClientWithThousandsOfSessionsPushesOutOnlyItsOwn) {
  ReplyBookConfig roomy = config(1);
  roomy.sessions_max = 1'024;
  roomy.client_sessions_max = 16;
  ReplyBook book(roomy);
  const Delivery victims = batch(1, SessionId{5}, {1});  // home is node 1
  book.open(victims);
  for (std::uint64_t n = 2; n <= 3'000; ++n) book.open(batch(n, SessionId{n}, {1}, ClientId{8}));
  EXPECT_EQ(book.ask(ClientId{8}, SessionId{2'984}, RequestNumber{1}), Refusal::kSessionExpired);
  EXPECT_EQ(book.ask(ClientId{8}, SessionId{2'985}, RequestNumber{1}), Refusal::kNone);
  ASSERT_EQ(book.bodies(*victims.header, Replies{Seq{1}, {{0, text("yes")}}}), Refusal::kNone);
  book.close(*victims.header, {digest_of("yes")});
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].client, kClient);
}

TEST_F(ReplyBookTest, OfARequestOrderedTwiceTheFirstTimeCounts) {
  ReplyBook book(config(1));
  const SessionId session{5};  // home is node 1
  const Delivery first = batch(1, session, {1, 2});
  const Delivery again = batch(2, session, {2, 1, 3});
  book.open(first);
  book.open(again);
  book.close(*again.header, {digest_of("two"), digest_of("one"), digest_of("three")});
  static_cast<void>(book.bodies(*again.header, Replies{Seq{2}, {{0, text("two")}, {2, text("three")}}}));
  ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  ASSERT_EQ(out.acks[0].acks.items.size(), 1u) << "the others wait for their own batch";
  EXPECT_EQ(out.acks[0].acks.items[0].number, RequestNumber{3});
  book.close(*first.header, {digest_of("one"), digest_of("two")});
  ASSERT_EQ(book.bodies(*first.header, Replies{Seq{1}, {{0, text("one")}, {1, text("two")}}}), Refusal::kNone);
  out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items.size(), 2u);
}

TEST_F(ReplyBookTest, ARequestOrderedAgainAfterItWasClosedIsNotToldAgain) {
  ReplyBook book(config(2));  // not the home of session 5, but acknowledges its digests
  const Delivery first = batch(1, SessionId{5}, {1});
  const Delivery again = batch(2, SessionId{5}, {1});
  book.open(first);
  book.close(*first.header, {digest_of("one")});
  EXPECT_EQ(book.take_output().acks.size(), 1u);
  book.open(again);
  book.close(*again.header, {digest_of("one")});
  EXPECT_TRUE(book.take_output().acks.empty());
  ASSERT_EQ(book.ask(kClient, SessionId{5}, RequestNumber{1}), Refusal::kNone);
  const ReplyBookOutput out = book.take_output();
  EXPECT_EQ(out.acks.size(), 1u) << "still closed";
  ASSERT_EQ(out.fetch.size(), 1u);
  EXPECT_EQ(out.fetch[0].n, Seq{1});
}

TEST_F(ReplyBookTest, ARequestNamedTwiceInOneBatchIsAnsweredOnceFromItsFirstPlace) {
  ReplyBook book(config(3));
  const SessionId session{5};
  const Delivery b = batch(1, session, {1, 1, 2});
  book.open(b);
  book.close(*b.header, {digest_of("one"), digest_of("one"), digest_of("two")});
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{1}), Refusal::kNone);
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{2}), Refusal::kNone);
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items.size(), 2u);
  ASSERT_EQ(out.fetch.size(), 1u);
  ASSERT_EQ(out.fetch[0].items.size(), 2u);
  EXPECT_EQ(out.fetch[0].items[0].index, 0u);
  EXPECT_EQ(out.fetch[0].items[1].index, 2u);
}

TEST_F(ReplyBookTest, AnOldRequestOrderedAgainDoesNotPushOutANewerOne) {
  ReplyBook book(config(2));
  const Delivery first = batch(1, SessionId{5}, {1});
  const Delivery newer = batch(2, SessionId{5}, {9});  // the same place in a ring of 8
  book.open(first);
  book.open(newer);
  book.open(batch(3, SessionId{5}, {1}));
  book.close(*newer.header, {digest_of("nine")});
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items[0].number, RequestNumber{9});
}

TEST_F(ReplyBookTest, ANullBatchChangesNothing) {
  ReplyBook book(config(1));
  Delivery null;
  null.header = null_header(ServiceId{0}, Seq{1});
  book.open(null);
  book.close(*null.header, {});
  const ReplyBookOutput out = book.take_output();
  EXPECT_TRUE(out.acks.empty() && out.fetch.empty());
}

TEST_F(ReplyBookTest, AClosedBatchOfAForgottenSessionIsHarmless) {
  ReplyBook book(config(1));
  const Delivery first = batch(1, SessionId{1}, {1});
  book.open(first);
  for (const std::uint64_t session : {2u, 3u, 4u}) book.open(batch(session, SessionId{session}, {1}));
  book.close(*first.header, {digest_of("x")});
  EXPECT_TRUE(book.take_output().acks.empty());
}

TEST_F(ReplyBookTest, TheOldestBodiesGoWhenTheBudgetIsUsedUp) {
  ReplyBookConfig small = config(1);
  small.body_bytes_max = 10;
  ReplyBook book(small);
  const SessionId session{1};
  for (std::uint64_t n = 1; n <= 3; ++n) {
    const Delivery b = batch(n, session, {n});
    book.open(b);
    ASSERT_EQ(book.bodies(*b.header, Replies{Seq{n}, {{0, text("12345")}}}), Refusal::kNone);
    book.close(*b.header, {digest_of("12345")});
  }
  static_cast<void>(book.take_output());
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{1}), Refusal::kNone);
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{3}), Refusal::kNone);
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.fetch.size(), 1u) << "the first body was dropped and is fetched again, the third is still there";
  EXPECT_EQ(out.fetch[0].n, Seq{1});
}

TEST_F(ReplyBookTest, ARequestAskedForAThousandTimesInATurnIsAnsweredOnce) {
  ReplyBook book(config(3));
  const SessionId session{5};
  const Delivery b = batch(1, session, {1});
  book.open(b);
  book.close(*b.header, {digest_of("one")});
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(book.ask(kClient, session, RequestNumber{1}), Refusal::kNone);
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items.size(), 1u);
  ASSERT_EQ(out.fetch.size(), 1u);
  EXPECT_EQ(out.fetch[0].items.size(), 1u);
  ASSERT_EQ(book.ask(kClient, session, RequestNumber{1}), Refusal::kNone);
  EXPECT_EQ(book.take_output().acks.size(), 1u) << "and again in the next turn";
}

TEST_F(ReplyBookTest, AKeptBodyDoesNotPinTheFrameItCameIn) {
  ReplyBook book(config(1));
  const Delivery b = batch(1, SessionId{5}, {1});
  book.open(b);
  auto frame = std::make_shared<const Bytes>(1'000, std::uint8_t{7});
  const std::weak_ptr<const Bytes> watch = frame;
  SharedBytes slice(frame, ByteView(*frame).first(1));
  frame.reset();
  ASSERT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{0, slice}}}), Refusal::kNone);
  EXPECT_FALSE(watch.expired()) << "the caller's slice still holds it";
  slice = SharedBytes{};
  EXPECT_TRUE(watch.expired());
}

TEST_F(ReplyBookTest, BodiesLeaveInBoundedMessagesAndBoundedTurns) {
  ReplyBookConfig small = config(1);
  small.ack_bytes_max = 10;
  small.turn_bytes_max = 15;
  ReplyBook book(small);
  const SessionId session{5};  // home is node 1
  const Delivery b = batch(1, session, {1, 2, 3, 4});
  book.open(b);
  std::vector<Digest> digests;
  Replies replies{Seq{1}, {}};
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::string body = "body " + std::to_string(i);  // 6 bytes
    digests.push_back(digest_of(body));
    replies.items.push_back({i, text(body)});
  }
  ASSERT_EQ(book.bodies(*b.header, replies), Refusal::kNone);
  book.close(*b.header, digests);
  std::size_t told = 0;
  std::size_t turns = 0;
  for (ReplyBookOutput out = book.take_output(); !out.acks.empty(); out = book.take_output(), ++turns) {
    for (const auto& to : out.acks) {
      EXPECT_EQ(to.acks.items.size(), 1u) << "two bodies are more than one message takes";
      for (const auto& item : to.acks.items) EXPECT_EQ(item.number, RequestNumber{++told});
    }
  }
  EXPECT_EQ(told, 4u);
  EXPECT_EQ(turns, 2u);
}

// ---- batches that are closed elsewhere -------------------------------------------------------------------------

// Node 3's book (not the home), with a batch below a stable checkpoint of which it saw no votes.
class PresumedClosed : public ReplyBookTest {
 protected:
  PresumedClosed() {
    book.open(b);
    book.presume_closed(Seq{1});
    book.tick(now);
  }
  std::vector<FetchReplies> ask(std::uint64_t number) {
    EXPECT_EQ(book.ask(kClient, session, RequestNumber{number}), Refusal::kNone);
    return book.take_output().ask;
  }
  Refusal say(std::uint16_t slot, std::uint32_t index, const Digest& digest) {
    return book.digests(SlotId{slot}, *b.header, ReplyDigests{Seq{1}, {{index, digest}}});
  }
  std::vector<FetchReplies> pass(std::int64_t ms) {
    std::vector<FetchReplies> asked;
    for (std::int64_t gone = 0; gone < ms; gone += 10) {
      now.value += 10'000;
      book.tick(now);
      for (FetchReplies& one : book.take_output().ask) asked.push_back(std::move(one));
    }
    return asked;
  }

  const SessionId session{5};
  const Delivery b = batch(1, session, {1, 2});
  ReplyBook book{config(3)};
  Micros now{1'000'000'000};
};

TEST_F(PresumedClosed, IsAskedOfSlotsWhenAClientWantsItAndAnsweredOnceGPlusOneSayTheSame) {
  const auto asked = ask(2);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_TRUE(asked[0].digests);
  EXPECT_EQ(asked[0].n, Seq{1});
  ASSERT_EQ(asked[0].items.size(), 1u);
  EXPECT_EQ(asked[0].items[0].index, 1u);
  EXPECT_EQ(asked[0].items[0].number, RequestNumber{2});
  EXPECT_EQ(say(0, 1, digest_of("two")), Refusal::kNone);
  EXPECT_TRUE(book.take_output().acks.empty()) << "one slot may lie";
  EXPECT_EQ(say(0, 1, digest_of("two")), Refusal::kDuplicate);
  EXPECT_EQ(say(2, 1, digest_of("a lie")), Refusal::kNone);
  EXPECT_TRUE(book.take_output().acks.empty());
  EXPECT_EQ(say(1, 1, digest_of("two")), Refusal::kNone);
  ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  ASSERT_EQ(out.acks[0].acks.items.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items[0].number, RequestNumber{2});
  EXPECT_EQ(out.acks[0].acks.items[0].reply_digest, digest_of("two"));
  ASSERT_EQ(out.fetch.size(), 1u) << "and the body as always";
  EXPECT_FALSE(out.fetch[0].digests);
  EXPECT_EQ(say(2, 1, digest_of("a lie")), Refusal::kConflict);
  ASSERT_EQ(book.bodies(*b.header, Replies{Seq{1}, {{1, text("two")}}}), Refusal::kNone);
  out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items[0].body.text(), "two");
}

TEST_F(PresumedClosed, IsNotAskedWhileItIsOnlyOpen) {
  const Delivery open = batch(2, session, {3});
  book.open(open);
  EXPECT_TRUE(ask(3).empty());
  book.presume_closed(Seq{2});
  EXPECT_EQ(ask(3).size(), 1u);
}

TEST_F(PresumedClosed, IsAskedAgainAtGrowingIntervalsHoweverOftenTheClientAsks) {
  EXPECT_EQ(ask(1).size(), 1u);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(ask(1).empty());
  EXPECT_FALSE(book.in_vain());
  EXPECT_EQ(pass(4'900).size(), 5u) << "after 0.2, 0.4, 0.8, 1.6 and 1.6 s";
  EXPECT_EQ(book.in_vain(), Seq{1});
  EXPECT_EQ(say(0, 0, digest_of("one")), Refusal::kNone);
  EXPECT_EQ(say(1, 0, digest_of("one")), Refusal::kNone);
  EXPECT_TRUE(pass(4'000).empty());
  EXPECT_FALSE(book.in_vain());
}

TEST_F(PresumedClosed, IsForgottenWithTheClientThatAskedForIt) {
  ask(1);
  pass(10'000);
  ask(1);
  EXPECT_FALSE(pass(19'000).empty());
  pass(2'000);
  EXPECT_TRUE(pass(30'000).empty());
  EXPECT_FALSE(book.in_vain());
  EXPECT_EQ(say(0, 0, digest_of("one")), Refusal::kNotWanted);
  EXPECT_EQ(ask(1).size(), 1u) << "who asks again is heard again";
}

// Otherwise g faulty slots now, and g others that were faulty before they were replaced, would make an answer.
TEST_F(PresumedClosed, IsNotAnsweredByAnIncarnationThatIsOver) {
  ask(1);
  EXPECT_EQ(say(0, 0, digest_of("a lie")), Refusal::kNone);
  book.forget_words();
  EXPECT_EQ(say(1, 0, digest_of("a lie")), Refusal::kNone);
  EXPECT_TRUE(book.take_output().acks.empty());
  EXPECT_EQ(pass(300).size(), 1u) << "the others are asked again soon";
  EXPECT_EQ(say(0, 0, digest_of("one")), Refusal::kNone);
  EXPECT_EQ(say(2, 0, digest_of("one")), Refusal::kNone);
  const ReplyBookOutput out = book.take_output();
  ASSERT_EQ(out.acks.size(), 1u);
  EXPECT_EQ(out.acks[0].acks.items[0].reply_digest, digest_of("one"));
}

TEST_F(PresumedClosed, EndsWithoutAnAnswerWhenGPlusOneSlotsHaveEvictedTheSession) {
  ask(1);
  EXPECT_EQ(say(0, 0, digest_of("one")), Refusal::kNone) << "it is behind";
  EXPECT_EQ(say(1, 0, Digest{}), Refusal::kNone);
  EXPECT_EQ(say(0, 0, Digest{}), Refusal::kNone) << "its last word counts";
  EXPECT_TRUE(book.take_output().acks.empty());
  EXPECT_TRUE(pass(10'000).empty());
  EXPECT_FALSE(book.in_vain());
}

TEST_F(PresumedClosed, IsAnsweredByVotesToo) {
  ask(1);
  book.close(*b.header, {digest_of("one"), digest_of("two")});
  ASSERT_EQ(book.take_output().acks.size(), 1u);
  EXPECT_TRUE(pass(5'000).empty());
  EXPECT_EQ(say(0, 0, digest_of("one")), Refusal::kNone);
  EXPECT_EQ(say(0, 0, digest_of("a lie")), Refusal::kConflict);
}

TEST_F(PresumedClosed, TakesNoWordsThatNobodyAskedFor) {
  EXPECT_EQ(say(0, 0, digest_of("one")), Refusal::kNotWanted);
  EXPECT_EQ(say(0, 2, digest_of("one")), Refusal::kMalformed);
  ask(1);
  EXPECT_EQ(say(0, 1, digest_of("two")), Refusal::kNotWanted);
}

TEST_F(PresumedClosed, IsAskedForAWindowOfRequestsPerClient) {
  const SessionId other{6};
  const Delivery more = batch(2, other, {1, 2, 3, 4});
  book.open(more);
  book.presume_closed(Seq{2});
  for (const std::uint64_t number : {1u, 2u, 3u, 4u}) {
    EXPECT_EQ(book.ask(kClient, other, RequestNumber{number}), Refusal::kNone);
  }
  EXPECT_EQ(book.ask(kClient, session, RequestNumber{1}), Refusal::kQuota);
  EXPECT_EQ(book.ask(kClient, other, RequestNumber{4}), Refusal::kNone) << "it is asked for already";
  EXPECT_EQ(book.take_output().ask.size(), 1u) << "of one batch in one message";
}

}  // namespace
}  // namespace zz::agreement
