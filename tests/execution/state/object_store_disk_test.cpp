#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tests/execution/state/disk_tools.hpp"
#include "tests/execution/state/state_writer.hpp"
#include "tests/execution/temp_dir.hpp"

#ifdef __SANITIZE_THREAD__
// The system's RocksDB is not instrumented: the sanitizer does not see what orders its own threads.
extern "C" const char* __tsan_default_suppressions() { return "race:librocksdb\n"; }
#endif

namespace zz::execution::state::testing {
namespace {

using execution::testing::TempDir;

TEST(StateDisk, DoesWhatAMapDoesWithMoreStateThanMemory) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const TempDir dir;
    auto opened = open(dir.path);
    ObjectStore& store = *opened.store;
    Prng prng(seed);
    Model model;
    std::vector<std::pair<Snapshot, Model>> kept;
    for (int step = 0; step < 2'000; ++step) {
      change(store, model, prng, 9'000);
      ASSERT_LE(store.counters().bytes_resident, kMemory);
      switch (prng.below(80)) {
        case 0:
          if (kept.size() < 4) kept.emplace_back(take(store), model);
          break;
        case 1:
          if (!kept.empty()) kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(prng.below(kept.size())));
          break;
        case 2:
          while (store.trim_some(3)) {
          }
          EXPECT_LE(store.counters().bytes_resident, kMemory - kMemory / 8);
          break;
        case 3:
          while (store.reclaim_some(50)) {
          }
          break;
        case 4:
          if (!kept.empty() && prng.below(4) == 0) {
            store.revert(kept[0].first);
            model = kept[0].second;
          }
          break;
        case 5:
          if (!kept.empty()) persist(store, kept.back().first, 1);
          break;
        default:
          break;
      }
    }
    expect_equal(store, model);
    for (const auto& [snapshot, then] : kept) {
      expect_equal(store, snapshot, then);
      EXPECT_EQ(digest_of(store, snapshot), root_of(then));
    }
    EXPECT_GT(store.counters().spilled, 0u);
    EXPECT_GT(store.counters().loaded, 0u);
    EXPECT_EQ(store.counters().damaged, 0u);
  }
}

TEST(StateDisk, APersistedSnapshotComesBackAndNothingElse) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const TempDir dir;
    Model persisted;
    std::uint64_t round = 0;
    Prng prng(seed);
    for (int life = 0; life < 6; ++life) {
      auto opened = open(dir.path);
      ObjectStore& store = *opened.store;
      EXPECT_TRUE(opened.damage.empty()) << opened.damage;
      Model model = persisted;
      if (life > 0) {
        ASSERT_TRUE(opened.persisted);
        EXPECT_EQ(round_of(opened.label), round);
        EXPECT_EQ(ObjectStore::root(opened.persisted), root_of(persisted));
        expect_equal(store, persisted);
        EXPECT_EQ(store.counters().damaged, 0u);
        const std::size_t nodes = nodes_of(store, opened.persisted, persisted);
        opened.persisted.reset();
        opened.store.reset();
        EXPECT_EQ(Raw(dir.path).records().size(), nodes) << "seed " << seed << ": the disk keeps what is needed";
        opened = open(dir.path);
      }
      ObjectStore& again = *opened.store;
      std::vector<std::pair<Snapshot, Model>> kept;
      if (opened.persisted) kept.emplace_back(std::move(opened.persisted), persisted);
      for (int step = 0; step < 8; ++step) {
        for (int i = 0; i < 30; ++i) change(again, model, prng, 4'000);
        kept.emplace_back(take(again), model);
        while (again.reclaim_some(100)) {
        }
        switch (prng.below(4)) {
          case 0: {  // one that is given up half-way
            static_cast<void>(digest_of(again, kept.back().first));
            ASSERT_TRUE(again.begin_persist(kept.back().first, label_of(round + 1)));
            const Result<Progress> progress = again.persist_some(1 + prng.below(40'000));
            ASSERT_TRUE(progress);
            if (*progress != Progress::kDone) break;
            ++round;
            persisted = kept.back().second;
            break;
          }
          case 1: {  // an older one
            const auto& [snapshot, then] = kept[prng.below(kept.size())];
            persist(again, snapshot, ++round);
            persisted = then;
            break;
          }
          default:
            persist(again, kept.back().first, ++round);
            persisted = kept.back().second;
            break;
        }
        if (prng.below(3) == 0) {
          again.revert(kept[0].first);
          model = kept[0].second;
        }
        while (kept.size() > 3) kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(prng.below(kept.size())));
      }
      expect_equal(again, model);
    }
  }
}

TEST(StateDisk, WhatTheDiskLostOrChangedIsAbsentAndIsFetchedAgain) {
  for (const int kind : {0, 1, 2}) {  // changed, gone, another's bytes
    const TempDir dir;
    Prng prng(9);
    Model model;
    Digest root;
    {
      auto opened = open(dir.path);
      for (int i = 0; i < 800; ++i) change(*opened.store, model, prng);
      const Snapshot snapshot = take(*opened.store);
      root = digest_of(*opened.store, snapshot);
      persist(*opened.store, snapshot, 1);
    }
    std::size_t damaged = 0;
    {
      Raw raw(dir.path);
      const auto records = raw.records();
      const std::string* last = nullptr;
      for (const auto& [key, value] : records) {
        if (prng.below(5) == 0 && !value.empty()) {
          std::string other = value;
          other[prng.below(other.size())] ^= 4;
          if (kind == 0) raw.put(0, key, other);
          if (kind == 1) raw.erase(key);
          if (kind == 2) raw.put(0, key, *last);
          ++damaged;
        }
        last = &value;
      }
    }
    ASSERT_GT(damaged, 20u);
    const auto source = in_memory();
    fill(*source, model);
    const Snapshot given = take(*source);
    static_cast<void>(digest_of(*source, given));
    for (int life = 0; life < 2; ++life) {
      auto opened = open(dir.path);
      ObjectStore& store = *opened.store;
      ASSERT_TRUE(opened.persisted);
      EXPECT_EQ(ObjectStore::root(opened.persisted), root);
      EXPECT_EQ(opened.damage.empty(), life == 1) << opened.damage;
      std::size_t fetched = 0;
      for (const auto& [id, bytes] : model) {
        for (;;) {
          const ReadOutcome read = store.read(ObjectId{id});
          ASSERT_NE(read.status, Status::kNone);
          if (read.status == Status::kDone) {
            ASSERT_EQ(read.bytes, SharedBytes::copy(bytes));
            break;
          }
          const auto part = source->part(given, read.want);
          ASSERT_TRUE(part);
          ASSERT_EQ(store.supply(*part), Refusal::kNone);
          ++fetched;
        }
      }
      EXPECT_EQ(fetched > 0, life == 0);
      if (life == 0) persist(store, opened.persisted, 2);
    }
  }
}

// A replica that was down has an older state on disk and takes the difference from others, in scarce memory; it is not
// persisted before it is whole.
TEST(StateDisk, AnOlderStateOnDiskIsReusedAndTheFetchedOneIsPersisted) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const TempDir dir;
    const auto source = in_memory();
    Prng prng(seed);
    Model model;
    for (int i = 0; i < 400; ++i) change(*source, model, prng, 3'000);
    {
      auto opened = open(dir.path);
      fill(*opened.store, model);
      persist(*opened.store, take(*opened.store), 1);
    }
    for (int i = 0; i < 25; ++i) change(*source, model, prng, 3'000);
    const Snapshot given = take(*source);
    const Digest root = digest_of(*source, given);

    auto opened = open(dir.path);
    ObjectStore& store = *opened.store;
    opened.persisted.reset();
    store.adopt(root);
    std::size_t fetched = 0;
    bool waited = false;
    for (;;) {
      const auto wants = store.missing({}, 4, 1'024).wants;
      if (wants.empty()) break;
      for (const Want& want : wants) {
        const auto part = source->part(given, want);
        ASSERT_TRUE(part);
        ASSERT_EQ(store.supply(*part), Refusal::kNone);
        ++fetched;
      }
      if (fetched > 5 && !waited && store.counters().absent > 4) {
        const Snapshot early = take(store);
        EXPECT_EQ(digest_of(store, early), root);
        ASSERT_TRUE(store.begin_persist(early, label_of(2)));
        Result<Progress> progress = Progress::kMore;
        while (progress && *progress == Progress::kMore) progress = store.persist_some(5'000);
        ASSERT_TRUE(progress);
        EXPECT_EQ(*progress, Progress::kMissing);
        waited = true;
      }
    }
    EXPECT_TRUE(waited);
    EXPECT_LT(fetched, 200u) << "25 changes";
    if (seed % 2 == 0) {  // the one that waited goes on
      Result<Progress> progress = Progress::kMore;
      while (progress && *progress == Progress::kMore) progress = store.persist_some(5'000);
      ASSERT_TRUE(progress);
      EXPECT_EQ(*progress, Progress::kDone);
    } else {
      persist(store, take(store), 2);
    }
    EXPECT_LE(store.counters().bytes_resident, kMemory);
    opened.store.reset();
    opened = open(dir.path);
    EXPECT_EQ(round_of(opened.label), 2u);
    EXPECT_EQ(ObjectStore::root(opened.persisted), root);
    expect_equal(*opened.store, model);
  }
}

TEST(StateDisk, NoFlippedByteInAnyFileIsEverRead) {
  const TempDir whole;
  Prng prng(13);
  Model model;
  {
    auto opened = open(whole.path);
    for (int i = 0; i < 200; ++i) change(*opened.store, model, prng, 6'000);
    persist(*opened.store, take(*opened.store), 1);
    for (int i = 0; i < 50; ++i) change(*opened.store, model, prng, 6'000);
    persist(*opened.store, take(*opened.store), 2);
  }
  static_cast<void>(open(whole.path));  // so that there are table and blob files as well as a log
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(whole.path / "objects")) {
    if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path().filename().string());
  }
  std::sort(files.begin(), files.end());
  int noticed = 0;
  for (int turn = 0; turn < 60; ++turn) {
    const TempDir dir;
    fs::copy(whole.path, dir.path, fs::copy_options::recursive);
    const fs::path file = dir.path / "objects" / files[static_cast<std::size_t>(turn) % files.size()];
    const std::uint64_t at = prng.below(fs::file_size(file));
    {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekg(static_cast<std::streamoff>(at));
      const int byte = stream.get();
      stream.seekp(static_cast<std::streamoff>(at));
      stream.put(static_cast<char>(byte ^ (1 << prng.below(8))));
    }
    StoreOptions options;
    options.path = dir.path.string();
    const Result<ObjectStore::Opened> opened = ObjectStore::open(options);
    if (!opened) {
      EXPECT_NE(opened.error().find(dir.path.string()), std::string::npos) << opened.error();
      ++noticed;
      continue;
    }
    if (!opened->persisted) {
      ++noticed;
      continue;
    }
    if (round_of(opened->label) != 2) {  // the log's end is cut off before the damage
      ++noticed;
      continue;
    }
    std::size_t missing = 0;
    for (const auto& [id, bytes] : model) {
      const ReadOutcome read = opened->store->read(ObjectId{id});
      if (read.status == Status::kMissing) {
        ++missing;
      } else {
        ASSERT_EQ(read.status, Status::kDone);
        ASSERT_EQ(read.bytes, SharedBytes::copy(bytes)) << file;
      }
    }
    EXPECT_EQ(missing > 0, opened->store->counters().damaged > 0);
    if (missing > 0) ++noticed;
  }
  EXPECT_GT(noticed, 5);
}

TEST(StateDisk, AManifestThatIsDamagedIsNamedAndTheStateCountsAsLost) {
  const TempDir dir;
  {
    auto opened = open(dir.path);
    EXPECT_EQ(opened.store->write(ObjectId{1}, as_bytes("x")).status, Status::kDone);
    persist(*opened.store, take(*opened.store), 1);
  }
  Raw(dir.path).put(2, "manifest", std::string(200, 'x'));
  auto opened = open(dir.path);
  EXPECT_NE(opened.damage.find("manifest"), std::string::npos) << opened.damage;
  EXPECT_FALSE(opened.persisted);
  expect_equal(*opened.store, {});
}

TEST(StateDisk, TwoStoresDoNotShareADirectory) {
  const TempDir dir;
  const auto opened = open(dir.path);
  StoreOptions options;
  options.path = dir.path.string();
  EXPECT_FALSE(ObjectStore::open(options));
}

// For the thread sanitizer above all: persisting, trimming and freeing beside execution, memory being scarce.
TEST(StateDisk, IsPersistedAndTrimmedBesideExecution) {
  const TempDir dir;
  Model last;
  {
    auto opened = open(dir.path);
    ObjectStore& store = *opened.store;
    Prng prng(5);
    Model model;
    for (std::uint64_t round = 1; round <= 12; ++round) {
      for (int i = 0; i < 60; ++i) change(store, model, prng, 4'000);
      Snapshot snapshot = take(store);
      last = model;
      std::thread worker([&] {
        persist(store, snapshot, round);
        expect_equal(store, snapshot, last);
        snapshot.reset();
        while (store.trim_some(5)) {
        }
        while (store.reclaim_some(50)) {
        }
      });
      for (int i = 0; i < 100; ++i) change(store, model, prng, 4'000);
      worker.join();
    }
    expect_equal(store, model);
  }
  auto opened = open(dir.path);
  EXPECT_EQ(round_of(opened.label), 12u);
  expect_equal(*opened.store, last);
}

// ---- other processes

struct Writer {
  Writer(const fs::path& dir, std::uint64_t seed, bool limited) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    pid = ::fork();
    if (pid == 0) {
      ::dup2(ends[1], 1);
      const std::string text = std::to_string(seed);
      ::execl(STATE_WRITER, STATE_WRITER, dir.c_str(), text.c_str(), limited ? "limited" : nullptr, nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    out = ::fdopen(ends[0], "r");
  }
  ~Writer() { ::fclose(out); }
  // The last of the next lines that came, or of all to the end of its output.
  std::string last_line(std::uint64_t lines = ~std::uint64_t{0}) {
    char line[64];
    for (; lines > 0 && ::fgets(line, sizeof line, out) != nullptr; --lines) last = line;
    return last;
  }
  std::string last;
  pid_t pid = 0;
  FILE* out = nullptr;
};

TEST(StateDisk, AProcessKilledAtAnyMomentLeavesItsLastWholeSnapshot) {
  const TempDir dir;
  constexpr std::uint64_t kSeed = 77;
  Prng prng(kSeed);
  std::uint64_t reached = 0;
  for (int kill_number = 0; kill_number < 12; ++kill_number) {
    Writer writer(dir.path, kSeed, false);
    static_cast<void>(writer.last_line(prng.below(6)));
    ::usleep(static_cast<useconds_t>(prng.below(20'000)));
    ::kill(writer.pid, SIGKILL);
    const std::string line = writer.last_line();
    int status = 0;
    ::waitpid(writer.pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself: " << status;
    const std::uint64_t told = line.empty() ? reached : std::stoull(line);
    auto opened = open(dir.path);
    const std::uint64_t round = opened.label.empty() ? 0 : round_of(opened.label);
    EXPECT_GE(round, told);
    EXPECT_LE(round, told + 1);
    EXPECT_TRUE(opened.damage.empty()) << opened.damage;
    Model model;
    for (std::uint64_t i = 1; i <= round; ++i) advance(model, kSeed, i, nullptr);
    expect_equal(*opened.store, model);
    if (opened.persisted) {
      EXPECT_EQ(ObjectStore::root(opened.persisted), root_of(model));
    }
    reached = round;
  }
  EXPECT_GT(reached, 12u) << "the kills came before anything happened";
  Model model;
  for (std::uint64_t i = 1; i <= reached; ++i) advance(model, kSeed, i, nullptr);
  auto opened = open(dir.path);
  const std::size_t nodes = nodes_of(*opened.store, opened.persisted, model);
  opened.persisted.reset();
  opened.store.reset();
  EXPECT_EQ(Raw(dir.path).records().size(), nodes) << "nothing half-written stays";
}

TEST(StateDisk, AFullDiskIsNamedAndLeavesTheLastWholeSnapshot) {
  const TempDir dir;
  {
    Writer writer(dir.path, 5, true);
    EXPECT_EQ(writer.last_line(), "full\n");
    int status = 0;
    ::waitpid(writer.pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  auto opened = open(dir.path);
  ASSERT_TRUE(opened.persisted);
  Model model;
  const std::uint64_t round = round_of(opened.label);
  for (std::uint64_t i = 1; i <= round; ++i) advance(model, 5, i, nullptr);
  expect_equal(*opened.store, model);
}

// As a woken slot does with what an earlier life of it left.
TEST(StateDisk, AClearedStoreIsEmptyAndReusesWhatIsPersistedByDigest) {
  const TempDir dir;
  Model model;
  for (std::uint64_t id = 0; id < 2'000; ++id) model[id << 40] = Bytes(100, static_cast<std::uint8_t>(id));
  {
    auto earlier = open(dir.path);
    fill(*earlier.store, model);
    persist(*earlier.store, take(*earlier.store), 1);
  }
  for (int i = 0; i < 20; ++i) model[std::uint64_t(i) * 97 << 40] = Bytes(100, 0xee);
  const auto source = in_memory();
  fill(*source, model);
  const Snapshot snapshot = take(*source);
  const Digest root = digest_of(*source, snapshot);

  auto opened = open(dir.path);
  ASSERT_NE(opened.persisted, nullptr);
  opened.persisted.reset();
  ObjectStore& store = *opened.store;
  store.clear();
  expect_equal(store, Model());
  store.adopt(root);
  std::uint64_t fetched = 0;
  for (;;) {
    const auto missing = store.missing(ObjectId{}, 100, 4'096);
    if (missing.wants.empty()) break;
    for (const Want& want : missing.wants) {
      if (want.kind == PartKind::kObject) ++fetched;
      ASSERT_EQ(store.supply(*source->part(snapshot, want)), Refusal::kNone);
    }
  }
  EXPECT_EQ(fetched, 20u);
  expect_equal(store, model);
}

TEST(StateDisk, AStateThatNobodyCertifiedIsNeitherReadNorReused) {
  const TempDir dir;
  Model forged;
  Model certified;
  for (std::uint64_t id = 0; id < 300; ++id) {
    forged[id] = Bytes(50, 0xbb);
    certified[id] = Bytes(50, 0xaa);
  }
  {
    auto liar = open(dir.path);
    fill(*liar.store, forged);
    persist(*liar.store, take(*liar.store), 1);
  }
  const auto source = in_memory();
  fill(*source, certified);
  const Snapshot snapshot = take(*source);
  auto opened = open(dir.path);
  ObjectStore& store = *opened.store;
  store.clear();
  EXPECT_EQ(store.read(ObjectId{7}).status, Status::kNone);
  store.adopt(digest_of(*source, snapshot));
  EXPECT_EQ(store.read(ObjectId{7}).status, Status::kMissing);
  std::size_t parts = 0;
  for (;; ++parts) {
    const auto missing = store.missing(ObjectId{}, 1, 4'096);
    if (missing.wants.empty()) break;
    ASSERT_EQ(store.supply(*source->part(snapshot, missing.wants[0])), Refusal::kNone);
  }
  EXPECT_GT(parts, 300u);
  EXPECT_EQ(store.counters().reused, 0u);
  expect_equal(store, certified);
}

}  // namespace
}  // namespace zz::execution::state::testing
