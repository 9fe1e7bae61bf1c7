#include "net/link_fault.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/party.hpp"
#include "tests/support/run_until.hpp"

namespace zz::net {
namespace {

using test::client;
using test::node;

std::string fates(LinkFault& fault, const crypto::Peer& peer, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const LinkFate fate = fault.decide(peer);
    text += std::to_string(fate.copies) + (fate.overtaken ? "o" : "") + "+" + std::to_string(fate.delay_ms) + " ";
  }
  return text;
}

constexpr LinkFaultOptions kBad{.drop_per_mille = 100,
                                .duplicate_per_mille = 100,
                                .delay_per_mille = 200,
                                .delay_ms_max = 9,
                                .reorder_per_mille = 200};

TEST(LinkFault, DecidesTheSameForTheSameSeed) {
  LinkFault one(7, kBad);
  LinkFault other(7, kBad);
  LinkFault third(8, kBad);
  const std::string fate = fates(one, node(1), 500);
  EXPECT_EQ(fate, fates(other, node(1), 500));
  EXPECT_NE(fate, fates(third, node(1), 500));
}

TEST(LinkFault, DecidesForEachLinkWhateverHappensOnOthers) {
  LinkFault alone(7, kBad);
  LinkFault busy(7, kBad);
  std::string interleaved;
  for (int i = 0; i < 100; ++i) {
    (void)busy.decide(node(2));
    interleaved += fates(busy, node(1), 1);
    (void)busy.decide(client(1));
  }
  EXPECT_EQ(fates(alone, node(1), 100), interleaved);
}

TEST(LinkFault, KeepsToItsShares) {
  LinkFault fault(3, kBad);
  int dropped = 0, doubled = 0, delayed = 0, overtaken = 0;
  for (int i = 0; i < 10'000; ++i) {
    const LinkFate fate = fault.decide(node(0));
    dropped += fate.copies == 0;
    doubled += fate.copies == 2;
    delayed += fate.delay_ms > 0;
    overtaken += fate.overtaken;
    EXPECT_LE(fate.delay_ms, 9u);
    EXPECT_FALSE(fate.delay_ms > 0 && fate.overtaken);
  }
  EXPECT_NEAR(dropped, 1000, 150);
  EXPECT_NEAR(doubled, 900, 150);
  EXPECT_NEAR(delayed, 1800, 200);
  EXPECT_NEAR(overtaken, 1440, 200);
}

TEST(LinkFault, DropsEverythingForAPeerThatIsCutOff) {
  LinkFault fault(1, {});
  fault.cut(node(2));
  EXPECT_EQ(fault.decide(node(2)).copies, 0u);
  EXPECT_EQ(fault.decide(node(1)).copies, 1u);
  fault.heal(node(2));
  EXPECT_EQ(fault.decide(node(2)).copies, 1u);
}

class LinkFaultOnAChannel : public testing::Test {
 protected:
  void SetUp() override {
    introduce(one_, two_);
    two_.dial(one_.listen(), one_);
    ASSERT_TRUE(test::run_until(loop_, [&] { return one_.ups.size() == 1 && two_.ups.size() == 1; }));
  }
  // Sends messages 1..count to the other side.
  void send(std::uint64_t count) {
    net::Channel* channel = one_.channel_to(two_);
    ASSERT_NE(channel, nullptr);
    for (std::uint64_t i = 1; i <= count; ++i) ASSERT_EQ(channel->send(test::numbered_message(i)), Sent::kQueued);
  }
  // Sends a last message without a fault and waits for it.
  void send_last() {
    one_.network().set_link_fault(nullptr);
    ASSERT_EQ(one_.channel_to(two_)->send(last_), Sent::kQueued);
  }
  std::vector<std::uint64_t> received() const {
    std::vector<std::uint64_t> numbers;
    for (const auto& message : two_.messages) {
      if (!(message.bytes == last_)) numbers.push_back(message.bytes.view()[0] + 256u * message.bytes.view()[1]);
    }
    return numbers;
  }

  boost::asio::io_context loop_;
  test::Party one_{loop_, node(1)};
  test::Party two_{loop_, node(2)};
  SharedBytes last_ = test::numbered_message(60'000);
};

TEST_F(LinkFaultOnAChannel, LosesWhatItDropsAndNothingElse) {
  constexpr LinkFaultOptions kHalf{.drop_per_mille = 500};
  one_.network().set_link_fault(std::make_shared<LinkFault>(11, kHalf));
  LinkFault oracle(11, kHalf);
  std::vector<std::uint64_t> expected;
  for (std::uint64_t i = 1; i <= 200; ++i) {
    if (oracle.decide(two_.me()).copies > 0) expected.push_back(i);
  }
  send(200);
  send_last();
  ASSERT_TRUE(test::run_until(loop_, [&] { return !two_.messages.empty() && two_.messages.back().bytes == last_; }));
  EXPECT_EQ(received(), expected);
  EXPECT_LT(expected.size(), 150u);
}

TEST_F(LinkFaultOnAChannel, DoublesWhatItDuplicates) {
  one_.network().set_link_fault(std::make_shared<LinkFault>(1, LinkFaultOptions{.duplicate_per_mille = 1000}));
  send(3);
  ASSERT_TRUE(test::run_until(loop_, [&] { return two_.messages.size() == 6; }));
  EXPECT_EQ(received(), (std::vector<std::uint64_t>{1, 1, 2, 2, 3, 3}));
}

TEST_F(LinkFaultOnAChannel, LetsMessagesOvertakeWhatItReorders) {
  one_.network().set_link_fault(std::make_shared<LinkFault>(1, LinkFaultOptions{.reorder_per_mille = 1000}));
  send(5);
  ASSERT_TRUE(test::run_until(loop_, [&] { return two_.messages.size() == 5; }));
  EXPECT_EQ(received(), (std::vector<std::uint64_t>{2, 1, 4, 3, 5}));
}

TEST_F(LinkFaultOnAChannel, DeliversWhatItDelaysLater) {
  one_.network().set_link_fault(
      std::make_shared<LinkFault>(5, LinkFaultOptions{.delay_per_mille = 1000, .delay_ms_max = 20}));
  send(50);
  send_last();
  ASSERT_TRUE(test::run_until(loop_, [&] { return two_.messages.size() == 51; }));
  EXPECT_EQ(two_.messages.front().bytes, last_);
  const auto numbers = received();
  EXPECT_EQ(std::set<std::uint64_t>(numbers.begin(), numbers.end()).size(), 50u);
  EXPECT_FALSE(std::is_sorted(numbers.begin(), numbers.end()));
}

TEST_F(LinkFaultOnAChannel, ForgetsDelayedMessagesOfAChannelThatEnded) {
  one_.network().set_link_fault(
      std::make_shared<LinkFault>(5, LinkFaultOptions{.delay_per_mille = 1000, .delay_ms_max = 5}));
  send(10);
  one_.channel_to(two_)->close("test");
  one_.network().set_link_fault(nullptr);
  ASSERT_TRUE(test::run_until(loop_, [&] { return two_.ups.size() == 2 && one_.ups.size() == 2; }));
  send_last();
  ASSERT_TRUE(test::run_until(loop_, [&] { return !two_.messages.empty(); }));
  EXPECT_TRUE(received().empty());
}

}  // namespace
}  // namespace zz::net
