#include "apps/paced_load.hpp"

#include <fmt/format.h>

#include <charconv>

namespace zz::apps {
namespace {

constexpr auto kPace = std::chrono::milliseconds(1);
constexpr std::uint64_t kPrime = 9'973;
constexpr std::size_t kShownBytesMax = 100;

// 100 letters and digits; the last ones follow from those before.
std::string make_value(std::uint64_t number) {
  return fmt::format("{:x>80}-{:014}-{:04}", "", number, number % kPrime);
}

bool is_value(std::string_view text) {
  std::uint64_t number = 0;
  if (text.size() != 100) return false;
  const auto [end, error] = std::from_chars(text.data() + 81, text.data() + 95, number);
  return error == std::errc() && text == make_value(number);
}

}  // namespace

PacedLoad::PacedLoad(boost::asio::io_context& loop, client::Client& client, ServiceId service, const Options& options)
    : client_(client), service_(service), options_(options), timer_(loop) {}

void PacedLoad::fill() {
  mode_ = Mode::kFilling;
  top_up();
}

void PacedLoad::start() {
  mode_ = Mode::kRunning;
  paced_at_ = Clock::now();
  owed_ = 0;
  tick();
}

void PacedLoad::stop() {
  mode_ = Mode::kIdle;
  timer_.cancel();
}

void PacedLoad::watch_next() {
  watch_next_ = true;
  answered_at_.reset();
}

void PacedLoad::tick() {
  const auto now = Clock::now();
  owed_ += options_.rate * std::chrono::duration<double>(now - paced_at_).count();
  paced_at_ = now;
  while (owed_ >= 1 && send_one()) owed_ -= 1;
  if (options_.rate == 0) top_up();
  timer_.expires_after(kPace);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) tick();
  });
}

void PacedLoad::top_up() {
  while (in_flight_ < options_.outstanding && !(mode_ == Mode::kFilling && sent_ == options_.keys) && send_one()) {
  }
}

// False: every window is full.
bool PacedLoad::send_one() {
  const bool put = mode_ == Mode::kFilling || sent_ % 2 == 0;
  const std::uint64_t key = mode_ == Mode::kFilling ? sent_ : prng_.below(options_.keys);
  const std::string op =
      put ? fmt::format("put small-{} {}", key, make_value(sent_)) : fmt::format("get small-{}", key);
  const bool watched = watch_next_;
  const Refusal refusal =
      client_.submit(service_, SharedBytes::copy(std::string_view(op)),
                     [this, put, watched](const client::Answer& answer) { on_answer(put, watched, answer); });
  if (refusal != Refusal::kNone) return false;
  watch_next_ = false;
  ++sent_;
  ++in_flight_;
  return true;
}

void PacedLoad::on_answer(bool put, bool watched, const client::Answer& answer) {
  --in_flight_;
  const bool right =
      answer.outcome == client::Outcome::kReply && (put ? answer.reply.text() == "ok" : is_value(answer.reply.text()));
  if (right) {
    ++answered_;
    if (watched) answered_at_ = Clock::now();
  } else if (++errors_ == 1) {
    first_error_ =
        answer.outcome == client::Outcome::kReply
            ? fmt::format("wrong reply \"{}\"", answer.reply.text().substr(0, kShownBytesMax))
            : fmt::format("no reply: {}", answer.outcome == client::Outcome::kRejected ? to_string(answer.reason)
                                                                                       : std::string_view("timed out"));
  }
  if (mode_ == Mode::kFilling || (mode_ == Mode::kRunning && options_.rate == 0)) top_up();
}

}  // namespace zz::apps
