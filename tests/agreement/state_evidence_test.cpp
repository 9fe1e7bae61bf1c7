// States that differ: what is asked for, and what is kept (docs/protocol.md §11). The slots answer as real ones do.

#include "agreement/state_evidence.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>

#include "base/prng.hpp"
#include "execution/state_source.hpp"
#include "tests/execution/state/store_test_model.hpp"

namespace zz::agreement {
namespace {

using execution::StateSource;
using execution::state::ObjectId;
using execution::state::ObjectStore;
using execution::state::Snapshot;
using execution::state::Status;
using execution::state::testing::Model;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Seq kCheckpoint{128};

// One slot's state after the checkpoint.
struct State {
  explicit State(Model objects) : model(std::move(objects)), store(execution::state::testing::in_memory()) {
    for (const auto& [id, bytes] : model) EXPECT_EQ(store->write(ObjectId{id}, bytes).status, Status::kDone);
    snapshot = execution::state::testing::take(*store);
    root = execution::state::testing::digest_of(*store, snapshot);
  }
  Model model;
  std::unique_ptr<ObjectStore> store;
  Snapshot snapshot;
  Digest root;
};

// Slot i has the state of slots[i]; slots of equal states are on one side.
struct Walk {
  explicit Walk(std::vector<std::shared_ptr<State>> slots) : states(std::move(slots)) {
    difference.n = kCheckpoint;
    for (std::uint16_t i = 0; i < states.size(); ++i) {
      sources.emplace_back(StateSource::Options{SlotId{i}}, *states[i]->store);
      auto& sides = difference.sides;
      const auto mine = std::ranges::find_if(sides, [&](const auto& side) { return side.root == states[i]->root; });
      const auto side = mine != sides.end() ? mine : sides.insert(sides.end(), {{}, states[i]->root, false});
      side->slots.emplace_back(SlotId{i}, Incarnation{1});
    }
  }
  using Answer = std::function<void(const StateEvidence::Ask& ask, StateParts& parts)>;
  // Until nobody is asked any more. `meddle` changes answers.
  void run(const Answer& meddle = {}) {
    for (auto asks = book.take_asks(); !asks.empty(); asks = book.take_asks()) {
      for (const StateEvidence::Ask& ask : asks) {
        ++asked[ask.slot];
        EXPECT_TRUE(StateEvidence::is_own(ask.wanted.ticket));
        const std::size_t slot = ask.slot.value;
        StateParts parts = sources[slot].answer(NodeId{0}, ask.wanted, states[slot]->snapshot).parts;
        sources[slot].sent();
        if (meddle) meddle(ask, parts);
        last = book.step(ask.slot, ask.incarnation, parts);
      }
    }
  }
  StateDifference result() {
    auto done = book.take_done();
    EXPECT_THAT(done, SizeIs(1));
    return done.empty() ? StateDifference{} : std::move(done.front());
  }

  std::vector<std::shared_ptr<State>> states;
  std::vector<StateSource> sources;
  OversightOutput::RootDifference difference;
  StateEvidence book;
  std::map<SlotId, std::size_t> asked;
  Refusal last{};
};

Model objects(std::uint64_t seed, int count, bool dense) {
  Prng prng(seed);
  Model out;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t id = dense ? prng.below(4 * std::uint64_t(count)) : execution::state::testing::random_id(prng);
    out[id] = execution::state::testing::random_bytes(prng, 40);
  }
  return out;
}

// The first id at which they differ.
std::uint64_t first_of(const Model& a, const Model& b) {
  const auto [one, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (one == a.end()) return other->first;
  if (other == b.end()) return one->first;
  return std::min(one->first, other->first);
}

TEST(StateEvidence, LeadsToTheFirstObjectThatDiffers) {
  int absent = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    const int count = seed % 10 == 0 ? 0 : static_cast<int>(1 + prng.below(200));
    const Model right = objects(seed, count, prng.below(2) == 0);
    Model wrong = right;
    for (std::uint64_t i = 0; i <= prng.below(4); ++i) {
      const bool fresh = wrong.empty() || prng.below(3) == 0;
      const std::uint64_t id = fresh ? prng.next() >> prng.below(60)
                                     : std::next(wrong.begin(), std::int64_t(prng.below(wrong.size())))->first;
      if (!fresh && prng.below(3) == 0) {
        wrong.erase(id);
      } else {
        wrong[id] = execution::state::testing::random_bytes(prng, 60);
      }
    }
    if (wrong == right) continue;
    Walk walk({std::make_shared<State>(right), std::make_shared<State>(wrong)});
    walk.book.open(walk.difference);
    walk.run();
    walk.book.settled(kCheckpoint, walk.states[0]->root);
    const StateDifference found = walk.result();
    const std::uint64_t first = first_of(right, wrong);
    ASSERT_EQ(found.first, ObjectId{first}) << seed;
    for (std::size_t side = 0; side < 2; ++side) {
      const Model& model = walk.states[side]->model;
      const auto object = model.find(first);
      EXPECT_EQ(found.sides[side].absent, object == model.end()) << seed;
      ASSERT_EQ(found.sides[side].object.has_value(), object != model.end()) << seed;
      EXPECT_EQ(found.sides[side].agrees, side == 0);
      if (object == model.end()) {
        ++absent;
      } else {
        EXPECT_EQ(*found.sides[side].object, SharedBytes::copy(object->second)) << seed;
      }
    }
    for (const auto& [slot, questions] : walk.asked) EXPECT_LE(questions, execution::state::kLeafDepth + 2) << seed;
    EXPECT_LE(found.path.size(), execution::state::kLeafDepth) << seed;
  }
  EXPECT_GT(absent, 20) << "or objects that one side lacks were not tried";
}

class TwoStates : public ::testing::Test {
 protected:
  TwoStates() {
    Model wrong = right->model;
    wrong.begin()->second.push_back(7);
    other = std::make_shared<State>(std::move(wrong));
  }
  std::shared_ptr<State> right = std::make_shared<State>(objects(1, 500, true));
  std::shared_ptr<State> other;
};

TEST_F(TwoStates, OneSlotOfEachSideIsAskedOneQuestionAtATime) {
  Walk walk({right, other, right});
  walk.book.open(walk.difference);
  std::size_t most = 0;
  for (auto asks = walk.book.take_asks(); !asks.empty(); asks = walk.book.take_asks()) {
    std::map<SlotId, std::size_t> now;
    for (const auto& ask : asks) {
      most = std::max(most, ++now[ask.slot]);
      EXPECT_EQ(ask.wanted.wants.size() + ask.wanted.paths.size(), 1u);
      EXPECT_EQ(ask.wanted.n, kCheckpoint);
      EXPECT_EQ(ask.wanted.source, ask.slot);
      StateParts parts =
          walk.sources[ask.slot.value].answer({}, ask.wanted, walk.states[ask.slot.value]->snapshot).parts;
      EXPECT_EQ(walk.book.step(ask.slot, ask.incarnation, parts), Refusal::kNone);
      EXPECT_EQ(walk.book.step(ask.slot, ask.incarnation, parts), Refusal::kNotWanted) << "it was asked once";
      ++walk.asked[ask.slot];
    }
  }
  EXPECT_EQ(most, 1u);
  EXPECT_EQ(walk.asked.count(SlotId{2}), 0u);
  EXPECT_THAT(walk.book.take_done(), IsEmpty()) << "nobody knows yet who is right";
  walk.book.settled(kCheckpoint, other->root);
  const StateDifference found = walk.result();
  EXPECT_TRUE(found.sides[1].agrees);
  EXPECT_FALSE(found.sides[0].agrees);
}

TEST_F(TwoStates, WhatARootDoesNotLeadToIsNotTakenAndAnotherSlotIsAsked) {
  for (const std::size_t step : {1u, 2u, 3u}) {
    Walk walk({right, other, right});
    walk.book.open(walk.difference);
    int lies = 0;
    walk.run([&](const StateEvidence::Ask& ask, StateParts& parts) {
      if (ask.slot != SlotId{0} || walk.asked[ask.slot] != step) return;
      ASSERT_THAT(parts.parts, SizeIs(1));
      Bytes bytes(parts.parts[0].bytes.view().begin(), parts.parts[0].bytes.view().end());
      bytes.back() ^= 1;
      parts.parts[0].bytes = SharedBytes(std::move(bytes));
      ++lies;
    });
    EXPECT_EQ(lies, 1);
    EXPECT_EQ(walk.asked[SlotId{0}], step) << "who lied is not asked again";
    walk.book.settled(kCheckpoint, right->root);
    EXPECT_EQ(walk.result().first, ObjectId{right->model.begin()->first});
  }
}

TEST_F(TwoStates, WithNobodyLeftToAskWhatIsHadIsKept) {
  for (const bool empty : {false, true}) {
    Walk walk({right, other});
    walk.book.tick(Micros{1});
    walk.book.open(walk.difference);
    std::map<SlotId, int> given;
    const auto answer_twice = [&](const StateEvidence::Ask& ask, StateParts& parts) {
      if (ask.slot == SlotId{0} || ++given[ask.slot] <= 2) return;
      if (empty) parts.parts.clear();  // the snapshot is gone
      if (!empty) parts.ticket = 0;    // the slot is, and with it the answer
    };
    walk.run(answer_twice);
    if (!empty) {
      EXPECT_EQ(walk.last, Refusal::kNotWanted);
      walk.book.tick(Micros{StateEvidence::kAnswerPatience.value});
      walk.book.settled(kCheckpoint, right->root);
      EXPECT_THAT(walk.book.take_done(), IsEmpty()) << "it may still come";
      walk.book.tick(Micros{StateEvidence::kAnswerPatience.value + 1});
    }
    walk.book.settled(kCheckpoint, right->root);
    const StateDifference found = walk.result();
    EXPECT_FALSE(found.first.has_value());
    EXPECT_THAT(found.path, SizeIs(1));
    EXPECT_EQ(found.sides[1].root, other->root);
  }
}

TEST_F(TwoStates, OfAnotherLifeOrSlotAnAnswerIsNotTaken) {
  Walk walk({right, other});
  walk.book.open(walk.difference);
  const auto asks = walk.book.take_asks();
  ASSERT_THAT(asks, SizeIs(2));
  const StateParts parts = walk.sources[0].answer({}, asks[0].wanted, right->snapshot).parts;
  EXPECT_EQ(walk.book.step(SlotId{1}, Incarnation{1}, parts), Refusal::kNotWanted);
  EXPECT_EQ(walk.book.step(SlotId{0}, Incarnation{2}, parts), Refusal::kNotWanted);
  EXPECT_EQ(walk.book.step(SlotId{0}, Incarnation{1}, parts), Refusal::kNone);
}

TEST_F(TwoStates, ThatNobodyEverSettlesAreGivenOutAfterAWhile) {
  Walk walk({right, other});
  walk.book.tick(Micros{1});
  walk.book.open(walk.difference);
  walk.run();
  walk.book.tick(Micros{StateEvidence::kPatience.value});
  EXPECT_THAT(walk.book.take_done(), IsEmpty());
  walk.book.tick(Micros{StateEvidence::kPatience.value + 1});
  const StateDifference found = walk.result();
  EXPECT_TRUE(found.first.has_value());
  EXPECT_FALSE(found.sides[0].agrees || found.sides[1].agrees || found.hung);
}

TEST_F(TwoStates, AThirdRootIsNamedToo) {
  Walk walk({right, other});
  walk.book.open(walk.difference);
  walk.run();
  const auto third = std::make_shared<State>(objects(2, 5, true));
  Walk all({right, other, third});
  all.difference.hung = true;
  walk.book.open(all.difference);
  const StateDifference found = walk.result();
  EXPECT_TRUE(found.hung);
  ASSERT_THAT(found.sides, SizeIs(3));
  EXPECT_EQ(found.sides[2].root, third->root);
  EXPECT_THAT(found.sides[2].slots, ElementsAre(std::pair(SlotId{2}, Incarnation{1})));
}

TEST_F(TwoStates, AreLookedAtOneCaseAtATimeAndFewInAnEpoch) {
  Walk walk({right, other});
  std::uint64_t n = kCheckpoint.value;
  std::size_t cases = 0;
  const auto try_one = [&] {
    walk.difference.n = Seq{++n};
    walk.book.open(walk.difference);
    const bool asked = !walk.book.take_asks().empty();
    walk.difference.n = Seq{n + 1};
    walk.book.open(walk.difference);
    EXPECT_THAT(walk.book.take_asks(), IsEmpty()) << "one at a time";
    std::int64_t at = static_cast<std::int64_t>(n) * 1'000'000'000;
    walk.book.tick(Micros{at});
    walk.difference.n = Seq{n};
    walk.book.open(walk.difference);
    EXPECT_THAT(walk.book.take_asks(), IsEmpty()) << "of a checkpoint once";
    static_cast<void>(walk.book.take_done());
    return asked;
  };
  for (int i = 0; i < 10; ++i) cases += try_one() ? 1 : 0;
  EXPECT_EQ(cases, StateEvidence::kCasesPerEpoch);
  walk.difference.epoch = Epoch{1};
  EXPECT_TRUE(try_one());
}

}  // namespace
}  // namespace zz::agreement
