#pragma once

// Connection: one TCP connection of a Network and the channel it becomes (docs/protocol.md §3). One thread,
// the io_context's. Held by shared_ptr: by its owner while it lives, and by the operations that are under way.
//
// The listener says it has accepted the dialler by a first frame without messages, the welcome: in TLS 1.3 a
// dialler's handshake ends before the listener has judged its key, so only the welcome makes the channel up
// at its side.
//
//   dialled    kConnecting ─► kHandshaking ─► kAwaitingWelcome ─► kUp ─► (kClosing ─►) kClosed
//   accepted                  kHandshaking ─────────────────────► kUp ─► (kClosing ─►) kClosed
//
// Invariants:
//  1. kClosed is left never; the owner hears over() exactly once, unless abandon() came first.
//  2. The owner's up(), message() and refused() come from the loop's own calls only. A call of the channel's
//     user leads to nothing but wants_flush(): errors found there end the connection on a later turn.
//  3. Before kUp at most kHandshakeBytesMax bytes are read and nothing is queued.

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/channel.hpp"
#include "net/frame.hpp"
#include "net/handshake_guard.hpp"
#include "net/tls_pipe.hpp"

namespace zz::net {

class Connection;

// What a connection tells its owner, and asks of it.
class ConnectionOwner {
 public:
  virtual ~ConnectionOwner() = default;
  [[nodiscard]] virtual const crypto::TlsContext& tls() const = 0;
  [[nodiscard]] virtual const NetLimits& limits() const = 0;
  [[nodiscard]] virtual LinkFault* link_fault() const = 0;  // may be null
  // A buffer to build one write in; shared by all connections, empty between two uses.
  [[nodiscard]] virtual Bytes& scratch() = 0;
  virtual void up(Connection& connection) = 0;
  virtual void message(Connection& connection, const SharedBytes& message) = 0;
  virtual void refused(Refusal reason, std::string_view who, std::string_view detail) = 0;
  // `connection` has something queued and wants flush() soon; said once per flush.
  virtual void wants_flush(Connection& connection) = 0;
  virtual void over(Connection& connection, std::string_view reason) = 0;
};

class Connection final : public Channel, public std::enable_shared_from_this<Connection> {
 public:
  using Tcp = boost::asio::ip::tcp;
  // Bound to the loop's own kind of executor: the general one costs an indirection per operation.
  using Socket = boost::asio::basic_stream_socket<Tcp, boost::asio::io_context::executor_type>;
  enum class Phase : std::uint8_t { kConnecting, kHandshaking, kAwaitingWelcome, kUp, kClosing, kClosed };

  // Accepted: `expected` is empty; dialled: the only key that will do.
  Connection(std::shared_ptr<ConnectionOwner> owner, Socket socket, std::optional<crypto::PublicKey> expected);

  // One of the two, once.
  void start_accepted(const Tcp::endpoint& remote);
  void start_dialling(std::vector<Tcp::endpoint> remotes);

  [[nodiscard]] const crypto::Peer& peer() const override { return peer_; }
  Sent send(const SharedBytes& message) override;
  [[nodiscard]] std::size_t queued_bytes() const override { return queue_bytes_ + pipe_.output().size(); }
  void close(std::string_view reason) override { end_later(std::string(reason)); }

  // Writes what is queued, as far as the socket takes it; the rest follows by itself.
  void flush();
  // Ends the connection now; the owner hears over() within. Not from inside a call of the channel's user.
  void finish(const std::string& reason);
  // Ends the connection now and tells nobody.
  void abandon();
  // Counts and reports a refusal, then ends the connection.
  void refuse(Refusal reason, const std::string& detail);

  [[nodiscard]] Phase phase() const { return phase_; }
  [[nodiscard]] bool dialled() const { return expected_.has_value(); }
  [[nodiscard]] const std::optional<crypto::PublicKey>& expected() const { return expected_; }
  // The owner heard up().
  [[nodiscard]] bool was_up() const { return was_up_; }
  // The peer once it is known, its address before.
  [[nodiscard]] std::string who() const;

 private:
  void start_handshake();
  void start_deadline();
  void start_read();
  void on_read(const boost::system::error_code& error, std::size_t count);
  [[nodiscard]] bool admit(ByteView cipher_text);
  void continue_handshake();
  void on_handshake_done();
  void become_up();
  void read_frames();
  [[nodiscard]] bool accept_frame_so_far(Refusal refusal);
  void deliver_frame();
  void on_lost(const std::string& reason);

  Sent enqueue(const SharedBytes& message);
  Sent send_through(LinkFault& fault, const SharedBytes& message);
  void send_later(const SharedBytes& message, std::uint32_t delay_ms);
  void release_overtaken();
  [[nodiscard]] bool seal();
  [[nodiscard]] bool write_some();
  void wait_until_writable();
  void end_later(std::string reason);
  void shut_socket();

  std::shared_ptr<ConnectionOwner> owner_;
  Socket socket_;
  boost::asio::steady_timer deadline_;  // for everything before kUp
  std::optional<crypto::PublicKey> expected_;
  Phase phase_ = Phase::kHandshaking;
  bool was_up_ = false;
  bool dirty_ = false;    // said wants_flush() and was not flushed since
  bool writing_ = false;  // waits until the socket takes more
  crypto::Peer peer_;
  Tcp::endpoint remote_;
  std::string end_reason_;

  TlsPipe pipe_;
  HandshakeGuard guard_;
  std::size_t unauthenticated_bytes_ = 0;
  FrameReader reader_;
  std::unique_ptr<std::uint8_t[]> received_;
  std::size_t received_size_;

  std::vector<SharedBytes> queue_;
  std::size_t queue_head_ = 0;            // first message not yet sealed
  std::size_t queue_bytes_ = 0;           // of the messages from queue_head_ on, with their headers
  std::optional<SharedBytes> overtaken_;  // held back by a link fault until the next message has gone
};

}  // namespace zz::net
