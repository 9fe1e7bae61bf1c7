#pragma once

// HandshakeGuard: looks at the plain part of what an unauthenticated dialler sends, before the TLS library
// does, and refuses what would make that library spend more memory than a stranger may have (docs/protocol.md
// §3). The library makes room for as many bytes as a hello announces (up to 128 KiB); our own hellos take a
// few hundred bytes. Pure; one thread; one guard per accepted connection, until its handshake is over.
//
// Invariants:
//  1. What passes is a sequence of TLS records; a plain handshake record holds exactly one hello of at most
//     kHelloBytesMax bytes.
//  2. All records together are at most kHandshakeBytesMax long.

#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"
#include "base/refusal.hpp"

namespace zz::net {

inline constexpr std::size_t kHelloBytesMax = 4u << 10;
inline constexpr std::size_t kHandshakeBytesMax = 16u << 10;

class HandshakeGuard {
 public:
  // The next received bytes. kMalformed: this is not TLS as a peer of ours speaks it; kOversize: more than a
  // handshake takes. Nothing of `bytes` may be used after a refusal.
  Refusal check(ByteView bytes);

 private:
  [[nodiscard]] Refusal check_record_header() const;
  [[nodiscard]] Refusal check_hello_header() const;

  std::size_t total_ = 0;
  std::uint8_t header_[9] = {};  // record header, and of a plain handshake record its message header
  std::size_t header_filled_ = 0;
  std::size_t body_left_ = 0;  // of the current record
};

}  // namespace zz::net
