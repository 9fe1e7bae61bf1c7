#pragma once

// What tests of the object store's disk share.

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "tests/execution/state/state_writer.hpp"

namespace zz::execution::state::testing {

namespace fs = std::filesystem;

inline constexpr std::uint64_t kMemory = 60'000;

inline ObjectStore::Opened open(const fs::path& path, std::uint64_t memory = kMemory) {
  StoreOptions options;
  options.path = path.string();
  options.memory_bytes = memory;
  Result<ObjectStore::Opened> opened = ObjectStore::open(options);
  if (!opened) {
    ADD_FAILURE() << opened.error();
    return {in_memory(), nullptr, {}, {}};
  }
  return std::move(*opened);
}

inline void persist(ObjectStore& store, const Snapshot& snapshot, std::uint64_t round) {
  static_cast<void>(digest_of(store, snapshot));
  const Result<void> begun = store.begin_persist(snapshot, label_of(round));
  ASSERT_TRUE(begun) << begun.error();
  for (;;) {
    const Result<Progress> progress = store.persist_some(5'000);
    ASSERT_TRUE(progress) << progress.error();
    ASSERT_NE(*progress, Progress::kMissing);
    if (*progress == Progress::kDone) return;
  }
}

// The RocksDB under a closed store.
struct Raw {
  explicit Raw(const fs::path& path) {
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : {"default", "spill", "meta"}) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    rocksdb::DB* opened = nullptr;
    const auto status = rocksdb::DB::Open({}, (path / "objects").string(), families, &handles, &opened);
    EXPECT_TRUE(status.ok()) << status.ToString();
    db.reset(opened);
  }
  ~Raw() {
    for (auto* handle : handles) EXPECT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
  }
  std::map<std::string, std::string> records() {
    std::map<std::string, std::string> out;
    const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, handles[0]));
    for (it->SeekToFirst(); it->Valid(); it->Next()) out[it->key().ToString()] = it->value().ToString();
    return out;
  }
  void put(int family, const std::string& key, const std::string& value) {
    EXPECT_TRUE(db->Put({}, handles[static_cast<std::size_t>(family)], key, value).ok());
  }
  void erase(const std::string& key) { EXPECT_TRUE(db->Delete({}, handles[0], key).ok()); }
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
};

// Tree nodes of a state: what the disk should hold and no more.
inline std::size_t nodes_of(ObjectStore& store, const Snapshot& snapshot, const Model& model) {
  std::set<std::pair<std::uint64_t, std::uint8_t>> places;
  for (const auto& [id, bytes] : model) {
    for (const Part& part : store.path(snapshot, {ObjectId{id}, 0, false})) {
      places.emplace(part.place.prefix, part.place.depth);
    }
  }
  return places.size();
}

}  // namespace zz::execution::state::testing
