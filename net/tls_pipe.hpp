#pragma once

// TlsPipe: one end of a TLS connection without a socket (docs/protocol.md §3). Cipher text goes in by give()
// and comes out by output(); plain text by write() and read(). The caller moves bytes to and from the
// network. One thread.
//
// Invariants:
//  1. Given bytes are read in place; all are consumed once handshake() or read() says kWantsInput.
//  2. output() never holds more than output_bytes_max, whatever the peer asks the TLS library to answer: the
//     pipe fails instead.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.hpp"

struct ssl_st;  // NOLINT: OpenSSL's own name

namespace zz::net {

class TlsPipe {
 public:
  enum class Status : std::uint8_t { kDone, kWantsInput, kClosed, kFailed };

  // Takes ownership of `connection` (crypto::TlsContext::new_connection).
  TlsPipe(ssl_st* connection, bool server, std::size_t output_bytes_max);
  ~TlsPipe();
  TlsPipe(const TlsPipe&) = delete;
  TlsPipe& operator=(const TlsPipe&) = delete;

  // The next received bytes, valid until they are consumed. Requires that the former ones are.
  void give(ByteView cipher_text) { io_.input = cipher_text; }
  // Goes on with the handshake; kDone when it is over.
  Status handshake();
  // Plain text into the front of `into` (not empty); kDone: `count` bytes of it. kClosed: the peer said goodbye.
  Status read(std::span<std::uint8_t> into, std::size_t& count);
  // False when the connection is broken. Requires a finished handshake.
  bool write(ByteView plain_text);
  // Says goodbye to the peer: nothing may be written afterwards.
  void shut();

  // Cipher text to send.
  [[nodiscard]] ByteView output() const { return ByteView(io_.output).subspan(io_.sent); }
  // Says that the first `count` bytes of output() are on their way.
  void sent(std::size_t count);

  [[nodiscard]] ssl_st* connection() const { return connection_; }
  // What went wrong, one line, after kFailed or a false write().
  [[nodiscard]] const std::string& failure() const { return failure_; }

  // Where the TLS library reads and writes; used by its callbacks only.
  struct Io {
    ByteView input;
    Bytes output;
    std::size_t sent = 0;
    std::size_t output_bytes_max = 0;
  };

 private:
  Status fail(int result);

  Io io_;
  ssl_st* connection_;
  std::string failure_;
};

}  // namespace zz::net
