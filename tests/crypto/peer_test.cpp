#include "crypto/peer.hpp"

#include <gtest/gtest.h>

namespace zz::crypto {
namespace {

TEST(Peers, AreNamedAsPeopleNameThem) {
  EXPECT_EQ(to_string(Peer{.role = Role::kNode, .index = 2}), "node 2");
  EXPECT_EQ(to_string(Peer{.role = Role::kHost, .index = 0}), "host 0");
  EXPECT_EQ(to_string(Peer{.role = Role::kClient, .index = 7}), "client 7");
  EXPECT_EQ(to_string(Peer{.role = Role::kOperator, .index = 0}), "client 0 (operator)");
  const Peer executor{
      .role = Role::kExecutor, .service = ServiceId{0}, .slot = SlotId{1}, .incarnation = Incarnation{3}};
  EXPECT_EQ(to_string(executor), "slot 1 of service 0 (incarnation 3)");
}

TEST(Peers, TwoIncarnationsOfASlotAreTwoPeers) {
  const Peer old{.role = Role::kExecutor, .slot = SlotId{1}, .incarnation = Incarnation{1}};
  Peer fresh = old;
  fresh.incarnation = Incarnation{2};
  EXPECT_NE(old, fresh);
}

}  // namespace
}  // namespace zz::crypto
