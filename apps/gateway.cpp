#include "apps/gateway.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <vector>

#include "apps/gateway_session.hpp"

namespace zz::apps {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr int kAcceptRetryMs = 100;  // out of descriptors: wait for some to come back

}  // namespace

struct Gateway::State : std::enable_shared_from_this<Gateway::State> {
  State(asio::io_context& io, crypto::Address where)
      : loop(io), acceptor(io), retry(io), address(std::move(where)), shared(std::make_shared<GatewayShared>()) {}

  void accept() {
    acceptor.async_accept([self = shared_from_this()](boost::system::error_code error, tcp::socket socket) {
      if (self->shared->stopped) return;
      if (error) return self->accept_later(error);
      self->start(std::move(socket));
      self->accept();
    });
  }

  void accept_later(const boost::system::error_code& error) {
    spdlog::warn("gateway: cannot accept a connection: {}", error.message());
    retry.expires_after(std::chrono::milliseconds(kAcceptRetryMs));
    retry.async_wait([self = shared_from_this()](boost::system::error_code) {
      if (!self->shared->stopped) self->accept();
    });
  }

  void start(tcp::socket socket) {
    ++shared->stats.connections;
    const bool full = shared->stats.open >= shared->limits.gateway_connections_max;
    if (full) ++shared->stats.turned_away;
    if (full && turning_away >= kTurnedAwayMax) return;  // closes it
    auto session = std::make_shared<GatewaySession>(std::move(socket), shared);
    ++(full ? turning_away : shared->stats.open);
    auto& served = *session;
    asio::co_spawn(loop, full ? served.turn_away() : served.serve(),
                   [self = shared_from_this(), session = std::move(session), full](const std::exception_ptr& failure) {
                     --(full ? self->turning_away : self->shared->stats.open);
                     if (failure) report(failure);
                   });
  }

  static void report(const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      spdlog::error("gateway: a connection ended by a fault of the gateway: {}", e.what());
    }
  }

  asio::io_context& loop;
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  crypto::Address address;
  std::shared_ptr<GatewayShared> shared;
  std::uint64_t turning_away = 0;
};

Gateway::Gateway(asio::io_context& loop, const crypto::ClusterFile& cluster, const crypto::ServiceEntry& service,
                 Submit submit, GatewayOptions options)
    : state_(std::make_shared<State>(loop, service.gateway)) {
  state_->shared->limits = cluster.limits;
  state_->shared->options = options;
  state_->shared->submit = std::move(submit);
}

Gateway::~Gateway() { stop(); }

Result<void> Gateway::listen() {
  boost::system::error_code error;
  const std::string name = fmt::format("{}:{}", state_->address.host, state_->address.port);
  const asio::ip::address host = asio::ip::make_address(state_->address.host, error);
  if (error) return Error{fmt::format("gateway address {}: not an IP address", name)};
  const tcp::endpoint endpoint(host, state_->address.port);
  state_->acceptor.open(endpoint.protocol(), error);
  if (!error) state_->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) state_->acceptor.bind(endpoint, error);
  if (!error) state_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error == asio::error::address_in_use) {
    return Error{
        fmt::format("gateway address {}: port in use (end the other program, or change `gateway` in "
                    "cluster.toml)",
                    name)};
  }
  if (error) return Error{fmt::format("gateway address {}: cannot listen: {}", name, error.message())};
  state_->accept();
  return {};
}

std::uint16_t Gateway::port() const {
  boost::system::error_code error;
  const tcp::endpoint endpoint = state_->acceptor.local_endpoint(error);
  return error ? std::uint16_t{0} : endpoint.port();
}

void Gateway::stop() {
  if (state_->shared->stopped) return;
  state_->shared->stopped = true;
  boost::system::error_code ignored;
  state_->acceptor.close(ignored);
  state_->retry.cancel();
  for (GatewaySession* session : state_->shared->sessions) session->abort();
  state_->shared->submit = nullptr;
}

const GatewayStats& Gateway::stats() const { return state_->shared->stats; }

}  // namespace zz::apps
