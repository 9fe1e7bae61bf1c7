#include "apps/bench_load.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/prng.hpp"

namespace zz::apps {
namespace {

constexpr std::size_t kKeys = 26;
constexpr std::size_t kValuesPerKey = 4;
constexpr std::size_t kShownBytesMax = 100;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The value's characters are seeded, so that every run puts the same bytes.
std::string make_value(Prng& prng, std::size_t size) {
  std::string out(size, ' ');
  for (char& c : out) c = static_cast<char>('a' + prng.below(26));
  return out;
}

}  // namespace

KvLoad::KvLoad(client::Client& client, ServiceId service, const Options& options)
    : client_(client), service_(service), options_(options) {
  ZZ_ASSERT(options.payload_bytes >= kPayloadMin && options.outstanding > 0);
  Prng prng(1);
  for (std::size_t i = 0; i < kKeys * kValuesPerKey; ++i) {
    const char key = static_cast<char>('a' + i % kKeys);
    std::string value = make_value(prng, options.payload_bytes - (kPayloadMin - 1));
    operations_.push_back({SharedBytes::copy(fmt::format("put {} {}", key, value)),
                           SharedBytes::copy(fmt::format("get {}", key)), std::move(value)});
  }
}

void KvLoad::start() {
  running_ = true;
  while (in_flight_ < options_.outstanding) {
    const std::uint32_t before = in_flight_;
    send_one();
    if (in_flight_ == before) return;  // every window is full: replies make room
  }
}

void KvLoad::send_one() {
  const SharedBytes& op = operations_[next_++ % operations_.size()].put;
  const std::int64_t sent = now_ns();
  const Refusal refusal =
      client_.submit(service_, op, [this, sent](const client::Answer& answer) { on_answer(sent, answer); });
  if (refusal == Refusal::kNone) ++in_flight_;
}

void KvLoad::on_answer(std::int64_t sent_ns, const client::Answer& answer) {
  --in_flight_;
  if (answer.outcome == client::Outcome::kReply && answer.reply.text() == "ok") {
    interval_.latency.add(static_cast<std::uint64_t>((now_ns() - sent_ns) / 1000));
  } else {
    fail(answer);
  }
  if (running_) start();
}

void KvLoad::fail(const client::Answer& answer) {
  ++interval_.errors;
  if (!first_error_.empty()) return;
  switch (answer.outcome) {
    case client::Outcome::kReply:
      first_error_ = fmt::format("wrong reply \"{}\"", answer.reply.text().substr(0, kShownBytesMax));
      break;
    case client::Outcome::kRejected:
      first_error_ = fmt::format("refused: {}", to_string(answer.reason));
      break;
    case client::Outcome::kTimedOut:
      first_error_ = "timed out";
      break;
  }
}

KvLoad::Interval KvLoad::take() { return std::exchange(interval_, Interval{}); }

void KvLoad::read_back(std::function<void(std::uint64_t)> done) {
  ZZ_ASSERT(idle() && !running_);
  read_done_ = std::move(done);
  wrong_keys_ = 0;
  const std::size_t keys = std::min(kKeys, next_);  // those that were ever put
  for (std::size_t i = 0; i < keys; ++i) {
    const Operation& operation = operations_[i];
    const Refusal refusal = client_.submit(
        service_, operation.get, [this, &operation](const client::Answer& answer) { check_key(operation, answer); });
    if (refusal == Refusal::kNone) {
      ++in_flight_;
    } else {
      ++wrong_keys_;
    }
  }
  if (in_flight_ == 0) read_done_(wrong_keys_);
}

void KvLoad::check_key(const Operation& operation, const client::Answer& answer) {
  --in_flight_;
  const std::string_view get = operation.get.text();
  const bool right = answer.outcome == client::Outcome::kReply &&
                     std::any_of(operations_.begin(), operations_.end(), [&](const Operation& put) {
                       return put.get.text() == get && put.value == answer.reply.text();
                     });
  if (!right) ++wrong_keys_;
  if (in_flight_ == 0) read_done_(wrong_keys_);
}

}  // namespace zz::apps
