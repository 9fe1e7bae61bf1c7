#pragma once

// Object stores in memory, and the root digest of what one holds now.

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "base/assert.hpp"
#include "execution/state/object_store.hpp"

namespace zz::test {

inline std::unique_ptr<execution::state::ObjectStore> memory_store(const execution::state::StoreOptions& options = {}) {
  auto opened = execution::state::ObjectStore::open(options);
  ZZ_ASSERT(opened.ok());
  return std::move(opened->store);
}

inline void reclaim(execution::state::ObjectStore& store) {
  while (store.reclaim_some(std::numeric_limits<std::size_t>::max())) {
  }
}

inline Digest digest_of(execution::state::ObjectStore& store, const execution::state::Snapshot& snapshot) {
  using execution::state::Progress;
  while (store.digest_some(snapshot, std::uint64_t{1} << 30) == Progress::kMore) {
  }
  return *execution::state::ObjectStore::root(snapshot);
}

inline Digest root_of(execution::state::ObjectStore& store) {
  auto snapshot = store.snapshot();
  ZZ_ASSERT(snapshot.has_value());
  const Digest root = digest_of(store, *snapshot);
  snapshot.reset();
  reclaim(store);
  return root;
}

}  // namespace zz::test
