#include "execution/state/object_store.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::state::testing {
namespace {

TEST(ObjectStore, DoesWhatAMapDoesAndItsSnapshotsStayAsTheyWere) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Prng prng(seed);
    const auto store = in_memory();
    Model model;
    std::vector<std::pair<Snapshot, Model>> kept;
    for (int step = 0; step < 1'500; ++step) {
      change(*store, model, prng);
      switch (prng.below(60)) {
        case 0:
          if (kept.size() < 5) kept.emplace_back(take(*store), model);
          break;
        case 1:
          if (!kept.empty()) kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(prng.below(kept.size())));
          break;
        case 2:
          if (!kept.empty()) store->digest_some(kept[prng.below(kept.size())].first, prng.below(4'000));
          break;
        case 3:
          while (store->reclaim_some(1 + prng.below(100))) {
          }
          break;
        case 4:
          if (!kept.empty() && prng.below(3) == 0) {
            const auto& [snapshot, then] = kept[prng.below(kept.size())];
            store->revert(snapshot);
            model = then;
          }
          break;
        default:
          break;
      }
    }
    expect_equal(*store, model);
    for (const auto& [snapshot, then] : kept) {
      expect_equal(*store, snapshot, then);
      EXPECT_EQ(digest_of(*store, snapshot), root_of(then)) << "seed " << seed;
    }
    kept.clear();
    while (store->reclaim_some(1'000)) {
    }
    EXPECT_EQ(root_of(*store), root_of(model));
    EXPECT_EQ(store->counters().objects_resident, model.size()) << "what nobody holds is freed";
  }
}

TEST(ObjectStore, HasOneRootPerContentWhateverItsHistory) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Prng prng(seed);
    Model model;
    const auto store = in_memory();
    for (int i = 0; i < 300; ++i) change(*store, model, prng);
    std::vector<std::pair<std::uint64_t, Bytes>> objects(model.begin(), model.end());
    const Digest expected = root_of(*store);
    for (int turn = 0; turn < 3; ++turn) {
      for (std::size_t i = objects.size(); i > 1; --i) std::swap(objects[i - 1], objects[prng.below(i)]);
      const auto other = in_memory();
      for (const auto& [id, bytes] : objects) {
        const std::uint64_t passing = random_id(prng);
        EXPECT_EQ(other->write(ObjectId{passing}, bytes).status, Status::kDone);
        if (prng.below(2) == 0) static_cast<void>(root_of(*other));
        if (!model.contains(passing)) {
          EXPECT_EQ(other->erase(ObjectId{passing}).status, Status::kDone);
        }
        EXPECT_EQ(other->write(ObjectId{id}, bytes).status, Status::kDone);
      }
      for (const auto& [id, bytes] : objects) EXPECT_EQ(other->write(ObjectId{id}, bytes).status, Status::kDone);
      EXPECT_EQ(root_of(*other), expected) << "seed " << seed;
    }
  }
}

TEST(ObjectStore, HasAnotherRootForEveryOtherContent) {
  Prng prng(3);
  Model model;
  for (int i = 0; i < 40; ++i) model[random_id(prng)] = random_bytes(prng);
  const Digest root = root_of(model);
  for (const auto& [id, bytes] : model) {
    Model other = model;
    other.erase(id);
    EXPECT_NE(root_of(other), root);
    other[id + 0x1'0000] = bytes;
    EXPECT_NE(root_of(other), root) << "the same bytes under another id";
    other = model;
    other[id].push_back(0);
    EXPECT_NE(root_of(other), root);
  }
  EXPECT_NE(root_of(Model{}), root_of(Model{{0, {}}})) << "an empty object is an object";
}

TEST(ObjectStore, RefusesWhatIsAboveItsLimitsAndIsUnchanged) {
  StoreOptions options;
  options.objects_max = 3;
  options.bytes_max = 100'000;
  const auto store = std::move(ObjectStore::open(options)->store);
  const Bytes large(kObjectBytesMax, 1);
  EXPECT_EQ(store->write(ObjectId{1}, Bytes(kObjectBytesMax + 1)).status, Status::kOversize);
  EXPECT_EQ(store->write(ObjectId{1}, large).status, Status::kDone);
  EXPECT_EQ(store->write(ObjectId{2}, large).status, Status::kFull);
  EXPECT_EQ(store->write(ObjectId{1}, large).status, Status::kDone) << "in place of itself";
  EXPECT_EQ(store->write(ObjectId{2}, {}).status, Status::kDone);
  EXPECT_EQ(store->write(ObjectId{3}, {}).status, Status::kDone);
  EXPECT_EQ(store->write(ObjectId{4}, {}).status, Status::kFull);
  expect_equal(*store, {{1, large}, {2, {}}, {3, {}}});
}

TEST(ObjectStore, KeepsNoMoreSnapshotsThanItMay) {
  StoreOptions options;
  options.snapshots_max = 2;
  const auto store = std::move(ObjectStore::open(options)->store);
  Snapshot first = take(*store);
  Snapshot second = take(*store);
  EXPECT_FALSE(store->snapshot());
  first.reset();
  EXPECT_FALSE(store->snapshot()) << "its nodes are not reclaimed yet";
  EXPECT_FALSE(store->reclaim_some(10));
  EXPECT_TRUE(store->snapshot());
}

TEST(ObjectStore, BytesThatWereReadStayAsTheyWere) {
  const auto store = in_memory();
  EXPECT_EQ(store->write(ObjectId{1}, as_bytes("before")).status, Status::kDone);
  const ReadOutcome read = store->read(ObjectId{1});
  EXPECT_EQ(store->write(ObjectId{1}, as_bytes("after")).status, Status::kDone);
  EXPECT_EQ(read.bytes.text(), "before");
  EXPECT_EQ(store->read(ObjectId{1}).bytes.text(), "after");
}

TEST(ObjectStore, SnapshotsMayOutliveIt) {
  auto store = in_memory();
  EXPECT_EQ(store->write(ObjectId{1}, as_bytes("x")).status, Status::kDone);
  const Snapshot snapshot = take(*store);
  store.reset();
  EXPECT_EQ(ObjectStore::totals(snapshot).objects, 1u);
}

// For the thread sanitizer above all: digests, reads and freeing beside writes.
TEST(ObjectStore, IsDigestedReadAndReclaimedBesideExecution) {
  const auto store = in_memory();
  Prng prng(5);
  Model model;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 100; ++i) change(*store, model, prng);
    Snapshot snapshot = take(*store);
    const Model then = model;
    Digest root;
    std::thread worker([&] {
      root = digest_of(*store, snapshot);
      expect_equal(*store, snapshot, then);
      snapshot.reset();
      while (store->reclaim_some(50)) {
      }
    });
    for (int i = 0; i < 200; ++i) change(*store, model, prng);
    worker.join();
    EXPECT_EQ(root, root_of(then));
  }
  expect_equal(*store, model);
}

}  // namespace
}  // namespace zz::execution::state::testing
