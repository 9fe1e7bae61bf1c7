#include "apps/gateway_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "apps/gateway_body.hpp"
#include "execution/http_canonical.hpp"

namespace zz::apps {

// What is awaited here is given a name first: g++ 12 may destroy a temporary with a destructor twice when it is part
// of a co_await expression.

namespace asio = boost::asio;
using asio::awaitable;
using std::chrono::milliseconds;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

execution::HttpRequest to_request(const RequestHead& head, std::string body) {
  execution::HttpRequest request;
  request.version(11);
  request.method_string(head.method);
  request.target(head.target);
  for (const auto& [name, value] : head.headers) request.insert(name, value);
  request.body() = std::move(body);
  return request;
}

HeaderList headers_of(const execution::HttpResponse& response) {
  HeaderList headers;
  for (const auto& field : response) headers.emplace_back(field.name_string(), field.value());
  return headers;
}

}  // namespace

GatewaySession::GatewaySession(asio::ip::tcp::socket socket, std::shared_ptr<GatewayShared> shared)
    : socket_(std::move(socket)),
      watchdog_(socket_.get_executor()),
      answer_timer_(socket_.get_executor()),
      buffer_(std::min<std::size_t>(shared->limits.gateway_header_bytes_max, kHeaderBytesCeiling) + kReadBytes),
      shared_(std::move(shared)) {
  shared_->sessions.insert(this);
}

GatewaySession::~GatewaySession() { shared_->sessions.erase(this); }

void GatewaySession::abort() {
  boost::system::error_code ignored;
  socket_.close(ignored);
  answer_timer_.cancel();
  watchdog_.cancel();
}

void GatewaySession::set_deadline(Clock::time_point deadline) {
  deadline_ = deadline;
  if (deadline < watched_until_) watch(deadline);
}

void GatewaySession::watch(Clock::time_point until) {
  watched_until_ = until;
  watchdog_.expires_at(until);
  watchdog_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!self || error) return;
    self->watched_until_ = Clock::time_point::max();
    if (self->deadline_ == Clock::time_point::max()) return;
    if (Clock::now() < self->deadline_) return self->watch(self->deadline_);
    self->expired_ = true;
    boost::system::error_code ignored;
    self->socket_.cancel(ignored);
  });
}

bool GatewaySession::take_expired() {
  deadline_ = Clock::time_point::max();
  return std::exchange(expired_, false);
}

std::string_view GatewaySession::received() const {
  const auto data = buffer_.cdata();
  return {static_cast<const char*>(data.data()), data.size()};
}

// A transfer is over when nothing moves for the idle time, and when it is slower than the minimal rate for longer.
GatewaySession::Clock::time_point GatewaySession::slow_deadline(Clock::time_point start, std::size_t bytes) const {
  const milliseconds idle(shared_->limits.gateway_idle_ms);
  return std::min(Clock::now(), start + milliseconds(bytes * 1'000 / kBytesPerSecondMin)) + idle;
}

awaitable<void> GatewaySession::serve() {
  boost::system::error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  while (!shared_->stopped && co_await serve_one()) {
    if (buffer_.size() == 0) buffer_.shrink_to_fit();  // an idle connection holds no buffer
  }
  socket_.close(ignored);
}

awaitable<void> GatewaySession::turn_away() {
  const HttpRefusal full{503, "too many connections, try again later"};
  co_await refuse(full, false);
}

awaitable<bool> GatewaySession::serve_one() {
  const std::optional<RequestHead> head = co_await read_head();
  if (!head) co_return false;
  std::optional<std::string> body = co_await read_body(*head);
  if (!body || shared_->stopped) co_return false;
  auto op = execution::make_http_operation(to_request(*head, std::move(*body)), shared_->limits.op_bytes_max);
  if (!op) {
    const HttpRefusal too_long{413, op.error()};
    co_await refuse(too_long, head->is_head());
    co_return false;
  }
  SharedBytes bytes(std::move(op).value());
  const auto outcome = co_await order(std::move(bytes));
  if (shared_->stopped) co_return false;
  if (const auto* none = std::get_if<HttpRefusal>(&outcome)) {
    co_await refuse(*none, head->is_head());
    co_return false;
  }
  co_return co_await forward(
      std::get<SharedBytes>(outcome),
      {.head_request = head->is_head(), .keep_alive = head->keep_alive, .http_1_0 = head->http_1_0});
}

awaitable<std::optional<RequestHead>> GatewaySession::read_head() {
  HeadScanner scanner(shared_->limits.gateway_header_bytes_max);
  Clock::time_point deadline = Clock::now() + milliseconds(shared_->limits.gateway_idle_ms);
  bool started = false;
  HeadScanner::State state{};
  while ((state = scanner.scan(received())) == HeadScanner::State::kMore) {
    if (!started && scanner.started()) {
      started = true;
      deadline = Clock::now() + milliseconds(shared_->options.head_timeout_ms);
    }
    const Got got = co_await read_some(deadline);
    if (got == Got::kTimeout) {
      ++shared_->stats.timeouts;
      const HttpRefusal slow{408, "the request head took too long"};
      if (started) co_await refuse(slow, false);
    }
    if (got != Got::kData) co_return std::nullopt;
  }
  if (state == HeadScanner::State::kRefused) {
    co_await refuse(scanner.refusal(), false);
    co_return std::nullopt;
  }
  const std::string_view raw = received().substr(scanner.head_begin(), scanner.head_end() - scanner.head_begin());
  auto judged = read_request_head(raw, shared_->limits.gateway_body_bytes_max);
  const bool head_request = raw.starts_with("HEAD ");
  buffer_.consume(scanner.head_end());
  if (auto* bad = std::get_if<HttpRefusal>(&judged)) {
    co_await refuse(*bad, head_request);
    co_return std::nullopt;
  }
  co_return std::get<RequestHead>(std::move(judged));
}

awaitable<std::optional<std::string>> GatewaySession::read_body(const RequestHead& head) {
  BodyReader reader(head, shared_->limits.gateway_body_bytes_max);
  // A user who sends the body without waiting needs no invitation (RFC 9110 §10.1.1).
  if (head.expect_continue && buffer_.size() == 0 && !co_await write(kContinue, {})) co_return std::nullopt;
  const Clock::time_point start = Clock::now();
  std::size_t taken = 0;
  while (!reader.done()) {
    if (buffer_.size() > 0) {
      const std::size_t used = reader.feed(received());
      buffer_.consume(used);
      taken += used;
    }
    if (reader.refused()) {
      co_await refuse(reader.refusal(), head.is_head());
      co_return std::nullopt;
    }
    if (reader.done()) break;
    const Got got = co_await read_some(slow_deadline(start, taken));
    if (got == Got::kTimeout) {
      ++shared_->stats.timeouts;
      const HttpRefusal slow{408, "the request body took too long"};
      co_await refuse(slow, head.is_head());
    }
    if (got != Got::kData) co_return std::nullopt;
  }
  co_return reader.take_body();
}

awaitable<std::variant<SharedBytes, HttpRefusal>> GatewaySession::order(SharedBytes op) {
  ++shared_->stats.requests;
  answer_.reset();
  const std::uint64_t question = ++question_;
  answer_timer_.expires_after(milliseconds(shared_->options.answer_timeout_ms));
  const Refusal refusal =
      shared_->submit(std::move(op), [weak = weak_from_this(), question](const client::Answer& answer) {
        const auto self = weak.lock();
        if (!self || self->question_ != question) return;
        self->answer_ = answer;
        self->answer_timer_.cancel();
      });
  if (refusal != Refusal::kNone) {
    co_return HttpRefusal{503, fmt::format("the request was not taken ({}), try again later", to_string(refusal))};
  }
  if (!answer_) co_await answer_timer_.async_wait(kTuple);
  ++question_;
  const client::Answer answer = std::exchange(answer_, std::nullopt).value_or(client::Answer{});
  switch (answer.outcome) {
    case client::Outcome::kReply:
      co_return answer.reply;
    case client::Outcome::kRejected:
      co_return HttpRefusal{503, fmt::format("the request was refused ({})", to_string(answer.reason))};
    case client::Outcome::kTimedOut:
      break;
  }
  co_return HttpRefusal{504, "no answer in time; the request may still be carried out"};
}

awaitable<bool> GatewaySession::forward(const SharedBytes& reply, const ReplyShape& shape) {
  const auto parsed = execution::read_http_reply(reply.view());
  if (!parsed) {
    const HttpRefusal bad{502, "the voted reply is not an HTTP reply: " + parsed.error()};
    co_await refuse(bad, shape.head_request);
    co_return false;
  }
  const unsigned status = parsed->result_int();
  const ByteView body = as_bytes(parsed->body());
  const auto head = render_reply_head(status, headers_of(*parsed), body.size(), shape);
  if (!head) {
    const HttpRefusal bad{502, "the voted reply has a status or header that cannot be sent"};
    co_await refuse(bad, shape.head_request);
    co_return false;
  }
  ++shared_->stats.replies;
  if (!co_await write(*head, without_body(status, shape) ? ByteView{} : body)) co_return false;
  if (!shape.keep_alive) co_await linger();
  co_return shape.keep_alive;
}

awaitable<GatewaySession::Got> GatewaySession::read_some(Clock::time_point deadline) {
  const std::size_t room = std::min(kReadBytes, buffer_.max_size() - buffer_.size());
  set_deadline(deadline);
  const auto [error, size] = co_await socket_.async_read_some(buffer_.prepare(room), kTuple);
  const bool expired = take_expired();
  if (error) co_return expired ? Got::kTimeout : Got::kEnd;
  buffer_.commit(size);
  co_return Got::kData;
}

awaitable<bool> GatewaySession::write(std::string_view head, ByteView body) {
  const Clock::time_point start = Clock::now();
  const std::size_t total = head.size() + body.size();
  std::size_t sent = 0;
  while (sent < total) {
    const std::size_t of_head = std::min(sent, head.size());
    const std::size_t of_body = sent - of_head;
    const std::array<asio::const_buffer, 2> rest = {asio::const_buffer(head.data() + of_head, head.size() - of_head),
                                                    asio::const_buffer(body.data() + of_body, body.size() - of_body)};
    set_deadline(slow_deadline(start, sent));
    const auto [error, size] = co_await socket_.async_write_some(rest, kTuple);
    if (take_expired() && error) ++shared_->stats.timeouts;
    if (error) co_return false;
    sent += size;
  }
  co_return true;
}

awaitable<void> GatewaySession::refuse(const HttpRefusal& refusal, bool head_request) {
  ++(refusal.status < 500 || refusal.status == 501 || refusal.status == 505 ? shared_->stats.refused
                                                                            : shared_->stats.unanswered);
  const std::string reply = render_own_reply(refusal.status, refusal.reason, {.head_request = head_request});
  if (co_await write(reply, {})) co_await linger();
}

// Closing at once while the user still sends would reset the connection and take the answer with it.
awaitable<void> GatewaySession::linger() {
  boost::system::error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error) co_return;
  const Clock::time_point deadline = Clock::now() + milliseconds(shared_->options.linger_ms);
  std::size_t left = kLingerBytesMax;
  buffer_.clear();
  while (left > 0 && co_await read_some(deadline) == Got::kData) {
    left -= std::min(left, buffer_.size());
    buffer_.clear();
  }
}

}  // namespace zz::apps
