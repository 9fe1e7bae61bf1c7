#include "execution/state_fetcher.hpp"

#include <algorithm>

#include "execution/state_messages.hpp"
#include "tests/execution/state_fetch_net.hpp"

namespace zz::execution::testing {
namespace {

using state::testing::expect_equal;
using state::testing::in_memory;
using state::testing::root_of;

constexpr Micros kMinutes{600'000'000};

// How long it takes when all are honest.
std::int64_t fault_free(const Net::Options& options, Origin& origin, const Digest& root) {
  const auto store = in_memory();
  Net net(options, origin, *store);
  const Micros begun = net.now;
  net.begin(Seq{128}, root);
  EXPECT_TRUE(net.run(kMinutes));
  return net.now.value - begun.value;
}

// CT-07, CT-10.
TEST(StateFetcher, EndsWithTheRightStateWhateverFNodesAndGSlotsDo) {
  for (std::uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    const Net::Options options{.f = 1 + seed % 2, .g = 1 + seed / 2 % 2, .seed = seed, .bytes_per_second = 128u << 10};
    Origin origin(seed, 1'000, 1'000);
    const Digest root = origin.publish(Seq{128});
    const std::int64_t honest = fault_free(options, origin, root);

    const auto store = in_memory();
    Net net(options, origin, *store);
    net.corrupt(prng);
    const Micros begun = net.now;
    net.begin(Seq{128}, root);
    while (!net.complete && net.now.value - begun.value < 4 * honest) {
      const auto it = std::next(origin.model.begin(), static_cast<std::ptrdiff_t>(prng.below(origin.model.size())));
      if (prng.below(20) == 0) {
        const state::ReadOutcome read = net.touch(ObjectId{it->first});
        ASSERT_TRUE(read.status == state::Status::kMissing || read.bytes == SharedBytes::copy(it->second));
      }
      net.turn();
    }
    ASSERT_TRUE(net.complete);
    EXPECT_LE(net.now.value - begun.value, 3 * honest) << "honest: " << honest;
    EXPECT_LE(net.stale, 2);
    EXPECT_LE(net.asked, 1'500u);
    ASSERT_NO_FATAL_FAILURE(expect_equal(*store, origin.model));
    EXPECT_EQ(root_of(*store), root);
  }
}

// CT-08: the fetcher restarts, and newer checkpoints become stable, at random times.
TEST(StateFetcher, EndsWithTheRightStateWhateverComesBetween) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    Origin origin(seed, 300, 1'000);
    Digest root = origin.publish(Seq{128});
    const auto store = in_memory();
    Net net({.seed = seed, .bytes_per_second = 256u << 10}, origin, *store);
    net.corrupt(prng);
    Seq n{128};
    net.begin(n, root);
    for (int i = 0; i < 4; ++i) {
      for (std::uint64_t turns = prng.below(60); turns > 0; --turns) net.turn();
      switch (prng.below(3)) {
        case 0:
          net.restart();
          net.begin(n, root);
          break;
        case 1:
          net.fetcher->node_down(NodeId{static_cast<std::uint16_t>(prng.below(4))});
          break;
        default:
          for (int j = 0; j < 10; ++j) state::testing::change(*origin.store, origin.model, prng);
          n = Seq{n.value + 128};
          root = origin.publish(n);
          net.begin(n, root);
          break;
      }
      for (std::uint16_t node = 0; node < 4; ++node) net.fetcher->node_up(NodeId{node});
    }
    ASSERT_TRUE(net.run(kMinutes));
    ASSERT_NO_FATAL_FAILURE(expect_equal(*store, origin.model));
    EXPECT_EQ(root_of(*store), root);
  }
}

TEST(StateFetcher, ANewerCertificateCostsTheDifferenceOnly) {
  Origin origin(3, 2'000, 1'000);
  const auto store = in_memory();
  Net net({.bytes_per_second = 8u << 20}, origin, *store);
  net.begin(Seq{128}, origin.publish(Seq{128}));
  ASSERT_TRUE(net.run(kMinutes));
  const std::uint64_t first = net.fetcher->stats().bytes;
  EXPECT_LT(first, origin.store->totals().bytes * 5 / 4) << "nothing comes twice";
  Prng prng(4);
  for (int i = 0; i < 20; ++i) state::testing::change(*origin.store, origin.model, prng);
  net.begin(Seq{256}, origin.publish(Seq{256}));
  ASSERT_TRUE(net.run(kMinutes));
  expect_equal(*store, origin.model);
  EXPECT_LT(net.fetcher->stats().bytes - first, first / 10);
}

// CT-12, with a newer certificate at hand, and the sources that are left being faulty ones.
TEST(StateFetcher, ACollectedSnapshotMakesItStaleOnceOrTwice) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    Origin origin(seed, 400, 1'000);
    const auto store = in_memory();
    Net net({.g = 2, .seed = seed, .bytes_per_second = 256u << 10}, origin, *store);
    net.node_vices[seed % 4] = kVices[prng.below(std::size(kVices))];
    net.slot_vices[1] = Vice::kSilent;
    net.slot_vices[2] = Vice::kDrips;
    net.begin(Seq{128}, origin.publish(Seq{128}));
    for (std::uint64_t turns = 5 + prng.below(60); turns > 0; --turns) net.turn();
    for (int i = 0; i < 10; ++i) state::testing::change(*origin.store, origin.model, prng);
    const Digest root = origin.publish(Seq{256});
    origin.drop(Seq{128});
    int restarts = 0;
    for (const std::int64_t end = net.now.value + kMinutes.value; !net.complete && net.now.value < end;) {
      net.turn();
      if (std::exchange(net.stale, 0) > 0) {
        ++restarts;
        net.begin(Seq{256}, root);
      }
    }
    ASSERT_TRUE(net.complete);
    EXPECT_LE(restarts, 2);
    expect_equal(*store, origin.model);
  }
}

TEST(StateFetcher, WhatNobodyHasIsAskedForLessAndLess) {
  Origin origin(5, 100, 500);
  const auto store = in_memory();
  Net net({.f = 2, .g = 2}, origin, *store);
  net.begin(Seq{999}, origin.publish(Seq{128}));
  EXPECT_FALSE(net.run(Micros{60'000'000}));
  EXPECT_GE(net.stale, 10) << "it says so";
  EXPECT_LE(net.stale, 25);
  EXPECT_LE(net.asked, 25u * 28);
  net.fetcher->rebase(Seq{128});
  EXPECT_TRUE(net.run(Micros{2'000'000})) << "at once";
}

TEST(StateFetcher, NothingIsAskedWithoutNodes) {
  Origin origin(5, 100, 500);
  const auto store = in_memory();
  Net net({}, origin, *store);
  for (std::uint16_t node = 0; node < 4; ++node) net.fetcher->node_down(NodeId{node});
  net.begin(Seq{128}, origin.publish(Seq{128}));
  EXPECT_FALSE(net.run(Micros{10'000'000}));
  EXPECT_EQ(net.asked, 0u);
  EXPECT_EQ(net.stale, 0);
  net.fetcher->node_up(NodeId{2});
  EXPECT_TRUE(net.run(Micros{10'000'000})) << "one is enough";
}

// CT-03, CT-07, CT-11.
TEST(StateFetcher, OneLieIsEnoughWhateverItIs) {
  const auto with_first = [](auto change) { return [change](StateParts& parts) { change(parts.parts.front()); }; };
  const auto set = [](StatePart& part, Bytes bytes) { part.bytes = SharedBytes(std::move(bytes)); };
  const auto copy = [](const StatePart& part) { return Bytes(part.bytes.view().begin(), part.bytes.view().end()); };
  const std::map<std::string, std::function<void(StateParts&)>> lies{
      {"another index", with_first([](StatePart& part) { part.prefix ^= std::uint64_t{1} << 60; })},
      {"another depth", with_first([](StatePart& part) { part.depth = static_cast<std::uint8_t>(part.depth ^ 1); })},
      {"no such depth", with_first([](StatePart& part) { part.depth = 200; })},
      {"no such kind", with_first([](StatePart& part) { part.kind = 3; })},
      {"inner node as object", with_first([](StatePart& part) { part.kind = part.kind == 1 ? 2 : 1; })},
      {"bits below the depth", with_first([](StatePart& part) { part.prefix ^= part.depth == 16 ? 1u << 31 : 1; })},
      {"no bytes", with_first([=](StatePart& part) { set(part, {}); })},
      {"a byte more", with_first([=](StatePart& part) {
         Bytes bytes = copy(part);
         bytes.resize(bytes.size() + 1);
         set(part, std::move(bytes));
       })},
      {"a bit", with_first([=](StatePart& part) {
         Bytes bytes = copy(part);
         bytes[bytes.size() / 2] ^= 1;
         set(part, std::move(bytes));
       })},
      {"swapped",
       [](StateParts& parts) {
         if (parts.parts.size() > 1) {
           std::swap(parts.parts.front().bytes, parts.parts.back().bytes);
         } else {
           parts.parts.front().bytes = SharedBytes::copy("x");
         }
       }},
      {"twice", [](StateParts& parts) { parts.parts.push_back(parts.parts.back()); }},
      {"endless",
       [](StateParts& parts) {
         const SharedBytes chunk(Bytes(agreement::kStatePartBytesMax, 1));
         for (std::uint64_t i = 0; i < agreement::kStatePartsMax; ++i) parts.parts.push_back({2, i, 16, chunk});
       }},
      {"ten million objects", with_first([=](StatePart& part) {
         state::NodeImage image{{part.prefix, 2}, {}};
         for (std::uint64_t i = 0; i < 16; ++i) {
           image.children.push_back({{image.place.prefix | i << 52, 3}, 10'000'000, std::uint64_t{1} << 36, {}});
         }
         image.place.prefix &= state::prefix_mask(2);
         for (state::Child& child : image.children) child.place.prefix &= state::prefix_mask(3);
         set(part, encode(image));
       })},
  };
  // Of the root record, of the inner nodes below it, and of objects.
  for (const int turns : {0, 3, 40}) {
    for (const auto& [name, lie] : lies) {
      SCOPED_TRACE(name + " after " + std::to_string(turns));
      Origin origin(6, 600, 1'000);
      const Digest root = origin.publish(Seq{128});
      const auto store = in_memory();
      Net net({.bytes_per_second = 256u << 10}, origin, *store);
      net.begin(Seq{128}, root);
      for (int i = 0; i < turns; ++i) net.turn();
      ASSERT_FALSE(net.complete);
      net.lie_once = lie;
      ASSERT_TRUE(net.run(kMinutes));
      ASSERT_FALSE(net.lie_once);
      EXPECT_EQ(net.fetcher->stats().lies, 1u);
      EXPECT_EQ(net.stale, 0);
      EXPECT_EQ(root_of(*store), root);
    }
  }
}

TEST(StateFetcher, ALiarIsNotAskedAgain) {
  Origin origin(7, 2'000, 1'000);
  const auto store = in_memory();
  Net net({.f = 2, .g = 2}, origin, *store);
  net.node_vices[0] = net.node_vices[5] = Vice::kCorrupts;
  net.slot_vices[1] = net.slot_vices[3] = Vice::kSwaps;
  net.begin(Seq{128}, origin.publish(Seq{128}));
  ASSERT_TRUE(net.run(kMinutes));
  // The node lied with g+1 slots, or the slot through f+1 nodes, and what was in flight meanwhile.
  EXPECT_LE(net.fetcher->stats().lies, 4u * 3 + StateFetcher::kRequestsMax);
  expect_equal(*store, origin.model);
}

TEST(StateFetcher, AFirstTouchIsOneRoundTrip) {
  Origin origin(8, 3'000, 400);
  const Digest root = origin.publish(Seq{128});
  for (const auto& [id, bytes] : origin.model) {
    if (id % 97 != 0) continue;
    const auto store = in_memory();
    Net net({.bytes_per_second = 0}, origin, *store);
    net.begin(Seq{128}, root);
    ASSERT_EQ(net.touch(ObjectId{id}).status, state::Status::kMissing);
    for (int i = 0; i < 100 && net.arrived == 0; ++i) net.turn();
    const state::ReadOutcome read = net.touch(ObjectId{id});
    ASSERT_EQ(read.status, state::Status::kDone);
    EXPECT_EQ(read.bytes, SharedBytes::copy(bytes));
    EXPECT_EQ(net.asked, 1u);
  }
  const auto store = in_memory();
  Net net({.bytes_per_second = 0}, origin, *store);
  net.begin(Seq{128}, root);
  const std::uint64_t none = origin.model.begin()->first + 1'000'000'007;
  ASSERT_FALSE(origin.model.contains(none));
  ASSERT_EQ(net.touch(ObjectId{none}).status, state::Status::kMissing);
  for (int i = 0; i < 100 && net.arrived == 0; ++i) net.turn();
  EXPECT_EQ(net.touch(ObjectId{none}).status, state::Status::kNone) << "proven";
}

// A hundred objects that are touched at once, past a silent node and a silent slot.
TEST(StateFetcher, WhatIsTouchedAtOnceIsFetchedAtOnce) {
  Origin origin(9, 3'000, 400);
  const auto store = in_memory();
  Net net({.bytes_per_second = 0}, origin, *store);
  net.node_vices[1] = net.slot_vices[2] = Vice::kSilent;
  net.begin(Seq{128}, origin.publish(Seq{128}));
  const Micros begun = net.now;
  std::size_t left = 100;
  while (left > 0 && net.now.value < begun.value + 5'000'000) {
    left = 0;
    auto it = origin.model.begin();
    for (int i = 0; i < 100; ++i) {
      if (net.touch(ObjectId{it->first}).status == state::Status::kMissing) ++left;
      std::advance(it, 29);
    }
    net.turn();
  }
  EXPECT_EQ(left, 0u);
  EXPECT_LE(net.now.value - begun.value, 3 * Net::kPatience);
  EXPECT_LE(net.asked, 60u) << "nothing is asked twice at once";
}

// A slot hangs, and was not asked for anything before: it is what the sleeper was woken for.
TEST(StateFetcher, ASilentSlotDelaysWhatIsTouchedByOneHedge) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    for (const std::uint16_t silent : {std::uint16_t{1}, std::uint16_t{2}}) {
      SCOPED_TRACE(std::to_string(seed) + ": slot " + std::to_string(silent));
      Origin origin(seed, 3'000, 400);
      const auto store = in_memory();
      Net net({.seed = seed, .bytes_per_second = 0}, origin, *store);
      net.slot_vices[silent] = Vice::kSilent;
      net.begin(Seq{128}, origin.publish(Seq{128}));
      const Micros begun = net.now;
      std::size_t left = 600;
      while (left > 0 && net.now.value < begun.value + 5'000'000) {
        left = 0;
        auto it = origin.model.begin();
        for (int i = 0; i < 600; ++i, std::advance(it, 4)) {
          if (net.touch(ObjectId{it->first}).status == state::Status::kMissing) ++left;
        }
        net.turn();
      }
      EXPECT_EQ(left, 0u);
      EXPECT_GE(net.fetcher->stats().hedged, 1u);
      EXPECT_EQ(net.fetcher->stats().silent, 0u);
      EXPECT_LE(net.now.value - begun.value, 100'000) << "the hedge, and two rounds of four hops before and after";
      EXPECT_LE(net.asked, 24u);
    }
  }
}

// Six hundred small objects: what a replay touches. All are asked for in the first round, before anything is known.
TEST(StateFetcher, ManySmallThingsTakeFewRoundTrips) {
  Origin origin(10, 3'000, 400);
  const auto store = in_memory();
  Net net({.bytes_per_second = 0}, origin, *store);
  net.begin(Seq{128}, origin.publish(Seq{128}));
  const auto touch_all = [&] {
    std::size_t left = 0;
    auto it = origin.model.begin();
    for (int i = 0; i < 600; ++i, std::advance(it, 4)) {
      if (net.touch(ObjectId{it->first}).status == state::Status::kMissing) ++left;
    }
    return left;
  };
  EXPECT_EQ(touch_all(), 600u);
  const Micros begun = net.now;
  while (touch_all() > 0 && net.now.value < begun.value + 5'000'000) net.turn();
  EXPECT_EQ(touch_all(), 0u);
  EXPECT_LE(net.asked, 12u);
  EXPECT_LE(net.now.value - begun.value, 60'000) << "two rounds of four hops";
}

// Of big ones an answer holds few. That it ends where it is full is not held against who gave it.
TEST(StateFetcher, AnAnswerThatIsFullLacksNothing) {
  Origin origin(11, 0, 0);
  for (std::uint64_t id = 0; id < 200; ++id) {
    origin.model[id << 30] = Bytes(60'000, static_cast<std::uint8_t>(id));
    ASSERT_EQ(origin.store->write(ObjectId{id << 30}, origin.model[id << 30]).status, state::Status::kDone);
  }
  const auto store = in_memory();
  Net net({.bytes_per_second = 0}, origin, *store);
  net.begin(Seq{128}, origin.publish(Seq{128}));
  const auto touch_all = [&] {
    std::size_t left = 0;
    for (const auto& [id, bytes] : origin.model) {
      if (net.touch(ObjectId{id}).status == state::Status::kMissing) ++left;
    }
    return left;
  };
  const Micros begun = net.now;
  while (touch_all() > 0 && net.now.value < begun.value + 5'000'000) net.turn();
  EXPECT_EQ(touch_all(), 0u);
  EXPECT_EQ(net.fetcher->stats().partial, 0u);
  EXPECT_EQ(net.fetcher->stats().silent, 0u);
  EXPECT_LE(net.asked, 60u);
}

TEST(StateFetcher, TheBackgroundKeepsToItsRateAndWaitsForWhatIsUrgent) {
  Origin origin(10, 1'000, 4'000);
  const Digest root = origin.publish(Seq{128});
  constexpr std::uint64_t kRate = 256u << 10;
  const std::int64_t took = fault_free({.bytes_per_second = kRate}, origin, root);
  const auto ideal = static_cast<std::int64_t>(origin.store->totals().bytes * 1'000'000 / kRate);
  EXPECT_GE(took, ideal * 8 / 10);
  EXPECT_LE(took, ideal * 13 / 10);

  const auto store = in_memory();
  Net net({.bytes_per_second = kRate}, origin, *store);
  net.begin(Seq{128}, root);
  for (int i = 0; i < 100; ++i) net.turn();
  ASSERT_FALSE(net.complete);
  std::fill(net.slot_vices.begin(), net.slot_vices.end(), Vice::kSilent);
  ObjectId absent;
  for (const auto& [id, bytes] : origin.model) {
    if (net.touch(absent = ObjectId{id}).status == state::Status::kMissing) break;
  }
  const auto wait = [&net, absent](int turns) {
    for (int i = 0; i < turns; ++i) {
      EXPECT_EQ(net.touch(absent).status, state::Status::kMissing);
      net.turn();
    }
  };
  wait(100);
  const std::uint64_t before = store->counters().supplied;
  const std::uint64_t asked = net.asked;
  wait(500);
  EXPECT_EQ(store->counters().supplied, before);
  EXPECT_LE(net.asked - asked, 20u) << "only what is urgent is asked for";
  std::fill(net.slot_vices.begin(), net.slot_vices.end(), Vice::kNone);
  EXPECT_TRUE(net.run(kMinutes));
  EXPECT_EQ(net.touch(absent).status, state::Status::kDone);
}

TEST(StateFetcher, WhileTheBackgroundIsHeldOnlyWhatIsUrgentIsAskedFor) {
  Origin origin(12, 1'000, 1'000);
  const auto store = in_memory();
  Net net({.bytes_per_second = 8u << 20}, origin, *store);
  net.fetcher->hold(true);
  net.begin(Seq{128}, origin.publish(Seq{128}));
  for (int i = 0; i < 100; ++i) net.turn();
  EXPECT_EQ(net.asked, 0u);
  const ObjectId touched{origin.model.begin()->first};
  for (int i = 0; i < 100 && net.touch(touched).status == state::Status::kMissing; ++i) net.turn();
  EXPECT_EQ(net.touch(touched).status, state::Status::kDone);
  EXPECT_EQ(net.asked, 1u);
  net.fetcher->hold(false);
  ASSERT_TRUE(net.run(kMinutes));
  expect_equal(*store, origin.model);
}

// The head goes on; the sources drop the snapshot that it began with; what is absent is the same in a later one.
TEST(StateFetcher, GoesOnWithALaterSnapshotThatTheHeadHasPassed) {
  Origin origin(11, 1'000, 1'000);
  const auto store = in_memory();
  Net net({.bytes_per_second = 256u << 10}, origin, *store);
  net.begin(Seq{128}, origin.publish(Seq{128}));
  for (int i = 0; i < 30; ++i) net.turn();
  Prng prng(12);
  for (int i = 0; i < 40; ++i) {  // the same writes here and there
    const std::uint64_t id = i % 2 == 0 ? state::testing::random_id(prng) : prng.next() >> 20;
    const Bytes bytes = state::testing::random_bytes(prng);
    origin.model[id] = bytes;
    ASSERT_EQ(origin.store->write(ObjectId{id}, bytes).status, state::Status::kDone);
    for (;;) {
      const state::Outcome outcome = store->write(ObjectId{id}, bytes);
      if (outcome.status == state::Status::kDone) break;
      net.fetcher->want(std::span(&outcome.want, 1));
      net.turn();
    }
  }
  const Digest root = origin.publish(Seq{256});
  origin.drop(Seq{128});
  ASSERT_FALSE(net.complete);
  net.fetcher->rebase(Seq{256});
  ASSERT_TRUE(net.run(kMinutes));
  EXPECT_EQ(net.stale, 0);
  expect_equal(*store, origin.model);
  EXPECT_EQ(root_of(*store), root);
}

TEST(StateFetcher, AnAnswerIsTakenOnceAndFromWhomWasAsked) {
  Origin origin(13, 50, 100);
  const Digest root = origin.publish(Seq{128});
  const auto store = in_memory();
  StateFetcher fetcher({.self = SlotId{0}}, *store);
  fetcher.tick(Micros{1'000'000});
  fetcher.node_up(NodeId{2});
  fetcher.node_up(NodeId{40'000});
  store->adopt(root);
  fetcher.begin(Seq{128});
  const StateFetcherOutput out = fetcher.take_output();
  ASSERT_EQ(out.ask.size(), 1u);
  const auto& [node, wish] = out.ask.front();
  EXPECT_EQ(node, NodeId{2});
  EXPECT_EQ(wish.n, Seq{128});
  StateSource source({wish.source}, *origin.store);
  const StateParts parts = source.answer(node, wish, origin.snapshots[Seq{128}]).parts;
  EXPECT_EQ(fetcher.step(NodeId{1}, parts), Refusal::kNotWanted);
  EXPECT_EQ(fetcher.step(NodeId{2}, {parts.ticket + 1, parts.parts}), Refusal::kNotWanted);
  EXPECT_EQ(fetcher.step(NodeId{2}, parts), Refusal::kNone);
  EXPECT_EQ(fetcher.step(NodeId{2}, parts), Refusal::kNotWanted);
}

// The first source answers after its patience, the second never: what comes late is verified and taken.
TEST(StateFetcher, ALateAnswerIsTaken) {
  Origin origin(14, 50, 100);
  const Digest root = origin.publish(Seq{128});
  const auto store = in_memory();
  StateFetcher fetcher({.self = SlotId{0}}, *store);
  fetcher.tick(Micros{1'000'000});
  for (std::uint16_t node = 0; node < 4; ++node) fetcher.node_up(NodeId{node});
  store->adopt(root);
  fetcher.begin(Seq{128});
  const auto first = fetcher.take_output().ask.at(0);
  EXPECT_TRUE(fetcher.take_output().ask.empty());
  fetcher.tick(Micros{1'400'000});
  const auto second = fetcher.take_output().ask.at(0);
  EXPECT_NE(std::pair(first.first, first.second.source), std::pair(second.first, second.second.source));
  StateSource source({first.second.source}, *origin.store);
  EXPECT_EQ(fetcher.step(first.first, source.answer(first.first, first.second, origin.snapshots[Seq{128}]).parts),
            Refusal::kNone);
  EXPECT_EQ(fetcher.stats().late, 1u);
  EXPECT_EQ(store->counters().supplied, 1u);
}

}  // namespace
}  // namespace zz::execution::testing
