#include "base/bounded_queue.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace zz {
namespace {

TEST(BoundedQueue, GivesItemsBackInOrder) {
  BoundedQueue<int> queue(3);
  EXPECT_TRUE(queue.push(1));
  EXPECT_TRUE(queue.push(2));
  EXPECT_EQ(queue.front(), 1);
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_TRUE(queue.empty());
}

TEST(BoundedQueue, SaysFullInsteadOfGrowing) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.push(1));
  EXPECT_TRUE(queue.push(2));
  EXPECT_TRUE(queue.full());
  EXPECT_FALSE(queue.push(3));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_TRUE(queue.push(4));
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_EQ(queue.pop(), 4);
}

TEST(BoundedQueue, HoldsMoveOnlyItems) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.push(std::make_unique<int>(9)));
  EXPECT_EQ(*queue.pop(), 9);
}

TEST(BoundedQueueDeathTest, PopOfAnEmptyOneStopsTheProcess) {
  BoundedQueue<int> queue(1);
  EXPECT_DEATH(static_cast<void>(queue.pop()), "invariant broken");
  EXPECT_DEATH(static_cast<void>(queue.front()), "invariant broken");
  EXPECT_DEATH(BoundedQueue<int>(0), "invariant broken");
}

}  // namespace
}  // namespace zz
