#pragma once

// Framed, mutually authenticated TLS 1.3 channels over TCP (docs/protocol.md §3).
//
// A Network owns the listening socket, the dialled peers and every live Channel of one process. Everything
// runs on the io_context's single thread; no call blocks. The handler must outlive the Network.
//
// On the wire a frame is  u32 body length | u16 message count | u16 frame version (1)  then per message
// u32 length | u32 zero | bytes, all little-endian, message lengths multiples of 8 (net/frame.hpp). The
// listener's first frame has no messages: it tells the dialler that its key was accepted, and only then is
// the channel up there.
//
// Invariants:
//  1. A message is delivered only after the handshake, attributed to the peer whose key is pinned.
//  2. Before authentication a connection holds at most kUnauthenticatedBytesMax and lives at most
//     handshake_timeout_ms.
//  3. At most one channel per peer identity: a newer authenticated one replaces the older.
//  4. A frame longer than frame_bytes_max is refused before anything is allocated for it, and ends the
//     channel.
//  5. A send queue never exceeds send_queue_bytes_max: send() says kFull and drops that message.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "base/bytes.hpp"
#include "base/refusal.hpp"
#include "base/result.hpp"
#include "crypto/cluster.hpp"
#include "crypto/peer.hpp"
#include "crypto/tls.hpp"

namespace zz::net {

inline constexpr std::size_t kUnauthenticatedBytesMax = 64u << 10;
inline constexpr int kHandshakeTimeoutMs = 5'000;
inline constexpr std::size_t kConnectionsMax = 4'096;  // accepted and not yet closed
inline constexpr std::size_t kHandshakesMax = 1'024;   // of these, not yet authenticated: then the oldest of them goes

enum class Sent { kQueued, kFull, kClosed };

class Channel {
 public:
  virtual ~Channel() = default;
  [[nodiscard]] virtual const crypto::Peer& peer() const = 0;
  // Queues one encoded message (length a positive multiple of 8). It leaves with others at the next flush.
  // kFull also for a message that no frame could carry.
  virtual Sent send(const SharedBytes& message) = 0;
  [[nodiscard]] virtual std::size_t queued_bytes() const = 0;
  // Ends the channel; on_down follows later, never from inside this call. What was queued before leaves if
  // the socket takes it at once.
  virtual void close(std::string_view reason) = 0;
};

class Handler {
 public:
  virtual ~Handler() = default;
  // The channel reference stays valid until on_down for it returns.
  virtual void on_up(Channel& channel) = 0;
  // `message` is 8-byte aligned and a slice of its frame. Calling send() and close() here is fine.
  virtual void on_message(Channel& channel, const SharedBytes& message) = 0;
  virtual void on_down(Channel& channel, std::string_view reason) = 0;
  // A connection or frame was refused; `who` names the address or peer. Count it.
  virtual void on_refused(Refusal reason, std::string_view who, std::string_view detail) = 0;
};

struct NetLimits {
  std::size_t frame_bytes_max = 8u << 20;
  std::size_t send_queue_bytes_max = 64u << 20;
  int backoff_min_ms = 20;  // dial retry, doubled with jitter up to the maximum
  int backoff_max_ms = 1'000;
  int handshake_timeout_ms = kHandshakeTimeoutMs;  // also for the TCP connect of a dialled peer
  std::size_t connections_max = kConnectionsMax;
  std::size_t handshakes_max = kHandshakesMax;
};

// For tests and `zz fault`: what a link does to the messages it carries (net/link_fault.hpp).
class LinkFault;

class Network {
 public:
  Network(boost::asio::io_context& loop, crypto::TlsContext tls, NetLimits limits, Handler& handler);
  ~Network();  // closes everything without calling the handler
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // Error names the address and what to do ("port in use").
  Result<void> listen(const crypto::Address& address);
  [[nodiscard]] std::uint16_t listening_port() const;  // 0 when not listening
  // Keeps one channel to this peer alive, reconnecting with back-off, until hang_up; also after close(). A
  // second call for the same key changes the address.
  void dial(const crypto::Address& address, const crypto::PublicKey& key);
  void hang_up(const crypto::PublicKey& key);
  // Live channel to that peer, or null.
  [[nodiscard]] Channel* find(const crypto::Peer& peer);
  // Closes the live channel of every peer the predicate picks (an evicted incarnation, for instance).
  void close_if(const std::function<bool(const crypto::Peer&)>& doomed, std::string_view reason);
  // Writes everything queued now, one write per channel; otherwise it happens at the end of the loop turn.
  void flush();
  // Applies to outgoing messages of every channel; null removes it. Tests only.
  void set_link_fault(std::shared_ptr<LinkFault> fault);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace zz::net
