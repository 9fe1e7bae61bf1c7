#include "crypto/tls.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <map>

#include "crypto/certificate.hpp"

namespace zz::crypto {
namespace {

constexpr std::array<unsigned char, 5> kOurProtocol = {4, 'z', 'z', '/', '0' + kProtocolVersion};

// One end of a connection: an SSL object and two memory buffers.
class End {
 public:
  explicit End(SSL* ssl) : ssl_(ssl), in_(BIO_new(BIO_s_mem())), out_(BIO_new(BIO_s_mem())) {
    SSL_set_bio(ssl_, in_, out_);
  }
  ~End() { SSL_free(ssl_); }
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  SSL* ssl() { return ssl_; }
  // Goes on with the handshake; false once it has failed.
  bool advance() {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_);
    if (result == 1) return true;
    return SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ;
  }
  // Moves what this end has written to the other end; the number of bytes.
  int move_to(End& other) {
    char buffer[16'384];
    int moved = 0;
    for (int got = 0; (got = BIO_read(out_, buffer, sizeof buffer)) > 0; moved += got) {
      EXPECT_EQ(BIO_write(other.in_, buffer, got), got);
    }
    return moved;
  }
  bool finished() { return SSL_is_init_finished(ssl_) != 0; }
  // True when a read ends with an error other than "nothing yet": the other end has hung up with an alert.
  bool told_off() {
    char byte = 0;
    ERR_clear_error();
    const int got = SSL_read(ssl_, &byte, 1);
    return got <= 0 && SSL_get_error(ssl_, got) == SSL_ERROR_SSL;
  }

 private:
  SSL* ssl_;
  BIO* in_;
  BIO* out_;
};

// Runs the handshake until neither side has anything to say; true when both ended it well.
bool shake_hands(End& client, End& server) {
  bool good = true;
  for (int round = 0; round < 20; ++round) {
    const bool client_good = client.advance();
    const int sent = client.move_to(server);
    const bool server_good = server.advance();
    const int answered = server.move_to(client);
    good = good && client_good && server_good;
    if (sent == 0 && answered == 0) break;
  }
  return good && client.finished() && server.finished() && !client.told_off() && !server.told_off();
}

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using ForeignContext = std::unique_ptr<SSL_CTX, FreeContext>;

class Tls : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(ready_.ok());
    known_[node_key_.public_key()] = Peer{.role = Role::kNode, .index = 1};
    known_[client_key_.public_key()] = Peer{.role = Role::kClient, .index = 7};
  }
  TlsContext context(const SecretKey& key) {
    Result<TlsContext> made = TlsContext::make(key, [this](const PublicKey& k) { return look_up(k); });
    EXPECT_TRUE(made.ok());
    return std::move(made).value();
  }
  std::optional<Peer> look_up(const PublicKey& key) const {
    const auto found = known_.find(key);
    return found == known_.end() ? std::nullopt : std::optional<Peer>(found->second);
  }
  // A context as some other program would make it: TLS 1.3, our protocol name, no judgement of the peer.
  static ForeignContext foreign(const SecretKey* key) {
    ForeignContext out(SSL_CTX_new(TLS_method()));
    SSL_CTX_set_verify(out.get(), SSL_VERIFY_NONE, nullptr);
    SSL_CTX_set_alpn_protos(out.get(), kOurProtocol.data(), kOurProtocol.size());
    if (key != nullptr) {
      const auto made =
          make_certificate({.subject = "x", .issuer = "x", .key = key->public_key(), .authority = false}, *key);
      const PrivateKeyPtr private_key = to_openssl(*key);
      EXPECT_EQ(SSL_CTX_use_certificate(out.get(), made->get()), 1);
      EXPECT_EQ(SSL_CTX_use_PrivateKey(out.get(), private_key.get()), 1);
    }
    return out;
  }
  static SSL* foreign_client(const ForeignContext& foreign_context) {
    SSL* const ssl = SSL_new(foreign_context.get());
    SSL_set_connect_state(ssl);
    return ssl;
  }

  Result<void> ready_ = init();  // before any key
  SecretKey node_key_ = SecretKey::generate();
  SecretKey client_key_ = SecretKey::generate();
  SecretKey stranger_key_ = SecretKey::generate();
  std::map<PublicKey, Peer> known_;
};

TEST_F(Tls, TwoKnownPartiesMeetAndKnowEachOther) {
  const TlsContext node = context(node_key_);
  const TlsContext client = context(client_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, node_key_.public_key()));
  ASSERT_TRUE(shake_hands(client_end, server_end));
  EXPECT_EQ(node.peer_of(server_end.ssl()), (Peer{.role = Role::kClient, .index = 7}));
  EXPECT_EQ(client.peer_of(client_end.ssl()), (Peer{.role = Role::kNode, .index = 1}));
  EXPECT_EQ(TlsContext::key_of(server_end.ssl()), client_key_.public_key());
  EXPECT_EQ(SSL_version(client_end.ssl()), TLS1_3_VERSION);
  EXPECT_STREQ(SSL_get_cipher_name(client_end.ssl()), "TLS_AES_128_GCM_SHA256");
}

TEST_F(Tls, BytesArriveUnchangedBothWays) {
  const TlsContext node = context(node_key_);
  const TlsContext client = context(client_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, std::nullopt));
  ASSERT_TRUE(shake_hands(client_end, server_end));
  char buffer[16] = {};
  ASSERT_EQ(SSL_write(client_end.ssl(), "request", 7), 7);
  client_end.move_to(server_end);
  ASSERT_EQ(SSL_read(server_end.ssl(), buffer, sizeof buffer), 7);
  EXPECT_EQ(std::string(buffer, 7), "request");
  ASSERT_EQ(SSL_write(server_end.ssl(), "reply", 5), 5);
  server_end.move_to(client_end);
  ASSERT_EQ(SSL_read(client_end.ssl(), buffer, sizeof buffer), 5);
  EXPECT_EQ(std::string(buffer, 5), "reply");
}

TEST_F(Tls, NobodyIsKnownBeforeTheHandshakeIsOver) {
  const TlsContext node = context(node_key_);
  const TlsContext client = context(client_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, std::nullopt));
  ASSERT_TRUE(client_end.advance());
  client_end.move_to(server_end);
  ASSERT_TRUE(server_end.advance());
  EXPECT_EQ(node.peer_of(server_end.ssl()), std::nullopt);
  EXPECT_EQ(TlsContext::key_of(server_end.ssl()), std::nullopt);
}

TEST_F(Tls, AServerTurnsAStrangerAway) {
  const TlsContext node = context(node_key_);
  const TlsContext stranger = context(stranger_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(stranger.new_connection(false, std::nullopt));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
  EXPECT_EQ(node.peer_of(server_end.ssl()), std::nullopt);
}

TEST_F(Tls, AClientTurnsAStrangeServerAway) {
  const TlsContext stranger = context(stranger_key_);
  const TlsContext client = context(client_key_);
  End server_end(stranger.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, std::nullopt));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(client_end.finished());
  EXPECT_EQ(client.peer_of(client_end.ssl()), std::nullopt);
}

TEST_F(Tls, ADiallerAcceptsOnlyTheKeyItExpects) {
  known_[stranger_key_.public_key()] = Peer{.role = Role::kNode, .index = 2};
  const TlsContext node_2 = context(stranger_key_);
  const TlsContext client = context(client_key_);
  End server_end(node_2.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, node_key_.public_key()));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(client_end.finished());
}

TEST_F(Tls, AKeyThatIsForgottenLaterIsNoLongerAPeer) {
  const TlsContext node = context(node_key_);
  const TlsContext client = context(client_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, std::nullopt));
  ASSERT_TRUE(shake_hands(client_end, server_end));
  known_.erase(client_key_.public_key());
  EXPECT_EQ(node.peer_of(server_end.ssl()), std::nullopt);
  EXPECT_EQ(TlsContext::key_of(server_end.ssl()), client_key_.public_key());
}

TEST_F(Tls, APeerWithoutACertificateIsTurnedAway) {
  const TlsContext node = context(node_key_);
  const ForeignContext nameless = foreign(nullptr);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(nameless));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, AKnownCertificateBehindAStrangersLeafHelpsNothing) {
  const TlsContext node = context(node_key_);
  const ForeignContext stranger = foreign(&stranger_key_);
  const auto known = make_certificate(
      {.subject = "x", .issuer = "x", .key = client_key_.public_key(), .authority = true}, stranger_key_);
  ASSERT_EQ(SSL_CTX_add1_chain_cert(stranger.get(), known->get()), 1);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(stranger));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, AForeignProgramWithAKnownKeyIsServed) {
  const TlsContext node = context(node_key_);
  const ForeignContext other = foreign(&client_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(other));
  EXPECT_TRUE(shake_hands(client_end, server_end));
}

TEST_F(Tls, Tls12IsRefused) {
  const TlsContext node = context(node_key_);
  const ForeignContext old = foreign(&client_key_);
  ASSERT_EQ(SSL_CTX_set_max_proto_version(old.get(), TLS1_2_VERSION), 1);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(old));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, AKnownKeyWithAnotherProtocolNameIsRefused) {
  const TlsContext node = context(node_key_);
  const ForeignContext other = foreign(&client_key_);
  constexpr std::array<unsigned char, 3> kHttp2 = {2, 'h', '2'};
  ASSERT_EQ(SSL_CTX_set_alpn_protos(other.get(), kHttp2.data(), kHttp2.size()), 0);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(other));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, AKnownKeyThatSpeaksAnotherVersionIsRefused) {
  const TlsContext node = context(node_key_);
  const ForeignContext other = foreign(&client_key_);
  constexpr std::array<unsigned char, 5> kBefore = {4, 'z', 'z', '/', '0' + kProtocolVersion - 1};
  ASSERT_EQ(SSL_CTX_set_alpn_protos(other.get(), kBefore.data(), kBefore.size()), 0);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(other));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, AKnownKeyWithoutAProtocolNameIsRefused) {
  const TlsContext node = context(node_key_);
  const ForeignContext other = foreign(&client_key_);
  ASSERT_EQ(SSL_CTX_set_alpn_protos(other.get(), nullptr, 0), 0);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(other));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, AServerThatChoosesNoProtocolIsRefused) {
  const TlsContext client = context(client_key_);
  const ForeignContext other = foreign(&node_key_);
  SSL* const ssl = SSL_new(other.get());
  SSL_set_accept_state(ssl);
  End server_end(ssl);
  End client_end(client.new_connection(false, node_key_.public_key()));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(client_end.finished());
}

TEST_F(Tls, AKeyOfAnotherKindIsRefused) {
  const TlsContext node = context(node_key_);
  ForeignContext other = foreign(nullptr);
  const PrivateKeyPtr key(EVP_EC_gen("P-256"));
  const CertificatePtr certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  ASSERT_NE(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
  ASSERT_EQ(SSL_CTX_use_certificate(other.get(), certificate.get()), 1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey(other.get(), key.get()), 1);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(other));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

TEST_F(Tls, NoTicketIsGivenAndNothingCanBeResumed) {
  const TlsContext node = context(node_key_);
  const TlsContext client = context(client_key_);
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(client.new_connection(false, std::nullopt));
  ASSERT_TRUE(shake_hands(client_end, server_end));
  EXPECT_EQ(SSL_get_num_tickets(server_end.ssl()), 0u);
  EXPECT_EQ(server_end.move_to(client_end), 0) << "the server said something after the handshake";
  EXPECT_EQ(SSL_SESSION_is_resumable(SSL_get_session(client_end.ssl())), 0);
  EXPECT_EQ(SSL_SESSION_get_max_early_data(SSL_get_session(client_end.ssl())), 0u);

  End next_server(node.new_connection(true, std::nullopt));
  End next_client(client.new_connection(false, std::nullopt));
  SSL_set_session(next_client.ssl(), SSL_get_session(client_end.ssl()));
  ASSERT_TRUE(shake_hands(next_client, next_server));
  EXPECT_EQ(SSL_session_reused(next_server.ssl()), 0);
}

TEST_F(Tls, GarbageInsteadOfAHelloEndsTheHandshake) {
  const TlsContext node = context(node_key_);
  End server_end(node.new_connection(true, std::nullopt));
  BIO* const in = SSL_get_rbio(server_end.ssl());
  const std::string text = "GET / HTTP/1.1\r\nHost: example\r\n\r\n";
  ASSERT_EQ(BIO_write(in, text.data(), static_cast<int>(text.size())), static_cast<int>(text.size()));
  EXPECT_FALSE(server_end.advance());
}

TEST_F(Tls, AnOverlongCertificateIsRefused) {
  const TlsContext node = context(node_key_);
  ForeignContext other = foreign(&client_key_);
  for (int i = 0; i < 20; ++i) {
    const auto padding = make_certificate(
        {.subject = "padding", .issuer = "x", .key = stranger_key_.public_key(), .authority = true}, stranger_key_);
    ASSERT_EQ(SSL_CTX_add1_chain_cert(other.get(), padding->get()), 1);
  }
  End server_end(node.new_connection(true, std::nullopt));
  End client_end(foreign_client(other));
  EXPECT_FALSE(shake_hands(client_end, server_end));
  EXPECT_FALSE(server_end.finished());
}

}  // namespace
}  // namespace zz::crypto
