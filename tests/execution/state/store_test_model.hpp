#pragma once

// What the tests of the object store compare it with: a std::map.

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>

#include "base/prng.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution::state::testing {

using Model = std::map<std::uint64_t, Bytes>;

inline std::unique_ptr<ObjectStore> in_memory() { return std::move(ObjectStore::open({})->store); }

inline Bytes random_bytes(Prng& prng, std::size_t longest = 300) {
  Bytes bytes(prng.below(20) == 0 ? 0 : prng.below(longest + 1));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(prng.next());
  return bytes;
}

// Ids that share prefixes of all lengths.
inline std::uint64_t random_id(Prng& prng) {
  switch (prng.below(4)) {
    case 0:
      return prng.below(64);
    case 1:
      return prng.below(8) << (4 * prng.below(16));
    case 2:
      return std::numeric_limits<std::uint64_t>::max() - prng.below(32);
    default:
      return 0x1234'5678'0000'0000 + (prng.below(4) << 28) + prng.below(16);
  }
}

inline void change(ObjectStore& store, Model& model, Prng& prng, std::size_t longest = 300) {
  const std::uint64_t id = random_id(prng);
  if (prng.below(3) == 0) {
    const Outcome outcome = store.erase(ObjectId{id});
    EXPECT_EQ(outcome.status, model.erase(id) == 1 ? Status::kDone : Status::kNone);
  } else {
    Bytes bytes = random_bytes(prng, longest);
    EXPECT_EQ(store.write(ObjectId{id}, bytes).status, Status::kDone);
    model[id] = std::move(bytes);
  }
}

inline void expect_equal(ObjectStore& store, const Model& model) {
  Totals totals;
  ObjectId from{0};
  for (const auto& [id, bytes] : model) {
    const NextOutcome next = store.next(from);
    ASSERT_EQ(next.status, Status::kDone);
    ASSERT_EQ(next.id.value, id);
    ASSERT_EQ(next.length, bytes.size());
    const ReadOutcome read = store.read(ObjectId{id});
    ASSERT_EQ(read.status, Status::kDone) << id;
    ASSERT_EQ(read.bytes, SharedBytes::copy(bytes)) << id;
    ++totals.objects;
    totals.bytes += bytes.size();
    from = ObjectId{id + 1};  // wraps after the last id
  }
  if (model.empty() || from.value != 0) {
    ASSERT_EQ(store.next(from).status, Status::kNone);
  }
  ASSERT_EQ(store.totals(), totals);
}

inline void expect_equal(ObjectStore& store, const Snapshot& snapshot, const Model& model) {
  ASSERT_EQ(ObjectStore::totals(snapshot).objects, model.size());
  for (const auto& [id, bytes] : model) {
    const ReadOutcome read = store.read(snapshot, ObjectId{id});
    ASSERT_EQ(read.status, Status::kDone) << id;
    ASSERT_EQ(read.bytes, SharedBytes::copy(bytes)) << id;
  }
}

inline Snapshot take(ObjectStore& store) {
  std::optional<Snapshot> snapshot = store.snapshot();
  if (!snapshot) {
    while (store.reclaim_some(1'000)) {
    }
    snapshot = store.snapshot();
  }
  if (!snapshot) ADD_FAILURE() << "no snapshot to be had";
  return snapshot.value_or(nullptr);
}

inline Digest digest_of(ObjectStore& store, const Snapshot& snapshot) {
  while (store.digest_some(snapshot, 1'000) != Progress::kDone) {
  }
  return ObjectStore::root(snapshot).value_or(Digest{});
}

inline Digest root_of(ObjectStore& store) {
  const Digest root = digest_of(store, take(store));
  while (store.reclaim_some(1'000)) {
  }
  return root;
}

inline void fill(ObjectStore& store, const Model& model) {
  for (const auto& [id, bytes] : model) EXPECT_EQ(store.write(ObjectId{id}, bytes).status, Status::kDone);
}

inline Digest root_of(const Model& model) {
  const auto store = in_memory();
  fill(*store, model);
  return root_of(*store);
}

}  // namespace zz::execution::state::testing
