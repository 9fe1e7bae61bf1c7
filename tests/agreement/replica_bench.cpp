// What ordering costs a node: a cluster of replicas in one process, a client that keeps a number of requests
// outstanding, no wire format, no TLS, no execution. Time is the thread's CPU time inside each replica's calls; the
// digests of requests and batches, which the codec computes in service, are measured apart.
//
//   replica_bench [requests] [outstanding] [f]

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tests/agreement/replica_cluster.hpp"

namespace zz::agreement::testing {
namespace {

std::int64_t cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

constexpr std::uint64_t kPerSession = 250;

struct Load {
  std::uint64_t total;
  std::uint64_t outstanding;
  std::uint32_t f;
};

class Bench {
 public:
  explicit Bench(const Load& load)
      : load_(load), nodes_(3 * load.f + 1), inbox_(nodes_), requests_(nodes_), spent_(nodes_) {
    ReplicaConfig config;
    config.f = load.f;
    for (std::uint16_t i = 0; i < nodes_; ++i) {
      config.self = NodeId{i};
      const Keys& keys = Keys::of(load.f);
      authorities_.push_back(std::make_unique<Authority>(keys.file, config.service, config.self, keys.keys[i]));
      replicas_.push_back(std::make_unique<Replica>(config, *authorities_.back(), rules_, observer_));
    }
    next_.assign((load.outstanding + kPerSession - 1) / kPerSession, 0);
  }

  void run() {
    for (std::uint64_t i = 0; i < load_.outstanding; ++i) submit(i / kPerSession);
    while (done_ < load_.total) {
      ++turns_;
      for (std::size_t node = 0; node < nodes_; ++node) turn(node);
    }
  }

  void print() const {
    const double done = static_cast<double>(done_);
    std::printf("nodes %u, outstanding %llu, requests %llu, batches %llu (%.0f requests each), turns %llu\n", nodes_,
                static_cast<unsigned long long>(load_.outstanding), static_cast<unsigned long long>(done_),
                static_cast<unsigned long long>(batches_), done / static_cast<double>(batches_),
                static_cast<unsigned long long>(turns_));
    for (std::size_t node = 0; node < nodes_; ++node) {
      const double ns = static_cast<double>(spent_[node]);
      std::printf("replica %zu%s: %.0f ns per request, %.0f requests/s per CPU second\n", node,
                  node == 0 ? " (primary)" : "", ns / done, done / ns * 1e9);
    }
    std::printf("digests: %.0f ns per request (8 bytes), %.0f ns per reference of a batch\n", request_digest_ns(),
                static_cast<double>(batch_digest_ns_) / done);
  }

 private:
  static double request_digest_ns() {
    constexpr std::uint64_t kRounds = 200'000;
    const SharedBytes op = SharedBytes::copy("12345678");
    std::uint64_t sink = 0;
    const std::int64_t before = cpu_ns();
    for (std::uint64_t i = 1; i <= kRounds; ++i) {
      sink += request_digest({}, ClientId{1}, SessionId{7}, RequestNumber{i}, 0, op.view()).bytes[0];
    }
    const std::int64_t spent = cpu_ns() - before;
    return sink == 0 ? 0 : static_cast<double>(spent) / static_cast<double>(kRounds);
  }

  void submit(std::size_t session) {
    const RequestPtr request = make_request(1, session, ++next_[session], "12345678");
    for (auto& requests : requests_) requests.push_back(request);
  }

  // One turn of a node's loop: what arrived, then what it has to say.
  void turn(std::size_t node) {
    Replica& replica = *replicas_[node];
    std::vector<RequestPtr> requests;
    std::vector<Packet> packets;
    requests.swap(requests_[node]);
    packets.swap(inbox_[node]);
    const std::int64_t before = cpu_ns();
    const Micros now{static_cast<std::int64_t>(turns_) * 100};
    replica.tick(now, Micros{kNoon.value + now.value});
    for (RequestPtr& request : requests) static_cast<void>(replica.vouch(std::move(request)));
    for (const Packet& packet : packets) hand_over(replica, packet);
    ReplicaOutput out = replica.take_output();
    const Seq delivered = replica.last_delivered();
    if (delivered.value > kWindow / 2) replica.set_stable(unsigned_certificate(Seq{delivered.value - kWindow / 2}));
    spent_[node] += cpu_ns() - before;

    for (Outgoing& outgoing : out.send) {
      for (std::uint16_t to = 0; to < nodes_; ++to) {
        if (to == node || (outgoing.to && outgoing.to->value != to)) continue;
        inbox_[to].push_back({NodeId{static_cast<std::uint16_t>(node)}, NodeId{to}, outgoing.body});
      }
    }
    if (node != 0) return;
    for (const Delivery& delivery : out.deliver) {
      ++batches_;
      done_ += delivery.requests.size();
      const std::int64_t start = cpu_ns();
      if (batch_digest(*delivery.header) != delivery.digest) std::abort();
      batch_digest_ns_ += cpu_ns() - start;
      for (const RequestPtr& request : delivery.requests) submit(request->session.value);
    }
  }

  static void hand_over(Replica& replica, const Packet& packet) {
    std::visit(
        [&](const auto& body) {
          if constexpr (requires { replica.step(packet.from, body); })
            static_cast<void>(replica.step(packet.from, body));
        },
        packet.body);
  }

  Load load_;
  std::uint32_t nodes_;
  TestRules rules_;
  NullObserver observer_;
  std::vector<std::unique_ptr<Authority>> authorities_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  std::vector<std::vector<Packet>> inbox_;
  std::vector<std::vector<RequestPtr>> requests_;
  std::vector<std::int64_t> spent_;
  std::vector<std::uint64_t> next_;
  std::uint64_t done_ = 0;
  std::uint64_t batches_ = 0;
  std::uint64_t turns_ = 0;
  std::int64_t batch_digest_ns_ = 0;
};

}  // namespace
}  // namespace zz::agreement::testing

int main(int argc, char** argv) {
  const auto argument = [&](int i, unsigned long long otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const zz::agreement::testing::Load load{argument(1, 1'000'000), argument(2, 1'000),
                                          static_cast<std::uint32_t>(argument(3, 1))};
  if (load.total == 0 || load.outstanding == 0 || load.outstanding > 4'000 || load.f == 0 || load.f > 5) {
    std::fprintf(stderr, "usage: replica_bench [requests > 0] [outstanding 1..4000] [f 1..5]\n");
    return 2;
  }
  zz::agreement::testing::Bench bench(load);
  bench.run();
  bench.print();
  return 0;
}
