// Measures channels over loopback: round trips of one small message, and a one-way stream of small messages; between
// two threads, each with its own event loop. Prints medians and the processor time of both threads per message.
//
//   channel_bench [round trips] [seconds of streaming] [message bytes]

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/support/party.hpp"
#include "tests/support/run_until.hpp"

namespace {

using namespace zz;  // NOLINT: a program of one file
using Clock = std::chrono::steady_clock;

double process_cpu_us() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

struct Pair {
  // The two parties run on loops of their own; the dialler's thread is the caller's.
  explicit Pair(std::function<void(net::Channel&, const SharedBytes&)> answer) {
    test::introduce(listener, dialler);
    listener.keeps_messages = false;
    listener.when_message = std::move(answer);
    dialler.dial(listener.listen(), listener);
    thread = std::thread([this] {
      auto work = boost::asio::make_work_guard(listener_loop);
      listener_loop.run();
    });
    ZZ_ASSERT(test::run_until(dialler_loop, [this] { return dialler.ups.size() == 1; }));
  }
  ~Pair() {
    boost::asio::post(listener_loop, [this] { listener_loop.stop(); });
    thread.join();
  }

  boost::asio::io_context listener_loop{1};
  boost::asio::io_context dialler_loop{1};
  test::Party listener{listener_loop, test::node(0)};
  test::Party dialler{dialler_loop, test::node(1)};
  std::thread thread;
};

void round_trips(int count, std::size_t words) {
  Pair pair([](net::Channel& channel, const SharedBytes& message) { (void)channel.send(message); });
  const SharedBytes message = test::numbered_message(1, words);
  std::vector<double> us;
  us.reserve(static_cast<std::size_t>(count));
  net::Channel& channel = *pair.dialler.channel_to(pair.listener);
  const double cpu_before = process_cpu_us();
  for (int i = 0; i < count; ++i) {
    pair.dialler.messages.clear();
    const auto start = Clock::now();
    (void)channel.send(message);
    pair.dialler.network().flush();
    ZZ_ASSERT(test::run_until(pair.dialler_loop, [&] { return !pair.dialler.messages.empty(); }));
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  const double cpu = (process_cpu_us() - cpu_before) / count;
  std::sort(us.begin(), us.end());
  std::printf("round trip, %zu bytes: p50 %.1f us, p99 %.1f us, cpu of both ends %.1f us\n", message.size(),
              us[us.size() / 2], us[us.size() * 99 / 100], cpu);
}

void stream(double seconds, std::size_t words) {
  std::atomic<std::uint64_t> received{0};
  Pair pair([&](net::Channel&, const SharedBytes&) { received.fetch_add(1, std::memory_order_relaxed); });
  const SharedBytes message = test::numbered_message(1, words);
  net::Channel& channel = *pair.dialler.channel_to(pair.listener);
  const double cpu_before = process_cpu_us();
  const auto start = Clock::now();
  const auto end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::uint64_t sent = 0;
  while (Clock::now() < end) {
    for (int i = 0; i < 64 && channel.queued_bytes() < (256u << 10); ++i, ++sent) (void)channel.send(message);
    pair.dialler_loop.restart();
    pair.dialler_loop.poll();
  }
  ZZ_ASSERT(test::run_until(pair.dialler_loop, [&] { return channel.queued_bytes() == 0; }));
  while (received.load(std::memory_order_relaxed) < sent) std::this_thread::yield();
  const double took = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu = process_cpu_us() - cpu_before;
  const double count = static_cast<double>(sent);
  std::printf("stream, %zu bytes: %.0f messages/s, %.1f MB/s, cpu of both ends %.3f us/message\n", message.size(),
              count / took, count * static_cast<double>(message.size()) / took / 1e6, cpu / count);
}

}  // namespace

int main(int argc, char** argv) {
  const int trips = argc > 1 ? std::atoi(argv[1]) : 20'000;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 3;
  const std::size_t words = argc > 3 ? static_cast<std::size_t>(std::atoi(argv[3])) / 8 : 8;
  round_trips(std::max(trips, 1), std::max<std::size_t>(words, 1));
  stream(seconds, std::max<std::size_t>(words, 1));
}
