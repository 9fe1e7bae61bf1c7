// Which node an executor gets its bodies from, when nodes are slow.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/execution/order.hpp"

namespace zz::execution::testing {
namespace {

// Nodes that stream in real time: each tells of a batch when its time comes, and its bodies follow after its lag.
class TimedNodes {
 public:
  explicit TimedNodes(std::array<std::int64_t, 4> lags_ms) : lags_(lags_ms) { slot.all_up(); }

  // A batch every 20 ms from 1 s on, for so many ms.
  void run(std::int64_t ms) {
    for (std::int64_t end = now_ + ms; now_ < end; now_ += 5) {
      slot.core.tick(Micros{now_ * 1'000});
      for (const auto& at : slot.subscribes) {
        Stream& stream = streams_[at.to.value];
        if (at.subscribe.bearer && !stream.bearer) stream.since = now_;
        stream.bearer = at.subscribe.bearer;
        stream.next = at.subscribe.from.value;
      }
      slot.subscribes.clear();
      for (; now_ >= kStart + static_cast<std::int64_t>(told_) * 20; ++told_) {
        for (std::uint16_t node = 0; node < 4; ++node) slot.order(node, make_batch(told_ + 1, {}));
      }
      for (std::uint16_t node = 0; node < 4; ++node) {
        Stream& stream = streams_[node];
        for (; stream.bearer && stream.next <= told_ && now_ >= sent_at(stream) + lags_[node]; ++stream.next) {
          slot.core.step(NodeId{node}, make_batch(stream.next, {}));
        }
      }
      slot.run();
    }
  }
  void down(std::uint16_t node) {
    streams_[node] = Stream{};
    slot.core.node_down(NodeId{node});
  }
  [[nodiscard]] std::uint64_t behind() const { return told_ - slot.core.executed().value; }

  Slot slot;

 private:
  static constexpr std::int64_t kStart = 1'000;
  struct Stream {
    bool bearer = false;
    std::int64_t since = 0;
    std::uint64_t next = 1;
  };
  static std::int64_t sent_at(const Stream& stream) {
    return std::max(stream.since, kStart + static_cast<std::int64_t>(stream.next - 1) * 20);
  }

  std::array<std::int64_t, 4> lags_;
  std::array<Stream, 4> streams_;
  std::uint64_t told_ = 0;
  std::int64_t now_ = 500;
};

TEST(ExecutorBearer, ASlowOneIsLeftOnceAndNotTakenAgain) {
  for (std::uint16_t node = 0; node < 4; ++node) {
    std::array<std::int64_t, 4> lags = {2, 2, 2, 2};
    lags[node] = 200;
    TimedNodes nodes(lags);
    nodes.run(5'000);
    EXPECT_LE(nodes.slot.core.stats().bearer_changes, 1u);
    EXPECT_NE(nodes.slot.core.bearer(), NodeId{node});
    EXPECT_LE(nodes.behind(), 1u);
  }
}

TEST(ExecutorBearer, WhenAllAreSlowItSettles) {
  TimedNodes nodes({150, 150, 150, 150});
  nodes.run(3'000);
  const std::uint64_t changes = nodes.slot.core.stats().bearer_changes;
  EXPECT_LE(changes, 4u);
  nodes.run(20'000);
  EXPECT_EQ(nodes.slot.core.stats().bearer_changes, changes);
  EXPECT_LE(nodes.behind(), 8u);
}

TEST(ExecutorBearer, PatienceComesDownAgain) {
  TimedNodes nodes({2, 2, 2, 200});
  nodes.down(1);
  nodes.down(2);
  nodes.run(3'000);
  EXPECT_LE(nodes.slot.core.stats().bearer_changes, 1u);
  // The only good one goes: the slow one bears, and is left for the next that comes.
  nodes.down(0);
  nodes.run(3'000);
  EXPECT_EQ(nodes.slot.core.bearer(), NodeId{3});
  nodes.slot.core.node_up(NodeId{1});
  nodes.run(1'000);
  EXPECT_EQ(nodes.slot.core.bearer(), NodeId{1});
  EXPECT_LE(nodes.behind(), 1u);
}

TEST(ExecutorBearer, AReplayIsNoLag) {
  Slot slot;
  slot.all_up();
  slot.core.tick(Micros{1'000'000});
  for (std::uint64_t n = 1; n <= 400; ++n) {
    slot.order(0, make_batch(n, {}));
    slot.order(1, make_batch(n, {}));
  }
  for (std::uint64_t n = 1; n <= 400; ++n) {  // bodies one by one, 40 ms apart
    for (int i = 0; i < 8; ++i) slot.core.tick(Micros{1'000'000 + static_cast<std::int64_t>(n * 8 + i) * 5'000});
    slot.core.step(*slot.core.bearer(), make_batch(n, {}));
    slot.run();
  }
  EXPECT_EQ(slot.core.executed(), Seq{400});
  EXPECT_EQ(slot.core.stats().bearer_changes, 0u);
}

TEST(ExecutorBearer, AReplayThatTheBearerStopsIsTakenFromAnother) {
  Slot slot;
  slot.all_up();
  slot.core.tick(Micros{1'000'000});
  for (std::uint64_t n = 1; n <= 400; ++n) {
    slot.order(0, make_batch(n, {}));
    slot.order(1, make_batch(n, {}));
  }
  const auto first = slot.core.bearer();
  slot.core.step(*first, make_batch(1, {}));
  slot.run();
  for (int i = 1; i <= 100; ++i) slot.core.tick(Micros{1'000'000 + i * 5'000});
  EXPECT_GE(slot.core.stats().bearer_changes, 1u) << "one body in half a second";
  EXPECT_NE(slot.core.bearer(), first);
}

}  // namespace
}  // namespace zz::execution::testing
