// PrimaryWatch against synthetic primaries: each rule where it must fire and where it must not, in virtual time.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agreement/primary_watch_test_support.hpp"

namespace zz::agreement::testing {
namespace {

using ::testing::ElementsAre;

// ---- silent ----------------------------------------------------------------------------------------------------

TEST(SilentPrimary, ARequestWaitsForOneTimeout) {
  Hand hand;
  hand.seen.heads = {head_of(1)};
  EXPECT_EQ(hand.until(Complaint::kSilent), kBase);
}

TEST(SilentPrimary, AHeadThatChangesBeginsAnew) {
  Hand hand;
  for (std::uint64_t number = 1; number <= 200; ++number) {
    hand.seen.heads = {head_of(1, number)};
    ASSERT_EQ(hand.look(40 * kMs), std::nullopt);
    hand.deliver();
  }
  hand.seen.heads.clear();
  EXPECT_EQ(hand.look(60 * kSecond), std::nullopt);
}

TEST(SilentPrimary, OneHeadAmongManyIsEnough) {
  Hand hand;
  for (std::uint64_t round = 1; round <= 7; ++round) {
    hand.seen.heads = {head_of(1, round), head_of(2), head_of(3, round)};
    hand.deliver(2);
    ASSERT_EQ(hand.look(70 * kMs), std::nullopt);
  }
  EXPECT_EQ(hand.look(20 * kMs), Complaint::kSilent);
}

TEST(SilentPrimary, AProposalThatIsNotDeliveredCountsToo) {
  for (const bool primary : {false, true}) {
    Hand hand;
    hand.seen.primary = primary;
    hand.seen.in_flight = 3;
    EXPECT_EQ(hand.look(450 * kMs), std::nullopt);
    hand.deliver();
    EXPECT_EQ(hand.until(Complaint::kSilent), kBase);
  }
}

TEST(SilentPrimary, AMissingProposalBeforeOthersCountsToo) {
  Hand hand;
  hand.seen.gap = true;
  EXPECT_EQ(hand.until(Complaint::kSilent), kBase);
}

TEST(SilentPrimary, NothingIsDueWhenNothingWaits) {
  Hand hand;
  EXPECT_EQ(hand.look(600 * kSecond), std::nullopt);
  hand.deliver();
  EXPECT_EQ(hand.look(600 * kSecond), std::nullopt);
}

TEST(SilentPrimary, ThePrimaryDoesNotWaitForItself) {
  Hand hand;
  hand.seen.primary = true;
  hand.seen.heads = {head_of(1)};  // it knows why: an unproven client, say
  hand.seen.held = Seq{1};
  hand.seen.system_waits = true;
  EXPECT_EQ(hand.look(60 * kSecond), std::nullopt);
}

TEST(SilentPrimary, ASystemOperationWaitsForOneTimeoutWhenNothingIsDelivered) {
  Hand hand;
  hand.seen.system_waits = true;
  EXPECT_EQ(hand.until(Complaint::kSilent), kBase);
}

TEST(SilentPrimary, ASystemOperationIsNotPassedOverForLong) {
  Hand hand;
  hand.seen.system_waits = true;
  std::optional<Complaint> complaint;
  while (!complaint && hand.now < 10 * kSecond) {
    hand.deliver();
    complaint = hand.look(50 * kMs);
  }
  EXPECT_EQ(complaint, Complaint::kSilent);
  EXPECT_NEAR(static_cast<double>(hand.now), 4.0 * kBase, 100.0 * kMs);
}

// One that this node alone finds due.
TEST(SilentPrimary, ASystemOperationDoesNotKeepTheViewsChanging) {
  Hand hand;
  hand.seen.system_waits = true;
  const auto complaints_in = [&](std::int64_t span) {
    int complaints = 0;
    for (const std::int64_t end = hand.now + span; hand.now < end;) {
      hand.deliver();
      if (!hand.look(50 * kMs)) continue;
      ++complaints;
      hand.go_on();
    }
    return complaints;
  };
  EXPECT_EQ(complaints_in(30 * kSecond), 4);
  EXPECT_LE(complaints_in(570 * kSecond), 5);
  hand.seen.system_waits = false;
  EXPECT_EQ(complaints_in(600 * kSecond), 0);
  hand.seen.system_waits = true;  // another one
  EXPECT_EQ(complaints_in(30 * kSecond), 4);
}

TEST(SilentPrimary, IsComplainedAboutOncePerView) {
  Hand hand;
  hand.seen.heads = {head_of(1)};
  ASSERT_EQ(hand.look(kSecond), Complaint::kSilent);
  EXPECT_EQ(hand.look(60 * kSecond), std::nullopt);
  hand.go_on();
  EXPECT_EQ(hand.look(2 * kSecond), Complaint::kSilent);
}

// AL-05: proposals stop at the end of the window; that is back-pressure and nobody's fault.
TEST(SilentPrimary, AgesStandStillWhileNoProposalCanCome) {
  Hand hand;
  hand.seen.heads = {head_of(1)};
  hand.seen.in_flight = 5;
  ASSERT_EQ(hand.look(300 * kMs), std::nullopt);
  hand.seen.blocked = true;
  EXPECT_EQ(hand.look(600 * kSecond), std::nullopt);
  hand.seen.blocked = false;
  EXPECT_EQ(hand.look(150 * kMs), std::nullopt);
  EXPECT_EQ(hand.look(100 * kMs), Complaint::kSilent);
}

TEST(SilentPrimary, WhatThisNodeSleptThroughIsNotHeldAgainstIt) {
  Hand hand;
  hand.seen.heads = {head_of(1)};
  ASSERT_EQ(hand.look(100 * kMs), std::nullopt);
  hand.now += 3'600 * kSecond;
  EXPECT_EQ(hand.look(100 * kMs), std::nullopt);
  hand.seen.heads.clear();
  EXPECT_EQ(hand.look(10 * kSecond), std::nullopt);
}

TEST(SilentPrimary, TimeThatGoesBackIsNoTime) {
  Hand hand;
  hand.now = 100 * kSecond;
  hand.look(0);
  hand.seen.heads = {head_of(1)};
  ASSERT_EQ(hand.look(400 * kMs), std::nullopt);
  hand.now = 0;
  EXPECT_EQ(hand.look(50 * kMs), std::nullopt);
  EXPECT_EQ(hand.look(kSecond), Complaint::kSilent);
}

// ---- held ------------------------------------------------------------------------------------------------------

TEST(HeldProposal, IsComplainedAboutAfterTheBodyTimeout) {
  PrimaryWatch::Config config;
  config.body_timeout = Micros{200 * kMs};
  Hand hand(config);
  hand.seen.in_flight = 1;
  hand.seen.held = Seq{4};
  ASSERT_EQ(hand.look(150 * kMs), std::nullopt);
  hand.seen.held = Seq{5};  // the bodies of 4 came
  ASSERT_EQ(hand.look(150 * kMs), std::nullopt);
  hand.seen.held.reset();
  ASSERT_EQ(hand.look(100 * kMs), std::nullopt);
  hand.deliver(2);
  hand.seen.held = Seq{6};
  EXPECT_EQ(hand.until(Complaint::kHeld), 200 * kMs);
}

// ---- new view --------------------------------------------------------------------------------------------------

TEST(NewViewTimer, RunsOnlyOnceTwoFPlusOneNodesWantTheView) {
  Hand hand;
  hand.steady(2 * kSecond);
  hand.seen.heads = {head_of(1)};
  ASSERT_EQ(hand.look(kSecond), Complaint::kSilent);
  hand.watch.left(View{1});
  EXPECT_EQ(hand.look(600 * kSecond), std::nullopt);
  hand.watch.backed();
  ASSERT_EQ(hand.look(400 * kMs), std::nullopt);
  hand.watch.backed();  // said again: it was said before
  EXPECT_EQ(hand.until(Complaint::kNoNewView), kBase - 400 * kMs);
  EXPECT_EQ(hand.look(60 * kSecond), std::nullopt);
  hand.watch.left(View{2});
  hand.watch.backed();
  EXPECT_EQ(hand.until(Complaint::kNoNewView), 2 * kBase);
}

TEST(NewViewTimer, EndsWithTheNewView) {
  Hand hand;
  hand.watch.left(View{1});
  hand.watch.backed();
  ASSERT_EQ(hand.look(100 * kMs), std::nullopt);
  hand.watch.entered(View{1});
  hand.watch.backed();
  EXPECT_EQ(hand.look(60 * kSecond), std::nullopt);
}

TEST(NewViewTimer, RunsWhileTheWindowIsShut) {
  Hand hand;
  hand.seen.blocked = true;
  hand.watch.left(View{1});
  hand.watch.backed();
  EXPECT_NE(hand.until(Complaint::kNoNewView), kNever);
}

// ---- the timeout -----------------------------------------------------------------------------------------------

TEST(Timeout, DoublesWithEachViewInARowThatBroughtNothingUpToTheMaximum) {
  Hand hand;
  hand.steady(2 * kSecond);
  hand.seen.in_flight = 1;
  std::vector<std::int64_t> timeouts;
  for (int i = 0; i < 10; ++i) {
    timeouts.push_back(hand.watch.timeout().value / kMs);
    ASSERT_EQ(hand.until(Complaint::kSilent) / kMs, timeouts.back());
    hand.go_on();
  }
  EXPECT_THAT(timeouts, ElementsAre(500, 500, 1'000, 2'000, 4'000, 8'000, 16'000, 32'000, 60'000, 60'000));
}

TEST(Timeout, ComesBackToBaseWithSteadyService) {
  Hand hand;
  hand.seen.in_flight = 1;
  for (int i = 0; i < 10; ++i) {
    ASSERT_NE(hand.until(Complaint::kSilent), kNever);
    hand.go_on();
  }
  ASSERT_EQ(hand.watch.timeout(), Micros{60 * kSecond});
  const std::int64_t start = hand.now;
  while (hand.watch.timeout() != Micros{kBase} && hand.now < start + 60 * kSecond) hand.steady(100 * kMs);
  EXPECT_LE(hand.now - start, 10 * kSecond);
}

TEST(Timeout, DoesNotGoBelowWhatTheWaitsNeed) {
  Hand hand;
  hand.seen.heads = {head_of(1)};
  for (int i = 0; i < 4; ++i) {
    ASSERT_NE(hand.until(Complaint::kSilent), kNever);
    hand.go_on();
  }
  std::uint64_t number = 1;
  const auto serve = [&](std::int64_t wait, std::int64_t span) {
    for (const std::int64_t end = hand.now + span; hand.now < end;) {
      hand.seen.heads = {head_of(1, ++number)};
      const auto complaint = hand.look(wait);
      if (complaint && *complaint != Complaint::kSlow) ADD_FAILURE() << to_string(*complaint);
      if (complaint) hand.go_on();
      hand.watch.ordered(ClientId{1});
      hand.deliver();
    }
  };
  serve(600 * kMs, 120 * kSecond);
  EXPECT_EQ(hand.watch.timeout(), Micros{2 * kSecond});
  serve(20 * kMs, 20 * kSecond);
  EXPECT_EQ(hand.watch.timeout(), Micros{kBase});
}

TEST(Timeout, GrowsUntilASlowNetworkFitsInAndStaysThere) {
  Hand hand;
  std::vector<std::int64_t> complaints;
  std::uint64_t number = 0;
  for (const std::int64_t end = hand.now + 300 * kSecond; hand.now < end;) {
    hand.seen.heads = {head_of(1, ++number)};
    hand.seen.in_flight = 1;
    const auto complaint = hand.look(800 * kMs);  // every request waits for longer than the base
    if (complaint) {
      complaints.push_back(hand.now);
      hand.go_on();
    }
    hand.deliver();
  }
  EXPECT_LE(complaints.size(), 6u);
  EXPECT_LT(complaints.back(), 30 * kSecond);
}

}  // namespace
}  // namespace zz::agreement::testing
