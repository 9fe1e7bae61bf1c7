#include "execution/slot_store.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/execution/state/store_test_model.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution {
namespace {

namespace fs = std::filesystem;
using state::ObjectId;
using state::Status;
using state::testing::Model;
using ::zz::execution::testing::TempDir;

constexpr Seq kStable{7};

// The store of one life, which begins with tick() as an agent does.
struct Life {
  explicit Life(const fs::path& path) {
    SlotStore::Options options;
    options.store.path = path.string();
    options.source.nodes = 4;
    SlotStore::Callbacks callbacks;
    callbacks.send = [this](NodeId, agreement::Body body) { sent.push_back(std::move(body)); };
    callbacks.digested = [](Seq, const Digest&) {};
    callbacks.supplied = [] {};
    callbacks.whole = [this] { ++whole; };
    callbacks.stale = [] {};
    auto opened = SlotStore::open(loop, options, std::move(callbacks));
    if (!opened) {
      ADD_FAILURE() << opened.error();
      return;
    }
    store = std::move(*opened);
    store->tick(Micros{1});
  }
  bool until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done() && std::chrono::steady_clock::now() < deadline) loop.run_for(std::chrono::milliseconds(5));
    return done();
  }
  state::Snapshot digested() {
    state::Snapshot snapshot = *store->objects().snapshot();
    static_cast<void>(state::testing::digest_of(store->objects(), snapshot));
    return snapshot;
  }

  boost::asio::io_context loop;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard{loop.get_executor()};
  std::vector<agreement::Body> sent;
  int whole = 0;
  std::unique_ptr<SlotStore> store;
};

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
  life.store->stable(kStable, snapshot);
  EXPECT_TRUE(life.until([&] { return life.store->persisted() == kStable; }));
  return *state::ObjectStore::root(snapshot);
}

TEST(SlotStore, TheNextLifeReadsNothingOfTheLastOneBeforeItIsCertifiedAndFetchesNothingAfterwards) {
  const TempDir dir;
  const Model model = a_model();
  const Digest root = live_and_leave(dir.path / "slot", model);
  Life next(dir.path / "slot");
  EXPECT_EQ(next.store->objects().read(ObjectId{0}).status, Status::kNone);
  next.store->node_up(NodeId{1});
  next.store->objects().adopt(root);
  next.store->adopted(kStable);
  next.store->tick(Micros{2});
  EXPECT_EQ(next.whole, 1);
  EXPECT_TRUE(next.sent.empty());
  state::testing::expect_equal(next.store->objects(), model);
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
