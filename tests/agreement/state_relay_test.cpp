#include "agreement/state_relay.hpp"

#include <gtest/gtest.h>

namespace zz::agreement {
namespace {

constexpr SlotId kAsker{0};
constexpr SlotId kSource{1};
constexpr Incarnation kLife{4};

struct StateRelayTest : ::testing::Test {
  StateRelayTest() {
    relay.tick(Micros{1'000'000});
    for (std::uint16_t slot = 0; slot < 3; ++slot) relay.channel_up(SlotId{slot}, kLife);
  }
  static FetchState wish(std::uint64_t ticket, std::size_t objects = 1, SlotId source = kSource) {
    return {ticket, source, Seq{128}, std::vector<StateWant>(objects, StateWant{2, 5, 16, kStatePartBytesMax, {}}), {}};
  }
  static StateParts parts(std::uint64_t ticket, std::size_t count = 1, std::size_t bytes = 100) {
    return {ticket, std::vector<StatePart>(count, StatePart{2, 5, 16, SharedBytes(Bytes(bytes, 1))})};
  }
  // The only message there is.
  template <class T>
  T only(SlotId to) {
    const StateRelayOutput out = relay.take_output();
    if (out.to_executor.size() != 1 || !std::holds_alternative<T>(out.to_executor[0].message)) {
      ADD_FAILURE() << out.to_executor.size() << " messages, or another";
      return {};
    }
    EXPECT_EQ(out.to_executor[0].to, to);
    return std::get<T>(out.to_executor[0].message);
  }
  // What the asker of that ticket gets is empty.
  void expect_empty(std::uint64_t ticket) {
    const StateParts empty = only<StateParts>(kAsker);
    EXPECT_EQ(empty.ticket, ticket);
    EXPECT_TRUE(empty.parts.empty());
  }
  std::uint64_t pass(std::uint64_t ticket) {
    EXPECT_EQ(relay.request(kAsker, kLife, wish(ticket)), Refusal::kNone);
    return only<FetchState>(kSource).ticket;
  }
  StateRelay relay{StateRelay::Options{}};
};

TEST_F(StateRelayTest, PassesTheQuestionOnAndTheAnswerBackUnderTicketsOfItsOwn) {
  for (const std::uint64_t ticket : {77u, 77u, 3u}) {
    EXPECT_EQ(relay.request(kAsker, kLife, wish(ticket, 2)), Refusal::kNone);
    const FetchState passed = only<FetchState>(kSource);
    EXPECT_EQ(passed.wants, wish(ticket, 2).wants);
    EXPECT_EQ(passed.n, Seq{128});
    EXPECT_EQ(relay.answer(kSource, kLife, parts(passed.ticket, 2)), Refusal::kNone);
    const StateParts back = only<StateParts>(kAsker);
    EXPECT_EQ(back.ticket, ticket);
    EXPECT_EQ(back.parts.size(), 2u);
    EXPECT_EQ(relay.answer(kSource, kLife, parts(passed.ticket)), Refusal::kNotWanted) << "once";
  }
  EXPECT_EQ(relay.outstanding(), 0u);
}

TEST_F(StateRelayTest, ASourceThatIsNotConnectedHasNothing) {
  relay.channel_down(kSource);
  EXPECT_EQ(relay.request(kAsker, kLife, wish(9)), Refusal::kNotReady);
  expect_empty(9);
}

TEST_F(StateRelayTest, ASourceThatGoesHasNothing) {
  pass(9);
  relay.channel_down(kSource);
  expect_empty(9);
  relay.channel_up(kSource, kLife);
  const std::uint64_t ticket = pass(10);
  relay.channel_up(kSource, Incarnation{5});
  expect_empty(10);
  EXPECT_EQ(relay.answer(kSource, Incarnation{5}, parts(ticket)), Refusal::kNotWanted);
}

TEST_F(StateRelayTest, AnAnswerForAnAskerThatWentGoesNowhere) {
  const std::uint64_t ticket = pass(9);
  relay.channel_up(kAsker, Incarnation{5});
  EXPECT_EQ(relay.answer(kSource, kLife, parts(ticket)), Refusal::kNotWanted);
  EXPECT_TRUE(relay.take_output().to_executor.empty());
}

TEST_F(StateRelayTest, OnlyTheSlotThatWasAskedAnswers) {
  const std::uint64_t ticket = pass(9);
  EXPECT_EQ(relay.answer(SlotId{2}, kLife, parts(ticket)), Refusal::kNotWanted);
  EXPECT_EQ(relay.answer(kAsker, kLife, parts(ticket)), Refusal::kNotWanted);
  EXPECT_EQ(relay.answer(kSource, Incarnation{3}, parts(ticket)), Refusal::kStaleIncarnation);
  EXPECT_EQ(relay.answer(SlotId{3}, kLife, parts(ticket)), Refusal::kUnknownSlot);
  EXPECT_EQ(relay.answer(kSource, kLife, parts(ticket + 1)), Refusal::kNotWanted);
  EXPECT_EQ(relay.answer(kSource, kLife, parts(ticket)), Refusal::kNone);
  EXPECT_EQ(relay.stats().refused.of(Refusal::kNotWanted), 3u);
}

TEST_F(StateRelayTest, RefusesWhatMayNotBeAsked) {
  EXPECT_EQ(relay.request(kAsker, Incarnation{3}, wish(1)), Refusal::kStaleIncarnation);
  EXPECT_EQ(relay.request(SlotId{3}, kLife, wish(1)), Refusal::kUnknownSlot);
  EXPECT_TRUE(relay.take_output().to_executor.empty());
  EXPECT_EQ(relay.request(kAsker, kLife, wish(1, 1, kAsker)), Refusal::kMalformed);
  expect_empty(1);
  EXPECT_EQ(relay.request(kAsker, kLife, wish(2, 0)), Refusal::kMalformed);
  expect_empty(2);
  EXPECT_EQ(relay.request(kAsker, kLife, wish(3, kStateWantsMax + 1)), Refusal::kMalformed);
  expect_empty(3);
  EXPECT_EQ(relay.request(kAsker, kLife, wish(4, 1, SlotId{60'000})), Refusal::kUnknownSlot);
  expect_empty(4);
  EXPECT_EQ(relay.outstanding(), 0u);
}

TEST_F(StateRelayTest, AnAnswerLargerThanWhatWasAskedForIsNotPassedOn) {
  const auto refused = [&](FetchState what, StateParts with) {
    EXPECT_EQ(relay.request(kAsker, kLife, std::move(what)), Refusal::kNone);
    with.ticket = only<FetchState>(kSource).ticket;
    const Refusal refusal = relay.answer(kSource, kLife, std::move(with));
    const StateParts back = only<StateParts>(kAsker);
    EXPECT_EQ(back.parts.empty(), refusal == Refusal::kOversize);
    return refusal;
  };
  EXPECT_EQ(refused(wish(1), parts(0, 2)), Refusal::kOversize) << "more parts";
  EXPECT_EQ(refused(wish(1), parts(0, 1, kStatePartBytesMax + 1)), Refusal::kOversize);
  FetchState small = wish(1);
  small.wants[0].bytes_max = 99;
  EXPECT_EQ(refused(small, parts(0)), Refusal::kOversize);
  small.wants[0].bytes_max = 100;
  EXPECT_EQ(refused(small, parts(0)), Refusal::kNone);
  EXPECT_EQ(refused(wish(1, kStateWantsMax), parts(0, kStateWantsMax, kStatePartBytesMax)), Refusal::kOversize);
  FetchState path{1, kSource, Seq{128}, {}, {StatePath{5, 0, true}}};
  EXPECT_EQ(refused(path, parts(0, 18, 900)), Refusal::kNone);
  EXPECT_EQ(refused(path, parts(0, 19, 900)), Refusal::kOversize);
  EXPECT_EQ(relay.outstanding(), 0u);
}

TEST_F(StateRelayTest, WhatNobodyAnswersExpires) {
  std::uint64_t ticket = 0;
  for (std::size_t i = 0; i < StateRelay::kOutstandingMax; ++i) {
    relay.tick(Micros{1'000'000 + static_cast<std::int64_t>(i) * 500'000});
    ticket = pass(i);
  }
  EXPECT_EQ(relay.request(kAsker, kLife, wish(500)), Refusal::kQueueFull);
  expect_empty(500);
  EXPECT_EQ(relay.request(SlotId{2}, kLife, wish(1)), Refusal::kNone) << "another asker's";
  std::ignore = relay.take_output();
  relay.tick(Micros{32'000'000});
  EXPECT_LT(relay.outstanding(), StateRelay::kOutstandingMax);
  relay.tick(Micros{70'000'000});
  EXPECT_EQ(relay.outstanding(), 0u);
  EXPECT_EQ(relay.stats().expired, StateRelay::kOutstandingMax + 1);
  EXPECT_EQ(relay.answer(kSource, kLife, parts(ticket)), Refusal::kNotWanted);
  pass(600);
}

TEST_F(StateRelayTest, AnAskerGetsItsShareOfBytesAndNoMore) {
  const StateRelay::Options options;
  std::uint64_t got = 0;
  const auto fill = [&] {
    for (int i = 0; i < 200; ++i) {
      const Refusal refusal = relay.request(kAsker, kLife, wish(1, 16));
      if (refusal == Refusal::kQuota) return expect_empty(1);
      ASSERT_EQ(refusal, Refusal::kNone);
      const std::uint64_t ticket = only<FetchState>(kSource).ticket;
      ASSERT_EQ(relay.answer(kSource, kLife, parts(ticket, 16, kStatePartBytesMax)), Refusal::kNone);
      got += 16 * kStatePartBytesMax;
      std::ignore = relay.take_output();
    }
    FAIL() << "no limit";
  };
  fill();
  EXPECT_LE(got, options.burst_bytes);
  for (int second = 1; second <= 3; ++second) {
    for (int tick = 0; tick < 10; ++tick) {
      relay.tick(Micros{1'000'000 + second * 1'000'000 + tick * 100'000});
      fill();
    }
  }
  EXPECT_LE(got, options.burst_bytes + 4 * options.bytes_per_second);
  EXPECT_GE(got, 2 * options.bytes_per_second);
  EXPECT_EQ(relay.request(SlotId{2}, kLife, wish(1, 16)), Refusal::kNone) << "another asker's share";
}

TEST_F(StateRelayTest, WhatDidNotComeIsNotCharged) {
  for (int i = 0; i < 1'000; ++i) {
    ASSERT_EQ(relay.request(kAsker, kLife, wish(1, 16)), Refusal::kNone);
    const std::uint64_t ticket = only<FetchState>(kSource).ticket;
    ASSERT_EQ(relay.answer(kSource, kLife, parts(ticket, i % 2)), Refusal::kNone);
    std::ignore = relay.take_output();
  }
}

}  // namespace
}  // namespace zz::agreement
