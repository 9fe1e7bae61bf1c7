#include "execution/http_adapter.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/verb.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <optional>
#include <utility>
#include <variant>

#include "base/assert.hpp"
#include "execution/http_canonical.hpp"
#include "execution/initial_state.hpp"
#include "execution/service_process.hpp"

namespace zz::execution {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kInterimMax = 8;  // 1xx responses before the final one
constexpr milliseconds kProbeMin{2};
constexpr milliseconds kProbeMax{50};
// The same on every replica, whatever happened in detail.
constexpr std::string_view kNoAnswer = "the service did not answer this request";
constexpr std::string_view kNotInTime = "the service did not answer this request in time";
constexpr std::string_view kTooLong = "the service's reply is longer than a reply may be";

}  // namespace

class HttpAdapter::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::io_context& loop, HttpAdapterConfig config, Died died)
      : loop_(loop), config_(std::move(config)), died_(std::move(died)) {}

  void start(Started done) {
    ZZ_ASSERT(!started_);
    started_ = true;
    asio::co_spawn(loop_, run_start(shared_from_this(), std::move(done)), asio::detached);
  }

  void execute(const Invocation& invocation, Reply done) {
    ZZ_ASSERT(!busy_ && rules_.has_value());
    auto admitted = rules_->admit(invocation.op.view());
    if (auto* refused = std::get_if<Bytes>(&admitted)) return done(SharedBytes(std::move(*refused)));
    if (!alive()) return done(SharedBytes(http_error_reply(502, kNoAnswer)));
    busy_ = true;
    asio::co_spawn(loop_, run_request(shared_from_this(), std::get<HttpRequest>(std::move(admitted)), std::move(done)),
                   asio::detached);
  }

  void stop() {
    stopped_ = true;
    if (stream_) stream_->close();  // not destroyed: a coroutine may be waiting on it
    process_.reset();
    reservation_.reset();
  }

  [[nodiscard]] std::uint16_t port() const { return reservation_ ? reservation_->port() : std::uint16_t{0}; }
  [[nodiscard]] pid_t service_pid() const { return alive() ? process_->pid() : -1; }

 private:
  using Self = std::shared_ptr<Core>;

  [[nodiscard]] bool alive() const { return process_ && process_->running(); }
  [[nodiscard]] std::string log_path() const { return config_.work_dir + "/service.log"; }
  [[nodiscard]] asio::ip::tcp::endpoint endpoint() const { return {asio::ip::address_v4::loopback(), port()}; }

  // Copies of the arguments live in the coroutine; the core lives as long as it runs.
  static asio::awaitable<void> run_start(Self self, Started done) {
    const Result<void> result = co_await self->bring_up();
    if (self->stopped_) co_return;
    if (!result) self->process_.reset();
    done(result.ok() ? Result<void>() : Error{"service \"" + self->config_.name + "\": " + result.error()});
  }

  static asio::awaitable<void> run_request(Self self, HttpRequest request, Reply done) {
    Bytes reply = co_await self->exchange(std::move(request));
    self->busy_ = false;
    if (!self->stopped_) done(SharedBytes(std::move(reply)));
  }

  asio::awaitable<Result<void>> bring_up() {
    auto rules = HttpRules::make(config_.http, config_.reply_bytes_max);
    if (!rules) co_return Error{rules.error()};
    rules_.emplace(std::move(*rules));
    if (auto copied = copy_initial_state(config_.initial_state, config_.work_dir + "/state"); !copied) co_return copied;
    const auto deadline = Clock::now() + milliseconds(config_.http.start_timeout_ms);
    Result<void> up = co_await launch(deadline, true);
    // Some servers cannot listen on a port that is held for them.
    if (!up.ok() && !stopped_ && last_line_of(log_path()).find("in use") != std::string::npos)
      up = co_await launch(deadline, false);
    co_return up;
  }

  asio::awaitable<Result<void>> launch(Clock::time_point deadline, bool hold_port) {
    auto reservation = PortReservation::make();
    if (!reservation) co_return Error{reservation.error()};
    reservation_ = std::move(*reservation);
    if (!hold_port) reservation_->release();
    ended_.clear();
    auto process = ServiceProcess::start(loop_, service_command(), [this](const std::string& why) { ended(why); });
    if (!process) co_return Error{process.error()};
    process_ = std::move(*process);
    co_return co_await until_accepting(deadline);
  }

  [[nodiscard]] ServiceCommand service_command() const {
    return {config_.command, config_.work_dir, config_.work_dir + "/state", log_path(), port()};
  }

  // Only called while process_ lives, which this owns.
  void ended(const std::string& why) {
    ended_ = why;
    if (up_ && died_) std::exchange(died_, nullptr)("service \"" + config_.name + "\" " + with_log(why));
  }

  [[nodiscard]] std::string with_log(const std::string& text) const {
    const std::string line = last_line_of(log_path());
    return line.empty() ? text : text + "; its log ends: " + line;
  }

  asio::awaitable<Result<void>> until_accepting(Clock::time_point deadline) {
    asio::steady_timer timer(loop_);
    for (milliseconds pause = kProbeMin;; pause = std::min(pause * 2, kProbeMax)) {
      beast::tcp_stream probe(loop_);
      beast::error_code error;
      probe.expires_at(deadline);
      co_await probe.async_connect(endpoint(), asio::redirect_error(asio::use_awaitable, error));
      if (stopped_) co_return Error{"stopped"};
      if (!alive())
        co_return Error{with_log("\"" + config_.command[0] + "\" " + ended_ + " before it listened on $PORT")};
      if (!error) break;
      if (Clock::now() >= deadline) {
        co_return Error{with_log("\"" + config_.command[0] +
                                 "\" did not listen on $PORT (127.0.0.1:" + std::to_string(port()) + ") within " +
                                 std::to_string(config_.http.start_timeout_ms) + " ms")};
      }
      timer.expires_after(pause);
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
    }
    up_ = true;
    co_return Result<void>();
  }

  // A connection nobody has written this request to; false when there is none to be had.
  asio::awaitable<bool> connect() {
    if (stream_ && Clock::now() - used_ < milliseconds(kServiceIdleMs) && !closed_by_service()) co_return true;
    stream_.emplace(loop_);
    beast::error_code error;
    stream_->expires_after(milliseconds(config_.http.request_timeout_ms));
    co_await stream_->async_connect(endpoint(), asio::redirect_error(asio::use_awaitable, error));
    if (stopped_ || error) co_return false;
    stream_->socket().set_option(asio::ip::tcp::no_delay(true), error);
    co_return true;
  }

  // An idle connection has nothing to read, unless it was closed (or the service is out of step with its replies).
  [[nodiscard]] bool closed_by_service() {
    char byte = 0;
    const ssize_t got = recv(stream_->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  asio::awaitable<Bytes> exchange(HttpRequest request) {
    if (!co_await connect()) {
      drop_connection();
      co_return http_error_reply(502, kNoAnswer);
    }
    HttpRules::Asked asked{request.method() == http::verb::head, port()};
    beast::error_code error;
    stream_->expires_after(milliseconds(config_.http.request_timeout_ms));
    co_await http::async_write(*stream_, request, asio::redirect_error(asio::use_awaitable, error));
    // A service may answer and close before it has read everything: the answer counts.
    const bool sent = !error;
    std::optional<HttpResponse> response;
    if (!stopped_ && error != beast::error::timeout) response = co_await read_response(asked.head, error);
    if (stopped_) co_return Bytes();
    used_ = Clock::now();
    if (!response || !sent || !response->keep_alive()) drop_connection();
    if (response) co_return rules_->reply(*response, asked);
    if (error == beast::error::timeout) co_return http_error_reply(504, kNotInTime);
    co_return http_error_reply(502, error == http::error::body_limit ? kTooLong : kNoAnswer);
  }

  asio::awaitable<std::optional<HttpResponse>> read_response(bool head, beast::error_code& error) {
    beast::flat_buffer buffer;
    for (int i = 0; i < kInterimMax; ++i) {
      http::response_parser<http::string_body> parser;
      parser.header_limit(static_cast<std::uint32_t>(kHttpHeaderBytesMax));
      parser.body_limit(config_.reply_bytes_max);
      parser.skip(head);
      co_await http::async_read(*stream_, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
      if (stopped_ || error) co_return std::nullopt;
      if (parser.get().result_int() >= 200) {
        // Bytes behind the reply belong to no request: do not read them as the next one's.
        if (buffer.size() > 0) parser.get().keep_alive(false);
        co_return parser.release();
      }
    }
    error = http::error::bad_status;
    co_return std::nullopt;
  }

  void drop_connection() {
    if (stream_) stream_->close();
    stream_.reset();
  }

  asio::io_context& loop_;
  HttpAdapterConfig config_;
  Died died_;
  std::optional<HttpRules> rules_;
  std::optional<PortReservation> reservation_;
  std::unique_ptr<ServiceProcess> process_;
  std::string ended_;  // how the process ended
  std::optional<beast::tcp_stream> stream_;
  Clock::time_point used_{};
  bool started_ = false;
  bool up_ = false;
  bool busy_ = false;
  bool stopped_ = false;
};

HttpAdapter::HttpAdapter(asio::io_context& loop, HttpAdapterConfig config, Died died)
    : core_(std::make_shared<Core>(loop, std::move(config), std::move(died))) {}
HttpAdapter::~HttpAdapter() { core_->stop(); }
void HttpAdapter::start(Started done) { core_->start(std::move(done)); }
void HttpAdapter::execute(const Invocation& invocation, Reply done) { core_->execute(invocation, std::move(done)); }
std::uint16_t HttpAdapter::port() const { return core_->port(); }
pid_t HttpAdapter::service_pid() const { return core_->service_pid(); }

SharedBytes http_session_expired_reply() {
  return SharedBytes(http_error_reply(503, "the session of this request has expired; the request was not run"));
}

}  // namespace zz::execution
