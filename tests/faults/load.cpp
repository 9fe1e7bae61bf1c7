#include "tests/faults/load.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace zz::test {
namespace {

constexpr std::size_t kContradictionsMax = 10;
constexpr std::chrono::seconds kReadLimit{30};
constexpr std::chrono::seconds kEndLimit{70};              // longer than any request may take
constexpr auto kPumpEvery = std::chrono::milliseconds(5);  // after BUSY

std::string counter_key(std::size_t i) { return "counter-" + std::to_string(i); }
std::string put_key(std::size_t i) { return "key-" + std::to_string(i); }
std::string put_value(std::size_t i) { return "value-" + std::to_string(i); }

std::optional<long long> number(std::string_view text) {
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

}  // namespace

Load::Load(const crypto::ClusterFile& cluster, const std::string& dir, std::size_t outstanding, Micros timeout)
    : cluster_(cluster), outstanding_(outstanding) {
  auto key = crypto::load_secret_key(dir + "/keys/client-2.key");
  if (!key) {
    ADD_FAILURE() << key.error();
    return;
  }
  key_ = std::make_unique<crypto::SecretKey>(std::move(*key));
  client::ClientOptions options;
  options.timeout = timeout;
  auto client = client::Client::open(loop_, cluster_, *key_, options);
  if (!client) {
    ADD_FAILURE() << client.error();
    return;
  }
  client_ = std::move(*client);
}

void Load::contradict(std::string line) {
  if (contradictions_.size() < kContradictionsMax) contradictions_.push_back(std::move(line));
}

void Load::make_one() {
  const std::size_t i = made_;
  const bool is_put = i % 8 == 7;
  const std::size_t which = i % kCounters;
  const std::string op = is_put ? "put " + put_key(i) + " " + put_value(i) : "add " + counter_key(which) + " 1";
  const Clock::time_point sent = Clock::now();
  const auto done = [this, i, is_put, which, sent](const client::Answer& answer) {
    --open_;
    if (answer.outcome == client::Outcome::kReply) {
      replies_.push_back({sent, Clock::now()});
      const std::string_view text = answer.reply.text();
      if (is_put) {
        puts_.push_back(i);
        if (text != "ok") contradict("request " + std::to_string(i) + ", a put, was answered " + std::string(text));
      } else {
        ++counters_[which].accepted;
        const auto value = number(text);
        if (!value || !counters_[which].values.insert(*value).second) {
          contradict("request " + std::to_string(i) + ", an addition, was answered " + std::string(text) +
                     (value ? " a second time" : ""));
        }
      }
    } else {
      ++indeterminate_;
      if (!is_put) ++counters_[which].indeterminate;
      if (answer.outcome == client::Outcome::kRejected) {
        contradict("request " + std::to_string(i) + " was refused: " + std::string(to_string(answer.reason)));
      }
    }
    pump();
  };
  if (client_->submit(ServiceId{}, SharedBytes::copy(op), done) != Refusal::kNone) return;  // busy: pump() comes again
  ++made_;
  ++open_;
}

void Load::pump() {
  while (wanted_ && open_ < outstanding_) {
    const std::size_t before = made_;
    make_one();
    if (made_ == before) break;
  }
}

bool Load::run_until(const std::function<bool()>& done, Clock::duration limit) {
  const Clock::time_point end = Clock::now() + limit;
  while (!done()) {
    const Clock::time_point now = Clock::now();
    if (now >= end) return false;
    pump();
    loop_.restart();
    loop_.run_one_until(std::min(end, now + kPumpEvery));
    loop_.poll();
  }
  return true;
}

void Load::run_for(Clock::duration duration) {
  const bool never = run_until([] { return false; }, duration);
  EXPECT_FALSE(never);
}

bool Load::finish(Clock::duration limit) {
  wanted_ = false;
  return run_until([this] { return open_ == 0; }, limit);
}

void Load::read_back() {
  std::size_t next = 0;
  std::size_t waiting = 0;
  const std::size_t all = kCounters + puts_.size();
  const auto check = [this](std::size_t which, const client::Answer& answer) {
    const bool replied = answer.outcome == client::Outcome::kReply;
    const std::string text = replied ? std::string(answer.reply.text()) : std::string(to_string(answer.outcome));
    if (which >= kCounters) {
      const std::size_t put = puts_[which - kCounters];
      if (text != put_value(put)) contradict(put_key(put) + " was acknowledged, and is now " + text);
      return;
    }
    const Counter& counter = counters_[which];
    const auto value = text == "none" ? std::optional(0LL) : number(text);
    const auto least = static_cast<long long>(counter.accepted);
    if (!value || *value < least || *value > least + static_cast<long long>(counter.indeterminate) ||
        (!counter.values.empty() && *value < *counter.values.rbegin())) {
      contradict(counter_key(which) + " is now " + text + " after " + std::to_string(counter.accepted) +
                 " accepted and " + std::to_string(counter.indeterminate) + " indeterminate additions");
    }
  };
  const auto ask_more = [&] {
    while (next < all && waiting < 64) {
      const std::size_t which = next;
      const std::string op = "get " + (which < kCounters ? counter_key(which) : put_key(puts_[which - kCounters]));
      const auto done = [&, which](const client::Answer& answer) {
        --waiting;
        check(which, answer);
      };
      if (client_->submit(ServiceId{}, SharedBytes::copy(op), done) != Refusal::kNone) return;
      ++next;
      ++waiting;
    }
  };
  const bool read = run_until(
      [&] {
        ask_more();
        return next == all && waiting == 0;
      },
      kReadLimit);
  if (read) return;
  contradict("what was written cannot be read back");
  client_.reset();  // its callbacks point here
}

double Load::rate(Clock::time_point from, Clock::time_point to) const {
  const auto in = std::count_if(replies_.begin(), replies_.end(),
                                [&](const Reply& reply) { return reply.at >= from && reply.at < to; });
  return static_cast<double>(in) / std::chrono::duration<double>(to - from).count();
}

Load::Clock::duration Load::longest_gap(Clock::time_point from, Clock::time_point to) const {
  Clock::duration longest{};
  Clock::time_point last = from;
  for (const Reply& reply : replies_) {
    if (reply.at < from || reply.at > to) continue;
    longest = std::max(longest, reply.at - last);
    last = reply.at;
  }
  return std::max(longest, to - last);
}

Load::Clock::duration Load::total_gaps(Clock::time_point from, Clock::time_point to, Clock::duration least) const {
  Clock::duration total{};
  Clock::time_point last = from;
  const auto add = [&](Clock::time_point at) {
    if (at - last > least) total += at - last;
    last = at;
  };
  for (const Reply& reply : replies_) {
    if (reply.at >= from && reply.at <= to) add(reply.at);
  }
  add(to);
  return total;
}

Load::Clock::duration Load::latency_99(Clock::time_point from, Clock::time_point to) const {
  std::vector<Clock::duration> all;
  for (const Reply& reply : replies_) {
    if (reply.at >= from && reply.at < to) all.push_back(reply.at - reply.sent);
  }
  if (all.empty()) return {};
  const auto place = all.begin() + static_cast<std::ptrdiff_t>(all.size() * 99 / 100);
  std::nth_element(all.begin(), place, all.end());
  return *place;
}

void expect_whole(Load& load) {
  ASSERT_TRUE(load.finish(kEndLimit)) << "some requests were never answered";
  load.read_back();
  for (const std::string& line : load.contradictions()) ADD_FAILURE() << line;
  EXPECT_EQ(load.indeterminate(), 0u);
}

}  // namespace zz::test
