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

  static Delivery batch(std::uint64_t n, SessionId session, std::initializer_list<std::uint64_t> numbers) {
    auto header = std::make_shared<BatchHeader>();
    header->n = Seq{n};
    Delivery out;
    for (const std::uint64_t number : numbers) {
      auto request = std::make_shared<Request>();
      request->client = kClient;
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

}  // namespace
}  // namespace zz::agreement
