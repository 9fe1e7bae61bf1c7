#include "net/tls_pipe.hpp"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <array>
#include <numeric>

#include "tests/support/party.hpp"

namespace zz::net {
namespace {

using Status = TlsPipe::Status;

crypto::TlsContext context_that_knows_everybody() {
  test::init_crypto();
  auto context = crypto::TlsContext::make(crypto::SecretKey::generate(),
                                          [](const crypto::PublicKey&) { return std::optional(test::node(1)); });
  ZZ_ASSERT(context.ok());
  return std::move(context).value();
}

struct Pair {
  explicit Pair(std::size_t listener_output_max = 1u << 20)
      : listener(context.new_connection(true, std::nullopt), true, listener_output_max) {}

  // Moves output of one pipe to the other and lets `step` work on it.
  template <class Step>
  static void carry(TlsPipe& from, TlsPipe& to, Step step, std::size_t piece) {
    const Bytes bytes(from.output().begin(), from.output().end());
    from.sent(bytes.size());
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      to.give(ByteView(bytes).subspan(at, std::min(piece, bytes.size() - at)));
      step(to);
    }
  }
  void shake_hands(std::size_t piece = 4096) {
    Status dialler_status = dialler.handshake();
    Status listener_status = Status::kWantsInput;
    for (int turn = 0; turn < 4; ++turn) {
      carry(
          dialler, listener, [&](TlsPipe& pipe) { listener_status = pipe.handshake(); }, piece);
      carry(
          listener, dialler, [&](TlsPipe& pipe) { dialler_status = pipe.handshake(); }, piece);
    }
    ASSERT_EQ(dialler_status, Status::kDone);
    ASSERT_EQ(listener_status, Status::kDone);
  }

  crypto::TlsContext context = context_that_knows_everybody();
  TlsPipe dialler{context.new_connection(false, std::nullopt), false, 1u << 20};
  TlsPipe listener;
};

TEST(TlsPipe, CarriesPlainTextWhateverWayTheCipherTextIsSplit) {
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{5000}, std::size_t{1} << 20}) {
    Pair pair;
    ASSERT_NO_FATAL_FAILURE(pair.shake_hands(piece));
    Bytes sent(100'000);
    std::iota(sent.begin(), sent.end(), std::uint8_t{0});
    ASSERT_TRUE(pair.dialler.write(sent));
    Bytes received;
    Pair::carry(
        pair.dialler, pair.listener,
        [&](TlsPipe& pipe) {
          std::array<std::uint8_t, 3000> plain;
          std::size_t count = 0;
          while (pipe.read(plain, count) == Status::kDone)
            received.insert(received.end(), plain.begin(), plain.begin() + count);
        },
        piece);
    EXPECT_EQ(received, sent);
  }
}

TEST(TlsPipe, TellsTheGoodbyeOfThePeerFromSilence) {
  Pair pair;
  ASSERT_NO_FATAL_FAILURE(pair.shake_hands());
  std::array<std::uint8_t, 8> plain;
  std::size_t count = 0;
  EXPECT_EQ(pair.listener.read(plain, count), Status::kWantsInput);
  pair.dialler.shut();
  Status status = Status::kDone;
  Pair::carry(
      pair.dialler, pair.listener, [&](TlsPipe& pipe) { status = pipe.read(plain, count); }, 4096);
  EXPECT_EQ(status, Status::kClosed);
}

TEST(TlsPipe, FailsOnAChangedByte) {
  Pair pair;
  ASSERT_NO_FATAL_FAILURE(pair.shake_hands());
  ASSERT_TRUE(pair.dialler.write(as_bytes("four score and seven")));
  Bytes bytes(pair.dialler.output().begin(), pair.dialler.output().end());
  bytes[bytes.size() / 2] ^= 1;
  pair.listener.give(bytes);
  std::array<std::uint8_t, 64> plain;
  std::size_t count = 0;
  EXPECT_EQ(pair.listener.read(plain, count), Status::kFailed);
  EXPECT_FALSE(pair.listener.failure().empty());
}

TEST(TlsPipe, FailsRatherThanHoardAnswersForAPeerThatDoesNotReadThem) {
  constexpr std::size_t kOutputMax = 4'096;
  Pair pair(kOutputMax);
  ASSERT_NO_FATAL_FAILURE(pair.shake_hands());
  std::array<std::uint8_t, 64> plain;
  std::size_t count = 0;
  Status status = Status::kWantsInput;
  int asked = 0;
  for (; asked < 10'000 && status == Status::kWantsInput; ++asked) {
    ASSERT_EQ(SSL_key_update(pair.dialler.connection(), SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_EQ(pair.dialler.handshake(), Status::kDone);
    // The listener's answers stay in its output: this peer does not read.
    Pair::carry(
        pair.dialler, pair.listener, [&](TlsPipe& pipe) { status = pipe.read(plain, count); }, 4096);
    // An answer leaves at the latest with the next thing said.
    if (status == Status::kWantsInput && !pair.listener.write(as_bytes("next"))) status = Status::kFailed;
    ASSERT_LE(pair.listener.output().size(), kOutputMax);
  }
  EXPECT_EQ(status, Status::kFailed);
  EXPECT_GT(asked, 10);
}

}  // namespace
}  // namespace zz::net
