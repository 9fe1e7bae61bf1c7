// Channels against parties that do not behave: every refusal has a reason, and costs a bounded amount.

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstring>
#include <list>

#include "net/channel.hpp"
#include "net/frame.hpp"
#include "net/handshake_guard.hpp"
#include "tests/support/party.hpp"
#include "tests/support/raw_peer.hpp"
#include "tests/support/run_until.hpp"

// The sanitizers bring their own allocator, of which mallinfo2 knows nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ZZ_OWN_ALLOCATOR 1
#elif defined(__has_feature)  // clang
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ZZ_OWN_ALLOCATOR 1
#endif
#endif

namespace zz::net {
namespace {

using test::client;
using test::introduce;
using test::node;
using test::numbered_message;
using test::Party;
using test::RawPeer;

class Refusals : public testing::Test {
 protected:
  [[nodiscard]] bool until(const std::function<bool()>& done) { return test::run_until(loop_, done); }

  static NetLimits small() {
    NetLimits limits;
    limits.frame_bytes_max = 64u << 10;
    limits.send_queue_bytes_max = 1u << 20;
    return limits;
  }

  boost::asio::io_context loop_;
  Party listener_{loop_, node(0), small()};
  Party dialler_{loop_, client(1), small()};
};

// ---- who it is

TEST_F(Refusals, OfAnUnknownKeyAreCountedAndNeverDeliver) {
  dialler_.knows(listener_);  // and not the other way round
  dialler_.dial(listener_.listen(), listener_);
  ASSERT_TRUE(until([&] { return !listener_.refused.empty() && !dialler_.refused.empty(); }));
  EXPECT_EQ(listener_.refused[0].reason, Refusal::kUnknownPeer);
  EXPECT_EQ(listener_.refused[0].who.substr(0, 10), "127.0.0.1:");
  EXPECT_NE(listener_.refused[0].detail.find("key is not known here"), std::string::npos)
      << listener_.refused[0].detail;
  EXPECT_EQ(dialler_.refused[0].reason, Refusal::kUnknownPeer);
  EXPECT_NE(dialler_.refused[0].detail.find("does not accept us"), std::string::npos) << dialler_.refused[0].detail;
  EXPECT_TRUE(listener_.ups.empty());
  EXPECT_TRUE(dialler_.ups.empty()) << "up only with the listener's welcome";
}

TEST_F(Refusals, OfAnUnknownKeyEndWhenTheKeyBecomesKnown) {
  dialler_.knows(listener_);
  dialler_.dial(listener_.listen(), listener_);
  ASSERT_TRUE(until([&] { return listener_.refusals(Refusal::kUnknownPeer) >= 2; }));
  listener_.knows(dialler_);
  ASSERT_TRUE(until([&] { return listener_.ups.size() == 1 && dialler_.ups.size() == 1; }));
}

TEST_F(Refusals, MeetAListenerThatIsNotTheDialledPeer) {
  Party impostor(loop_, node(2));
  introduce(impostor, dialler_);
  dialler_.knows(listener_);
  dialler_.dial(impostor.listen(), listener_);
  ASSERT_TRUE(until([&] { return !dialler_.refused.empty(); }));
  EXPECT_EQ(dialler_.refused[0].reason, Refusal::kUnknownPeer);
  EXPECT_TRUE(impostor.ups.empty());
  EXPECT_TRUE(dialler_.ups.empty());
}

// ---- before the handshake is over

TEST_F(Refusals, MeetPlainTcpGarbage) {
  RawPeer garbage(loop_, listener_.listen());
  garbage.watch();
  garbage.send_plain(as_bytes("GET / HTTP/1.1\r\nHost: example\r\n\r\n"));
  ASSERT_TRUE(until([&] { return garbage.closed() && listener_.refused.size() == 1; }));
  EXPECT_EQ(listener_.refused[0].reason, Refusal::kMalformed);
  EXPECT_EQ(listener_.refused[0].detail, "not a TLS 1.3 handshake");
}

TEST_F(Refusals, MeetGarbageThatLooksLikeTls) {
  RawPeer garbage(loop_, listener_.listen());
  garbage.watch();
  Bytes record = {22, 3, 1, 0, 104, 1, 0, 0, 100};
  record.resize(record.size() + 100, 0x5a);
  garbage.send_plain(record);
  ASSERT_TRUE(until([&] { return garbage.closed() && listener_.refused.size() == 1; }));
  EXPECT_EQ(listener_.refused[0].reason, Refusal::kUnknownPeer);
  EXPECT_EQ(listener_.refused[0].detail.substr(0, 18), "handshake failed: ");
}

TEST_F(Refusals, MeetAHelloThatAnnouncesTooMuch) {
  RawPeer greedy(loop_, listener_.listen());
  greedy.watch();
  greedy.send_plain(Bytes{22, 3, 1, 0x40, 0, 1, 2, 0, 0});
  ASSERT_TRUE(until([&] { return greedy.closed() && listener_.refused.size() == 1; }));
  EXPECT_EQ(listener_.refused[0].reason, Refusal::kOversize);
}

TEST_F(Refusals, MeetWhoeverLeavesBeforeTheHandshakeIsOver) {
  const crypto::Address address = listener_.listen();
  { const RawPeer scanner(loop_, address); }
  ASSERT_TRUE(until([&] { return listener_.refused.size() == 1; }));
  EXPECT_EQ(listener_.refused[0].reason, Refusal::kUnknownPeer);
}

TEST_F(Refusals, MeetWhoeverSaysNothingInTime) {
  NetLimits hasty = small();
  hasty.handshake_timeout_ms = 50;
  Party strict(loop_, node(3), hasty);
  const crypto::Address address = strict.listen();
  RawPeer silent(loop_, address);
  silent.watch();
  RawPeer half(loop_, address);
  half.watch();
  half.send_plain(Bytes{22, 3, 1});
  ASSERT_TRUE(until([&] { return silent.closed() && half.closed() && strict.refused.size() == 2; }));
  EXPECT_EQ(strict.refusals(Refusal::kUnknownPeer), 2u);
  EXPECT_EQ(strict.refused[0].detail, "no handshake within 50 ms");
}

TEST_F(Refusals, MeetAListenerThatNeverAnswers) {
  boost::asio::ip::tcp::acceptor mute(loop_, {boost::asio::ip::address_v4::loopback(), 0});
  NetLimits hasty = small();
  hasty.handshake_timeout_ms = 20;
  Party patient(loop_, client(2), hasty);
  patient.knows(listener_);
  patient.dial({.host = "127.0.0.1", .port = mute.local_endpoint().port()}, listener_);
  // It gives up, and comes again: nobody accepts these, the backlog holds them.
  int accepted = 0;
  std::list<boost::asio::ip::tcp::socket> taken;
  const std::function<void()> accept = [&] {
    mute.async_accept([&](const boost::system::error_code& error, boost::asio::ip::tcp::socket socket) {
      if (error) return;
      ++accepted;
      taken.push_back(std::move(socket));
      accept();
    });
  };
  accept();
  ASSERT_TRUE(until([&] { return accepted >= 3; }));
  EXPECT_TRUE(patient.ups.empty());
  mute.close();
}

TEST_F(Refusals, OfTooManyStrangersTakeTheOldestFirst) {
  NetLimits narrow = small();
  narrow.handshakes_max = 3;
  Party strict(loop_, node(3), narrow);
  introduce(strict, dialler_);
  const crypto::Address address = strict.listen();
  std::list<RawPeer> strangers;
  for (int i = 0; i < 5; ++i) {
    strangers.emplace_back(loop_, address);
    strangers.back().watch();
  }
  ASSERT_TRUE(until([&] { return strict.refusals(Refusal::kQuota) == 2; }));
  ASSERT_TRUE(until([&] { return strangers.front().closed() && std::next(strangers.begin())->closed(); }));
  EXPECT_FALSE(std::next(strangers.begin(), 2)->closed());
  // A peer still gets in.
  dialler_.dial(address, strict);
  ASSERT_TRUE(until([&] { return strict.ups.size() == 1; }));
}

TEST_F(Refusals, OfTooManyConnectionsSpareThePeersAlreadyIn) {
  NetLimits narrow = small();
  narrow.connections_max = 1;
  Party strict(loop_, node(3), narrow);
  introduce(strict, dialler_);
  const crypto::Address address = strict.listen();
  dialler_.dial(address, strict);
  ASSERT_TRUE(until([&] { return strict.ups.size() == 1 && dialler_.ups.size() == 1; }));
  RawPeer late(loop_, address);
  late.watch();
  ASSERT_TRUE(until([&] { return late.closed(); }));
  EXPECT_EQ(strict.refusals(Refusal::kQuota), 1u);
  EXPECT_TRUE(strict.downs.empty());
  // A place that becomes free is given to the next.
  dialler_.network().hang_up(strict.key());
  ASSERT_TRUE(until([&] { return strict.downs.size() == 1; }));
  Party next(loop_, client(5), small());
  introduce(strict, next);
  next.dial(address, strict);
  ASSERT_TRUE(until([&] { return strict.ups.size() == 2; }));
}

TEST_F(Refusals, BoundTheMemoryThatAStrangerHolds) {
#ifdef ZZ_OWN_ALLOCATOR
  GTEST_SKIP() << "measured with the C library's allocator only";
#endif
  const crypto::Address address = listener_.listen();
  // A sound hello of a party nobody knows, and after the answer the beginning of the longest record there may be.
  TlsPipe pipe(dialler_.tls().new_connection(false, std::nullopt), false, 1u << 20);
  ASSERT_EQ(pipe.handshake(), TlsPipe::Status::kWantsInput);
  const Bytes hello(pipe.output().begin(), pipe.output().end());
  Bytes rest(kHandshakeBytesMax - hello.size(), 0);
  const Bytes header = {23, 3, 3, 0x40, 0x10};
  std::copy(header.begin(), header.end(), rest.begin());

  const auto attack = [&](std::list<RawPeer>& peers, int count) {
    for (int i = 0; i < count; ++i) {
      peers.emplace_back(loop_, address);
      peers.back().send_plain(hello);
      peers.back().watch();
    }
    ASSERT_TRUE(until([&] {
      return std::all_of(peers.begin(), peers.end(), [](const RawPeer& peer) { return peer.received_bytes() > 0; });
    }));
    for (RawPeer& peer : peers) peer.send_plain(rest);
    ASSERT_TRUE(until(
        [&] { return std::all_of(peers.begin(), peers.end(), [](RawPeer& peer) { return peer.all_arrived(); }); }));
    loop_.restart();
    loop_.poll();
  };
  std::list<RawPeer> first;  // fills caches of the libraries
  ASSERT_NO_FATAL_FAILURE(attack(first, 10));

  constexpr int kStrangers = 100;
  std::list<RawPeer> strangers;
  const auto before = ::mallinfo2();
  ASSERT_NO_FATAL_FAILURE(attack(strangers, kStrangers));
  const auto after = ::mallinfo2();
  EXPECT_TRUE(listener_.refused.empty()) << "they are all still waited for";
  const std::size_t held = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
  const std::size_t own = kStrangers * sizeof(RawPeer);
  RecordProperty("bytes_per_stranger", static_cast<int>((held - own) / kStrangers));
  EXPECT_GT(held / kStrangers, 16u << 10) << "the measurement sees the buffers";
  EXPECT_LE((held - own) / kStrangers, kUnauthenticatedBytesMax);

  // One byte more than a handshake may have is refused.
  strangers.front().send_plain(Bytes{0});
  ASSERT_TRUE(until([&] { return listener_.refusals(Refusal::kOversize) == 1; }));
}

// ---- frames

class RefusedFrames : public Refusals {
 protected:
  // An authenticated peer that sends `plain` as its stream of frames.
  void send_as_peer(ByteView plain) {
    introduce(listener_, dialler_);
    raw_ = std::make_unique<RawPeer>(loop_, listener_.listen());
    raw_->start_tls(dialler_);
    ASSERT_TRUE(until([&] { return raw_->secure() && listener_.ups.size() == 1; }));
    raw_->send_inside_tls(plain);
  }
  static Bytes frame(std::uint32_t body, std::uint16_t count, std::uint16_t version = kFrameVersion) {
    Bytes out(kFrameHeaderBytes);
    std::memcpy(out.data(), &body, 4);
    std::memcpy(out.data() + 4, &count, 2);
    std::memcpy(out.data() + 6, &version, 2);
    return out;
  }
  void expect_end(Refusal reason, const std::string& detail) {
    ASSERT_TRUE(until([&] { return listener_.downs.size() == 1 && raw_->closed(); }));
    ASSERT_EQ(listener_.refused.size(), 1u);
    EXPECT_EQ(listener_.refused[0].reason, reason);
    EXPECT_EQ(listener_.refused[0].who, to_string(dialler_.me()));
    EXPECT_EQ(listener_.refused[0].detail, detail);
    EXPECT_EQ(listener_.downs[0].peer, dialler_.me());
    EXPECT_EQ(listener_.channel_to(dialler_), nullptr);
  }

  std::unique_ptr<RawPeer> raw_;
};

TEST_F(RefusedFrames, AreDeliveredWhenSound) {
  Bytes plain;
  ASSERT_EQ(append_frame(std::vector{numbered_message(1), numbered_message(2)}, 1024, plain), 2u);
  ASSERT_NO_FATAL_FAILURE(send_as_peer(plain));
  ASSERT_TRUE(until([&] { return listener_.messages.size() == 2; }));
  EXPECT_TRUE(listener_.refused.empty());
}

TEST_F(RefusedFrames, EndTheChannelWhenOversize) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer(frame((64u << 10) + 8, 1)));
  expect_end(Refusal::kOversize, "frame of 65544 bytes, the limit is 65536");
}

TEST_F(RefusedFrames, EndTheChannelWhenNearlyFourGigabytesAreAnnounced) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer(frame(0xfffffff8, 0xffff)));
  expect_end(Refusal::kOversize, "frame of 4294967288 bytes, the limit is 65536");
}

TEST_F(RefusedFrames, EndTheChannelWhenMalformed) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer(frame(16, 2)));
  expect_end(Refusal::kMalformed, "malformed frame");
}

TEST_F(RefusedFrames, EndTheChannelWhenOfAnotherVersion) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer(frame(16, 1, 2)));
  expect_end(Refusal::kMalformed, "malformed frame");
}

TEST_F(RefusedFrames, EndTheChannelWhenWithoutMessages) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer(frame(0, 0)));
  expect_end(Refusal::kMalformed, "frame without messages");
}

TEST_F(RefusedFrames, DeliverTheSoundOnesBeforeThem) {
  Bytes plain;
  ASSERT_EQ(append_frame(std::vector{numbered_message(1)}, 1024, plain), 1u);
  const Bytes bad = frame(12, 1);
  plain.insert(plain.end(), bad.begin(), bad.end());
  ASSERT_EQ(append_frame(std::vector{numbered_message(2)}, 1024, plain), 1u);
  ASSERT_NO_FATAL_FAILURE(send_as_peer(plain));
  ASSERT_NO_FATAL_FAILURE(expect_end(Refusal::kMalformed, "malformed frame"));
  ASSERT_EQ(listener_.messages.size(), 1u);
  EXPECT_EQ(listener_.messages[0].bytes, numbered_message(1));
}

TEST_F(RefusedFrames, EndTheChannelWhenTheirTlsRecordIsChanged) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer({}));
  Bytes record = {23, 3, 3, 0, 60};
  record.resize(65, 0x11);
  raw_->send_plain(record);
  ASSERT_TRUE(until([&] { return listener_.downs.size() == 1; }));
  EXPECT_EQ(listener_.refusals(Refusal::kMalformed), 1u);
  EXPECT_TRUE(listener_.messages.empty());
}

// ---- queues

TEST_F(RefusedFrames, NeverFillAQueueBeyondItsLimitWhenThePeerDoesNotRead) {
  ASSERT_NO_FATAL_FAILURE(send_as_peer({}));
  raw_->stop_reading();
  Channel* channel = listener_.channel_to(dialler_);
  ASSERT_NE(channel, nullptr);
  const SharedBytes message = numbered_message(5, 4000);
  // The kernel takes some megabytes first.
  Sent sent = Sent::kQueued;
  for (int i = 0; i < 10'000 && sent == Sent::kQueued; ++i) {
    sent = channel->send(message);
    listener_.network().flush();
    ASSERT_LE(channel->queued_bytes(), small().send_queue_bytes_max);
  }
  EXPECT_EQ(sent, Sent::kFull);
  EXPECT_EQ(channel->send(message), Sent::kFull);
  EXPECT_GT(channel->queued_bytes(), small().send_queue_bytes_max - 2 * message.size());
  EXPECT_TRUE(listener_.downs.empty()) << "full is an answer, not an end";
}

TEST_F(Refusals, OfAFullQueueEndWhenThePeerReadsAgain) {
  introduce(listener_, dialler_);
  dialler_.dial(listener_.listen(), listener_);
  ASSERT_TRUE(until([&] { return listener_.ups.size() == 1 && dialler_.ups.size() == 1; }));
  Channel* channel = listener_.channel_to(dialler_);
  std::uint64_t sent = 0;
  // No turn of the loop: the dialler cannot read.
  while (channel->send(numbered_message(sent, 2000)) == Sent::kQueued) {
    ++sent;
    listener_.network().flush();
    ASSERT_LT(sent, 10'000u);
  }
  ASSERT_TRUE(until([&] { return dialler_.messages.size() == sent; }));
  for (std::uint64_t i = 0; i < sent; ++i) ASSERT_EQ(dialler_.messages[i].bytes, numbered_message(i, 2000));
  EXPECT_EQ(channel->queued_bytes(), 0u);
  EXPECT_EQ(channel->send(numbered_message(1)), Sent::kQueued);
}

}  // namespace
}  // namespace zz::net
