#include "net/connection.hpp"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/assert.hpp"
#include "net/link_fault.hpp"

namespace zz::net {
namespace {

// One read takes up to this much; a stranger's is smaller, a handshake fits several times.
constexpr std::size_t kReadBytes = 64u << 10;
constexpr std::size_t kStrangerReadBytes = 1u << 10;
// One write carries about this much plain text: more would only sit in memory beside a full socket.
constexpr std::size_t kWriteBytes = 256u << 10;
// A little output (a welcome, a TLS answer) does not keep frames from joining the same write.
constexpr std::size_t kSmallOutputBytes = 4u << 10;
// Room for what the TLS library itself wants to say beside one write of ours, and its share of each 16 KiB record.
constexpr std::size_t kTlsOutputBytes = 64u << 10;
constexpr std::size_t kRecordPlainBytes = 16u << 10;
constexpr std::size_t kRecordOverheadBytes = 64;
// A peer that vanished is noticed within about 10 s; one that takes nothing for so long counts as vanished
// (TCP_USER_TIMEOUT also ends a connection whose window stays closed).
constexpr int kGoneMs = 10'000;
constexpr int kKeepAliveIdleSeconds = 4;
constexpr int kKeepAliveIntervalSeconds = 2;
constexpr int kKeepAliveProbes = 3;
// Sealed messages leave their places in the queue at the latest when they are this many.
constexpr std::size_t kQueueSlackMax = 16u << 10;
// A message held back to be overtaken leaves after this time when nothing follows it.
constexpr std::uint32_t kOvertakeMs = 10;

static_assert(kStrangerReadBytes + kHandshakeBytesMax < kUnauthenticatedBytesMax);
static_assert(1000 * (kKeepAliveIdleSeconds + kKeepAliveIntervalSeconds * kKeepAliveProbes) <= kGoneMs);

std::size_t output_bytes_max(const NetLimits& limits) {
  const std::size_t plain = std::max(limits.frame_bytes_max + kFrameHeaderBytes, kWriteBytes) + kWriteBytes;
  return plain + (plain / kRecordPlainBytes + 1) * kRecordOverheadBytes + kTlsOutputBytes;
}

void set_options(Connection::Socket& socket) {
  const auto set = [&](int level, int name, int value) {
    // A failure here means a dead socket: the next read says so.
    (void)::setsockopt(socket.native_handle(), level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kGoneMs);
}

std::string reason_of(const boost::system::error_code& error) {
  return error == boost::asio::error::eof ? "closed by the peer" : error.message();
}

}  // namespace

Connection::Connection(std::shared_ptr<ConnectionOwner> owner, Socket socket, std::optional<crypto::PublicKey> expected)
    : owner_(std::move(owner)),
      socket_(std::move(socket)),
      deadline_(socket_.get_executor()),
      expected_(expected),
      pipe_(owner_->tls().new_connection(!expected.has_value(), expected), !expected.has_value(),
            output_bytes_max(owner_->limits())),
      reader_(owner_->limits().frame_bytes_max),
      received_(std::make_unique_for_overwrite<std::uint8_t[]>(kStrangerReadBytes)),
      received_size_(kStrangerReadBytes) {}

// ---- before kUp

void Connection::start_accepted(const Tcp::endpoint& remote) {
  remote_ = remote;
  start_deadline();
  start_handshake();
}

void Connection::start_dialling(std::vector<Tcp::endpoint> remotes) {
  phase_ = Phase::kConnecting;
  start_deadline();
  const auto shared = std::make_shared<const std::vector<Tcp::endpoint>>(std::move(remotes));
  boost::asio::async_connect(
      socket_, *shared,
      [self = shared_from_this(), shared](const boost::system::error_code& error, const Tcp::endpoint& remote) {
        if (self->phase_ != Phase::kConnecting) return;
        if (error) return self->finish(error.message());
        self->remote_ = remote;
        self->phase_ = Phase::kHandshaking;
        self->start_handshake();
      });
}

void Connection::start_handshake() {
  set_options(socket_);
  if (dialled()) continue_handshake();
  if (phase_ == Phase::kHandshaking) flush();
  start_read();
}

void Connection::start_deadline() {
  const int limit_ms = owner_->limits().handshake_timeout_ms;
  deadline_.expires_after(std::chrono::milliseconds(limit_ms));
  deadline_.async_wait([weak = weak_from_this(), limit_ms](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->phase_ >= Phase::kUp) return;
    const std::string reason = "no handshake within " + std::to_string(limit_ms) + " ms";
    if (self->dialled()) return self->finish(reason);
    self->refuse(Refusal::kUnknownPeer, reason);
  });
}

void Connection::continue_handshake() {
  switch (pipe_.handshake()) {
    case TlsPipe::Status::kDone:
      return on_handshake_done();
    case TlsPipe::Status::kWantsInput:
      return;
    case TlsPipe::Status::kClosed:
    case TlsPipe::Status::kFailed:
      return refuse(Refusal::kUnknownPeer, "handshake failed: " + pipe_.failure());
  }
}

void Connection::on_handshake_done() {
  const std::optional<crypto::Peer> peer = owner_->tls().peer_of(pipe_.connection());
  if (!peer) return refuse(Refusal::kUnknownPeer, "handshake failed: the peer's key is not known here");
  peer_ = *peer;
  received_size_ = kReadBytes;
  phase_ = Phase::kAwaitingWelcome;
  if (dialled()) return;
  Bytes welcome;
  append_empty_frame(welcome);
  if (!pipe_.write(welcome)) return finish(pipe_.failure());
  become_up();
}

void Connection::become_up() {
  deadline_.cancel();
  phase_ = Phase::kUp;
  was_up_ = true;
  owner_->up(*this);
}

// ---- reading

void Connection::start_read() {
  if (phase_ == Phase::kClosing || phase_ == Phase::kClosed) return;
  socket_.async_read_some(boost::asio::buffer(received_.get(), received_size_),
                          [self = shared_from_this()](const boost::system::error_code& error, std::size_t count) {
                            self->on_read(error, count);
                          });
}

void Connection::on_read(const boost::system::error_code& error, std::size_t count) {
  if (phase_ == Phase::kClosing || phase_ == Phase::kClosed) return;
  if (error) return on_lost(reason_of(error));
  const std::size_t size_before = received_size_;
  const ByteView cipher_text(received_.get(), count);
  if (phase_ == Phase::kHandshaking && !admit(cipher_text)) return;
  pipe_.give(cipher_text);
  if (phase_ == Phase::kHandshaking) continue_handshake();
  read_frames();
  if (phase_ == Phase::kClosing || phase_ == Phase::kClosed) return;
  if (!pipe_.output().empty()) flush();
  if (received_size_ != size_before) received_ = std::make_unique_for_overwrite<std::uint8_t[]>(received_size_);
  start_read();
}

bool Connection::admit(ByteView cipher_text) {
  unauthenticated_bytes_ += cipher_text.size();
  Refusal refusal = Refusal::kNone;
  if (!dialled()) refusal = guard_.check(cipher_text);
  if (unauthenticated_bytes_ > kHandshakeBytesMax) refusal = Refusal::kOversize;
  if (refusal == Refusal::kNone) return true;
  refuse(refusal, refusal == Refusal::kOversize ? "longer than a handshake may be" : "not a TLS 1.3 handshake");
  return false;
}

void Connection::read_frames() {
  while (phase_ == Phase::kUp || phase_ == Phase::kAwaitingWelcome) {
    std::size_t count = 0;
    switch (pipe_.read(reader_.space(), count)) {
      case TlsPipe::Status::kWantsInput:
        return;
      case TlsPipe::Status::kClosed:
        return on_lost("closed by the peer");
      case TlsPipe::Status::kFailed:
        if (phase_ == Phase::kAwaitingWelcome) {
          return refuse(Refusal::kUnknownPeer, "the listener does not accept us: " + pipe_.failure());
        }
        return refuse(Refusal::kMalformed, "broken TLS record: " + pipe_.failure());
      case TlsPipe::Status::kDone:
        break;
    }
    if (!accept_frame_so_far(reader_.advance(count))) return;
    if (reader_.has_frame()) deliver_frame();
  }
}

bool Connection::accept_frame_so_far(Refusal refusal) {
  if (refusal == Refusal::kNone) return true;
  if (refusal == Refusal::kOversize) {
    refuse(refusal, "frame of " + std::to_string(reader_.announced_bytes()) + " bytes, the limit is " +
                        std::to_string(owner_->limits().frame_bytes_max));
  } else {
    refuse(refusal, "malformed frame");
  }
  return false;
}

void Connection::deliver_frame() {
  if (phase_ == Phase::kAwaitingWelcome) {
    if (reader_.messages_left() > 0) return refuse(Refusal::kMalformed, "first frame is not a welcome");
    reader_.skip();
    return become_up();
  }
  if (reader_.messages_left() == 0) return refuse(Refusal::kMalformed, "frame without messages");
  while (phase_ == Phase::kUp && reader_.messages_left() > 0) owner_->message(*this, reader_.take());
}

// ---- writing

Sent Connection::send(const SharedBytes& message) {
  ZZ_ASSERT(!message.empty() && message.size() % kMessageAlignment == 0);
  if (phase_ != Phase::kUp) return Sent::kClosed;
  if (LinkFault* fault = owner_->link_fault()) return send_through(*fault, message);
  return enqueue(message);
}

Sent Connection::enqueue(const SharedBytes& message) {
  if (phase_ != Phase::kUp) return Sent::kClosed;
  const std::size_t cost = message.size() + kMessageHeaderBytes;
  const NetLimits& limits = owner_->limits();
  if (cost > limits.frame_bytes_max || cost + queued_bytes() > limits.send_queue_bytes_max) return Sent::kFull;
  queue_.push_back(message);
  queue_bytes_ += cost;
  if (!dirty_ && !writing_) {
    dirty_ = true;
    owner_->wants_flush(*this);
  }
  return Sent::kQueued;
}

Sent Connection::send_through(LinkFault& fault, const SharedBytes& message) {
  const LinkFate fate = fault.decide(peer_);
  if (fate.copies == 0) return Sent::kQueued;
  Sent sent = Sent::kQueued;
  for (std::uint32_t i = 1; i < fate.copies; ++i) sent = enqueue(message);
  if (fate.delay_ms > 0) {
    send_later(message, fate.delay_ms);
  } else if (fate.overtaken && !overtaken_) {
    overtaken_ = message;
    send_later({}, kOvertakeMs);
    return sent;
  } else {
    sent = enqueue(message);
  }
  release_overtaken();
  return sent;
}

// An empty message stands for the one that waits to be overtaken.
void Connection::send_later(const SharedBytes& message, std::uint32_t delay_ms) {
  const auto timer =
      std::make_shared<boost::asio::steady_timer>(socket_.get_executor(), std::chrono::milliseconds(delay_ms));
  timer->async_wait([weak = weak_from_this(), timer, message](const boost::system::error_code&) {
    const auto self = weak.lock();
    if (!self) return;
    if (message.empty()) return self->release_overtaken();
    self->enqueue(message);
  });
}

void Connection::release_overtaken() {
  if (!overtaken_) return;
  const SharedBytes message = *std::exchange(overtaken_, std::nullopt);
  enqueue(message);
}

void Connection::flush() {
  dirty_ = false;
  if (writing_ || phase_ == Phase::kConnecting || phase_ == Phase::kClosed) return;
  for (;;) {
    if (!seal()) return end_later(pipe_.failure());
    if (pipe_.output().empty() || !write_some()) return;
  }
}

// Moves queued messages into frames and these through TLS, about one write's worth. False when TLS is broken.
bool Connection::seal() {
  if (queue_head_ == queue_.size() || pipe_.output().size() > kSmallOutputBytes) return true;
  const std::size_t frame_max = owner_->limits().frame_bytes_max;
  Bytes& frames = owner_->scratch();
  while (queue_head_ < queue_.size() && frames.size() < kWriteBytes / 2) {
    const std::span waiting = std::span<const SharedBytes>(queue_).subspan(queue_head_);
    std::size_t count = append_frame(waiting, std::min(frame_max, kWriteBytes / 2), frames);
    if (count == 0) count = append_frame(waiting.first(1), frame_max, frames);
    ZZ_ASSERT(count > 0);
    for (; count > 0; --count) {
      queue_bytes_ -= queue_[queue_head_].size() + kMessageHeaderBytes;
      queue_[queue_head_++] = SharedBytes();  // its memory is free as soon as it is sealed
    }
  }
  if (queue_head_ == queue_.size() || queue_head_ >= kQueueSlackMax) {
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(queue_head_));
    queue_head_ = 0;
  }
  const bool written = pipe_.write(frames);
  frames.clear();
  if (frames.capacity() > 4 * kWriteBytes) Bytes().swap(frames);
  return written;
}

// One write. False when the socket is full (the rest follows when it is not) or broken.
bool Connection::write_some() {
  const ByteView output = pipe_.output();
  ssize_t count = 0;
  do {
    count = ::send(socket_.native_handle(), output.data(), output.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  if (count >= 0) {
    pipe_.sent(static_cast<std::size_t>(count));
    return true;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    wait_until_writable();
  } else {
    end_later(std::generic_category().message(errno));
  }
  return false;
}

void Connection::wait_until_writable() {
  writing_ = true;
  socket_.async_wait(Socket::wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
    self->writing_ = false;
    if (error || self->phase_ == Phase::kClosed) return;
    self->flush();
  });
}

// ---- the end

void Connection::on_lost(const std::string& reason) {
  if (phase_ == Phase::kHandshaking && !dialled()) {
    return refuse(Refusal::kUnknownPeer, "gone before the handshake was over: " + reason);
  }
  finish(reason);
}

void Connection::refuse(Refusal reason, const std::string& detail) {
  if (phase_ == Phase::kClosed) return;
  const auto self = shared_from_this();
  owner_->refused(reason, who(), detail);
  finish(detail);
}

void Connection::end_later(std::string reason) {
  if (phase_ == Phase::kClosing || phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosing;
  end_reason_ = std::move(reason);
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->finish(self->end_reason_); });
}

void Connection::finish(const std::string& reason) {
  if (phase_ == Phase::kClosed) return;
  const auto self = shared_from_this();
  const std::string kept = reason;  // may be a member of ours
  shut_socket();
  owner_->over(*this, kept);
}

void Connection::abandon() {
  if (phase_ != Phase::kClosed) shut_socket();
}

// What was queued before close(), and the goodbye or the alert, leave if the socket takes them at once.
void Connection::shut_socket() {
  const bool connected = phase_ != Phase::kConnecting;
  phase_ = Phase::kClosed;
  const auto take = [this] {
    const ByteView output = pipe_.output();
    const ssize_t count = ::send(socket_.native_handle(), output.data(), output.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) pipe_.sent(static_cast<std::size_t>(count));
    return count > 0;
  };
  if (connected && !writing_) {
    bool open = true;
    while (open && seal() && !pipe_.output().empty()) open = take();
    if (open && was_up_) {
      pipe_.shut();
      if (!pipe_.output().empty()) (void)take();
    }
  }
  boost::system::error_code ignored;
  deadline_.cancel();
  socket_.close(ignored);
  queue_.clear();
  queue_head_ = 0;
  queue_bytes_ = 0;
  overtaken_.reset();
}

std::string Connection::who() const {
  if (phase_ == Phase::kAwaitingWelcome || was_up_) return to_string(peer_);
  std::ostringstream text;
  text << remote_;
  return text.str();
}

}  // namespace zz::net
