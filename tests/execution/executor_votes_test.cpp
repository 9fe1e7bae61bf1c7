// What an executor tells a node that comes back.

#include <gtest/gtest.h>

#include "tests/execution/order.hpp"

namespace zz::execution::testing {
namespace {

TEST(Executor, ANodeWhoseChannelComesBackGetsTheLastVotesAgain) {
  Slot slot;
  slot.all_up();
  for (std::uint64_t n = 1; n <= kVotesKept + 20; ++n) {
    slot.deliver(make_batch(n, {{1, n, "add k 1"}}));
    slot.run();
  }
  slot.votes_again.clear();
  slot.core.node_down(NodeId{1});
  slot.core.node_up(NodeId{1});
  slot.drain();
  ASSERT_EQ(slot.votes_again.size(), 1u);
  EXPECT_EQ(slot.votes_again[0].to, NodeId{1});
  ASSERT_EQ(slot.votes_again[0].votes.size(), kVotesKept);
  EXPECT_EQ(slot.votes_again[0].votes.front()->n, Seq{21});
  EXPECT_EQ(slot.votes_again[0].votes.back()->n, Seq{kVotesKept + 20});
}

TEST(Executor, KeepsTheVotesOfAWholeWindowOfFullBatchesForANodeThatRestarts) {
  Slot slot;
  slot.all_up();
  std::vector<Op> ops;
  for (std::uint64_t i = 1; i <= 512; ++i) ops.push_back({1, i, "get k"});
  // 512 batches of 512 requests: as many reply digests as a node keeps ahead of its own order. All but the first
  // repeat.
  for (std::uint64_t n = 1; n <= 512; ++n) {
    slot.deliver(make_batch(n, ops));
    slot.run();
  }
  slot.core.node_down(NodeId{2});
  slot.core.node_up(NodeId{2});
  slot.drain();
  ASSERT_EQ(slot.votes_again.size(), 1u);
  EXPECT_EQ(slot.votes_again[0].votes.size(), 512u);
}

}  // namespace
}  // namespace zz::execution::testing
