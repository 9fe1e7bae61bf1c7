#include "base/ids.hpp"

#include <gtest/gtest.h>

#include <type_traits>
#include <unordered_set>

namespace zz {
namespace {

static_assert(!std::is_convertible_v<NodeId, HostId>, "a node is not a host");
static_assert(!std::is_convertible_v<Seq, View>, "a sequence number is not a view");
static_assert(!std::is_constructible_v<SlotId, NodeId>, "a slot is not a node");

TEST(Ids, AreOrderedByValueAndCountUp) {
  EXPECT_LT(Seq{1}, Seq{2});
  EXPECT_EQ(Seq{1}.next(), Seq{2});
  EXPECT_EQ(Seq{}, Seq{0});
}

TEST(Ids, HashAsTheirValue) {
  std::unordered_set<SessionId> seen = {SessionId{7}, SessionId{8}, SessionId{7}};
  EXPECT_EQ(seen.size(), 2u);
}

TEST(Digests, OnlyTheAllZeroOneIsZero) {
  Digest digest;
  EXPECT_TRUE(digest.is_zero());
  digest.bytes[31] = 1;
  EXPECT_FALSE(digest.is_zero());
}

}  // namespace
}  // namespace zz
