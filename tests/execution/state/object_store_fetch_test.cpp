#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::state::testing {
namespace {

// A correct replica's snapshot, and a model of it.
struct Source {
  explicit Source(std::uint64_t seed, int changes = 300) : prng(seed), store(in_memory()) {
    for (int i = 0; i < changes; ++i) change(*store, model, prng);
    publish();
  }
  void publish() {
    snapshot.reset();
    snapshot = take(*store);
    root = digest_of(*store, snapshot);
  }
  Part give(const Want& want) {
    const std::optional<Part> part = store->part(snapshot, want);
    EXPECT_TRUE(part);
    return part.value_or(Part{});
  }

  Prng prng;
  std::unique_ptr<ObjectStore> store;
  Model model;
  Snapshot snapshot;
  Digest root;
};

// Fetches all that is absent; the number of parts.
std::size_t fetch_all(ObjectStore& store, Source& source, std::size_t limit = 7) {
  std::size_t fetched = 0;
  for (;;) {
    std::size_t wanted = 0;
    std::optional<ObjectId> cursor = ObjectId{0};
    while (cursor) {
      const ObjectStore::Missing missing = store.missing(*cursor, limit, 1'024);
      EXPECT_LE(missing.wants.size(), limit);
      for (const Want& want : missing.wants) {
        const Refusal refusal = store.supply(source.give(want));
        EXPECT_EQ(refusal, Refusal::kNone) << to_string(refusal);
        if (refusal != Refusal::kNone) return fetched;  // it would be asked for for ever
        ++wanted;
      }
      cursor = missing.next;
    }
    if (wanted == 0) return fetched;
    fetched += wanted;
  }
}

TEST(StateFetch, AStoreBuiltFromARootEndsEqualToItsSource) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Source source(seed);
    const auto store = in_memory();
    store->adopt(source.root);
    EXPECT_FALSE(store->snapshot()) << "nothing is known but a digest";
    fetch_all(*store, source, 1 + seed);
    EXPECT_EQ(store->counters().absent, 0u);
    expect_equal(*store, source.model);
    EXPECT_EQ(root_of(*store), source.root);
  }
}

TEST(StateFetch, TheEmptyStateNeedsItsRootRecordOnly) {
  Source source(1, 0);
  const auto store = in_memory();
  EXPECT_EQ(store->write(ObjectId{1}, as_bytes("x")).status, Status::kDone);
  store->adopt(source.root);
  EXPECT_EQ(fetch_all(*store, source), 1u);
  expect_equal(*store, {});
}

// One flip, one cut, one more byte, and everything else the source has, in every place.
std::vector<Part> lies_about(const Want& want, const Part& truth, const std::vector<Part>& others) {
  std::vector<Part> lies;
  const auto add = [&](Bytes bytes) { lies.push_back({want.kind, want.place, SharedBytes(std::move(bytes))}); };
  const Bytes bytes(truth.bytes.view().begin(), truth.bytes.view().end());
  if (!bytes.empty()) {
    add(Bytes(bytes.begin(), bytes.end() - 1));
    add({});
    for (const std::size_t bit : {std::size_t{0}, bytes.size() * 4, bytes.size() * 8 - 1}) {
      Bytes flipped = bytes;
      flipped[bit / 8] = static_cast<std::uint8_t>(flipped[bit / 8] ^ 1u << bit % 8);
      add(std::move(flipped));
    }
  }
  Bytes longer = bytes;
  longer.push_back(0);
  add(longer);
  longer.resize(kObjectBytesMax + 1);
  add(longer);
  for (const Part& other : others) {  // another part here, be it object, node or root
    if (other.bytes == truth.bytes) continue;
    lies.push_back({want.kind, want.place, other.bytes});
    lies.push_back({PartKind::kNode, want.place, other.bytes});
    lies.push_back({PartKind::kObject, want.place, other.bytes});
  }
  for (const PartKind kind : {PartKind::kNode, PartKind::kObject, PartKind::kRoot}) {  // the truth as another kind
    if (kind != want.kind) lies.push_back({kind, want.place, truth.bytes});
  }
  if (want.kind != PartKind::kRoot) {  // the truth in another place
    for (const Part& other : others) {
      if (other.place != want.place) lies.push_back({want.kind, other.place, truth.bytes});
    }
  }
  return lies;
}

TEST(StateFetch, NothingALyingSourceSaysIsTaken) {
  Source source(11, 60);
  std::vector<Part> all;
  for (const auto& [id, bytes] : source.model) {
    for (Part& part : source.store->path(source.snapshot, {ObjectId{id}})) all.push_back(std::move(part));
  }
  const auto store = in_memory();
  store->adopt(source.root);
  std::uint64_t told = 0;
  for (;;) {
    const std::vector<Want> wants = store->missing({}, 3, 1'024).wants;
    if (wants.empty()) break;
    for (const Want& want : wants) {
      const Part truth = source.give(want);
      const std::uint64_t absent = store->counters().absent;
      for (const Part& lie : lies_about(want, truth, all)) {
        ASSERT_NE(store->supply(lie), Refusal::kNone);
        ++told;
      }
      ASSERT_EQ(store->counters().absent, absent) << "nothing changed";
      for (const auto& [id, bytes] : source.model) {
        const ReadOutcome read = store->read(ObjectId{id});
        if (read.status == Status::kDone) {
          ASSERT_EQ(read.bytes, SharedBytes::copy(bytes));
        } else {
          ASSERT_EQ(read.status, Status::kMissing);
        }
      }
      ASSERT_EQ(store->supply(truth), Refusal::kNone);
      ASSERT_EQ(store->supply(truth), want.kind == PartKind::kRoot ? Refusal::kNotWanted : Refusal::kDuplicate);
    }
  }
  std::uint64_t refused = 0;
  for (const std::uint64_t count : store->counters().refused.counts) refused += count;
  EXPECT_EQ(refused, told + store->counters().supplied) << "each lie and each duplicate is counted";
  EXPECT_GT(told, 1'000u);
  for (const Refusal reason :
       {Refusal::kWrongDigest, Refusal::kMalformed, Refusal::kOversize, Refusal::kDuplicate, Refusal::kNotWanted}) {
    EXPECT_GT(store->counters().refused.of(reason), 0u) << to_string(reason);
  }
  expect_equal(*store, source.model);
}

// Execution goes on from the root alone: what it touches is fetched when it touches it, from a source that lies half of
// the time, and only then.
TEST(StateFetch, ExecutionGoesOnWhileOnlyWhatItTouchesIsFetched) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Source source(100 + seed, 2'000);
    Prng prng(seed);
    const auto store = in_memory();
    store->adopt(source.root);
    Model model = source.model;
    const auto supply = [&](const Want& want) {
      const Part truth = source.give(want);
      if (prng.below(2) == 0) {
        Bytes lie(truth.bytes.view().begin(), truth.bytes.view().end());
        lie.push_back(1);
        EXPECT_NE(store->supply({want.kind, want.place, SharedBytes(lie)}), Refusal::kNone);
      }
      EXPECT_EQ(store->supply(truth), Refusal::kNone);
    };
    const auto until_done = [&](auto&& operation) {
      for (;;) {
        auto outcome = operation();
        if (outcome.status != Status::kMissing) return outcome;
        supply(outcome.want);
      }
    };
    for (int i = 0; i < 30; ++i) {
      const std::uint64_t id = random_id(prng);
      switch (prng.below(4)) {
        case 0: {
          const Bytes bytes = random_bytes(prng);
          EXPECT_EQ(until_done([&] { return store->write(ObjectId{id}, bytes); }).status, Status::kDone);
          model[id] = bytes;
          break;
        }
        case 1: {
          const Outcome outcome = until_done([&] { return store->erase(ObjectId{id}); });
          EXPECT_EQ(outcome.status, model.erase(id) == 1 ? Status::kDone : Status::kNone);
          break;
        }
        case 2: {
          const NextOutcome outcome = until_done([&] { return store->next(ObjectId{id}); });
          const auto expected = model.lower_bound(id);
          ASSERT_EQ(outcome.status, expected == model.end() ? Status::kNone : Status::kDone);
          if (expected != model.end()) {
            EXPECT_EQ(outcome.id.value, expected->first);
          }
          break;
        }
        default: {
          const ReadOutcome outcome = until_done([&] { return store->read(ObjectId{id}); });
          const auto expected = model.find(id);
          ASSERT_EQ(outcome.status, expected == model.end() ? Status::kNone : Status::kDone);
          if (expected != model.end()) {
            EXPECT_EQ(outcome.bytes, SharedBytes::copy(expected->second));
          }
          break;
        }
      }
    }
    EXPECT_GT(store->counters().absent, 0u);
    EXPECT_EQ(root_of(*store), root_of(model)) << "the digest needs no object that was not touched";
    fetch_all(*store, source);
    expect_equal(*store, model);
  }
}

TEST(StateFetch, OneAnswerServesAFirstTouch) {
  Source source(21, 1'000);
  const auto store = in_memory();
  store->adopt(source.root);
  for (const auto& [id, bytes] : source.model) {
    const ReadOutcome first = store->read(ObjectId{id});
    if (first.status == Status::kDone) continue;
    const bool with_root = first.want.kind == PartKind::kRoot;
    for (const Part& part : source.store->path(source.snapshot, {ObjectId{id}, first.want.place.depth, with_root})) {
      ASSERT_EQ(store->supply(part), Refusal::kNone);
    }
    EXPECT_EQ(store->read(ObjectId{id}).status, Status::kDone);
  }
  const auto other = in_memory();
  other->adopt(source.root);
  const std::uint64_t nobody = 0x7777'7777;
  for (const Part& part : source.store->path(source.snapshot, {ObjectId{nobody}})) {
    EXPECT_EQ(other->supply(part), Refusal::kNone);
  }
  EXPECT_EQ(other->read(ObjectId{nobody}).status, Status::kNone) << "that there is none is proven";
}

TEST(StateFetch, AReplicaThatSleptFetchesOnlyTheDifference) {
  Source source(31, 0);
  for (std::uint64_t id = 0; id < 4'096; ++id) {
    source.model[id] = random_bytes(source.prng, 40);
    EXPECT_EQ(source.store->write(ObjectId{id}, source.model[id]).status, Status::kDone);
  }
  source.publish();
  const auto store = in_memory();
  fill(*store, source.model);
  EXPECT_EQ(root_of(*store), source.root);

  for (const std::uint64_t id : {7u, 8u, 2'000u}) {
    source.model[id] = {1, 2, 3};
    EXPECT_EQ(source.store->write(ObjectId{id}, source.model[id]).status, Status::kDone);
  }
  source.model.erase(99);
  EXPECT_EQ(source.store->erase(ObjectId{99}).status, Status::kDone);
  source.publish();
  store->adopt(source.root);
  // The root record, 1 + 2 + 3 inner nodes, three objects.
  EXPECT_EQ(fetch_all(*store, source), 1u + 6 + 3);
  EXPECT_GT(store->counters().reused, 0u);
  expect_equal(*store, source.model);
  EXPECT_EQ(store->counters().absent, 0u);

  store->adopt(root_of(*store));
  EXPECT_EQ(fetch_all(*store, source), 1u) << "the same state again: the root record only";
  expect_equal(*store, source.model);
}

TEST(StateFetch, ANewerRootDuringATransferLosesNothingThatCame) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Source source(400 + seed, 1'500);
    const auto store = in_memory();
    fill(*store, source.model);
    static_cast<void>(root_of(*store));
    Prng prng(seed);
    std::size_t fetched = 0;
    for (int round = 0; round < 4; ++round) {
      for (int i = 0; i < 10; ++i) change(*source.store, source.model, source.prng);
      source.publish();
      store->adopt(source.root);
      for (std::uint64_t steps = prng.below(30); steps > 0; --steps) {
        const auto missing = store->missing({}, 1, 1'024);
        if (missing.wants.empty()) break;
        EXPECT_EQ(store->supply(source.give(missing.wants[0])), Refusal::kNone);
        ++fetched;
      }
    }
    fetched += fetch_all(*store, source);
    expect_equal(*store, source.model);
    EXPECT_EQ(root_of(*store), source.root);
    EXPECT_LT(fetched, 4u * (1 + 10 * 12)) << "what changed, not what is there";
  }
}

// More than f of each kind must be faulty for such a root to be certified; the tree stays a tree all the same.
TEST(StateFetch, ARootWhosePartsContradictEachOtherEndsThere) {
  const Bytes one = {1};
  NodeImage node;
  node.place = {0, 0};
  for (const std::uint64_t id : {std::uint64_t{1} << 60, std::uint64_t{2} << 60}) {
    node.children.push_back({place_of(ObjectId{id}), 1, 1, object_digest(ObjectId{id}, one)});
  }
  const Child top{node.place, 2, 2, node_digest(node)};
  const auto verdict = [&](const Child& said) {
    const RootImage root{said};
    const auto store = in_memory();
    store->adopt(root_digest(root));
    EXPECT_EQ(store->supply({PartKind::kRoot, {}, SharedBytes(encode(root))}), Refusal::kNone);
    return store->supply({PartKind::kNode, said.place, SharedBytes(encode(node))});
  };
  EXPECT_EQ(verdict(top), Refusal::kNone);
  Child other = top;
  other.place = {std::uint64_t{1} << 60, 1};
  EXPECT_EQ(verdict(other), Refusal::kMalformed) << "a node of another place";
  other = top;
  other.objects = 3;
  EXPECT_EQ(verdict(other), Refusal::kMalformed) << "more objects than there are";
  other = top;
  other.bytes = 1;
  EXPECT_EQ(verdict(other), Refusal::kMalformed);
}

// For the thread sanitizer above all: a snapshot is read and given to others while its parts come.
TEST(StateFetch, PartsAreGivenToOthersWhileOthersStillCome) {
  Source source(61, 3'000);
  const auto store = in_memory();
  store->adopt(source.root);
  EXPECT_EQ(store->supply(source.give({PartKind::kRoot, {}, 0, source.root})), Refusal::kNone);
  const Snapshot snapshot = take(*store);
  EXPECT_EQ(digest_of(*store, snapshot), source.root);
  std::thread reader([&] {
    for (std::size_t done = 0; done < source.model.size();) {
      done = 0;
      for (const auto& [id, bytes] : source.model) {
        const ReadOutcome read = store->read(snapshot, ObjectId{id});
        const std::vector<Part> path = store->path(snapshot, {ObjectId{id}});
        if (read.status != Status::kDone) continue;
        ++done;
        EXPECT_EQ(read.bytes, SharedBytes::copy(bytes));
        EXPECT_TRUE(store->part(
            snapshot, {PartKind::kObject, place_of(ObjectId{id}), bytes.size(), object_digest(ObjectId{id}, bytes)}));
      }
    }
  });
  fetch_all(*store, source);
  reader.join();
}

TEST(StateFetch, ASnapshotHandsOutNothingUnderAnotherDigest) {
  Source source(51, 200);
  Want want = source.store->missing({}, 1, 1'024).wants.empty() ? Want{PartKind::kRoot, {}, 0, source.root} : Want{};
  EXPECT_TRUE(source.store->part(source.snapshot, want));
  want.digest.bytes[0] ^= 1;
  EXPECT_FALSE(source.store->part(source.snapshot, want));
  const std::uint64_t id = source.model.begin()->first;
  EXPECT_FALSE(source.store->part(source.snapshot, {PartKind::kObject, place_of(ObjectId{id}), 10, source.root}));
  EXPECT_FALSE(source.store->part(source.snapshot, {PartKind::kNode, place_of(ObjectId{id}), 10, source.root}));
  ASSERT_EQ(source.store->write(ObjectId{id}, Bytes{1}).status, Status::kDone);
  const Snapshot undigested = take(*source.store);
  EXPECT_FALSE(source.store->part(undigested, {PartKind::kRoot, {}, 0, source.root}));
  EXPECT_TRUE(source.store->path(undigested, {ObjectId{id}}).empty());
}

}  // namespace
}  // namespace zz::execution::state::testing
