#pragma once

// RawPeer: a dialler that sends whatever bytes a test wants, in plain TCP or inside a TLS session of its own, and reads
// only when it is told to. For tests of what a hostile peer may do. One thread.

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <optional>

#include "net/tls_pipe.hpp"
#include "tests/support/party.hpp"

namespace zz::test {

class RawPeer {
 public:
  // Connects at once (loopback: the listener's kernel answers). No TLS yet.
  RawPeer(boost::asio::io_context& loop, const crypto::Address& address) : socket_(loop) {
    socket_.connect({boost::asio::ip::make_address(address.host), address.port});
  }
  ~RawPeer() { *alive_ = false; }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  // Reads and drops, until the other end closes.
  void watch() { read(); }
  // Starts a handshake as `party` would; the loop carries it on.
  void start_tls(const Party& party) {
    context_.emplace(party.tls());
    pipe_ = std::make_unique<net::TlsPipe>(context_->new_connection(false, std::nullopt), false, std::size_t{64} << 20);
    (void)pipe_->handshake();
    send_output();
    read();
  }
  // From now on nothing is read any more.
  void stop_reading() { reading_ = false; }

  void send_plain(ByteView bytes) {
    boost::system::error_code ignored;
    boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()), ignored);
  }
  void send_inside_tls(ByteView bytes) {
    ZZ_ASSERT(pipe_->write(bytes));
    send_output();
  }
  // All that was sent is acknowledged by the other end's kernel.
  [[nodiscard]] bool all_arrived() {
    int unacknowledged = 0;
    ZZ_ASSERT(::ioctl(socket_.native_handle(), SIOCOUTQ, &unacknowledged) == 0);
    return unacknowledged == 0;
  }

  [[nodiscard]] bool secure() const { return secure_; }
  [[nodiscard]] bool closed() const { return closed_; }
  [[nodiscard]] std::size_t received_bytes() const { return received_bytes_; }
  [[nodiscard]] boost::asio::ip::tcp::socket& socket() { return socket_; }

 private:
  void read() {
    socket_.async_read_some(boost::asio::buffer(buffer_),
                            [this, alive = alive_](const boost::system::error_code& error, std::size_t count) {
                              if (!*alive) return;
                              if (error) {
                                closed_ = true;
                                return;
                              }
                              received_bytes_ += count;
                              if (pipe_) take(ByteView(buffer_).first(count));
                              if (reading_) read();
                            });
  }

  void take(ByteView cipher_text) {
    pipe_->give(cipher_text);
    if (!secure_ && pipe_->handshake() == net::TlsPipe::Status::kDone) secure_ = true;
    std::array<std::uint8_t, 4096> plain;
    std::size_t count = 0;
    while (secure_ && pipe_->read(plain, count) == net::TlsPipe::Status::kDone) {
    }
    send_output();
  }

  void send_output() {
    send_plain(pipe_->output());
    pipe_->sent(pipe_->output().size());
  }

  boost::asio::ip::tcp::socket socket_;
  std::array<std::uint8_t, 16384> buffer_{};
  std::optional<crypto::TlsContext> context_;  // outlives the pipe
  std::unique_ptr<net::TlsPipe> pipe_;
  bool reading_ = true;
  bool secure_ = false;
  bool closed_ = false;
  std::size_t received_bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace zz::test
