// The executor against four simulated nodes that stream as real ones do: one of them lies, channels break, streams lag.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/prng.hpp"
#include "tests/execution/order.hpp"

namespace zz::execution::testing {
namespace {

constexpr std::size_t kBatches = 400;
constexpr std::uint16_t kLiar = 2;

class Cluster {
 public:
  Cluster(std::uint64_t seed, ExecutorConfig config) : prng_(seed), slot_(config) {
    for (std::size_t n = 1; n <= kBatches; ++n) {
      std::vector<Op> ops;
      for (std::uint64_t i = prng_.below(4); i > 0; --i) ops.push_back({9, ++number_, "add k 1"});
      order_.push_back(make_batch(n, ops));
    }
    for (std::uint16_t i = 0; i < 4; ++i) up(i);
  }

  // Everything happens in some order; true once the whole order is executed.
  bool run(int steps) {
    for (int i = 0; i < steps && slot_.core.executed() != Seq{kBatches}; ++i) {
      const auto node = static_cast<std::uint16_t>(prng_.below(4));
      if (prng_.below(100) == 0) flap(node);
      if (node == kLiar && prng_.below(2) == 0) {
        lie();
      } else {
        stream(node);
      }
      if (prng_.below(3) == 0) slot_.run();
      if (prng_.below(4) == 0) slot_.core.tick(Micros{now_ += static_cast<std::int64_t>(prng_.below(50'000))});
      take_subscriptions();
    }
    slot_.run();
    return slot_.core.executed() == Seq{kBatches};
  }

  Slot& slot() { return slot_; }
  [[nodiscard]] const std::vector<agreement::Batch>& order() const { return order_; }

 private:
  struct Stream {
    bool up = false;
    std::optional<agreement::Subscribe> wish;
    std::size_t next_order = 0;
    std::size_t next_batch = 0;
  };

  void up(std::uint16_t node) {
    streams_[node] = Stream{};
    streams_[node].up = true;
    slot_.core.node_up(NodeId{node});
  }
  void flap(std::uint16_t node) {
    if (streams_[node].up) {
      streams_[node] = Stream{};
      slot_.core.node_down(NodeId{node});
    } else {
      up(node);
    }
  }
  void take_subscriptions() {
    slot_.drain();
    for (const auto& at : slot_.subscribes) {
      Stream& stream = streams_[at.to.value];
      stream.wish = at.subscribe;
      stream.next_order = stream.next_batch = at.subscribe.from.value;
    }
    slot_.subscribes.clear();
  }
  void stream(std::uint16_t node) {
    Stream& stream = streams_[node];
    if (!stream.wish) return;
    const std::size_t end = std::min(kBatches, stream.next_order + prng_.below(20));
    for (; stream.next_order <= end; ++stream.next_order) slot_.order(node, order_[stream.next_order - 1]);
    if (!stream.wish->bearer) return;
    const std::size_t bodies_end = std::min(kBatches, stream.next_batch + prng_.below(10));
    for (; stream.next_batch <= bodies_end; ++stream.next_batch)
      slot_.core.step(NodeId{node}, order_[stream.next_batch - 1]);
  }
  void lie() {
    const std::uint64_t n = slot_.core.executed().value + 1 + prng_.below(30);
    const auto forged = make_batch(n, {{9, 100'000 + n, "put k " + std::string(prng_.below(3'000), 'x')}});
    if (prng_.below(2) == 0) slot_.order(kLiar, forged);
    if (prng_.below(2) == 0) slot_.core.step(NodeId{kLiar}, forged);
    if (prng_.below(2) == 0 && n <= kBatches) {
      auto swapped = order_[n - 1];
      swapped.requests = forged.requests;
      slot_.core.step(NodeId{kLiar}, swapped);
    }
  }

  Prng prng_;
  Slot slot_;
  std::vector<agreement::Batch> order_;
  std::uint64_t number_ = 0;
  std::array<Stream, 4> streams_;
  std::int64_t now_ = 0;
};

void expect_same_as_undisturbed(Cluster& cluster) {
  Slot reference;
  reference.all_up();
  for (const auto& batch : cluster.order()) {
    reference.deliver(batch);
    reference.run();
  }
  ASSERT_EQ(cluster.slot().votes.size(), reference.votes.size());
  for (std::size_t i = 0; i < reference.votes.size(); ++i) {
    EXPECT_EQ(cluster.slot().votes[i].n, reference.votes[i].n);
    EXPECT_EQ(cluster.slot().votes[i].replies, reference.votes[i].replies);
  }
  EXPECT_EQ(cluster.slot().core.history(), reference.core.history());
}

TEST(ExecutorStream, ExecutesTheOrderWhateverOneNodeSaysAndChannelsDo) {
  std::uint64_t bearer_changes = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Cluster cluster(seed, make_config());
    ASSERT_TRUE(cluster.run(200'000));
    expect_same_as_undisturbed(cluster);
    bearer_changes += cluster.slot().core.stats().bearer_changes;
  }
  EXPECT_GT(bearer_changes, 0u);  // the lies were told, and noticed
}

TEST(ExecutorStream, ExecutesTheOrderWithRoomForOnlyAFewBodies) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    ExecutorConfig config = make_config();
    config.held_bytes_max = 8'000;
    Cluster cluster(seed, config);
    ASSERT_TRUE(cluster.run(400'000));
    expect_same_as_undisturbed(cluster);
  }
}

// Each SUBSCRIBE brings a whole stream: one per wrong batch would bring more wrong batches than it answers.
TEST(ExecutorStream, ALiarThatIsAloneIsNotAskedAgainForEachLie) {
  constexpr std::uint64_t kLies = 8;
  Slot slot;
  slot.core.tick(Micros{1'000'000});
  slot.all_up();
  std::vector<agreement::Batch> batches;
  for (std::uint64_t n = 1; n <= kLies; ++n) {
    batches.push_back(make_batch(n, {{1, n, "put a 1"}}));
    slot.order(0, batches.back());
    slot.order(1, batches.back());
  }
  for (std::uint16_t i = 0; i < 3; ++i) slot.core.node_down(NodeId{i});
  slot.drain();
  slot.subscribes.clear();
  for (std::uint64_t n = 1; n <= kLies; ++n) {
    EXPECT_EQ(slot.core.step(NodeId{3}, make_batch(n, {{1, n, "put a 2"}})), Refusal::kConflict);
    slot.drain();
  }
  EXPECT_EQ(slot.subscribes.size(), 1u);
  slot.core.tick(Micros{1'000'000});
  slot.core.tick(Micros{1'500'000});  // it still has to give what is missing
  slot.drain();
  ASSERT_EQ(slot.subscribes.size(), 2u);
  EXPECT_TRUE(slot.subscribes.back().subscribe.bearer);
  for (const auto& batch : batches) slot.core.step(NodeId{3}, batch);
  EXPECT_EQ(slot.run(), static_cast<int>(kLies));
}

}  // namespace
}  // namespace zz::execution::testing
