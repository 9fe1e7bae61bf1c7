// ServiceInstance with one executor that asks too much. What else it joins together is run by the simulator.

#include "agreement/service_instance.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "oversight_test_support.hpp"

namespace zz::agreement {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Keeps where each ORDERS to an executor begins.
class Told final : public Outlet {
 public:
  void to_all_nodes(const Message&) override {}
  void to_node(NodeId, const Message&) override {}
  void to_host(HostId, const Message&) override {}
  void to_all_hosts(const Message&) override {}
  void to_client(ClientId, const Message&) override {}
  bool to_executor(ServiceId, SlotId, Incarnation, const Message& message) override {
    if (const auto* orders = std::get_if<Orders>(&message.body)) from.push_back(orders->first_n);
    return true;
  }
  [[nodiscard]] std::size_t queued_bytes(ServiceId, SlotId, Incarnation) const override { return 0; }
  void drop_stale_executors(ServiceId) override {}
  void persist(ServiceId, const LogRecord&) override {}
  void sync(ServiceId) override {}

  std::vector<Seq> from;
};

// Slot 0 has joined with batch 1; twelve more batches are ordered.
class Subscriptions : public ::testing::Test {
 protected:
  Subscriptions() {
    Recovered recovered;
    for (std::uint64_t n = 1; n <= 13; ++n) {
      std::vector<SystemOp> system;
      if (n == 1) system.push_back(parties.join(SlotId{0}, Incarnation{1}));
      const Delivery batch = make_delivery(Seq{n}, 0, std::move(system));
      recovered.ordered.push_back({Seq{n}, batch_digest(*batch.header), batch.header, {}});
    }
    instance.restore(recovered);
    instance.tick(Micros{}, Micros{});
    connect();
  }
  void connect() {
    instance.peer_up(executor);
    instance.run();
  }
  void subscribe(std::uint64_t from) {
    Message message{ServiceId{0}, Subscribe{Seq{from}, false}};
    EXPECT_EQ(instance.step(executor, message), Refusal::kNone);
    instance.run();
  }
  void body_timeouts(std::int64_t percent) {
    now += parties.cluster.timing.body_timeout_ms * kMs * percent / 100;
    instance.tick(Micros{now}, Micros{now});
    instance.run();
  }

  Parties parties{1, 1};
  Told told;
  Memory observer;
  ServiceInstance instance{parties.cluster, ServiceId{0}, NodeId{0}, parties.node_keys[0], observer, told};
  crypto::Peer executor{crypto::Role::kExecutor, 0, ServiceId{0}, SlotId{0}, Incarnation{1}};
  std::int64_t now = 0;
};

TEST_F(Subscriptions, OfASlotAreAnsweredEightTimesPerBodyTimeoutAndTheNewestWaits) {
  for (int i = 0; i < 8; ++i) subscribe(1);
  ASSERT_THAT(told.from, SizeIs(8));
  told.from.clear();
  for (const std::uint64_t from : {2u, 3u, 4u}) subscribe(from);
  EXPECT_THAT(told.from, IsEmpty());
  body_timeouts(90);
  EXPECT_THAT(told.from, IsEmpty());
  body_timeouts(10);
  EXPECT_THAT(told.from, ElementsAre(Seq{4}));
  body_timeouts(100);
  EXPECT_THAT(told.from, SizeIs(1)) << "what another one replaced is forgotten";
  for (int i = 0; i < 9; ++i) subscribe(1);
  EXPECT_THAT(told.from, SizeIs(1 + 8));
}

TEST_F(Subscriptions, AreNotRenewedByAnotherChannel) {
  for (int i = 0; i < 9; ++i) subscribe(1);
  instance.peer_down(executor);
  told.from.clear();
  connect();
  body_timeouts(50);
  subscribe(2);
  EXPECT_THAT(told.from, IsEmpty());
  body_timeouts(50);
  EXPECT_THAT(told.from, ElementsAre(Seq{2}));
}

TEST_F(Subscriptions, OfAChannelThatIsGoneAreForgotten) {
  for (int i = 0; i < 9; ++i) subscribe(1);
  instance.peer_down(executor);
  told.from.clear();
  connect();
  body_timeouts(100);
  EXPECT_THAT(told.from, IsEmpty());
}

}  // namespace
}  // namespace zz::agreement
