#include <gtest/gtest.h>

#include <fstream>

#include "execution/state_messages.hpp"
#include "tests/execution/slot_life.hpp"
#include "tests/execution/state/store_test_model.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution {
namespace {

namespace fs = std::filesystem;
using state::ObjectId;
using state::Status;
using state::testing::Model;
using testing::certificate_of;
using testing::Life;
using ::zz::execution::testing::TempDir;

constexpr Seq kStable{7};

Model a_model() {
  Model model;
  for (std::uint64_t id = 0; id < 500; ++id) model[id * 1'000'003] = Bytes(80, static_cast<std::uint8_t>(id));
  return model;
}

// Writes the state and waits until it is on disk; its root.
Digest live_and_leave(const fs::path& path, const Model& model) {
  Life life(path);
  state::testing::fill(life.store->objects(), model);
  const state::Snapshot snapshot = life.digested();
  life.store->stable(certificate_of(kStable), snapshot);
  EXPECT_EQ(life.store->kept(), nullptr);
  EXPECT_TRUE(life.until([&] { return stable_n(life.store->kept()) == kStable; }));
  return *state::ObjectStore::root(snapshot);
}

TEST(SlotStore, TheNextLifeReadsNothingOfTheLastOneBeforeItIsCertifiedAndFetchesNothingAfterwards) {
  const TempDir dir;
  const Model model = a_model();
  const Digest root = live_and_leave(dir.path / "slot", model);
  Life next(dir.path / "slot");
  EXPECT_EQ(next.store->objects().read(ObjectId{0}).status, Status::kNone);
  EXPECT_EQ(stable_n(next.store->kept()), kStable) << "it can be begun with";
  next.store->node_up(NodeId{1});
  next.store->objects().adopt(root);
  next.store->adopted(kStable);
  next.store->tick(Micros{2});
  EXPECT_EQ(next.whole, 0) << "nothing is looked for before the first vote";
  next.store->settled();
  next.store->tick(Micros{3});
  EXPECT_EQ(next.whole, 1);
  EXPECT_TRUE(next.sent.empty());
  state::testing::expect_equal(next.store->objects(), model);
}

TEST(SlotStore, TheBackgroundWaitsForTheFirstVoteButNotForLong) {
  const TempDir dir;
  const Digest root = live_and_leave(dir.path / "other", a_model());
  for (const bool votes : {true, false}) {
    Life life(dir.path / (votes ? "votes" : "does-not"));
    life.store->node_up(NodeId{1});
    life.store->objects().adopt(root);
    life.store->adopted(kStable);
    life.store->tick(Micros{SlotStore::kSettle.value});
    EXPECT_TRUE(life.sent.empty());
    if (votes) life.store->settled();
    life.store->tick(Micros{SlotStore::kSettle.value + (votes ? 1 : 1'000)});
    EXPECT_EQ(life.sent.size(), 1u) << "the root is asked for";
  }
}

// A life ends before it has all of the state; what it had is there for the next one.
TEST(SlotStore, WhatALifeHadOfTheStateIsReusedByTheNext) {
  const TempDir dir;
  const Model model = a_model();
  const auto source = state::testing::in_memory();
  state::testing::fill(*source, model);
  const state::Snapshot certified = state::testing::take(*source);
  const Digest root = state::testing::digest_of(*source, certified);
  const auto supply = [&](SlotStore& to, std::size_t objects) {  // how many were absent, up to that
    std::size_t supplied = 0;
    for (bool more = true; more && supplied < objects;) {
      const auto missing = to.objects().missing(ObjectId{}, 1, 65'536);
      more = !missing.wants.empty();
      if (!more) break;
      if (missing.wants[0].kind == state::PartKind::kObject) ++supplied;
      EXPECT_EQ(to.objects().supply(*source->part(certified, missing.wants[0])), Refusal::kNone);
    }
    return supplied;
  };
  {
    Life life(dir.path / "slot");
    life.store->objects().adopt(root);
    life.store->adopted(kStable);
    ASSERT_EQ(supply(*life.store, 300), 300u);
    life.store->settled();
    life.store->stable(certificate_of(kStable), *life.store->objects().snapshot());
    const auto written = [&] { return life.store->objects().counters().written; };
    ASSERT_TRUE(life.until([&] { return written() == 300; }));
    EXPECT_EQ(life.store->kept(), nullptr);
  }
  Life next(dir.path / "slot");
  EXPECT_EQ(next.store->kept(), nullptr) << "it is not whole";
  EXPECT_EQ(next.store->objects().read(ObjectId{0}).status, Status::kNone);
  next.store->objects().adopt(root);
  EXPECT_EQ(supply(*next.store, model.size()), model.size() - 300);
  state::testing::expect_equal(next.store->objects(), model);
}

// What others fetch in the background, each question of one object.
TEST(SlotStore, WhatOthersAskForComesOffTheLoopAndIsBounded) {
  const TempDir dir;
  Life life(dir.path / "slot");
  const Model model = a_model();
  state::testing::fill(life.store->objects(), model);
  const state::Snapshot snapshot = life.digested();
  const Bytes& bytes = model.at(0);
  agreement::FetchState wish{1, SlotId{0}, kStable, {}, {}};
  const Digest digest = state::object_digest(ObjectId{0}, bytes);
  wish.wants.push_back(to_message(
      state::Want{state::PartKind::kObject, state::place_of(ObjectId{0}), bytes.size(), digest, ObjectId{0}}));
  for (std::uint32_t i = 0; i < SlotStore::kReadingMax; ++i) {
    EXPECT_EQ(life.store->step(NodeId{2}, wish, snapshot), Refusal::kNone);
  }
  EXPECT_TRUE(life.sent.empty());
  EXPECT_EQ(life.store->step(NodeId{2}, wish, snapshot), Refusal::kQuota);
  ASSERT_EQ(life.sent.size(), 1u) << "who asks for too much hears so at once";
  EXPECT_TRUE(std::get<agreement::StateParts>(std::exchange(life.sent, {}).front()).parts.empty());
  EXPECT_EQ(life.store->step(NodeId{1}, wish, snapshot), Refusal::kNone) << "another one";
  ASSERT_TRUE(life.until([&] { return life.sent.size() == SlotStore::kReadingMax + 1; }));
  for (const agreement::Body& body : life.sent) {
    const auto& parts = std::get<agreement::StateParts>(body).parts;
    ASSERT_EQ(parts.size(), 1u);
    EXPECT_EQ(parts[0].bytes, SharedBytes::copy(bytes));
  }
  EXPECT_EQ(life.store->step(NodeId{2}, wish, snapshot), Refusal::kNone) << "its share is free again";
  EXPECT_EQ(life.store->step(NodeId{4}, wish, snapshot), Refusal::kUnknownPeer);
  wish.source = SlotId{1};
  EXPECT_EQ(life.store->step(NodeId{2}, wish, snapshot), Refusal::kUnknownSlot);
}

TEST(SlotStore, WhoWritesMoreThanFitsWaitsForTheKeeperToMakeRoom) {
  const TempDir dir;
  constexpr std::uint64_t kMemory = 1u << 20;
  Life life(dir.path / "slot", kMemory);
  EXPECT_FALSE(life.store->crowded());
  bool crowded = false;
  for (std::uint64_t id = 0; id < 2 * kMemory / 4'096; ++id) {
    ASSERT_EQ(life.store->objects().write(ObjectId{id}, Bytes(4'096, 7)).status, Status::kDone);
    crowded = crowded || life.store->crowded();
  }
  EXPECT_TRUE(crowded);
  life.store->tick(Micros{2});
  EXPECT_TRUE(life.until([&] { return !life.store->crowded(); }));
}

TEST(SlotStore, ADirectoryThatALifeDidNotLiveToOpenIsRemoved) {
  const TempDir dir;
  const Digest root = live_and_leave(dir.path / "slot", a_model());
  std::ofstream(dir.path / "slot" / "opening").flush();
  Life next(dir.path / "slot");
  next.store->objects().adopt(root);
  EXPECT_EQ(next.store->objects().read(ObjectId{0}).status, Status::kMissing);
  EXPECT_FALSE(fs::exists(dir.path / "slot" / "opening"));
}

TEST(SlotStore, WhatCannotBeOpenedIsRemoved) {
  const TempDir dir;
  fs::create_directories(dir.path / "slot");
  std::ofstream(dir.path / "slot" / "objects") << "a file where a directory should be";
  Life next(dir.path / "slot");
  ASSERT_NE(next.store, nullptr);
  EXPECT_EQ(next.store->objects().read(ObjectId{0}).status, Status::kNone);
}

}  // namespace
}  // namespace zz::execution
