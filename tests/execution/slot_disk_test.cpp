// A slot whose disk is full.

#include <gtest/gtest.h>

#include "tests/execution/slot_life.hpp"
#include "tests/execution/temp_dir.hpp"
#include "tests/support/small_disk.hpp"

namespace zz::execution {
namespace {

namespace fs = std::filesystem;
using state::ObjectId;
using state::ReadOutcome;
using state::Status;
using state::testing::Model;
using testing::certificate_of;
using testing::Life;
using testing::TempDir;
using ::zz::test::SmallDisk;

constexpr Seq kFirst{7};
constexpr Seq kLater{8};

class SlotOnAFullDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!test::mounts_are_own()) GTEST_SKIP() << "this machine does not let us mount";
    disk_.emplace((dir_.path / "disk").string(), 128);
    ASSERT_TRUE(disk_->mounted());
  }
  [[nodiscard]] fs::path slot() const { return dir_.path / "disk" / "slot"; }
  // Names the error and the place.
  void expect_named(const std::string& error) const {
    EXPECT_NE(error.find("No space left"), std::string::npos) << error;
    EXPECT_NE(error.find(slot().string()), std::string::npos) << error;
  }

  TempDir dir_;
  std::optional<SmallDisk> disk_;
};

// More than what RocksDB takes from the disk before it needs it.
Model a_model(std::uint64_t objects, std::uint8_t salt) {
  Model model;
  for (std::uint64_t id = 0; id < objects; ++id) {
    Bytes& bytes = model[id * 1'000'003];
    bytes.assign(state::kObjectBytesMax, static_cast<std::uint8_t>(id));
    bytes[1] = static_cast<std::uint8_t>(id >> 8);
    bytes[2] = salt;
  }
  return model;
}

TEST_F(SlotOnAFullDisk, AStateThatFitsIntoMemoryLivesOnAndTheNextLifeHasTheLastWholeOne) {
  const Model first = a_model(100, 1);
  const Model later = a_model(1'500, 2);
  Digest root;
  {
    Life life(slot());
    ASSERT_EQ(life.failed, "");
    state::testing::fill(life.store->objects(), first);
    const state::Snapshot snapshot = life.digested();
    root = *state::ObjectStore::root(snapshot);
    life.store->stable(certificate_of(kFirst), snapshot);
    ASSERT_TRUE(life.until([&] { return stable_n(life.store->kept()) == kFirst; }));

    ASSERT_NO_FATAL_FAILURE(disk_->fill());
    state::testing::fill(life.store->objects(), later);
    life.store->tick(Micros{2 * SlotStore::kPersistEvery.value});
    life.store->stable(certificate_of(kLater), life.digested());
    const auto error = [&] { return life.store->objects().disk_error(); };
    ASSERT_TRUE(life.until([&] { return !error().empty(); })) << "it writes to a full disk";
    expect_named(error());
    life.store->tick(Micros{4 * SlotStore::kPersistEvery.value});
    EXPECT_EQ(life.failed, "");
    EXPECT_EQ(stable_n(life.store->kept()), kFirst);
    state::testing::expect_equal(life.store->objects(), later);
    EXPECT_TRUE(state::ObjectStore::root(life.digested()));
  }
  disk_->empty();
  Life next(slot());
  ASSERT_EQ(next.failed, "");
  next.store->objects().adopt(root);
  EXPECT_TRUE(next.store->objects().missing(ObjectId{}, 1, 65'536).wants.empty()) << "a full disk is no damage";
  state::testing::expect_equal(next.store->objects(), first);
}

TEST_F(SlotOnAFullDisk, AStateThatDoesNotFitIntoMemoryEndsTheLifeAndIsStillWhole) {
  constexpr std::uint64_t kMemory = 8u << 20;
  constexpr std::uint64_t kObjects = 4'000;
  Life life(slot(), kMemory);
  ASSERT_EQ(life.failed, "");
  ASSERT_NO_FATAL_FAILURE(disk_->fill());
  state::ObjectStore& store = life.store->objects();
  const Model model = a_model(kObjects, 1);
  std::uint64_t written = 0;
  for (const auto& [id, bytes] : model) {
    ASSERT_EQ(store.write(ObjectId{id}, bytes).status, Status::kDone);
    if (++written % 16 == 0) life.store->tick(Micros{static_cast<std::int64_t>(written)});
    if (!life.failed.empty()) break;
  }
  ASSERT_NE(life.failed, "") << "it writes to a full disk";
  expect_named(life.failed);
  EXPECT_LT(store.counters().bytes_resident, kMemory + 32 * state::kObjectBytesMax) << "it fills memory";
  EXPECT_GT(store.counters().spilled, 0u);
  // What was spilled and did not reach the disk is in RocksDB's memory still.
  for (const auto& [id, bytes] : model) {
    if (written-- == 0) break;
    const ReadOutcome read = store.read(ObjectId{id});
    ASSERT_EQ(read.status, Status::kDone) << id;
    ASSERT_EQ(read.bytes, SharedBytes::copy(bytes));
  }
  EXPECT_EQ(store.counters().damaged, 0u);
}

TEST_F(SlotOnAFullDisk, AtTheStartItIsNamedAndWhatAnEarlierLifeFilledItWithGoes) {
  ASSERT_NO_FATAL_FAILURE(disk_->fill());
  {
    const Life life(slot());
    EXPECT_EQ(life.store, nullptr);
    expect_named(life.failed);
  }
  disk_->empty();
  fs::create_directories(slot());
  ASSERT_NO_FATAL_FAILURE(disk_->fill("slot/junk"));
  const Life life(slot());
  EXPECT_EQ(life.failed, "");
}

}  // namespace
}  // namespace zz::execution
