#include "net/handshake_guard.hpp"

#include <gtest/gtest.h>

#include "net/tls_pipe.hpp"
#include "tests/support/party.hpp"

namespace zz::net {
namespace {

Bytes record(std::uint8_t type, const Bytes& body) {
  Bytes out = {type, 3, 3, static_cast<std::uint8_t>(body.size() >> 8), static_cast<std::uint8_t>(body.size())};
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

// A plain handshake record whose message announces `announced` bytes and has `size`.
Bytes hello(std::size_t announced, std::size_t size, std::uint8_t kind = 1) {
  Bytes body(4 + size);
  body[0] = kind;
  body[1] = static_cast<std::uint8_t>(announced >> 16);
  body[2] = static_cast<std::uint8_t>(announced >> 8);
  body[3] = static_cast<std::uint8_t>(announced);
  return record(22, body);
}

Refusal check(const Bytes& bytes) {
  HandshakeGuard whole;
  const Refusal refusal = whole.check(bytes);
  HandshakeGuard dripping;
  Refusal dripped = Refusal::kNone;
  for (const std::uint8_t& byte : bytes) {
    dripped = dripping.check({&byte, 1});
    if (dripped != Refusal::kNone) break;
  }
  EXPECT_EQ(dripped, refusal) << "byte by byte";
  return refusal;
}

TEST(HandshakeGuard, LetsTheHelloOfAPeerPass) {
  test::init_crypto();
  const auto context = crypto::TlsContext::make(crypto::SecretKey::generate(),
                                                [](const crypto::PublicKey&) { return std::optional<crypto::Peer>(); });
  ASSERT_TRUE(context.ok());
  TlsPipe dialler(context->new_connection(false, std::nullopt), false, 1u << 20);
  ASSERT_EQ(dialler.handshake(), TlsPipe::Status::kWantsInput);
  const Bytes sent(dialler.output().begin(), dialler.output().end());
  ASSERT_GT(sent.size(), 100u);
  EXPECT_EQ(check(sent), Refusal::kNone);
}

TEST(HandshakeGuard, LetsEncryptedRecordsAndAlertsFollow) {
  Bytes stream = hello(200, 200);
  for (const Bytes& next : {record(20, {1}), record(21, {1, 0}), record(23, Bytes(1000))}) {
    stream.insert(stream.end(), next.begin(), next.end());
  }
  EXPECT_EQ(check(stream), Refusal::kNone);
}

TEST(HandshakeGuard, RefusesAHelloThatAnnouncesMoreThanItMay) {
  EXPECT_EQ(check(hello(kHelloBytesMax, kHelloBytesMax)), Refusal::kNone);
  EXPECT_EQ(check(hello(kHelloBytesMax + 1, kHelloBytesMax + 1)), Refusal::kOversize);
  EXPECT_EQ(check(hello(131'000, 100)), Refusal::kOversize);
}

TEST(HandshakeGuard, RefusesTheLateHelloToo) {
  Bytes stream = hello(200, 200);
  const Bytes late = hello(131'000, 100);
  stream.insert(stream.end(), late.begin(), late.end());
  EXPECT_EQ(check(stream), Refusal::kOversize);
}

TEST(HandshakeGuard, RefusesAHelloInPieces) {
  EXPECT_EQ(check(hello(300, 100)), Refusal::kMalformed);
  EXPECT_EQ(check(hello(100, 300)), Refusal::kMalformed);
  EXPECT_EQ(check(record(22, {1, 0, 0})), Refusal::kMalformed);
}

TEST(HandshakeGuard, RefusesWhatIsNotTls) {
  EXPECT_EQ(check({'G', 'E', 'T', ' ', '/', ' '}), Refusal::kMalformed);
  EXPECT_EQ(check(Bytes(5, 0)), Refusal::kMalformed);
  EXPECT_EQ(check({22, 2, 0, 0, 100}), Refusal::kMalformed);
  EXPECT_EQ(check({23, 3, 3, 0, 0}), Refusal::kMalformed);
  EXPECT_EQ(check(hello(100, 100, 2)), Refusal::kMalformed);
}

TEST(HandshakeGuard, RefusesARecordLongerThanTlsAllows) {
  EXPECT_EQ(check({23, 3, 3, 0xff, 0xff}), Refusal::kOversize);
}

TEST(HandshakeGuard, RefusesMoreBytesThanAHandshakeTakes) {
  Bytes stream = hello(200, 200);
  const Bytes rest = record(23, Bytes(kHandshakeBytesMax - stream.size() - 5));
  stream.insert(stream.end(), rest.begin(), rest.end());
  ASSERT_EQ(stream.size(), kHandshakeBytesMax);
  EXPECT_EQ(check(stream), Refusal::kNone);
  stream.push_back(23);
  EXPECT_EQ(check(stream), Refusal::kOversize);
}

}  // namespace
}  // namespace zz::net
