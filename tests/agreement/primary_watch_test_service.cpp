// PrimaryWatch over long services: clients that are the cause, random correct and faulty primaries, any input.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/prng.hpp"
#include "tests/agreement/primary_watch_test_support.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::IsEmpty;

// ---- clients that are the cause --------------------------------------------------------------------------------

// It sends what it sends to this backup and never to the primary, and the faulty nodes join every complaint.
TEST(HostileClient, CannotKeepTheViewsChanging) {
  for (const std::size_t others : {0u, 5u}) {
    SCOPED_TRACE(others);
    Play play(others + 1);
    play.wait = [&](std::size_t i) { return i == others ? kNever - 4'000 * kSecond : 2 * kMs; };
    play.run(60 * kSecond);
    EXPECT_GE(play.complaints.size(), 4u);
    play.complaints.clear();
    play.run(1'740 * kSecond);
    EXPECT_LE(play.complaints.size(), 7u);  // twice as rarely each time
  }
}

// It does the same, and has other requests ordered meanwhile.
TEST(HostileClient, IsNotPardonedAtOnceForWhatItSendsProperly) {
  Play play(3);
  std::uint64_t sent = 0;
  play.wait = [&](std::size_t i) { return i == 2 && ++sent % 3 == 0 ? 2 * kSecond : 2 * kMs; };
  play.run(600 * kSecond);
  EXPECT_LE(play.complaints.size(), 4u + 600 / 32 + 1);  // one each 64 * base at most, after the first four
}

// A request that few nodes vouch for: the client's doing as like as not.
TEST(RequestOfFewNodes, IsNoReasonToLeaveUntilEnoughVouchForIt) {
  Hand hand;
  hand.seen.heads = {head_of(1), head_of(2)};
  hand.seen.alone = {true, true};
  std::uint64_t number = 0;
  for (int i = 0; i < 200; ++i) {
    hand.seen.heads[1] = head_of(2, ++number);
    hand.deliver();
    hand.watch.ordered(ClientId{2});
    ASSERT_EQ(hand.look(20 * kMs), std::nullopt);
  }
  hand.seen.heads[1] = head_of(2, ++number);
  ASSERT_EQ(hand.look(300 * kMs), std::nullopt);
  hand.seen.alone[1] = false;  // what it waited before counts
  EXPECT_EQ(hand.look(195 * kMs), std::nullopt);
  EXPECT_EQ(hand.look(kTick), Complaint::kSilent);
}

TEST(RequestOfFewNodes, DoesNotKeepTheTimeoutUp) {
  Hand hand;
  hand.seen.in_flight = 1;
  for (int i = 0; i < 5; ++i) {
    ASSERT_NE(hand.until(Complaint::kSilent), kNever);
    hand.go_on();
  }
  hand.seen.heads = {head_of(1)};
  hand.seen.alone = {true};
  hand.steady(20 * kSecond);
  EXPECT_EQ(hand.watch.timeout(), Micros{kBase});
}

TEST(RequestOfFewNodes, ShowsASlowPrimaryAllTheSame) {
  Hand hand;
  std::uint64_t number = 0;
  std::optional<Complaint> complaint;
  for (int i = 0; i < 20 && !complaint; ++i) {
    hand.seen.heads = {head_of(1, ++number)};
    hand.seen.alone = {true};
    complaint = hand.look(200 * kMs);
    hand.deliver();
    hand.watch.ordered(ClientId{1});
  }
  EXPECT_EQ(complaint, Complaint::kSlow);
}

// A client that asks one node and no other, and goes on to its next session before the node is believed.
TEST(RequestOfFewNodes, ThatIsGivenUpIsNoReasonEither) {
  for (const bool given_up : {true, false}) {
    SCOPED_TRACE(given_up);
    Hand hand;
    hand.seen.alone = {true};
    std::optional<Complaint> complaint;
    for (std::uint64_t number = 1; number <= 100 && !complaint; ++number) {
      hand.seen.heads = {head_of(1, number)};
      if (given_up && number > 1) hand.seen.given_up = {ClientId{1}};
      complaint = hand.look(0);
      hand.seen.given_up.clear();
      for (int i = 0; i < 16 && !complaint; ++i) {
        hand.deliver();
        hand.watch.ordered(ClientId{2});
        complaint = hand.look(20 * kMs);
      }
    }
    EXPECT_EQ(complaint, given_up ? std::nullopt : std::optional(Complaint::kUnfair));
  }
}

TEST(InnocentClient, IsHeardAgainAfterAnyNumberOfSilentPrimaries) {
  Play play(2);
  play.silent = true;
  int bad = 0;
  play.on_complaint = [&](Complaint) { play.silent = ++bad % 4 != 0; };  // three dead primaries in a row
  for (int round = 0; round < 10; ++round) {
    const std::size_t before = play.complaints.size();
    play.run(60 * kSecond);
    ASSERT_EQ(play.complaints.size() - before, 4u);
    play.run(20 * kSecond);
    ASSERT_FALSE(play.silent);
    play.silent = true;
  }
}

TEST(InnocentClient, IsStillHeardWhenAHostileOneIsNot) {
  Play play(4);
  play.wait = [](std::size_t i) { return i == 3 ? kNever - 4'000 * kSecond : 2 * kMs; };
  play.run(60 * kSecond);
  play.complaints.clear();
  play.wait = [](std::size_t i) { return i == 0 ? kNever - 4'000 * kSecond : 2 * kMs; };
  play.run(3 * kSecond);
  EXPECT_FALSE(play.complaints.empty());
}

// ---- all together ----------------------------------------------------------------------------------------------

// AL-14: three good seconds, three without a primary, for two minutes.
TEST(Timeout, AL14_ThrashingDoesNotInflateItForLong) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Prng prng(seed);
    Play play(1 + prng.below(6));
    play.think = [&] { return static_cast<std::int64_t>(prng.below(50)) * kMs; };
    for (int round = 0; round < 20; ++round) {
      play.silent = false;
      play.run(3 * kSecond);
      play.silent = true;
      play.run(3 * kSecond);
    }
    play.silent = false;
    EXPECT_GE(play.complaints.size(), 20u);  // every cut was noticed
    play.run(60 * kSecond);
    EXPECT_EQ(play.watch.timeout(), Micros{kBase}) << seed;
    const std::size_t before = play.complaints.size();
    play.run(60 * kSecond);
    EXPECT_EQ(play.complaints.size(), before);
  }
}

TEST(Property, ACorrectPrimaryIsNeverLeft) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    Play play(1 + prng.below(20));
    play.tick = (1 + static_cast<std::int64_t>(prng.below(50))) * kMs;
    std::int64_t hop = kMs;
    const auto around = [&](std::int64_t mean) {
      return mean / 2 + static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(mean) + 1));
    };
    std::int64_t pause = 0;
    play.wait = [&](std::size_t) { return around(hop); };
    play.flight = [&] { return around(2 * hop); };
    play.think = [&] {
      return around(2 * hop) + static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(pause) + 1));
    };
    for (int phase = 0; phase < 12; ++phase) {
      hop = 200 + static_cast<std::int64_t>(prng.below(prng.below(2) == 0 ? 5'000 : 150'000));
      pause = prng.below(2) == 0 ? 0 : static_cast<std::int64_t>(prng.below(3 * kSecond));
      play.seen.blocked = prng.below(6) == 0;
      play.run(10 * kSecond);
    }
    ASSERT_THAT(play.complaints, IsEmpty())
        << to_string(play.complaints.front()) << " at " << play.complained_at.front();
  }
}

TEST(Property, AFaultyPrimaryIsLeftSoon) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    const std::size_t clients = 2 + prng.below(20);
    const std::size_t victim = prng.below(clients);
    const std::int64_t hop = 200 + static_cast<std::int64_t>(prng.below(5'000));
    Play play(clients);
    play.tick = (1 + static_cast<std::int64_t>(prng.below(20))) * kMs;
    std::uint64_t attack = 3;  // none
    play.wait = [&](std::size_t i) {
      if (attack == 0) return hop + 150 * kMs + static_cast<std::int64_t>(prng.below(250)) * kMs;  // slow
      if (attack == 1 && i == victim) return kNever - 4'000 * kSecond;                             // starves one
      if (attack == 2 && i == victim) return 200 * kMs + static_cast<std::int64_t>(prng.below(250)) * kMs;
      return hop;
    };
    play.flight = [&] { return 2 * hop; };
    play.run(static_cast<std::int64_t>(prng.below(20)) * kSecond);
    ASSERT_THAT(play.complaints, IsEmpty());
    attack = prng.below(3);
    play.run(10 * kSecond);
    ASSERT_FALSE(play.complaints.empty()) << attack;
  }
}

TEST(Property, AnyInputIsSurvived) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Prng prng(seed);
    PrimaryWatch watch({});
    for (int i = 0; i < 3'000; ++i) {
      switch (prng.below(8)) {
        case 0:
          watch.entered(View{prng.below(100)});
          break;
        case 1:
          watch.left(View{prng.below(100)});
          break;
        case 2:
          watch.backed();
          break;
        case 3:
          watch.ordered(ClientId{static_cast<std::uint32_t>(prng.below(10))});
          break;
        default: {
          Situation seen;
          seen.primary = prng.below(4) == 0;
          seen.blocked = prng.below(4) == 0;
          seen.delivered = Seq{prng.below(1'000)};
          seen.position = prng.below(100'000);
          seen.in_flight = prng.below(256);
          seen.gap = prng.below(4) == 0;
          seen.system_waits = prng.below(4) == 0;
          if (prng.below(3) == 0) seen.held = Seq{prng.below(5)};
          for (std::uint32_t c = 0; c < 10; ++c) {
            if (prng.below(2) == 0) seen.heads.push_back(head_of(c, prng.below(2)));
            if (prng.below(2) == 0) seen.alone.push_back(prng.below(2) == 0);
          }
          static_cast<void>(watch.tick(Micros{static_cast<std::int64_t>(prng.next() >> prng.below(60) >> 2)}, seen));
          ASSERT_GE(watch.timeout(), Micros{kBase});
          ASSERT_LE(watch.timeout(), Micros{60 * kSecond});
        }
      }
    }
  }
}

}  // namespace
}  // namespace zz::agreement::testing
