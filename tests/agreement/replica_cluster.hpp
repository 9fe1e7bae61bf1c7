#pragma once

// Helpers for tests of the ordering core: one replica alone, spoken to by hand, and a cluster of replicas whose outputs
// are routed to each other through a network that can drop, copy and reorder. One thread, no time but what a test says.

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "agreement/authority.hpp"
#include "agreement/messages.hpp"
#include "agreement/replica.hpp"
#include "base/observer.hpp"
#include "base/prng.hpp"
#include "base/refusal.hpp"
#include "tests/agreement/make_request.hpp"

namespace zz::agreement::testing {

inline constexpr Micros kNoon{1'700'000'000'000'000};
inline constexpr std::uint64_t kWindow = 256;  // ReplicaConfig's default

// The keys of a cluster without addresses, equal in every run.
struct Keys {
  explicit Keys(std::uint32_t f) {
    ZZ_ASSERT(crypto::init().ok());
    file.f = f;
    file.services.resize(4);
    for (std::uint32_t i = 0; i < file.n(); ++i) {
      std::array<std::uint8_t, 32> seed{};
      seed[0] = static_cast<std::uint8_t>(i + 1);
      keys.push_back(crypto::SecretKey::from_seed(seed));
      const auto id = static_cast<std::uint16_t>(i);
      file.nodes.push_back({NodeId{id}, HostId{id}, {}, keys.back().public_key()});
    }
  }
  static Keys& of(std::uint32_t f) {
    static std::map<std::uint32_t, std::unique_ptr<Keys>> all;
    auto& made = all[f];
    if (!made) made = std::make_unique<Keys>(f);
    return *made;
  }
  crypto::ClusterFile file;
  std::vector<crypto::SecretKey> keys;
};

// A stable checkpoint as Replica takes it: who calls it has checked it.
inline CertificatePtr unsigned_certificate(Seq n) {
  auto certificate = std::make_shared<StableCertificate>();
  certificate->state.n = n;
  return certificate;
}

// Admits every operation but those of incarnation kForbidden.
class TestRules final : public SystemRules {
 public:
  static constexpr std::uint64_t kForbidden = 13;
  [[nodiscard]] Refusal admissible(const SystemOp& op) const override {
    const auto* join = std::get_if<Join>(&op);
    return join != nullptr && join->incarnation.value == kForbidden ? Refusal::kBadSignature : Refusal::kNone;
  }
};

inline SystemOp make_join(std::uint16_t slot, std::uint64_t incarnation) {
  Join join;
  join.slot = SlotId{slot};
  join.incarnation = Incarnation{incarnation};
  return join;
}

inline PrePrepare make_proposal(std::uint64_t n, const std::vector<RequestPtr>& requests, Micros time,
                                std::vector<SystemOp> system = {}) {
  auto header = std::make_shared<BatchHeader>();
  header->n = Seq{n};
  header->time = time;
  for (const RequestPtr& request : requests) header->references.push_back(reference_of(*request));
  header->system = std::move(system);
  PrePrepare message;
  message.digest = batch_digest(*header);
  message.header = std::move(header);
  return message;
}

// One replica of service 0 and what it said so far. The primary of view 0 is node 0.
class LoneReplica {
 public:
  explicit LoneReplica(std::uint16_t self, ReplicaConfig config = {})
      : authority_(Keys::of(config.f).file, config.service, NodeId{self}, Keys::of(config.f).keys[self]),
        replica_(with_self(config, self), authority_, rules_, observer_) {
    tick(kNoon);
  }
  Replica* operator->() { return &replica_; }
  void tick(Micros wall) { replica_.tick(Micros{wall.value - kNoon.value}, wall); }

  // Gathers the outputs until now.
  LoneReplica& drain() {
    ReplicaOutput out = replica_.take_output();
    for (LogRecord& record : out.log) logged.push_back(std::move(record));
    for (Outgoing& outgoing : out.send) {
      if (!std::holds_alternative<Progress>(outgoing.body)) sent.push_back(std::move(outgoing));
    }
    for (Delivery& delivery : out.deliver) delivered.push_back(std::move(delivery));
    return *this;
  }
  template <class T>
  [[nodiscard]] std::vector<T> said() {
    drain();
    std::vector<T> out;
    for (const Outgoing& outgoing : sent) {
      if (const T* message = std::get_if<T>(&outgoing.body)) out.push_back(*message);
    }
    return out;
  }
  Refusal prepare(std::size_t from, const PrePrepare& p) {
    return replica_.step(node(from), Prepare{p.view, p.header->n, p.digest});
  }
  Refusal commit(std::size_t from, const PrePrepare& p) {
    return replica_.step(node(from), Commit{p.view, p.header->n, p.digest});
  }
  Refusal propose(const PrePrepare& p, std::size_t from = 0) { return replica_.step(node(from), p); }
  // What makes any backup of f=1 (not node 2 or 3) deliver an accepted batch.
  void finish(const PrePrepare& p) {
    for (const std::size_t from : {2, 3}) prepare(from, p);
    for (const std::size_t from : {0, 2, 3}) commit(from, p);
    drain();
  }

  std::vector<LogRecord> logged;
  std::vector<Outgoing> sent;  // but PROGRESS
  std::vector<Delivery> delivered;

 private:
  static NodeId node(std::size_t id) { return NodeId{static_cast<std::uint16_t>(id)}; }
  static ReplicaConfig with_self(ReplicaConfig config, std::uint16_t self) {
    config.self = NodeId{self};
    return config;
  }
  TestRules rules_;
  NullObserver observer_;
  Authority authority_;
  Replica replica_;
};

struct Packet {
  NodeId from;
  NodeId to;
  Body body;
};

class ReplicaCluster {
 public:
  explicit ReplicaCluster(ReplicaConfig config = {}) : nodes_(3 * config.f + 1), service_(config.service) {
    delivered.resize(nodes_);
    refusals.resize(nodes_);
    logs.resize(nodes_);
    for (std::uint16_t i = 0; i < nodes_; ++i) {
      config.self = NodeId{i};
      const Keys& keys = Keys::of(config.f);
      authorities_.push_back(std::make_unique<Authority>(keys.file, config.service, config.self, keys.keys[i]));
      replicas_.push_back(std::make_unique<Replica>(config, *authorities_.back(), rules_, observer_));
    }
    config_ = config;
    tick(kNoon);
  }
  [[nodiscard]] std::uint32_t size() const { return nodes_; }
  Replica& at(std::size_t node) { return *replicas_[node]; }

  void tick(Micros wall) {
    wall_ = wall;
    for (const auto& replica : replicas_) replica->tick(Micros{wall.value - kNoon.value}, wall);
  }
  // The node loses everything but its log.
  void restart(std::size_t node) {
    ReplicaConfig config = config_;
    config.self = NodeId{static_cast<std::uint16_t>(node)};
    replicas_[node] = std::make_unique<Replica>(config, *authorities_[node], rules_, observer_);
    replicas_[node]->restore(logs[node].recovered());
    delivered[node].clear();
    replicas_[node]->tick(Micros{wall_.value - kNoon.value}, wall_);
    std::erase_if(wire, [node](const Packet& packet) { return packet.to.value == node; });
    for (std::size_t i = 0; i < nodes_; ++i) {
      if (i == node) continue;
      replicas_[i]->peer_up(NodeId{static_cast<std::uint16_t>(node)});
      replicas_[node]->peer_up(NodeId{static_cast<std::uint16_t>(i)});
    }
  }
  void set_stable(Seq n) {
    for (const auto& replica : replicas_) replica->set_stable(unsigned_certificate(n));
  }
  // The client's own channel to every node.
  void submit(const RequestPtr& request) {
    for (const auto& replica : replicas_) static_cast<void>(replica->vouch(request));
  }
  // Takes the outputs of one node onto the network.
  void collect(std::size_t node) {
    ReplicaOutput out = replicas_[node]->take_output();
    const NodeId from{static_cast<std::uint16_t>(node)};
    for (const LogRecord& record : out.log) logs[node].apply(record);
    for (Outgoing& outgoing : out.send) {
      for (std::uint16_t to = 0; to < nodes_; ++to) {
        if (NodeId{to} == from || (outgoing.to && *outgoing.to != NodeId{to})) continue;
        Packet packet{from, NodeId{to}, outgoing.body};
        if (!pass || pass(packet)) wire.push_back(std::move(packet));
      }
    }
    for (Delivery& delivery : out.deliver) delivered[node].push_back(std::move(delivery));
  }
  void hand_over(const Packet& packet) {
    Replica& replica = *replicas_[packet.to.value];
    const Refusal refusal = std::visit(
        [&](const auto& body) -> Refusal {
          if constexpr (requires { replica.step(packet.from, body); }) {
            return replica.step(packet.from, body);
          } else {
            return Refusal::kWrongRole;
          }
        },
        packet.body);
    refusals[packet.to.value].add(refusal);
  }
  // First in, first out, until nobody has anything to say.
  void run() {
    while (true) {
      for (std::size_t node = 0; node < nodes_; ++node) collect(node);
      if (wire.empty()) return;
      const Packet packet = std::move(wire.front());
      wire.pop_front();
      hand_over(packet);
    }
  }
  // In random order, with copies of some packets, one in `copies`.
  void run_shuffled(Prng& prng, std::uint64_t copies) {
    while (true) {
      for (std::size_t node = 0; node < nodes_; ++node) collect(node);
      if (wire.empty()) return;
      std::swap(wire[prng.below(wire.size())], wire.back());
      const Packet packet = std::move(wire.back());
      wire.pop_back();
      if (copies > 0 && prng.below(copies) == 0) wire.push_back(packet);
      hand_over(packet);
      if (step_hook) step_hook();
    }
  }
  RequestPtr request(std::uint32_t client, std::uint64_t session, std::uint64_t number, std::string_view op = "op") {
    return make_request(client, session, number, op, service_);
  }

  std::vector<std::vector<Delivery>> delivered;  // per node
  std::vector<RefusalCounts> refusals;           // per node, of packets
  std::vector<LogImage> logs;                    // per node
  std::deque<Packet> wire;
  std::function<bool(Packet&)> pass;  // false: the packet is lost; may change it
  std::function<void()> step_hook;    // after every packet of run_shuffled

 private:
  std::uint32_t nodes_;
  ServiceId service_;
  TestRules rules_;
  NullObserver observer_;
  ReplicaConfig config_;
  Micros wall_;
  std::vector<std::unique_ptr<Authority>> authorities_;
  std::vector<std::unique_ptr<Replica>> replicas_;
};

// The references of all delivered batches in order.
inline std::vector<Reference> order_of(const std::vector<Delivery>& deliveries) {
  std::vector<Reference> out;
  for (const Delivery& delivery : deliveries) {
    out.insert(out.end(), delivery.header->references.begin(), delivery.header->references.end());
  }
  return out;
}

}  // namespace zz::agreement::testing
