#include "execution/state_keeper.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "tests/execution/state/store_test_model.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution {
namespace {

using namespace state;
using state::testing::change;
using state::testing::Model;
using ::zz::execution::testing::TempDir;

struct Kept {
  explicit Kept(const std::string& path = {}, std::uint64_t memory_bytes = 256u << 20) {
    StoreOptions options;
    options.path = path;
    options.memory_bytes = memory_bytes;
    auto opened = ObjectStore::open(options);
    if (opened) store = std::move(opened->store);
  }
  // Runs the loop until it is so; false: it did not become so within a generous time.
  bool until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done() && std::chrono::steady_clock::now() < deadline) loop.run_for(std::chrono::milliseconds(10));
    return done();
  }
  Snapshot take() const { return *store->snapshot(); }

  boost::asio::io_context loop;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard{loop.get_executor()};
  std::unique_ptr<ObjectStore> store;
};

// Execution goes on while the roots are computed: they are those of the snapshots all the same, and come in order.
TEST(StateKeeper, GivesTheRootsOfSnapshotsInOrderWhileTheHeadChanges) {
  Kept kept;
  Prng prng(1);
  Model model;
  std::vector<Digest> roots;
  std::map<std::size_t, Model> then;
  {
    StateKeeper keeper(kept.loop, *kept.store);
    for (std::size_t i = 0; i < 40; ++i) {
      for (int k = 0; k < 200; ++k) change(*kept.store, model, prng);
      ASSERT_TRUE(kept.until([&] { return roots.size() + 3 > i; }));  // few snapshots at a time
      then[i] = model;
      std::optional<Snapshot> snapshot;
      ASSERT_TRUE(kept.until([&] {
        snapshot = kept.store->snapshot();
        if (!snapshot) keeper.tidy();  // dropped ones count until they are freed
        return snapshot.has_value();
      }));
      keeper.digest(std::move(*snapshot), [&](const Digest& root) { roots.push_back(root); });
    }
    ASSERT_TRUE(kept.until([&] { return roots.size() == 40; }));
  }
  for (const auto& [i, objects] : then) EXPECT_EQ(roots[i], state::testing::root_of(objects)) << i;
}

TEST(StateKeeper, PersistsWhatComesBack) {
  const TempDir dir;
  const std::string path = (dir.path / "store").string();
  Model model;
  Prng prng(2);
  {
    Kept kept(path);
    StateKeeper keeper(kept.loop, *kept.store);
    for (int k = 0; k < 500; ++k) change(*kept.store, model, prng);
    const Snapshot snapshot = kept.take();
    bool digested = false;
    keeper.digest(snapshot, [&](const Digest&) { digested = true; });
    ASSERT_TRUE(kept.until([&] { return digested; }));
    std::optional<Result<void>> persisted;
    keeper.persist(snapshot, Bytes{1, 2, 3}, [&](const Result<void>& result) { persisted = result; });
    ASSERT_TRUE(kept.until([&] { return persisted.has_value(); }));
    EXPECT_TRUE(persisted->ok());
  }
  StoreOptions options;
  options.path = path;
  auto opened = ObjectStore::open(options);
  ASSERT_TRUE(opened) << opened.error();
  EXPECT_EQ(opened->label, (Bytes{1, 2, 3}));
  state::testing::expect_equal(*opened->store, model);
}

TEST(StateKeeper, SaysThatWhatIsNotWholeCannotBePersisted) {
  const TempDir dir;
  Kept whole;
  Model model;
  Prng prng(3);
  for (int k = 0; k < 100; ++k) change(*whole.store, model, prng);
  const Snapshot source = whole.take();
  const Digest root = state::testing::digest_of(*whole.store, source);

  Kept kept((dir.path / "store").string());
  StateKeeper keeper(kept.loop, *kept.store);
  kept.store->adopt(root);
  const auto first = whole.store->part(source, {PartKind::kRoot, {}, kRootBytesMax, root});
  ASSERT_TRUE(first);
  ASSERT_EQ(kept.store->supply(*first), Refusal::kNone);
  const Snapshot snapshot = kept.take();
  bool digested = false;
  keeper.digest(snapshot, [&](const Digest& same) {
    digested = true;
    EXPECT_EQ(same, root);
  });
  ASSERT_TRUE(kept.until([&] { return digested; }));
  std::string why;
  keeper.persist(snapshot, {}, [&](const Result<void>& result) { why = result.ok() ? "persisted" : result.error(); });
  ASSERT_TRUE(kept.until([&] { return !why.empty(); }));
  EXPECT_EQ(why, "the state is not whole here yet");
}

TEST(StateKeeper, FreesAndSpillsWhatIsOverTheLimit) {
  const TempDir dir;
  Kept kept((dir.path / "store").string(), 1u << 20);
  StateKeeper keeper(kept.loop, *kept.store);
  for (std::uint64_t id = 0; id < 100; ++id) {
    ASSERT_EQ(kept.store->write(ObjectId{id}, Bytes(10'000, 7)).status, Status::kDone);
  }
  EXPECT_TRUE(kept.until([&] {
    keeper.tidy();
    return kept.store->counters().bytes_resident <= (7u << 20) / 8;
  }));
  for (std::uint64_t id = 0; id < 100; ++id) EXPECT_EQ(kept.store->read(ObjectId{id}).bytes.size(), 10'000u);
}

TEST(StateKeeper, SaysNothingAfterItsEnd) {
  Kept kept;
  Prng prng(4);
  Model model;
  for (int k = 0; k < 500; ++k) change(*kept.store, model, prng);
  bool told = false;
  {
    StateKeeper keeper(kept.loop, *kept.store);
    keeper.digest(kept.take(), [&](const Digest&) { told = true; });
  }
  kept.loop.poll();
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace zz::execution
