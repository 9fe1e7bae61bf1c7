// Channels between parties that behave.

#include "net/channel.hpp"

#include <gtest/gtest.h>

#include <boost/asio/steady_timer.hpp>

#include "net/frame.hpp"
#include "tests/support/party.hpp"
#include "tests/support/run_until.hpp"

namespace zz::net {
namespace {

using test::client;
using test::introduce;
using test::node;
using test::numbered_message;
using test::Party;

class Channels : public testing::Test {
 protected:
  [[nodiscard]] bool until(const std::function<bool()>& done) { return test::run_until(loop_, done); }
  // Runs what is ready, and what that makes ready, without waiting.
  void settle() {
    loop_.restart();
    loop_.poll();
  }
  boost::asio::io_context loop_;
};

class ConnectedPair : public Channels {
 protected:
  void SetUp() override {
    introduce(listener_, dialler_);
    dialler_.dial(listener_.listen(), listener_);
    ASSERT_TRUE(until([&] { return listener_.ups.size() == 1 && dialler_.ups.size() == 1; }));
    to_dialler_ = listener_.channel_to(dialler_);
    to_listener_ = dialler_.channel_to(listener_);
    ASSERT_NE(to_dialler_, nullptr);
    ASSERT_NE(to_listener_, nullptr);
  }

  Party listener_{loop_, node(0)};
  Party dialler_{loop_, node(1)};
  Channel* to_dialler_ = nullptr;
  Channel* to_listener_ = nullptr;
};

TEST_F(ConnectedPair, KnowWhoTheyTalkTo) {
  EXPECT_EQ(to_dialler_->peer(), dialler_.me());
  EXPECT_EQ(to_listener_->peer(), listener_.me());
  EXPECT_TRUE(listener_.refused.empty());
  EXPECT_TRUE(dialler_.refused.empty());
}

TEST_F(ConnectedPair, DeliverInBothDirections) {
  EXPECT_EQ(to_dialler_->send(numbered_message(1)), Sent::kQueued);
  EXPECT_EQ(to_listener_->send(numbered_message(2)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 1 && dialler_.messages.size() == 1; }));
  EXPECT_EQ(dialler_.messages[0].bytes, numbered_message(1));
  EXPECT_EQ(dialler_.messages[0].from, listener_.me());
  EXPECT_EQ(listener_.messages[0].bytes, numbered_message(2));
  EXPECT_EQ(listener_.messages[0].from, dialler_.me());
}

TEST_F(ConnectedPair, DeliverAThousandMessagesInOrder) {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(to_listener_->send(numbered_message(i, 1 + i % 300)), Sent::kQueued);
  }
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 1000; }));
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(listener_.messages[i].bytes, numbered_message(i, 1 + i % 300));
  EXPECT_EQ(to_listener_->queued_bytes(), 0u);
}

TEST_F(ConnectedPair, PutTheMessagesOfATurnIntoOneFrame) {
  for (std::uint64_t i = 0; i < 100; ++i) ASSERT_EQ(to_listener_->send(numbered_message(i)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 100; }));
  for (std::size_t i = 1; i < 100; ++i) {
    EXPECT_EQ(listener_.messages[i].bytes.data(), listener_.messages[i - 1].bytes.data() + 8 + kMessageHeaderBytes);
  }
}

TEST_F(ConnectedPair, DeliverMessagesAlignedForTheirReaders) {
  for (std::uint64_t i = 0; i < 50; ++i) ASSERT_EQ(to_listener_->send(numbered_message(i, 1 + i % 5)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 50; }));
  for (const auto& message : listener_.messages) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(message.bytes.data()) % 8, 0u);
  }
}

TEST_F(ConnectedPair, DeliverAMessageAsLargeAsAFrame) {
  const std::size_t words = (NetLimits{}.frame_bytes_max - kMessageHeaderBytes) / 8;
  ASSERT_EQ(to_listener_->send(numbered_message(3)), Sent::kQueued);
  ASSERT_EQ(to_listener_->send(numbered_message(4, words)), Sent::kQueued);
  ASSERT_EQ(to_listener_->send(numbered_message(5)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 3; }));
  EXPECT_EQ(listener_.messages[1].bytes, numbered_message(4, words));
  EXPECT_EQ(listener_.messages[2].bytes, numbered_message(5));
}

TEST_F(ConnectedPair, AnswerFullForAMessageThatNoFrameCarries) {
  const std::size_t words = NetLimits{}.frame_bytes_max / 8;
  EXPECT_EQ(to_listener_->send(numbered_message(1, words)), Sent::kFull);
  EXPECT_EQ(to_listener_->queued_bytes(), 0u);
}

TEST_F(ConnectedPair, MaySendFlushAndCloseFromInsideACallback) {
  listener_.when_message = [&](Channel& channel, const SharedBytes& message) {
    EXPECT_EQ(channel.send(message), Sent::kQueued);
    listener_.network().flush();
    if (listener_.messages.size() == 3) channel.close("three are enough");
    EXPECT_TRUE(listener_.downs.empty());
  };
  for (std::uint64_t i = 0; i < 5; ++i) ASSERT_EQ(to_listener_->send(numbered_message(i)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return listener_.downs.size() == 1 && dialler_.downs.size() == 1; }));
  EXPECT_EQ(listener_.downs[0].reason, "three are enough");
  EXPECT_EQ(listener_.messages.size(), 3u) << "nothing is delivered after close()";
  EXPECT_EQ(dialler_.messages.size(), 3u) << "what was sent before close() leaves";
}

TEST_F(ConnectedPair, AreDownOnALaterTurnAfterClose) {
  to_listener_->close("done");
  EXPECT_TRUE(dialler_.downs.empty());
  EXPECT_EQ(to_listener_->send(numbered_message(1)), Sent::kClosed);
  EXPECT_EQ(dialler_.channel_to(listener_), nullptr);
  to_listener_->close("twice");
  ASSERT_TRUE(until([&] { return !dialler_.downs.empty() && !listener_.downs.empty(); }));
  EXPECT_EQ(dialler_.downs[0].reason, "done");
  EXPECT_EQ(listener_.downs[0].reason, "closed by the peer");
}

TEST_F(ConnectedPair, ComeBackAfterClose) {
  to_listener_->close("again");
  ASSERT_TRUE(until([&] { return dialler_.ups.size() == 2 && listener_.ups.size() == 2; }));
  ASSERT_EQ(dialler_.channel_to(listener_)->send(numbered_message(9)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 1; }));
}

TEST_F(ConnectedPair, ComeBackAfterTheListenerRestarts) {
  listener_.restart();
  ASSERT_TRUE(until([&] { return dialler_.downs.size() == 1; }));
  (void)listener_.listen();
  ASSERT_TRUE(until([&] { return dialler_.ups.size() == 2 && listener_.ups.size() == 2; }));
  ASSERT_EQ(listener_.channel_to(dialler_)->send(numbered_message(9)), Sent::kQueued);
  ASSERT_TRUE(until([&] { return dialler_.messages.size() == 1; }));
}

TEST_F(ConnectedPair, StayApartAfterHangUp) {
  dialler_.network().hang_up(listener_.key());
  ASSERT_TRUE(until([&] { return dialler_.downs.size() == 1 && listener_.downs.size() == 1; }));
  EXPECT_EQ(dialler_.downs[0].reason, "hung up");
  // The longest pause before another dial passes in vain.
  boost::asio::steady_timer pause(loop_, std::chrono::milliseconds(4 * NetLimits{}.backoff_min_ms));
  bool passed = false;
  pause.async_wait([&](const boost::system::error_code&) { passed = true; });
  ASSERT_TRUE(until([&] { return passed; }));
  EXPECT_EQ(dialler_.ups.size(), 1u);
  EXPECT_EQ(listener_.ups.size(), 1u);
}

TEST_F(ConnectedPair, MeetAtTheNewAddressWhenThePeerMoves) {
  listener_.restart();
  Party moved(loop_, listener_.me(), listener_.key_copy(), {});
  introduce(moved, dialler_);
  dialler_.dial(moved.listen(), moved);
  ASSERT_TRUE(until([&] { return moved.ups.size() == 1 && dialler_.ups.size() == 2; }));
  EXPECT_EQ(dialler_.downs.size(), 1u);
}

TEST_F(ConnectedPair, LoseTheOlderChannelToANewerOneOfTheSamePeer) {
  std::vector<Channel*> order;
  listener_.when_down = [&](Channel& channel) {
    EXPECT_EQ(listener_.channel_to(dialler_), nullptr);
    order.push_back(&channel);
  };
  listener_.when_up = [&](Channel& channel) { order.push_back(&channel); };
  Party twin(loop_, dialler_.me(), dialler_.key_copy(), {});
  introduce(listener_, twin);
  twin.dial(listener_.listening_address(), listener_);
  ASSERT_TRUE(until([&] { return order.size() >= 2; }));
  EXPECT_EQ(order[0], to_dialler_) << "the older one goes down first";
  EXPECT_NE(order[1], to_dialler_);
  EXPECT_EQ(listener_.downs[0].reason, "replaced by a newer channel of the same peer");
  EXPECT_EQ(listener_.ups.size(), listener_.downs.size() + 1);
}

TEST_F(ConnectedPair, LoseTheirChannelWhenThePredicatePicksThePeer) {
  Party other(loop_, client(7));
  introduce(listener_, other);
  other.dial(listener_.listening_address(), listener_);
  ASSERT_TRUE(until([&] { return other.ups.size() == 1 && listener_.ups.size() == 2; }));
  listener_.forgets(dialler_);
  listener_.network().close_if([&](const crypto::Peer& peer) { return peer == dialler_.me(); }, "evicted");
  ASSERT_TRUE(until([&] { return listener_.downs.size() == 1 && dialler_.downs.size() == 1; }));
  EXPECT_EQ(listener_.downs[0].peer, dialler_.me());
  EXPECT_EQ(listener_.downs[0].reason, "evicted");
  EXPECT_NE(listener_.channel_to(other), nullptr);
  // It tries again, and is not let in any more.
  ASSERT_TRUE(until([&] { return listener_.refusals(Refusal::kUnknownPeer) > 0; }));
  EXPECT_EQ(listener_.ups.size(), 2u);
}

TEST_F(ConnectedPair, HearNothingOnceTheirNetworkIsGone) {
  for (std::uint64_t i = 0; i < 10; ++i) ASSERT_EQ(to_dialler_->send(numbered_message(i)), Sent::kQueued);
  listener_.stop();
  ASSERT_TRUE(until([&] { return dialler_.downs.size() == 1; }));
  EXPECT_TRUE(listener_.downs.empty());
  EXPECT_EQ(dialler_.messages.size(), 10u) << "what was queued leaves if the socket takes it";
  dialler_.stop();
  settle();
  EXPECT_EQ(dialler_.downs.size(), 1u);
}

TEST_F(ConnectedPair, SurviveThatANetworkIsDestroyedInsideEachCallback) {
  listener_.when_message = [&](Channel&, const SharedBytes&) { listener_.stop(); };
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_EQ(to_listener_->send(numbered_message(i)), Sent::kQueued);
  dialler_.when_down = [&](Channel&) { dialler_.stop(); };
  ASSERT_TRUE(until([&] { return dialler_.downs.size() == 1; }));
  EXPECT_EQ(listener_.messages.size(), 1u);
  settle();

  Party late(loop_, node(2));
  Party later(loop_, node(3));
  introduce(late, later);
  late.when_up = [&](Channel&) { late.stop(); };
  later.when_up = [&](Channel&) { later.stop(); };
  later.dial(late.listen(), late);
  ASSERT_TRUE(until([&] { return late.ups.size() == 1; }));
  settle();

  Party strict(loop_, node(4));
  Party stranger(loop_, node(5));
  stranger.knows(strict);
  strict.when_refused = [&] { strict.stop(); };
  stranger.dial(strict.listen(), strict);
  ASSERT_TRUE(until([&] { return strict.refused.size() == 1; }));
  stranger.stop();
  settle();
}

TEST_F(Channels, WaitForAListenerThatComesLater) {
  Party listener(loop_, node(0));
  Party dialler(loop_, node(1));
  introduce(listener, dialler);
  const crypto::Address address = listener.listen();
  listener.restart();  // nobody listens there now
  dialler.dial(address, listener);
  bool tried = false;
  boost::asio::steady_timer pause(loop_, std::chrono::milliseconds(100));
  pause.async_wait([&](const boost::system::error_code&) { tried = true; });
  ASSERT_TRUE(until([&] { return tried; }));
  EXPECT_TRUE(dialler.ups.empty());
  EXPECT_TRUE(dialler.refused.empty()) << "a closed port is nobody's fault";
  (void)listener.listen();
  ASSERT_TRUE(until([&] { return dialler.ups.size() == 1 && listener.ups.size() == 1; }));
}

TEST_F(Channels, ReachAHostByName) {
  Party listener(loop_, node(0));
  Party dialler(loop_, node(1));
  introduce(listener, dialler);
  crypto::Address address = listener.listen();
  address.host = "localhost";
  dialler.dial(address, listener);
  ASSERT_TRUE(until([&] { return dialler.ups.size() == 1; }));
}

TEST_F(Channels, ConnectEveryoneToEveryone) {
  std::vector<std::unique_ptr<Party>> nodes;
  for (std::uint32_t i = 0; i < 7; ++i) nodes.push_back(std::make_unique<Party>(loop_, node(i)));
  for (std::uint32_t i = 0; i < 7; ++i) {
    for (std::uint32_t j = 0; j < i; ++j) introduce(*nodes[i], *nodes[j]);
  }
  for (std::uint32_t j = 0; j < 7; ++j) {
    const crypto::Address address = nodes[j]->listen();
    for (std::uint32_t i = j + 1; i < 7; ++i) nodes[i]->dial(address, *nodes[j]);
  }
  ASSERT_TRUE(until([&] {
    return std::all_of(nodes.begin(), nodes.end(), [](const auto& party) { return party->ups.size() == 6; });
  }));
  const SharedBytes broadcast = numbered_message(42, 100);
  for (std::uint32_t i = 1; i < 7; ++i) ASSERT_EQ(nodes[0]->channel_to(*nodes[i])->send(broadcast), Sent::kQueued);
  nodes[0]->network().flush();
  ASSERT_TRUE(until([&] {
    return std::all_of(nodes.begin() + 1, nodes.end(), [](const auto& party) { return party->messages.size() == 1; });
  }));
}

TEST_F(Channels, FrameLimitsOfASenderAreKept) {
  NetLimits small;
  small.frame_bytes_max = 1024;
  Party listener(loop_, node(0), small);
  Party dialler(loop_, node(1), small);
  introduce(listener, dialler);
  dialler.dial(listener.listen(), listener);
  ASSERT_TRUE(until([&] { return dialler.ups.size() == 1; }));
  for (std::uint64_t i = 0; i < 500; ++i) {
    ASSERT_EQ(dialler.channel_to(listener)->send(numbered_message(i, 1 + i % 100)), Sent::kQueued);
  }
  ASSERT_TRUE(until([&] { return listener.messages.size() == 500; }));
  for (std::uint64_t i = 0; i < 500; ++i) ASSERT_EQ(listener.messages[i].bytes, numbered_message(i, 1 + i % 100));
  EXPECT_TRUE(listener.refused.empty());
}

TEST_F(Channels, ListenOnAUsedPortSaysWhichAndWhatToDo) {
  Party first(loop_, node(0));
  const crypto::Address address = first.listen();
  Party second(loop_, node(1));
  const Result<void> listening = second.network().listen(address);
  ASSERT_FALSE(listening.ok());
  EXPECT_EQ(listening.error(), "cannot listen on 127.0.0.1:" + std::to_string(address.port) +
                                   ": port in use; stop the process that listens there or choose another port");
  EXPECT_EQ(second.network().listening_port(), 0);
}

TEST_F(Channels, ListenOnAForeignAddressSaysSo) {
  Party party(loop_, node(0));
  const Result<void> listening = party.network().listen({.host = "192.0.2.1", .port = 0});
  ASSERT_FALSE(listening.ok());
  EXPECT_EQ(listening.error(), "cannot listen on 192.0.2.1:0: this machine does not have that address");
}

}  // namespace
}  // namespace zz::net
