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
#include <deque>
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
constexpr milliseconds kProbePatience{1'000};
constexpr milliseconds kSnapshotPause{1};
constexpr int kIdleDeathsMax = 3;
// The same on every replica, whatever happened in detail.
constexpr std::string_view kNoAnswer = "the service did not answer this request";
constexpr std::string_view kNotInTime = "the service did not answer this request in time";
constexpr std::string_view kNoMount =
    "; so its state is a plain directory that each checkpoint copies: checkpoints take longer the more files it has, a "
    "replica that wakes fetches all of it before it answers, times are the machine's, and its checkpoints differ from "
    "those of replicas that have FUSE (copy_state = true does without on all of them)";
constexpr std::string_view kTooLong = "the service's reply is longer than a reply may be";

}  // namespace

class HttpAdapter::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::io_context& loop, HttpAdapterConfig config, Died died)
      : loop_(loop), config_(std::move(config)), died_(std::move(died)), deadline_(loop) {}

  void start(Started done) {
    ZZ_ASSERT(!started_);
    started_ = true;
    enqueue([this, done = std::move(done)] { return run_start(done); });
  }

  void execute(const Invocation& invocation, Reply done) {
    ZZ_ASSERT(!busy_ && rules_.has_value());
    auto admitted = rules_->admit(invocation.op.view());
    if (auto* refused = std::get_if<Bytes>(&admitted)) return done(SharedBytes(std::move(*refused)));
    if (dead_ || (!home_ && !alive())) return done(SharedBytes(http_error_reply(502, kNoAnswer)));
    busy_ = true;
    enqueue([this, request = std::get<HttpRequest>(std::move(admitted)), time = invocation.time,
             done = std::move(done)]() mutable { return run_request(std::move(request), time, std::move(done)); });
  }

  void supplied() {
    if (home_) home_->supplied();
  }

  void replaced(Started done) {
    ZZ_ASSERT(home_ != nullptr);
    turns_.clear();
    interrupted_ = true;
    busy_ = false;
    unsaved_.clear();
    end_service();
    enqueue([this, done = std::move(done)] { return run_replaced(done); });
  }

  void save(Micros agreed, std::function<void()> done) {
    ZZ_ASSERT(!busy_);
    if (!copies()) return done();
    enqueue([this, agreed, done = std::move(done)] { return run_save(agreed, done); });
  }

  void woken(Started done) {
    enqueue([this, done = std::move(done)] { return run_woken(done); });
  }

  void stop() {
    stopped_ = true;
    deadline_.cancel();
    end_service();
    reservation_.reset();
  }

  [[nodiscard]] std::uint16_t port() const { return reservation_ ? reservation_->port() : std::uint16_t{0}; }
  [[nodiscard]] pid_t service_pid() const { return alive() ? process_->pid() : -1; }
  [[nodiscard]] bool state_is_in_store() const { return home_ != nullptr && !home_->copies(); }

 private:
  // Time in which the service waits for state that is absent is not its own.
  struct Patience {
    Clock::time_point due;
    std::chrono::microseconds waited;
  };
  struct Answer {
    Bytes reply;
    bool is_none = false;  // `reply` is what stands for it
  };
  // A coroutine that runs alone: two never touch the service at the same time.
  using Turn = std::function<asio::awaitable<void>()>;

  void enqueue(Turn turn) {
    turns_.push_back(std::move(turn));
    if (!std::exchange(running_, true)) asio::co_spawn(loop_, run_turns(shared_from_this()), asio::detached);
  }
  // The core lives as long as it runs.
  static asio::awaitable<void> run_turns(std::shared_ptr<Core> self) {
    while (!self->turns_.empty() && !self->stopped_) {
      const Turn turn = std::move(self->turns_.front());
      self->turns_.pop_front();
      co_await turn();
    }
    self->running_ = false;
  }

  [[nodiscard]] bool copies() const { return home_ != nullptr && home_->copies(); }
  [[nodiscard]] bool alive() const { return process_ && process_->running(); }
  [[nodiscard]] bool is_over() const { return stopped_ || interrupted_; }
  [[nodiscard]] std::string log_path() const { return config_.work_dir + "/service.log"; }
  [[nodiscard]] std::string state_path() const { return config_.work_dir + "/state"; }
  [[nodiscard]] asio::ip::tcp::endpoint endpoint() const { return {asio::ip::address_v4::loopback(), port()}; }
  [[nodiscard]] std::string named(const std::string& text) const { return "service \"" + config_.name + "\"" + text; }

  // ---- turns

  asio::awaitable<void> run_start(Started done) {
    const Result<void> result = co_await bring_up();
    if (stopped_) co_return;
    if (!result) end_service();
    done(result.ok() ? Result<void>() : Error{named(": " + result.error())});
  }

  asio::awaitable<void> run_request(HttpRequest request, Micros time, Reply done) {
    // Plain statements: g++ 12 destroys twice what co_await gives within a conditional expression.
    std::optional<Bytes> reply;
    if (home_) {
      reply = co_await run_undoable(std::move(request), time);
    } else {
      Answer answer = co_await exchange(std::move(request));
      reply = std::move(answer.reply);
    }
    if (is_over() || !reply) co_return;
    busy_ = false;
    done(SharedBytes(*reply));
  }

  // Nothing: it is over.
  asio::awaitable<std::optional<Bytes>> run_undoable(HttpRequest request, Micros time) {
    home_->set_time(time);
    if (!dead_ && !alive()) static_cast<void>(co_await start_again());
    asio::steady_timer pause(loop_);
    beast::error_code ignored;
    while (!is_over() && !dead_ && !home_->keep()) {
      pause.expires_after(kSnapshotPause);
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    if (is_over()) co_return std::nullopt;
    if (dead_) co_return http_error_reply(502, kNoAnswer);
    idle_deaths_ = 0;
    if (copies()) unsaved_.push_back(request);
    Answer answer = co_await exchange(std::move(request));
    if (is_over()) co_return std::nullopt;
    if (answer.is_none) {
      end_service();
      if (copies()) {
        unsaved_.pop_back();
      } else {
        home_->roll_back();
      }
      static_cast<void>(co_await start_again());
    } else {
      const Result<void> settled = co_await home_->settle();
      if (is_over()) co_return std::nullopt;
      if (!settled) give_up(settled.error());
    }
    home_->forget();
    co_return std::move(answer.reply);
  }

  asio::awaitable<void> run_save(Micros agreed, std::function<void()> done) {
    if (dead_) co_return;
    StateCopy::Mapped mapped;
    if (process_) mapped = process_->shared_mappings();
    const Result<void> saved = co_await home_->save(agreed, std::move(mapped));
    if (is_over()) co_return;
    if (!saved) co_return give_up("is of no use any more: " + saved.error());
    unsaved_.clear();
    done();
  }

  asio::awaitable<void> run_replaced(Started done) {
    interrupted_ = false;
    const Result<void> up = co_await start_again();
    if (!is_over()) done(up.ok() ? Result<void>() : Error{named(": " + up.error())});
  }

  asio::awaitable<void> run_woken(Started done) {
    const crypto::OnWake what = config_.http.on_wake;
    Result<void> up = dead_ ? Result<void>(Error{"it is dead"}) : Result<void>();
    bool is_told = false;
    if (what == crypto::OnWake::kReload && alive()) is_told = co_await reload();
    if (what != crypto::OnWake::kNone && !is_told && !is_over() && up.ok()) {
      if (home_ && alive()) static_cast<void>(co_await home_->settle());
      if (!is_over()) up = co_await start_again();
    }
    if (!is_over()) done(up.ok() ? Result<void>() : Error{named(": " + up.error())});
  }

  asio::awaitable<void> run_revival() {
    if (!dead_ && !alive()) static_cast<void>(co_await start_again());
  }

  // ---- the service's process

  // The order matters: what waits for absent state dies only with the mount.
  void end_service() {
    if (stream_) stream_->close();  // not destroyed: a coroutine may be waiting on it
    if (process_) process_->kill();
    if (home_) home_->unmount();
    process_.reset();
  }

  asio::awaitable<Result<void>> bring_up() {
    auto rules = HttpRules::make(config_.http, config_.reply_bytes_max);
    if (!rules) co_return Error{rules.error()};
    rules_.emplace(std::move(*rules));
    if (config_.store.objects != nullptr) {
      home_ = std::make_unique<ServiceHome>(loop_, config_.store, state_path());
      Result<void> mounted;
      if (config_.http.copy_state) {
        home_->copy();
        mounted = home_->mount();
      } else if (mounted = home_->mount(); !mounted) {
        if (config_.warn) config_.warn(named(": " + mounted.error() + std::string(kNoMount)));
        home_->copy();
        mounted = home_->mount();
      }
      if (!mounted) co_return mounted;
    }
    Result<void> there;
    if (home_) {
      there = co_await fill_home();
    } else {
      there = copy_initial_state(config_.initial_state, state_path());
    }
    if (!there) co_return there;
    co_return co_await launch();
  }

  // The initial state goes in if the store has none: at first, or once it was cleared.
  asio::awaitable<Result<void>> fill_home() {
    const Result<void> there = co_await home_->import(config_.initial_state);
    if (!there) co_return there;
    co_return co_await home_->restore();
  }

  // A new process finds no old one, and a fresh mount.
  Result<void> clear_for_start() {
    end_service();
    if (!home_) return {};
    home_->replaced();
    return home_->mount();
  }

  // On the state as it is; on failure the service is dead.
  asio::awaitable<Result<void>> start_again() {
    Result<void> up = clear_for_start();
    if (up.ok() && home_) up = co_await fill_home();
    if (up.ok()) up = co_await launch();
    if (up.ok()) up = co_await run_unsaved();
    if (!up && !is_over()) give_up("could not be started again: " + up.error());
    co_return up;
  }

  // A home that copies is back at the last checkpoint: what was answered since is done again. Nobody asks for its
  // replies.
  asio::awaitable<Result<void>> run_unsaved() {
    for (std::size_t i = 0; i < unsaved_.size(); ++i) {
      HttpRequest request = unsaved_[i];
      const Answer answer = co_await exchange(std::move(request));
      if (is_over()) co_return Error{"stopped"};
      if (answer.is_none) co_return Error{"it does not answer a request that it answered before"};
    }
    co_return Result<void>();
  }

  void give_up(const std::string& why) {
    dead_ = true;
    end_service();
    if (died_) std::exchange(died_, nullptr)(named(" " + why));
  }

  asio::awaitable<Result<void>> launch() {
    drop_connection();
    const Patience patience = patience_of(config_.http.start_timeout_ms);
    Result<void> up = co_await launch_once(patience, true);
    // Some servers cannot listen on a port that is held for them.
    if (up.ok() || is_over() || last_line_of(log_path()).find("in use") == std::string::npos) co_return up;
    if (const Result<void> cleared = clear_for_start(); !cleared) co_return cleared;
    co_return co_await launch_once(patience, false);
  }

  asio::awaitable<Result<void>> launch_once(Patience patience, bool hold_port) {
    up_ = false;
    auto reservation = PortReservation::make();
    if (!reservation) co_return Error{reservation.error()};
    reservation_ = std::move(*reservation);
    if (!hold_port) reservation_->release();
    ended_.clear();
    auto process =
        ServiceProcess::start(loop_, service_command(config_.command), [this](const std::string& why) { ended(why); });
    if (!process) co_return Error{process.error()};
    process_ = std::move(*process);
    was_started_ = true;
    co_return co_await until_accepting(patience);
  }

  [[nodiscard]] ServiceCommand service_command(const std::vector<std::string>& argv) const {
    return {argv, config_.work_dir, state_path(), log_path(), was_started_, port(), service_pid()};
  }

  // Only called while process_ lives, which this owns.
  void ended(const std::string& why) {
    ended_ = why;
    if (!up_) return;
    if (!home_) {
      dead_ = true;
      if (died_) std::exchange(died_, nullptr)(named(" " + with_log(why)));
    } else if (!running_) {  // else the turn finds out
      if (++idle_deaths_ > kIdleDeathsMax) return give_up(with_log(why));
      enqueue([this] { return run_revival(); });
    }
  }

  [[nodiscard]] std::string with_log(const std::string& text) const {
    const std::string line = last_line_of(log_path());
    return line.empty() ? text : text + "; its log ends: " + line;
  }

  asio::awaitable<Result<void>> until_accepting(Patience patience) {
    asio::steady_timer timer(loop_);
    for (milliseconds pause = kProbeMin;; pause = std::min(pause * 2, kProbeMax)) {
      beast::tcp_stream probe(loop_);
      beast::error_code error;
      probe.expires_after(kProbePatience);
      co_await probe.async_connect(endpoint(), asio::redirect_error(asio::use_awaitable, error));
      if (is_over()) co_return Error{"stopped"};
      if (!alive()) {
        if (!process_->was_run()) co_return Error{ended_};
        co_return Error{with_log("\"" + config_.command[0] + "\" " + ended_ + " before it listened on $PORT")};
      }
      if (!error) break;
      if (Clock::now() >= due(patience)) {
        co_return Error{with_log("\"" + config_.command[0] +
                                 "\" did not listen on $PORT (127.0.0.1:" + std::to_string(port()) + ") within " +
                                 std::to_string(config_.http.start_timeout_ms) + " ms")};
      }
      timer.expires_after(pause);
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (is_over()) co_return Error{"stopped"};
    }
    up_ = true;
    co_return Result<void>();
  }

  // False: it failed, or the service does not accept afterwards.
  asio::awaitable<bool> reload() {
    const Patience patience = patience_of(config_.http.start_timeout_ms);
    asio::steady_timer end(loop_);
    end.expires_at(asio::steady_timer::time_point::max());
    auto process = ServiceProcess::start(loop_, service_command(config_.http.reload),
                                         [&end](const std::string&) { end.cancel(); });
    if (!process) co_return false;
    beast::error_code ignored;
    while ((*process)->running() && !is_over() && Clock::now() < due(patience)) {
      end.expires_after(kProbeMax);
      co_await end.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    if (!is_over() && (*process)->running()) {  // it may wait for what is absent
      (*process)->kill();
      end_service();
    }
    if (is_over() || !(*process)->succeeded() || !alive()) co_return false;
    drop_connection();
    const Result<void> accepts = co_await until_accepting(patience);
    co_return accepts.ok();
  }

  // ---- time

  [[nodiscard]] std::chrono::microseconds waited() const {
    return home_ ? home_->waited() : std::chrono::microseconds{0};
  }
  [[nodiscard]] Patience patience_of(std::uint32_t timeout_ms) const {
    return {Clock::now() + milliseconds(timeout_ms), waited()};
  }
  [[nodiscard]] Clock::time_point due(const Patience& patience) const {
    return patience.due + (waited() - patience.waited);
  }

  // Closes the connection when `patience` is at its end.
  void watch(Patience patience) {
    deadline_.expires_at(due(patience) + milliseconds(1));
    deadline_.async_wait([self = shared_from_this(), patience, of = exchanges_](const beast::error_code& cancelled) {
      if (cancelled || self->stopped_ || of != self->exchanges_) return;
      if (Clock::now() < self->due(patience)) return self->watch(patience);
      self->timed_out_ = true;
      if (self->stream_) self->stream_->close();
    });
  }

  // ---- one request

  // A connection nobody has written this request to; false when there is none to be had.
  asio::awaitable<bool> connect() {
    if (stream_ && Clock::now() - used_ < milliseconds(kServiceIdleMs) && !closed_by_service()) co_return true;
    stream_.emplace(loop_);
    beast::error_code error;
    co_await stream_->async_connect(endpoint(), asio::redirect_error(asio::use_awaitable, error));
    if (is_over() || error) co_return false;
    stream_->socket().set_option(asio::ip::tcp::no_delay(true), error);
    co_return true;
  }

  // An idle connection has nothing to read, unless it was closed (or the service is out of step with its replies).
  [[nodiscard]] bool closed_by_service() {
    char byte = 0;
    const ssize_t got = recv(stream_->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  // A function, since g++ 12 miscounts aggregates that are made in a co_return.
  static Answer answer_of(Bytes reply, bool is_none) { return {std::move(reply), is_none}; }

  asio::awaitable<Answer> exchange(HttpRequest request) {
    timed_out_ = false;
    ++exchanges_;
    watch(patience_of(config_.http.request_timeout_ms));
    Answer answer = co_await exchange_in_time(std::move(request));
    ++exchanges_;
    deadline_.cancel();
    co_return answer;
  }

  asio::awaitable<Answer> exchange_in_time(HttpRequest request) {
    if (!co_await connect()) {
      drop_connection();
      co_return answer_of(http_error_reply(502, kNoAnswer), true);
    }
    HttpRules::Asked asked{request.method() == http::verb::head, port()};
    beast::error_code error;
    co_await http::async_write(*stream_, request, asio::redirect_error(asio::use_awaitable, error));
    // A service may answer and close before it has read everything: the answer counts.
    const bool sent = !error;
    std::optional<HttpResponse> response;
    if (!is_over() && !timed_out_) response = co_await read_response(asked.head, error);
    if (is_over()) co_return answer_of({}, true);
    used_ = Clock::now();
    if (!response || !sent || !response->keep_alive()) drop_connection();
    if (response) co_return answer_of(rules_->reply(*response, asked), false);
    if (timed_out_) co_return answer_of(http_error_reply(504, kNotInTime), true);
    if (error == http::error::body_limit) co_return answer_of(http_error_reply(502, kTooLong), false);
    co_return answer_of(http_error_reply(502, kNoAnswer), true);
  }

  asio::awaitable<std::optional<HttpResponse>> read_response(bool head, beast::error_code& error) {
    beast::flat_buffer buffer;
    for (int i = 0; i < kInterimMax; ++i) {
      http::response_parser<http::string_body> parser;
      parser.header_limit(static_cast<std::uint32_t>(kHttpHeaderBytesMax));
      parser.body_limit(config_.reply_bytes_max);
      parser.skip(head);
      co_await http::async_read(*stream_, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
      if (is_over() || error) co_return std::nullopt;
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
  asio::steady_timer deadline_;  // of the request that runs
  std::optional<HttpRules> rules_;
  std::optional<PortReservation> reservation_;
  std::unique_ptr<ServiceHome> home_;  // null: a plain directory
  std::unique_ptr<ServiceProcess> process_;
  std::string ended_;  // how the process ended
  std::optional<beast::tcp_stream> stream_;
  Clock::time_point used_{};
  std::vector<HttpRequest> unsaved_;  // of a home that copies: what was answered since the last checkpoint
  std::deque<Turn> turns_;
  bool running_ = false;         // a turn is
  bool started_ = false;         // start() was called
  bool was_started_ = false;     // the process was, once
  bool up_ = false;              // it has accepted
  bool busy_ = false;            // an invocation is pending
  std::uint64_t exchanges_ = 0;  // begun and ended: which one the deadline is of
  bool timed_out_ = false;       // the request that runs
  bool interrupted_ = false;     // the turn that runs is about a state that is gone
  bool dead_ = false;
  bool stopped_ = false;
  int idle_deaths_ = 0;  // since a request ran
};

HttpAdapter::HttpAdapter(asio::io_context& loop, HttpAdapterConfig config, Died died)
    : core_(std::make_shared<Core>(loop, std::move(config), std::move(died))) {}
HttpAdapter::~HttpAdapter() { core_->stop(); }
void HttpAdapter::start(Started done) { core_->start(std::move(done)); }
void HttpAdapter::execute(const Invocation& invocation, Reply done) { core_->execute(invocation, std::move(done)); }
void HttpAdapter::supplied() { core_->supplied(); }
void HttpAdapter::replaced(Started done) { core_->replaced(std::move(done)); }
void HttpAdapter::save(Micros agreed, std::function<void()> done) { core_->save(agreed, std::move(done)); }
void HttpAdapter::woken(Started done) { core_->woken(std::move(done)); }
bool HttpAdapter::state_is_in_store() const { return core_->state_is_in_store(); }
std::uint16_t HttpAdapter::port() const { return core_->port(); }
pid_t HttpAdapter::service_pid() const { return core_->service_pid(); }

SharedBytes http_session_expired_reply() {
  return SharedBytes(http_error_reply(503, "the session of this request has expired; the request was not run"));
}

}  // namespace zz::execution
