#include "execution/session_table.hpp"

#include <gtest/gtest.h>

#include <string>

#include "agreement/messages.hpp"
#include "base/prng.hpp"
#include "tests/support/memory_store.hpp"

namespace zz::execution {
namespace {

using Verdict = SessionTable::Verdict;

constexpr ClientId kClient{1};

struct Store {
  std::unique_ptr<state::ObjectStore> store = test::memory_store();
};
struct Table : Store, SessionTable {
  explicit Table(const SessionLimits& its_limits) : SessionTable(its_limits, *store) {}
  Digest root() {
    static_cast<void>(save());
    return test::root_of(*store);
  }
};

SessionLimits limits(std::uint32_t window = 4, std::uint32_t sessions = 3, std::uint64_t bytes = 1u << 20) {
  return {window, sessions, bytes, 16};
}

void run(SessionTable& table, std::uint64_t session, std::uint64_t number, const std::string& body = "r") {
  const SharedBytes reply = SharedBytes::copy(body);
  table.record(kClient, SessionId{session}, RequestNumber{number}, agreement::reply_digest(reply.view()), reply.view());
}
SessionTable::Lookup look(SessionTable& table, std::uint64_t session, std::uint64_t number) {
  return table.look_up(kClient, SessionId{session}, RequestNumber{number});
}

TEST(SessionTable, ARecordedRequestIsARepeatWithItsReply) {
  Table table(limits());
  EXPECT_EQ(look(table, 1, 1).verdict, Verdict::kRun);
  run(table, 1, 1, "hello");
  const auto found = look(table, 1, 1);
  EXPECT_EQ(found.verdict, Verdict::kRepeat);
  const auto cached = table.cached(kClient, SessionId{1}, RequestNumber{1});
  ASSERT_TRUE(cached.body.has_value());
  EXPECT_EQ(cached.body->text(), "hello");
  EXPECT_EQ(found.digest, agreement::reply_digest(as_bytes("hello")));
  EXPECT_EQ(look(table, 1, 2).verdict, Verdict::kRun);
  EXPECT_EQ(look(table, 2, 1).verdict, Verdict::kRun);
  EXPECT_EQ(table.look_up(ClientId{2}, SessionId{1}, RequestNumber{1}).verdict, Verdict::kRun);
}

TEST(SessionTable, NumbersMayBeExecutedInAnyOrderInsideTheWindow) {
  Table table(limits());
  for (const std::uint64_t number : {3, 1, 4, 2}) {
    EXPECT_EQ(look(table, 1, number).verdict, Verdict::kRun);
    run(table, 1, number);
  }
  for (std::uint64_t number = 1; number <= 4; ++number) EXPECT_EQ(look(table, 1, number).verdict, Verdict::kRepeat);
}

TEST(SessionTable, ANumberOlderThanTwoWindowsIsExpiredAndNeverRun) {
  Table table(limits(4));
  for (std::uint64_t number = 1; number <= 12; ++number) {
    if (number != 4) run(table, 1, number);
  }
  EXPECT_EQ(look(table, 1, 4).verdict, Verdict::kExpired);  // never executed, too late now
  EXPECT_EQ(look(table, 1, 1).verdict, Verdict::kExpired);
  EXPECT_EQ(look(table, 1, 5).verdict, Verdict::kRepeat);
  EXPECT_EQ(look(table, 1, 0).verdict, Verdict::kExpired);
}

TEST(SessionTable, TheSessionThatExecutedLeastRecentlyMakesRoom) {
  Table table(limits(4, 3));
  run(table, 1, 1);
  run(table, 2, 1);
  run(table, 3, 1);
  run(table, 1, 2);
  run(table, 4, 1);  // 2 goes
  EXPECT_EQ(table.sessions(), 3u);
  EXPECT_EQ(look(table, 2, 1).verdict, Verdict::kExpired);
  EXPECT_EQ(look(table, 2, 2).verdict, Verdict::kExpired);
  for (const std::uint64_t session : {1, 3, 4}) EXPECT_EQ(look(table, session, 1).verdict, Verdict::kRepeat);
}

TEST(SessionTable, AClientWithManySessionsEvictsOnlyItsOwn) {
  Table table({4, 8, 1u << 20, 3});
  const ClientId innocent{2};
  table.record(innocent, SessionId{1}, RequestNumber{1}, Digest{}, {});  // the least recent of all
  for (const std::uint64_t session : {1, 2, 3}) run(table, session, 1);
  run(table, 1, 2);
  run(table, 4, 1);  // 2 goes
  EXPECT_EQ(look(table, 2, 1).verdict, Verdict::kExpired);
  EXPECT_EQ(look(table, 1, 1).verdict, Verdict::kRepeat);
  for (std::uint64_t session = 5; session < 50; ++session) run(table, session, 1);
  EXPECT_EQ(table.sessions(), 4u);
  EXPECT_EQ(table.look_up(innocent, SessionId{1}, RequestNumber{1}).verdict, Verdict::kRepeat);
  EXPECT_EQ(table.look_up(innocent, SessionId{1}, RequestNumber{2}).verdict, Verdict::kRun);
}

TEST(SessionTable, ASessionCannotStartBeyondItsFirstWindow) {
  Table table(limits(4));
  EXPECT_EQ(look(table, 1, 9).verdict, Verdict::kExpired);
  EXPECT_EQ(look(table, 1, 8).verdict, Verdict::kRun);
}

TEST(SessionTable, CachedBodiesStayWithinTheirBytesAndTheOldestGoFirst) {
  constexpr std::uint64_t kMax = 10 * 100;
  Table table(limits(64, 3, kMax));
  for (std::uint64_t number = 1; number <= 25; ++number) {
    run(table, 1 + number % 2, number, std::string(100, 'a'));
    EXPECT_LE(table.reply_bytes(), kMax);
  }
  int cached = 0;
  for (std::uint64_t number = 1; number <= 25; ++number) {
    const auto body = table.cached(kClient, SessionId{1 + number % 2}, RequestNumber{number}).body;
    EXPECT_EQ(body.has_value(), number > 15);
    if (body) ++cached;
    const auto found = look(table, 1 + number % 2, number);
    EXPECT_EQ(found.verdict, Verdict::kRepeat);  // the digest outlives the body
    EXPECT_EQ(found.digest, agreement::reply_digest(as_bytes(std::string(100, 'a'))));
  }
  EXPECT_EQ(cached, 10);
}

TEST(SessionTable, AReplyLargerThanTheWholeCacheIsNotCached) {
  Table table(limits(4, 3, 200));
  run(table, 1, 1, "small");
  run(table, 1, 2, std::string(1'000, 'a'));
  EXPECT_TRUE(table.cached(kClient, SessionId{1}, RequestNumber{1}).body.has_value());
  EXPECT_FALSE(table.cached(kClient, SessionId{1}, RequestNumber{2}).body.has_value());
  EXPECT_EQ(look(table, 1, 2).verdict, Verdict::kRepeat);
}

TEST(SessionTable, WhatIsEvictedLeavesTheStore) {
  Table table(limits(4, 2));
  for (std::uint64_t session = 1; session <= 2'000; ++session) run(table, session, 1, "b");
  static_cast<void>(table.save());
  EXPECT_LE(table.store->totals().objects, SessionTable::reserve(limits(4, 2)).objects);
  EXPECT_LE(table.store->totals().bytes, SessionTable::reserve(limits(4, 2)).bytes);
  EXPECT_EQ(look(table, 2'000, 1).verdict, Verdict::kRepeat);
}

TEST(SessionTable, EqualHistoriesGiveEqualTablesAndDifferentOnesDoNot) {
  Table a(limits(8, 5, 2'000));
  Table b(limits(8, 5, 2'000));
  const auto play = [](SessionTable& table, std::uint64_t steps) {
    Prng prng(5);
    std::vector<std::uint64_t> next(9, 1);
    for (std::uint64_t i = 0; i < steps; ++i) {
      const std::uint64_t session = prng.below(next.size());
      const std::uint64_t number = next[session]++;
      if (look(table, session, number).verdict == Verdict::kRun)
        run(table, session, number, std::string(prng.below(200), 'x'));
    }
  };
  play(a, 3'000);
  play(b, 3'000);
  EXPECT_EQ(a.root(), b.root());
  run(b, 50, 1);
  EXPECT_NE(a.root(), b.root());
}

// Execution stops for save().
TEST(SessionTable, ACheckpointWritesAFewPagesHoweverManySessionsTookPart) {
  constexpr std::uint64_t kSessions = 4 * kPagesWaitingMax;
  const SessionLimits wide{8, kSessions, 1u << 20, kSessions};
  Table table(wide);
  Table often(wide);
  for (std::uint64_t number = 1; number <= 3; ++number) {
    for (std::uint64_t session = 1; session <= kSessions; ++session) {
      run(table, session, number);
      run(often, session, number);
      if (session % 100 == 0) static_cast<void>(often.save());
    }
    const std::uint64_t before = table.store->totals().objects;
    EXPECT_GE(before + kPagesWaitingMax, kSessions);
    static_cast<void>(table.save());
    EXPECT_LE(table.store->totals().objects - before, kPagesWaitingMax + kSessions / layout::kSessionsPerPage + 2);
  }
  EXPECT_EQ(table.root(), often.root()) << "when a page is written shows in the state";
}

TEST(SessionTable, LookingUpChangesNothing) {
  Table table(limits(4, 2));
  run(table, 1, 1);
  run(table, 2, 1);
  const Digest before = table.root();
  static_cast<void>(look(table, 1, 1));
  static_cast<void>(look(table, 9, 1));
  EXPECT_EQ(table.root(), before);
  run(table, 3, 1);
  EXPECT_EQ(look(table, 1, 1).verdict, Verdict::kExpired);  // the look-up did not make it recent
}

}  // namespace
}  // namespace zz::execution
