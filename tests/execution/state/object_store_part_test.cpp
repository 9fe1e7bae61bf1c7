// What is on disk of a snapshot that was not written whole.

#include <gtest/gtest.h>

#include "tests/execution/state/disk_tools.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution::state::testing {
namespace {

using execution::testing::TempDir;

// What a process did of a state before it ended: fetched `objects` of it and wrote what it had, but for the rest.
struct Beginner {
  Beginner(const fs::path& path, ObjectStore& its_source, const Snapshot& its_snapshot, std::uint64_t memory = kMemory)
      : source(its_source), snapshot(its_snapshot), opened(open(path, memory)) {
    opened.persisted.reset();
    opened.store->clear();
    opened.store->adopt(*ObjectStore::root(snapshot));
  }
  // How many objects came.
  std::size_t fetch(std::size_t objects) {
    std::size_t came = 0;
    while (came < objects) {
      const auto missing = opened.store->missing(ObjectId{}, 1, 65'536);
      if (missing.wants.empty()) break;
      if (missing.wants[0].kind == PartKind::kObject) ++came;
      EXPECT_EQ(opened.store->supply(*source.part(snapshot, missing.wants[0])), Refusal::kNone);
    }
    return came;
  }
  Progress write() {
    EXPECT_TRUE(opened.store->begin_persist(take(*opened.store), label_of(1)));
    for (;;) {
      const Result<Progress> progress = opened.store->persist_some(5'000);
      EXPECT_TRUE(progress) << progress.error();
      if (!progress || *progress != Progress::kMore) return progress ? *progress : Progress::kMore;
    }
  }
  ObjectStore& source;
  Snapshot snapshot;
  ObjectStore::Opened opened;
};

TEST(StateDisk, WhatWasWrittenOfAStateThatIsNotWholeIsReusedAndNothingElseStays) {
  const TempDir dir;
  Model model;
  for (std::uint64_t id = 0; id < 2'000; ++id) model[id << 40] = Bytes(100, static_cast<std::uint8_t>(id));
  const auto source = in_memory();
  fill(*source, model);
  const Snapshot first = take(*source);
  static_cast<void>(digest_of(*source, first));
  {
    Beginner life(dir.path, *source, first);
    EXPECT_EQ(life.fetch(700), 700u);
    EXPECT_EQ(life.write(), Progress::kMissing);
    EXPECT_EQ(life.fetch(500), 500u);  // goes on in the same process
    EXPECT_EQ(life.write(), Progress::kMissing);
  }
  for (int i = 0; i < 20; ++i) model[std::uint64_t(i) * 50 << 40] = Bytes(90, 0xee);
  fill(*source, model);
  const Snapshot second = take(*source);
  static_cast<void>(digest_of(*source, second));
  {  // has less when it ends: what the one before wrote stays
    Beginner life(dir.path, *source, second);
    EXPECT_EQ(life.fetch(1), 1u);
    EXPECT_EQ(life.write(), Progress::kMissing);
  }
  {
    Beginner life(dir.path, *source, second);
    EXPECT_EQ(life.opened.store->read(ObjectId{0}).status, Status::kMissing);
    EXPECT_EQ(life.fetch(2'000), 820u);
    EXPECT_EQ(life.write(), Progress::kDone);
    expect_equal(*life.opened.store, model);
  }
  std::size_t nodes = 0;
  {
    auto opened = open(dir.path);
    EXPECT_TRUE(opened.damage.empty()) << opened.damage;
    EXPECT_EQ(ObjectStore::root(opened.persisted), ObjectStore::root(second));
    nodes = nodes_of(*opened.store, opened.persisted, model);
  }
  EXPECT_EQ(Raw(dir.path).records().size(), nodes);
}

// The walk through a large snapshot is cut off, above one that is whole on disk: both are there, and no record twice.
TEST(StateDisk, ASnapshotThatWasHalfWrittenIsReusedBesideTheWholeOneBeforeIt) {
  const TempDir dir;
  constexpr std::size_t kBytes = 60'000;
  constexpr std::size_t kObjects = 2 * kPartBytes / kBytes;
  Model model;
  for (std::uint64_t id = 0; id < 400; ++id) model[id] = Bytes(100, static_cast<std::uint8_t>(id));
  const auto source = in_memory();
  fill(*source, model);
  {
    auto opened = open(dir.path, 16u << 20);
    fill(*opened.store, model);
    persist(*opened.store, take(*opened.store), 1);
    Prng prng(8);
    for (std::uint64_t i = 0; i < kObjects; ++i) {
      Bytes bytes(kBytes, static_cast<std::uint8_t>(i));
      const ObjectId id{prng.next() | std::uint64_t{1} << 62};
      ASSERT_EQ(opened.store->write(id, bytes).status, Status::kDone);
      ASSERT_EQ(source->write(id, bytes).status, Status::kDone);
    }
    const Snapshot large = take(*opened.store);
    static_cast<void>(digest_of(*opened.store, large));
    ASSERT_TRUE(opened.store->begin_persist(large, label_of(2)));
    while (opened.store->counters().written < model.size() + kObjects * 3 / 4) {
      ASSERT_EQ(*opened.store->persist_some(1u << 20), Progress::kMore);
    }
  }
  const Snapshot large = take(*source);
  static_cast<void>(digest_of(*source, large));
  {
    auto opened = open(dir.path);
    EXPECT_EQ(round_of(opened.label), 1u);
    expect_equal(*opened.store, model);
  }
  {
    Beginner next(dir.path, *source, large, 16u << 20);
    EXPECT_LE(next.fetch(2 * kObjects), kObjects - kPartBytes / kBytes + 20);
    EXPECT_EQ(next.write(), Progress::kDone);
    EXPECT_EQ(root_of(*next.opened.store), *ObjectStore::root(large));
  }
  auto opened = open(dir.path);
  EXPECT_TRUE(opened.damage.empty()) << opened.damage;
  NextOutcome at = opened.store->next({});
  for (; at.status == Status::kDone; at = opened.store->next({at.id.value + 1})) model[at.id.value];
  EXPECT_EQ(model.size(), 400 + kObjects);
  const std::size_t nodes = nodes_of(*opened.store, opened.persisted, model);
  opened.persisted.reset();
  opened.store.reset();
  EXPECT_EQ(Raw(dir.path).records().size(), nodes);
}

}  // namespace
}  // namespace zz::execution::state::testing
