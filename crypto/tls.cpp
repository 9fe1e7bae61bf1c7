#include "crypto/tls.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/assert.hpp"
#include "crypto/certificate.hpp"

namespace zz::crypto {
namespace {

static_assert(kProtocolVersion <= 9);
// One length-prefixed ALPN name.
constexpr std::array<unsigned char, 5> kProtocol = {4, 'z', 'z', '/', '0' + kProtocolVersion};
constexpr long kCertificateBytesMax = 4'096;  // a self-made certificate has some 300

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

void free_expected(void*, void* value, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<PublicKey*>(value); }

// Where a connection keeps the one key it accepts.
int expected_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, free_expected);
  ZZ_ASSERT(index >= 0);
  return index;
}

std::optional<PublicKey> key_in(const X509* certificate) {
  EVP_PKEY* const key = certificate == nullptr ? nullptr : X509_get0_pubkey(certificate);
  if (key == nullptr || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) return std::nullopt;
  PublicKey out;
  std::size_t size = out.bytes.size();
  if (EVP_PKEY_get_raw_public_key(key, out.bytes.data(), &size) != 1 || size != out.bytes.size()) return std::nullopt;
  return out;
}

bool speaks_zz(const SSL* connection) {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(connection, &name, &size);
  return size == kProtocol.size() - 1 && std::equal(name, name + size, kProtocol.begin() + 1);
}

int select_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                    unsigned int offered_size, void*) {
  unsigned char* chosen = nullptr;
  const int found = SSL_select_next_proto(&chosen, out_size, kProtocol.data(), kProtocol.size(), offered, offered_size);
  if (found != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

// Replaces OpenSSL's judgement of the certificate by the pin. That the peer holds the secret key is proven by
// its CertificateVerify message, which OpenSSL checks in any case. A peer that offers no ALPN name at all is
// not shown to select_protocol, so it is turned away here; the name is settled before certificates are sent,
// either way.
int check_pin(X509_STORE_CTX* store, void* argument) {
  const auto* const lookup = static_cast<const PeerLookup*>(argument);
  auto* const connection = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const auto* const expected = static_cast<const PublicKey*>(SSL_get_ex_data(connection, expected_index()));
  const std::optional<PublicKey> key = key_in(X509_STORE_CTX_get0_cert(store));
  const bool pinned = key && (expected == nullptr || *key == *expected) && (*lookup)(*key).has_value();
  if (pinned && speaks_zz(connection)) {
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
  }
  X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
  return 0;
}

bool set_up(SSL_CTX* context) {
  SSL_CTX_set_options(
      context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_clear_options(context, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_clear_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_max_cert_list(context, kCertificateBytesMax);
  SSL_CTX_set_alpn_select_cb(context, select_protocol, nullptr);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") == 1 &&
         SSL_CTX_set1_groups_list(context, "X25519") == 1 && SSL_CTX_set1_sigalgs_list(context, "ed25519") == 1 &&
         SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, 0) == 1 &&
         SSL_CTX_set_recv_max_early_data(context, 0) == 1 &&
         SSL_CTX_set_alpn_protos(context, kProtocol.data(), kProtocol.size()) == 0;  // 0 is its success
}

}  // namespace

struct TlsContext::State {
  std::unique_ptr<SSL_CTX, FreeContext> context;
  PeerLookup lookup;
};

TlsContext::TlsContext(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsContext::TlsContext(TlsContext&&) noexcept = default;
TlsContext& TlsContext::operator=(TlsContext&&) noexcept = default;
TlsContext::~TlsContext() = default;

Result<TlsContext> TlsContext::make(const SecretKey& key, PeerLookup lookup) {
  ZZ_ASSERT(lookup != nullptr);
  Result<CertificatePtr> certificate =
      make_certificate({.subject = "zz", .issuer = "zz", .key = key.public_key(), .authority = false}, key);
  if (!certificate) return Error{certificate.error()};
  const PrivateKeyPtr private_key = to_openssl(key);
  auto state = std::make_unique<State>();
  state->lookup = std::move(lookup);
  state->context.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* const context = state->context.get();
  if (context == nullptr || !set_up(context) || SSL_CTX_use_certificate(context, certificate->get()) != 1 ||
      SSL_CTX_use_PrivateKey(context, private_key.get()) != 1) {
    return Error{fmt::format("cannot set up TLS: {}", take_openssl_error())};
  }
  SSL_CTX_set_cert_verify_callback(context, check_pin, &state->lookup);
  return TlsContext(std::move(state));
}

ssl_st* TlsContext::new_connection(bool server, std::optional<PublicKey> expected) const {
  SSL* const connection = SSL_new(state_->context.get());
  ZZ_ASSERT(connection != nullptr);
  if (expected) ZZ_ASSERT(SSL_set_ex_data(connection, expected_index(), new PublicKey(*expected)) == 1);
  if (server) {
    SSL_set_accept_state(connection);
  } else {
    SSL_set_connect_state(connection);
  }
  return connection;
}

std::optional<Peer> TlsContext::peer_of(ssl_st* connection) const {
  const std::optional<PublicKey> key = key_of(connection);
  if (!key) return std::nullopt;
  return state_->lookup(*key);
}

std::optional<PublicKey> TlsContext::key_of(ssl_st* connection) {
  if (SSL_is_init_finished(connection) == 0 || !speaks_zz(connection)) return std::nullopt;
  return key_in(SSL_get0_peer_certificate(connection));
}

}  // namespace zz::crypto
