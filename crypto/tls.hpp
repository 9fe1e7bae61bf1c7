#pragma once

// TLS 1.3 contexts (OpenSSL 3.0): mutual, pinned keys, no tickets, no resumption, no 0-RTT, ALPN
// "zz/" and kProtocolVersion, so that parties of different versions refuse each other.
//
// Trust is the pin: the peer's Ed25519 public key (from its certificate) must be one that `PeerLookup` knows
// at the time of the handshake. The certificate's names, dates and issuer are not looked at; they are for
// people's tools. A context may be shared by many connections of one thread, and must outlive them.

#include <functional>
#include <memory>
#include <optional>

#include "base/result.hpp"
#include "crypto/peer.hpp"
#include "crypto/sign.hpp"

// NOLINTBEGIN: OpenSSL's own names
struct ssl_ctx_st;
struct ssl_st;
// NOLINTEND

namespace zz::crypto {

// Who holds this key, or nothing. Called during handshakes on the connection's thread.
using PeerLookup = std::function<std::optional<Peer>(const PublicKey&)>;

class TlsContext {
 public:
  // Makes an in-memory self-signed certificate for `key`. `lookup` must stay callable as long as the context lives.
  static Result<TlsContext> make(const SecretKey& key, PeerLookup lookup);
  TlsContext(TlsContext&&) noexcept;
  TlsContext& operator=(TlsContext&&) noexcept;
  ~TlsContext();

  // A new connection object, owned by the caller (SSL_free). With `expected`, only that key is accepted.
  [[nodiscard]] ssl_st* new_connection(bool server, std::optional<PublicKey> expected) const;
  // The authenticated peer of a finished handshake; nothing when its key is not (or no longer) known.
  [[nodiscard]] std::optional<Peer> peer_of(ssl_st* connection) const;
  // The peer's raw public key, once the handshake is over.
  [[nodiscard]] static std::optional<PublicKey> key_of(ssl_st* connection);

 private:
  struct State;
  explicit TlsContext(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace zz::crypto
