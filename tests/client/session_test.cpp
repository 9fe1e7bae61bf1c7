#include "client/session.hpp"

#include <gtest/gtest.h>

#include <set>

#include "base/prng.hpp"

namespace zz::client {
namespace {

using agreement::Acks;
using agreement::Rejected;
using agreement::reply_digest;

constexpr SessionId kId{0x5e5510};

SessionConfig config(std::uint32_t f = 1) {
  SessionConfig out;
  out.id = kId;
  out.f = f;
  out.window = 8;
  return out;
}

NodeId node(std::uint32_t index) { return NodeId{static_cast<std::uint16_t>(index)}; }
SharedBytes text(std::string_view value) { return SharedBytes::copy(value); }
Micros ms(std::int64_t value) { return Micros{value * 1000}; }

// One acknowledgement of `number` with the digest of `reply`, and its body if wanted.
Acks ack(RequestNumber number, std::string_view reply, bool with_body) {
  Acks::Item item{number, reply_digest(as_bytes(reply)), with_body, {}};
  if (with_body) item.body = text(reply);
  return Acks{kId, {item}};
}
Acks bare(RequestNumber number, std::string_view reply) { return ack(number, reply, false); }
Acks full(RequestNumber number, std::string_view reply) { return ack(number, reply, true); }

Rejected rejected(RequestNumber number, Refusal reason) {
  return Rejected{kId, number, static_cast<std::uint8_t>(reason)};
}

// Numbers of the messages for everybody, or for one node.
std::vector<std::uint64_t> numbers(const SessionOutput& out, std::optional<NodeId> to) {
  std::vector<std::uint64_t> found;
  for (const auto& send : out.send) {
    if (send.to != to) continue;
    for (const auto& item : send.requests.items) found.push_back(item.number.value);
  }
  return found;
}

// A session with one request on its way.
struct OneRequest {
  explicit OneRequest(std::uint32_t f = 1) : session(config(f)) {
    session.tick(ms(1'000));
    number = session.submit(text("op")).value();
    static_cast<void>(session.take_output());
  }
  // The only completion since the last look, if there was one.
  std::optional<Completed> completed() {
    SessionOutput out = session.take_output();
    EXPECT_LE(out.completed.size(), 1u);
    if (out.completed.empty()) return std::nullopt;
    return out.completed[0];
  }
  Session session;
  RequestNumber number;
};

TEST(Session, SendsEachRequestOnceToAllNodesInOneMessage) {
  Session session(config());
  for (const char* op : {"a", "b", "c"}) ASSERT_TRUE(session.submit(text(op)).has_value());
  const SessionOutput out = session.take_output();
  ASSERT_EQ(out.send.size(), 1u);
  EXPECT_FALSE(out.send[0].to.has_value());
  EXPECT_EQ(out.send[0].requests.session, kId);
  EXPECT_EQ(numbers(out, std::nullopt), (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(out.send[0].requests.items[1].op.text(), "b");
  EXPECT_FALSE(session.has_output());
}

TEST(Session, SplitsMessagesByTheirBytes) {
  SessionConfig small = config();
  small.message_bytes_max = 10;
  Session session(small);
  for (const char* op : {"12345", "12345", "1", "12345678901234567890", "1"}) session.submit(text(op));
  const SessionOutput out = session.take_output();
  ASSERT_EQ(out.send.size(), 4u);
  EXPECT_EQ(out.send[0].requests.items.size(), 2u);
  EXPECT_EQ(out.send[1].requests.items.size(), 1u);
  EXPECT_EQ(out.send[2].requests.items.size(), 1u);  // larger than the limit: alone
  EXPECT_EQ(out.send[3].requests.items.size(), 1u);
}

TEST(Session, AcceptsAReplyThatFPlusOneNodesVouchFor) {
  OneRequest one;
  EXPECT_EQ(one.session.step(node(0), full(one.number, "yes")), Refusal::kNone);
  EXPECT_FALSE(one.completed().has_value());
  EXPECT_EQ(one.session.step(node(1), bare(one.number, "yes")), Refusal::kNone);
  const auto done = one.completed();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->number, one.number);
  EXPECT_EQ(done->outcome, Outcome::kReply);
  EXPECT_EQ(done->reply.text(), "yes");
  EXPECT_EQ(one.session.outstanding(), 0u);
}

TEST(Session, AcceptsTheBodyWheneverItComes) {
  OneRequest one;
  one.session.step(node(1), bare(one.number, "yes"));
  one.session.step(node(2), bare(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());  // nobody has shown it yet
  one.session.step(node(0), full(one.number, "yes"));
  EXPECT_EQ(one.completed()->reply.text(), "yes");
}

TEST(Session, AcceptsAnEmptyReply) {
  OneRequest one;
  one.session.step(node(0), full(one.number, ""));
  one.session.step(node(1), bare(one.number, ""));
  const auto done = one.completed();
  ASSERT_TRUE(done.has_value());
  EXPECT_TRUE(done->reply.empty());
}

TEST(Session, NeedsFPlusOneForEveryF) {
  for (std::uint32_t f = 1; f <= crypto::kFaultsMax; ++f) {
    OneRequest one(f);
    for (std::uint32_t i = 0; i < f; ++i) one.session.step(node(i), full(one.number, "yes"));
    EXPECT_FALSE(one.completed().has_value()) << f;
    one.session.step(node(3 * f), bare(one.number, "yes"));
    EXPECT_TRUE(one.completed().has_value()) << f;
  }
}

TEST(Session, CountsEachNodeOnce) {
  OneRequest one;
  for (int i = 0; i < 5; ++i) one.session.step(node(2), full(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());
}

TEST(Session, HoldsANodeToItsFirstWord) {
  OneRequest one;
  one.session.step(node(0), full(one.number, "lie"));
  EXPECT_EQ(one.session.step(node(0), full(one.number, "yes")), Refusal::kConflict);
  one.session.step(node(1), bare(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());
  EXPECT_EQ(one.session.stats().conflicts, 1u);
}

TEST(Session, CountsOnlyEqualDigests) {
  OneRequest one;
  one.session.step(node(0), full(one.number, "a"));
  one.session.step(node(1), full(one.number, "b"));
  one.session.step(node(2), full(one.number, "c"));
  EXPECT_FALSE(one.completed().has_value());
  one.session.step(node(3), bare(one.number, "c"));
  EXPECT_EQ(one.completed()->reply.text(), "c");
}

TEST(Session, DropsABodyThatIsNotWhatItsNodeSaid) {
  OneRequest one;
  Acks forged = bare(one.number, "yes");
  forged.items[0].has_body = true;
  forged.items[0].body = text("no");
  EXPECT_EQ(one.session.step(node(0), forged), Refusal::kConflict);
  one.session.step(node(1), bare(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());  // f+1 digests, but no honest body
  EXPECT_EQ(one.session.stats().wrong_bodies, 1u);
  one.session.step(node(2), full(one.number, "yes"));
  EXPECT_EQ(one.completed()->reply.text(), "yes");
}

TEST(Session, ALyingHomeCostsOneHedgeDelayAndNoWrongReply) {
  OneRequest one;
  one.session.tick(ms(1'001));
  one.session.step(node(0), full(one.number, "lie"));
  one.session.step(node(1), bare(one.number, "yes"));
  one.session.tick(ms(1'010));
  EXPECT_TRUE(one.session.take_output().send.empty());
  one.session.tick(ms(1'030));
  EXPECT_EQ(numbers(one.session.take_output(), std::nullopt), std::vector<std::uint64_t>{one.number.value});
  one.session.step(node(1), full(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());
  one.session.step(node(2), full(one.number, "yes"));
  EXPECT_EQ(one.completed()->reply.text(), "yes");
  EXPECT_EQ(one.session.stats().hedges, 1u);
}

TEST(Session, ABodyWithFewWordsNeverDisplacesTheOneThatFPlusOneNamed) {
  OneRequest one(2);
  one.session.step(node(0), bare(one.number, "yes"));
  one.session.step(node(1), full(one.number, "yes"));
  one.session.step(node(2), full(one.number, "lie"));
  one.session.step(node(3), bare(one.number, "yes"));
  EXPECT_EQ(one.completed()->reply.text(), "yes");
}

TEST(Session, AsksEverybodyWhenTheHomeNodeIsSilent) {
  OneRequest one;
  one.session.tick(ms(1'001));
  one.session.step(node(1), bare(one.number, "yes"));
  one.session.tick(ms(1'022));
  EXPECT_EQ(numbers(one.session.take_output(), std::nullopt), std::vector<std::uint64_t>{one.number.value});
  one.session.tick(ms(1'100));
  EXPECT_TRUE(one.session.take_output().send.empty());  // one hedge, then the slower retransmission
}

TEST(Session, RetransmitsWithDoublingDelaysWhenNothingIsHeard) {
  OneRequest one;
  std::vector<std::int64_t> sent;
  for (std::int64_t now = 1'000; now < 9'000; now += 5) {
    one.session.tick(ms(now));
    if (!one.session.take_output().send.empty()) sent.push_back(now);
  }
  EXPECT_EQ(sent, (std::vector<std::int64_t>{1'500, 2'000, 3'000, 5'000}));
  one.session.step(node(2), full(one.number, "late"));
  one.session.step(node(3), full(one.number, "late"));
  EXPECT_EQ(one.completed()->outcome, Outcome::kReply);
}

TEST(Session, ALostAckIsAskedForAgain) {
  OneRequest one;
  one.session.step(node(0), full(one.number, "yes"));  // node 1's word got lost
  one.session.tick(ms(1'025));
  EXPECT_FALSE(numbers(one.session.take_output(), std::nullopt).empty());
  one.session.step(node(0), full(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());
  one.session.step(node(3), full(one.number, "yes"));
  EXPECT_EQ(one.completed()->reply.text(), "yes");
}

// Runs `count` requests that take `latency_ms` each, without trouble.
void warm_up(Session& session, std::int64_t& now, int count, std::int64_t latency_ms) {
  for (int i = 0; i < count; ++i) {
    const RequestNumber number = session.submit(text("op")).value();
    now += latency_ms;
    session.tick(ms(now));
    session.step(node(0), full(number, "ok"));
    session.step(node(1), bare(number, "ok"));
    static_cast<void>(session.take_output());
  }
}

TEST(Session, DoesNotHedgeEarlierThanALoadedClusterUsuallyAnswers) {
  Session session(config());
  std::int64_t now = 0;
  warm_up(session, now, 100, 200);
  const RequestNumber number = session.submit(text("op")).value();
  static_cast<void>(session.take_output());
  session.tick(ms(now + 1));
  session.step(node(3), bare(number, "guessed"));  // a node that speaks before its time
  session.tick(ms(now + 199));
  EXPECT_TRUE(session.take_output().send.empty());
  session.tick(ms(now + 1'000));
  EXPECT_FALSE(session.take_output().send.empty());
}

TEST(Session, AHomeThatKeepsSilentCostsOnlyTheFirstRequestsALongDelay) {
  Session session(config());
  std::int64_t now = 0;
  warm_up(session, now, 100, 200);
  std::vector<std::int64_t> waited;  // from the first word to the hedge
  for (int i = 0; i < 6; ++i) {
    const RequestNumber number = session.submit(text("op")).value();
    now += 200;
    session.tick(ms(now));
    session.step(node(1), bare(number, "ok"));
    static_cast<void>(session.take_output());
    const std::int64_t heard = now;
    while (session.take_output().send.empty()) session.tick(ms(++now));
    waited.push_back(now - heard);
    session.step(node(1), full(number, "ok"));
    session.step(node(2), full(number, "ok"));
    ASSERT_EQ(session.take_output().completed.size(), 1u);
  }
  EXPECT_GT(waited[0], 150);
  EXPECT_GT(waited[2], 150);
  EXPECT_LT(waited[3], 50);
  EXPECT_LT(waited[5], 50);
  warm_up(session, now, 1, 200);  // it is back
  const RequestNumber number = session.submit(text("op")).value();
  now += 200;
  session.tick(ms(now));
  session.step(node(1), bare(number, "ok"));
  static_cast<void>(session.take_output());
  session.tick(ms(now + 100));
  EXPECT_TRUE(session.take_output().send.empty());
}

TEST(Session, HedgeDelaysDoNotFeedOnThemselves) {
  Session session(config());
  std::int64_t now = 0;
  std::int64_t last_delay = 0;
  for (int i = 0; i < 200; ++i) {  // a home that never sends bodies
    const RequestNumber number = session.submit(text("op")).value();
    const std::int64_t start = now;
    session.tick(ms(++now));
    session.step(node(1), bare(number, "ok"));
    static_cast<void>(session.take_output());
    while (session.take_output().send.empty()) session.tick(ms(++now));
    last_delay = now - start;
    session.step(node(1), full(number, "ok"));
    session.step(node(2), full(number, "ok"));
    ASSERT_EQ(session.take_output().completed.size(), 1u);
  }
  EXPECT_LE(last_delay, 25);
}

TEST(Session, TakesNoMoreThanItsWindow) {
  Session session(config());
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(session.submit(text("op")).has_value());
  EXPECT_FALSE(session.has_room());
  EXPECT_FALSE(session.submit(text("op")).has_value());
  EXPECT_EQ(session.outstanding(), 8u);
}

TEST(Session, TheWindowMovesWithItsLowestOutstandingNumber) {
  Session session(config());
  for (int i = 0; i < 8; ++i) session.submit(text("op"));
  for (std::uint64_t number = 2; number <= 8; ++number) {
    session.step(node(0), full(RequestNumber{number}, "ok"));
    session.step(node(1), bare(RequestNumber{number}, "ok"));
  }
  EXPECT_EQ(session.outstanding(), 1u);
  EXPECT_FALSE(session.has_room());  // number 1 holds it
  session.step(node(0), full(RequestNumber{1}, "ok"));
  session.step(node(1), bare(RequestNumber{1}, "ok"));
  EXPECT_FALSE(session.has_room());  // not before the completions are handed out
  EXPECT_EQ(session.take_output().completed.size(), 8u);
  EXPECT_EQ(session.submit(text("op")), RequestNumber{9});
}

TEST(Session, RetriesABusyNodeLaterAndOnlyThere) {
  OneRequest one;
  EXPECT_EQ(one.session.step(node(2), rejected(one.number, Refusal::kQueueFull)), Refusal::kNone);
  EXPECT_TRUE(one.session.take_output().send.empty());
  one.session.tick(ms(1'011));
  SessionOutput out = one.session.take_output();
  EXPECT_TRUE(numbers(out, std::nullopt).empty());
  EXPECT_EQ(numbers(out, node(2)), std::vector<std::uint64_t>{one.number.value});
  one.session.step(node(2), rejected(one.number, Refusal::kQuota));
  one.session.tick(ms(1'025));
  EXPECT_TRUE(one.session.take_output().send.empty());  // the delay has doubled
  one.session.tick(ms(1'032));
  EXPECT_EQ(numbers(one.session.take_output(), node(2)), std::vector<std::uint64_t>{one.number.value});
}

TEST(Session, BusyNodesNeverFailARequest) {
  OneRequest one;
  for (int round = 0; round < 3; ++round) {
    for (std::uint32_t i = 0; i < 4; ++i) one.session.step(node(i), rejected(one.number, Refusal::kQueueFull));
  }
  EXPECT_FALSE(one.completed().has_value());
  EXPECT_FALSE(one.session.ended());
  one.session.step(node(0), full(one.number, "yes"));
  one.session.step(node(1), full(one.number, "yes"));
  EXPECT_EQ(one.completed()->outcome, Outcome::kReply);
}

TEST(Session, FailsARequestThatFPlusOneNodesRefuseForGood) {
  OneRequest one;
  EXPECT_EQ(one.session.step(node(3), rejected(one.number, Refusal::kOversize)), Refusal::kNone);
  EXPECT_EQ(one.session.step(node(3), rejected(one.number, Refusal::kOversize)), Refusal::kDuplicate);
  EXPECT_FALSE(one.completed().has_value());
  one.session.step(node(1), rejected(one.number, Refusal::kNotAllowed));
  EXPECT_FALSE(one.completed().has_value());  // two nodes, two reasons: nothing equal
  one.session.step(node(0), rejected(one.number, Refusal::kOversize));
  const auto done = one.completed();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->outcome, Outcome::kRejected);
  EXPECT_EQ(done->reason, Refusal::kOversize);
}

TEST(Session, ARefusalByFNodesDoesNotStopAReply) {
  OneRequest one;
  one.session.step(node(0), rejected(one.number, Refusal::kOversize));
  one.session.step(node(1), full(one.number, "yes"));
  one.session.step(node(2), bare(one.number, "yes"));
  EXPECT_EQ(one.completed()->outcome, Outcome::kReply);
}

TEST(Session, TimesOutWithADefiniteAnswer) {
  OneRequest one;
  one.session.tick(ms(30'999));
  EXPECT_FALSE(one.completed().has_value());
  one.session.tick(ms(31'000));
  const auto done = one.completed();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->outcome, Outcome::kTimedOut);
  one.session.step(node(0), full(one.number, "yes"));
  one.session.step(node(1), full(one.number, "yes"));
  EXPECT_FALSE(one.completed().has_value());  // once is once
}

TEST(Session, EndsWhenANumberMayBeMissingFromTheOrder) {
  OneRequest one;
  const RequestNumber second = one.session.submit(text("op")).value();
  one.session.tick(ms(1'001));
  one.session.step(node(0), rejected(one.number, Refusal::kNotAllowed));
  one.session.step(node(1), rejected(one.number, Refusal::kNotAllowed));
  EXPECT_TRUE(one.session.ended());
  EXPECT_FALSE(one.session.submit(text("op")).has_value());
  one.session.step(node(0), full(second, "yes"));  // what is on its way still completes
  one.session.step(node(1), full(second, "yes"));
  EXPECT_EQ(one.session.take_output().completed.size(), 2u);
  EXPECT_EQ(one.session.outstanding(), 0u);
}

TEST(Session, TellsAReconnectedNodeWhatIsOutstanding) {
  Session session(config());
  for (int i = 0; i < 3; ++i) session.submit(text("op"));
  static_cast<void>(session.take_output());
  session.step(node(2), bare(RequestNumber{2}, "ok"));  // node 2 has answered this one
  session.submit(text("op"));                           // this one leaves with the next output anyway
  session.channel_up(node(2));
  const SessionOutput out = session.take_output();
  EXPECT_EQ(numbers(out, node(2)), (std::vector<std::uint64_t>{1, 3}));
  EXPECT_EQ(numbers(out, std::nullopt), std::vector<std::uint64_t>{4});
}

TEST(Session, RefusesWordsAboutNumbersItNeverSent) {
  OneRequest one;
  EXPECT_EQ(one.session.step(node(0), full(RequestNumber{0}, "x")), Refusal::kOutOfWindow);
  EXPECT_EQ(one.session.step(node(0), full(RequestNumber{2}, "x")), Refusal::kOutOfWindow);
  EXPECT_EQ(one.session.step(node(0), rejected(RequestNumber{9}, Refusal::kQuota)), Refusal::kOutOfWindow);
  EXPECT_EQ(one.session.step(node(0), rejected(one.number, Refusal::kNone)), Refusal::kMalformed);
  EXPECT_EQ(one.session.step(node(4), full(one.number, "x")), Refusal::kMalformed);
  Acks other = full(one.number, "x");
  other.session.value ^= 1;
  EXPECT_EQ(one.session.step(node(0), other), Refusal::kMalformed);
  EXPECT_FALSE(one.completed().has_value());
}

// Nodes 0..f-1 say anything at all, the others are honest and their words come in any order, more than once.
TEST(Session, AnswersEveryRequestOnceAndRightWhateverFNodesSay) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Prng prng(seed);
    const auto f = static_cast<std::uint32_t>(1 + prng.below(3));
    SessionConfig with = config(f);
    Session session(with);
    std::set<std::uint64_t> completed;
    std::uint64_t submitted = 0;
    for (std::int64_t now = 0; now < 20'000 && completed.size() < 100; ++now) {
      session.tick(ms(now));
      while (submitted < 100 && session.submit(text("op"))) ++submitted;
      for (int words = 0; words < 4; ++words) {
        const auto from = static_cast<std::uint32_t>(prng.below(3 * f + 1));
        const RequestNumber number{1 + prng.below(submitted)};
        const std::string right = "reply " + std::to_string(number.value);
        if (from >= f) {
          session.step(node(from), ack(number, right, prng.below(2) != 0));
        } else if (prng.below(2) != 0) {
          session.step(node(from), ack(number, prng.below(2) != 0 ? right : "lie", prng.below(2) != 0));
        } else {
          session.step(node(from), rejected(number, static_cast<Refusal>(1 + prng.below(20))));
        }
      }
      for (const Completed& done : session.take_output().completed) {
        ASSERT_EQ(done.outcome, Outcome::kReply) << "seed " << seed;
        ASSERT_EQ(done.reply.text(), "reply " + std::to_string(done.number.value)) << "seed " << seed;
        ASSERT_TRUE(completed.insert(done.number.value).second) << "seed " << seed;
      }
    }
    ASSERT_EQ(completed.size(), 100u) << "seed " << seed;
    ASSERT_EQ(session.outstanding(), 0u);
  }
}

}  // namespace
}  // namespace zz::client
