#include "vmpool/process/guest_process.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "vmpool/process/process_backend.hpp"

namespace zz::vmpool {
namespace {

using boost::system::error_code;
using std::chrono::microseconds;

// Most steps succeed within a millisecond; what does not must not burn the CPU.
microseconds pace(int round) {
  if (round < 10) return microseconds(100);
  if (round < 50) return microseconds(1'000);
  return microseconds(10'000);
}

}  // namespace

// ---- PacedTask ---------------------------------------------------------------------------------------------------

void PacedTask::run(std::weak_ptr<void> owner, Plan plan) {
  cancel("overtaken by " + plan.doing);
  ++number_;
  owner_ = std::move(owner);
  plan_ = std::move(plan);
  rounds_ = 0;
  until_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(plan_.limit_ms);
  schedule(microseconds(0));
}

void PacedTask::cancel(const std::string& why) {
  if (!running()) return;
  timer_.cancel();
  ++number_;
  // The caller may stand in the middle of something: answer later.
  boost::asio::post(timer_.get_executor(), [done = std::move(plan_.done), why] { done(Error{why}); });
  plan_ = {};
}

void PacedTask::schedule(microseconds wait) {
  timer_.expires_after(wait);
  timer_.async_wait([this, owner = owner_, number = number_](const error_code&) {
    const auto alive = owner.lock();  // `this` lives in it
    if (alive && number == number_ && running()) poll();
  });
}

void PacedTask::poll() {
  // The step may end this task, start the next one or drop the last reference to itself.
  const Step step = plan_.step;
  const std::uint64_t number = number_;
  const Result<bool> result = step();
  if (number != number_) return;
  if (!result) return finish(Error{result.error()});
  if (*result) return finish({});
  if (std::chrono::steady_clock::now() >= until_)
    return finish(Error{plan_.doing + ": no success within " + std::to_string(plan_.limit_ms) + " ms"});
  schedule(pace(rounds_++));
}

void PacedTask::finish(Result<void> result) {
  ++number_;
  const Hypervisor::Done done = std::move(plan_.done);
  plan_ = {};
  done(std::move(result));
}

// ---- AgentChannel ------------------------------------------------------------------------------------------------

AgentChannel::AgentChannel(boost::asio::io_context& loop, int fd, Callbacks callbacks)
    : socket_(loop, boost::asio::local::stream_protocol(), fd), callbacks_(std::move(callbacks)) {}

void AgentChannel::start() { read(); }

void AgentChannel::read() {
  socket_.async_read_some(boost::asio::buffer(buffer_),
                          [self = shared_from_this()](const error_code& error, std::size_t size) {
                            if (!self->open_) return;
                            if (error) return self->end("closed its control channel");
                            self->take(size);
                          });
}

void AgentChannel::take(std::size_t size) {
  const auto on_line = callbacks_.on_line;  // outlives a close() from inside
  inbox_.append(buffer_.data(), size);
  for (;;) {
    const std::size_t end_of_line = inbox_.find('\n');
    if (std::min(end_of_line, inbox_.size()) > agreement::kAgentLineMax) return end("sent an endless line");
    if (end_of_line == std::string::npos) break;
    const auto message = agreement::parse_from_agent(std::string_view(inbox_).substr(0, end_of_line));
    inbox_.erase(0, end_of_line + 1);
    if (!message) return end("sent nonsense: " + message.error());
    on_line(*message);
    if (!open_) return;
  }
  read();
}

void AgentChannel::send(const agreement::ToAgent& message, Hypervisor::Done written) {
  if (!open_ || outbox_.size() >= kAgentQueueMax) {
    const std::string why = open_ ? "the agent does not read its control channel" : "the agent is gone";
    boost::asio::post(socket_.get_executor(), [written = std::move(written), why] { written(Error{why}); });
    return;
  }
  outbox_.push_back({agreement::encode(message) + "\n", std::move(written)});
  if (!writing_) write();
}

void AgentChannel::write() {
  writing_ = true;
  boost::asio::async_write(socket_, boost::asio::buffer(outbox_.front().text),
                           [self = shared_from_this()](const error_code& error, std::size_t) {
                             self->writing_ = false;
                             if (!self->open_ || error) return self->fail_writes();
                             const Hypervisor::Done written = std::move(self->outbox_.front().written);
                             self->outbox_.pop_front();
                             if (!self->outbox_.empty()) self->write();
                             written({});
                           });
}

void AgentChannel::fail_writes() {
  for (Line& line : std::exchange(outbox_, {})) line.written(Error{"the agent is gone"});
}

void AgentChannel::end(const std::string& why) {
  const auto on_end = std::move(callbacks_.on_end);
  close();
  on_end(why);
}

void AgentChannel::close() {
  if (!open_) return;
  open_ = false;
  callbacks_ = {};
  error_code ignored;
  socket_.close(ignored);
  // A write in progress ends by itself and takes the rest along.
  if (!writing_) {
    boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->fail_writes(); });
  }
}

}  // namespace zz::vmpool
