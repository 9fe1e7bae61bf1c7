#pragma once

// GatewaySession: one HTTP connection of the gateway, as a coroutine on the loop's thread. The gateway's
// shared part (GatewayShared) is kept alive by every session. Internal to gateway.cpp and gateway_session.cpp.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>

#include "apps/gateway.hpp"
#include "apps/gateway_http.hpp"

namespace zz::apps {

class GatewaySession;

// What the sessions of one gateway share. Sessions register themselves while they live.
struct GatewayShared {
  crypto::Limits limits;
  GatewayOptions options;
  Submit submit;
  GatewayStats stats;
  bool stopped = false;
  std::set<GatewaySession*> sessions;  // for stop(): order does not matter
};

class GatewaySession : public std::enable_shared_from_this<GatewaySession> {
 public:
  GatewaySession(boost::asio::ip::tcp::socket socket, std::shared_ptr<GatewayShared> shared);
  ~GatewaySession();
  GatewaySession(const GatewaySession&) = delete;
  GatewaySession& operator=(const GatewaySession&) = delete;

  // Serves the connection until it ends. The caller keeps `this` alive meanwhile.
  boost::asio::awaitable<void> serve();
  // Says 503 and closes: one connection too many.
  boost::asio::awaitable<void> turn_away();
  // Ends the connection now.
  void abort();

 private:
  using Clock = std::chrono::steady_clock;
  enum class Got { kData, kEnd, kTimeout };

  // The steps of one request; nothing or false means that the connection is over.
  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<std::optional<RequestHead>> read_head();
  boost::asio::awaitable<std::optional<std::string>> read_body(const RequestHead& head);
  // The voted reply, or why there is none.
  boost::asio::awaitable<std::variant<SharedBytes, HttpRefusal>> order(SharedBytes op);
  boost::asio::awaitable<bool> forward(const SharedBytes& reply, const ReplyShape& shape);

  boost::asio::awaitable<Got> read_some(Clock::time_point deadline);
  boost::asio::awaitable<bool> write(std::string_view head, ByteView body);
  // Sends an answer of the gateway's own; the connection is over after it.
  boost::asio::awaitable<void> refuse(const HttpRefusal& refusal, bool head_request);
  boost::asio::awaitable<void> linger();

  [[nodiscard]] std::string_view received() const;
  [[nodiscard]] Clock::time_point slow_deadline(Clock::time_point start, std::size_t bytes) const;

  // The operation that is begun next is cancelled at `deadline`. Usually touches no timer: one that is set
  // already looks again when it is over.
  void set_deadline(Clock::time_point deadline);
  void watch(Clock::time_point until);
  // Ends the deadline; true when it has passed and cancelled the operation.
  bool take_expired();

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer watchdog_;
  boost::asio::steady_timer answer_timer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point watched_until_ = Clock::time_point::max();  // max: the watchdog is not set
  bool expired_ = false;
  boost::beast::flat_buffer buffer_;
  std::optional<client::Answer> answer_;
  std::uint64_t question_ = 0;  // an answer to an earlier one is not taken
  std::shared_ptr<GatewayShared> shared_;
};

}  // namespace zz::apps
