#include <sodium.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstring>
#include <list>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/prng.hpp"
#include "net/channel.hpp"
#include "net/connection.hpp"
#include "net/link_fault.hpp"

namespace zz::net {
namespace {

using Tcp = boost::asio::ip::tcp;
using Socket = Connection::Socket;
using Acceptor = boost::asio::basic_socket_acceptor<Tcp, boost::asio::io_context::executor_type>;
using ErrorCode = boost::system::error_code;

// A channel that lived this long was a good one: the next dial starts at the least back-off again.
constexpr std::chrono::milliseconds kGoodChannelAge{1'000};
// Accepting goes on after this pause when the process has no file descriptor or memory left for a connection.
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr unsigned kBackoffDoublingsMax = 16;

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  randombytes_buf(&seed, sizeof seed);
  return seed;
}

Result<Tcp::endpoint> listening_endpoint(boost::asio::io_context& loop, const crypto::Address& address) {
  ErrorCode error;
  const auto literal = boost::asio::ip::make_address(address.host, error);
  if (!error) return Tcp::endpoint(literal, address.port);
  Tcp::resolver resolver(loop);
  const auto found = resolver.resolve(address.host, std::to_string(address.port), Tcp::resolver::passive, error);
  if (error || found.empty()) {
    return Error{"cannot listen on " + to_string(address) + ": the host name is not known (" + error.message() + ")"};
  }
  return found.begin()->endpoint();
}

// A peer that is kept connected. Shared only with the operations under way for it.
struct Dial {
  Dial(boost::asio::io_context& loop, crypto::Address to, const crypto::PublicKey& its_key)
      : address(std::move(to)), key(its_key), retry(loop), resolver(loop) {}

  crypto::Address address;
  crypto::PublicKey key;
  unsigned failures = 0;  // in a row
  std::chrono::steady_clock::time_point up_since;
  boost::asio::steady_timer retry;
  Tcp::resolver resolver;
  std::weak_ptr<Connection> connection;
  bool hung_up = false;
};

}  // namespace

// Everything of a Network; outlives it as long as an operation is under way. `handler` is null once the
// Network is gone, and is asked for after every call into it, because the call may have destroyed the
// Network.
struct Network::State final : ConnectionOwner, std::enable_shared_from_this<State> {
  State(boost::asio::io_context& io, crypto::TlsContext context, NetLimits its_limits, Handler& its_handler)
      : loop(io),
        tls_context(std::move(context)),
        limit(its_limits),
        handler(&its_handler),
        acceptor(io),
        accept_retry(io) {}

  boost::asio::io_context& loop;
  crypto::TlsContext tls_context;
  NetLimits limit;
  Handler* handler;
  Acceptor acceptor;
  boost::asio::steady_timer accept_retry;
  Prng prng{random_seed()};
  std::shared_ptr<LinkFault> fault;
  Bytes frames;

  std::set<std::shared_ptr<Connection>> connections;  // all that are not over
  std::list<Connection*> strangers;                   // accepted, not yet authenticated, oldest first
  std::size_t accepted = 0;                           // in `connections`
  std::map<crypto::Peer, Connection*> channels;       // up
  std::map<crypto::PublicKey, std::shared_ptr<Dial>> dials;
  std::vector<std::shared_ptr<Connection>> dirty;
  bool flush_posted = false;

  // ConnectionOwner
  [[nodiscard]] const crypto::TlsContext& tls() const override { return tls_context; }
  [[nodiscard]] const NetLimits& limits() const override { return limit; }
  [[nodiscard]] LinkFault* link_fault() const override { return fault.get(); }
  [[nodiscard]] Bytes& scratch() override { return frames; }
  void up(Connection& connection) override;
  void message(Connection& connection, const SharedBytes& message) override {
    if (handler != nullptr) handler->on_message(connection, message);
  }
  void refused(Refusal reason, std::string_view who, std::string_view detail) override {
    if (handler != nullptr) handler->on_refused(reason, who, detail);
  }
  void wants_flush(Connection& connection) override;
  void over(Connection& connection, std::string_view reason) override;

  Result<void> listen(const crypto::Address& address);
  void accept();
  void accept_later(const ErrorCode& why);
  void on_accepted(Socket socket, const Tcp::endpoint& remote);
  void dial(const crypto::Address& address, const crypto::PublicKey& key);
  void connect(const std::shared_ptr<Dial>& dial);
  void connect_to(Dial& dial, std::vector<Tcp::endpoint> endpoints);
  void retry_later(const std::shared_ptr<Dial>& dial);
  void hang_up(const crypto::PublicKey& key);
  void flush();
  void shut_down();
};

// ---- what connections report

void Network::State::up(Connection& connection) {
  const auto self = shared_from_this();
  if (handler == nullptr) return;
  strangers.remove(&connection);
  if (connection.dialled()) {
    if (const auto found = dials.find(*connection.expected()); found != dials.end()) {
      found->second->up_since = std::chrono::steady_clock::now();
    }
  }
  if (const auto older = channels.find(connection.peer()); older != channels.end()) {
    older->second->finish("replaced by a newer channel of the same peer");
  }
  if (handler == nullptr || connection.phase() != Connection::Phase::kUp) return;
  channels[connection.peer()] = &connection;
  handler->on_up(connection);
}

void Network::State::wants_flush(Connection& connection) {
  dirty.push_back(connection.shared_from_this());
  if (flush_posted) return;
  flush_posted = true;
  boost::asio::post(loop, [self = shared_from_this()] {
    self->flush_posted = false;
    self->flush();
  });
}

void Network::State::over(Connection& connection, std::string_view reason) {
  const auto self = shared_from_this();
  const auto kept = connection.shared_from_this();
  connections.erase(kept);
  if (!connection.dialled()) {
    --accepted;
    strangers.remove(&connection);
  }
  bool announced = false;
  if (const auto found = channels.find(connection.peer()); found != channels.end() && found->second == &connection) {
    channels.erase(found);
    announced = true;
  }
  if (connection.dialled()) {
    const auto found = dials.find(*connection.expected());
    if (found != dials.end() && found->second->connection.lock() == kept) retry_later(found->second);
  }
  if (announced && handler != nullptr) handler->on_down(connection, reason);
}

// ---- accepting

Result<void> Network::State::listen(const crypto::Address& address) {
  const Result<Tcp::endpoint> endpoint = listening_endpoint(loop, address);
  if (!endpoint) return Error{endpoint.error()};
  if (acceptor.is_open()) return Error{"cannot listen on " + to_string(address) + ": already listening elsewhere"};
  ErrorCode error;
  acceptor.open(endpoint->protocol(), error);
  if (!error) acceptor.set_option(Acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(*endpoint, error);
  if (!error) acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  if (error) {
    ErrorCode ignored;
    acceptor.close(ignored);
    std::string what = error.message();
    if (error == boost::asio::error::address_in_use) {
      what = "port in use; stop the process that listens there or choose another port";
    } else if (error == boost::asio::error::access_denied) {
      what = "not permitted; choose a port above 1023";
    } else if (error == boost::system::errc::address_not_available) {
      what = "this machine does not have that address";
    }
    return Error{"cannot listen on " + to_string(address) + ": " + what};
  }
  accept();
  return {};
}

void Network::State::accept() {
  acceptor.async_accept([self = shared_from_this()](const ErrorCode& error, Socket socket) {
    if (self->handler == nullptr || error == boost::asio::error::operation_aborted) return;
    if (error && error != boost::asio::error::connection_aborted) return self->accept_later(error);
    ErrorCode gone;
    const Tcp::endpoint remote = socket.remote_endpoint(gone);
    if (!error && !gone) self->on_accepted(std::move(socket), remote);
    if (self->handler != nullptr) self->accept();
  });
}

void Network::State::accept_later(const ErrorCode& why) {
  accept_retry.expires_after(kAcceptPause);
  accept_retry.async_wait([self = shared_from_this()](const ErrorCode& cancelled) {
    if (!cancelled && self->handler != nullptr) self->accept();
  });
  refused(Refusal::kQuota, "new connections", why.message());
}

void Network::State::on_accepted(Socket socket, const Tcp::endpoint& remote) {
  if (accepted >= limit.connections_max || strangers.size() >= limit.handshakes_max) {
    if (strangers.empty()) {
      const std::string who = remote.address().to_string() + ":" + std::to_string(remote.port());
      return refused(Refusal::kQuota, who, "too many connections");
    }
    // The newcomer may be a peer; who has had time for a handshake and did not finish it, less likely.
    const auto oldest = strangers.front()->shared_from_this();
    oldest->refuse(Refusal::kQuota, "too many connections, and this one was not authenticated yet");
    if (handler == nullptr) return;
  }
  const auto connection = std::make_shared<Connection>(shared_from_this(), std::move(socket), std::nullopt);
  connections.insert(connection);
  strangers.push_back(connection.get());
  ++accepted;
  connection->start_accepted(remote);
}

// ---- dialling

void Network::State::dial(const crypto::Address& address, const crypto::PublicKey& key) {
  if (const auto found = dials.find(key); found != dials.end()) {
    if (found->second->address == address) return;
    hang_up(key);
  }
  const auto dial = std::make_shared<Dial>(loop, address, key);
  dials.emplace(key, dial);
  connect(dial);
}

void Network::State::connect(const std::shared_ptr<Dial>& dial) {
  ErrorCode error;
  const auto literal = boost::asio::ip::make_address(dial->address.host, error);
  if (!error) return connect_to(*dial, {Tcp::endpoint(literal, dial->address.port)});
  dial->resolver.async_resolve(dial->address.host, std::to_string(dial->address.port),
                               [self = shared_from_this(), dial](const ErrorCode& failed, const auto& found) {
                                 if (dial->hung_up) return;
                                 if (failed || found.empty()) return self->retry_later(dial);
                                 std::vector<Tcp::endpoint> endpoints;
                                 for (const auto& entry : found) endpoints.push_back(entry.endpoint());
                                 self->connect_to(*dial, std::move(endpoints));
                               });
}

void Network::State::connect_to(Dial& dial, std::vector<Tcp::endpoint> endpoints) {
  const auto connection = std::make_shared<Connection>(shared_from_this(), Socket(loop), dial.key);
  dial.connection = connection;
  dial.up_since = {};
  connections.insert(connection);
  connection->start_dialling(std::move(endpoints));
}

// Exponential back-off; the upper half of the pause is random, so that peers of a restarted node spread out.
void Network::State::retry_later(const std::shared_ptr<Dial>& dial) {
  const auto now = std::chrono::steady_clock::now();
  if (dial->up_since != std::chrono::steady_clock::time_point{} && now - dial->up_since >= kGoodChannelAge)
    dial->failures = 0;
  dial->connection.reset();
  const auto least = static_cast<std::uint64_t>(std::max(limit.backoff_min_ms, 1));
  const auto most = std::max(least, static_cast<std::uint64_t>(std::max(limit.backoff_max_ms, 1)));
  const std::uint64_t pause = std::min(most, least << std::min(dial->failures, kBackoffDoublingsMax));
  if (dial->failures < kBackoffDoublingsMax) ++dial->failures;
  dial->retry.expires_after(std::chrono::milliseconds(pause - prng.below(pause / 2 + 1)));
  dial->retry.async_wait([self = shared_from_this(), dial](const ErrorCode& cancelled) {
    if (!cancelled && !dial->hung_up) self->connect(dial);
  });
}

void Network::State::hang_up(const crypto::PublicKey& key) {
  const auto found = dials.find(key);
  if (found == dials.end()) return;
  const std::shared_ptr<Dial> dial = found->second;
  dials.erase(found);
  dial->hung_up = true;
  dial->retry.cancel();
  dial->resolver.cancel();
  if (const auto connection = dial->connection.lock()) connection->close("hung up");
}

// ---- the rest

void Network::State::flush() {
  // A flush calls nobody who could send, so nothing becomes dirty meanwhile.
  for (const auto& connection : dirty) connection->flush();
  dirty.clear();
}

void Network::State::shut_down() {
  handler = nullptr;
  ErrorCode ignored;
  acceptor.close(ignored);
  accept_retry.cancel();
  for (const auto& [key, dial] : dials) {
    dial->hung_up = true;
    dial->retry.cancel();
    dial->resolver.cancel();
  }
  dials.clear();
  channels.clear();
  strangers.clear();
  dirty.clear();
  for (const auto& connection : std::exchange(connections, {})) connection->abandon();
}

Network::Network(boost::asio::io_context& loop, crypto::TlsContext tls, NetLimits limits, Handler& handler)
    : state_(std::make_shared<State>(loop, std::move(tls), limits, handler)) {}

Network::~Network() { state_->shut_down(); }

Result<void> Network::listen(const crypto::Address& address) { return state_->listen(address); }

std::uint16_t Network::listening_port() const {
  ErrorCode error;
  const Tcp::endpoint local = state_->acceptor.local_endpoint(error);
  return error ? std::uint16_t{0} : local.port();
}

void Network::dial(const crypto::Address& address, const crypto::PublicKey& key) { state_->dial(address, key); }

void Network::hang_up(const crypto::PublicKey& key) { state_->hang_up(key); }

Channel* Network::find(const crypto::Peer& peer) {
  const auto found = state_->channels.find(peer);
  if (found == state_->channels.end() || found->second->phase() != Connection::Phase::kUp) return nullptr;
  return found->second;
}

void Network::close_if(const std::function<bool(const crypto::Peer&)>& doomed, std::string_view reason) {
  for (const auto& [peer, connection] : state_->channels) {
    if (doomed(peer)) connection->close(reason);
  }
}

void Network::flush() { state_->flush(); }

void Network::set_link_fault(std::shared_ptr<LinkFault> fault) { state_->fault = std::move(fault); }

}  // namespace zz::net
