#include "agreement/node.hpp"

#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "agreement/codec.hpp"
#include "agreement/durable_log.hpp"
#include "agreement/evidence_file.hpp"
#include "agreement/incident_log.hpp"
#include "agreement/service_instance.hpp"
#include "net/channel.hpp"

namespace zz::agreement {

namespace {

Micros micros_of(std::chrono::nanoseconds since_epoch) {
  return Micros{std::chrono::duration_cast<std::chrono::microseconds>(since_epoch).count()};
}

net::NetLimits net_limits(const crypto::ClusterFile& cluster) {
  net::NetLimits limits;
  limits.frame_bytes_max = cluster.limits.frame_bytes_max;
  limits.send_queue_bytes_max = cluster.limits.send_queue_bytes_max;
  return limits;
}

CodecLimits codec_limits(const crypto::ClusterFile& cluster) {
  CodecLimits limits;
  limits.op_bytes_max = cluster.limits.op_bytes_max;
  limits.batch_requests_max = cluster.limits.batch_requests_max;
  return limits;
}

}  // namespace

class Node::Impl final : public net::Handler, public Outlet {
 public:
  Impl(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, NodeId self, const crypto::SecretKey& key,
       NodeOptions options)
      : loop_(loop),
        cluster_(cluster),
        self_(self),
        key_(key),
        options_(std::move(options)),
        codec_limits_(codec_limits(cluster)),
        incidents_([] { return std::chrono::steady_clock::now(); }),
        timer_(loop),
        nodes_(cluster.nodes.size()),
        hosts_(cluster.hosts.size()) {
    for (const crypto::NodeEntry& node : cluster.nodes) {
      known_[node.key] = crypto::Peer{crypto::Role::kNode, node.id.value, {}, {}, {}};
    }
    for (const crypto::HostEntry& host : cluster.hosts) {
      known_[host.key] = crypto::Peer{crypto::Role::kHost, host.id.value, {}, {}, {}};
    }
    for (const crypto::ClientEntry& client : cluster.clients) {
      const auto role = client.operator_role ? crypto::Role::kOperator : crypto::Role::kClient;
      known_[client.key] = crypto::Peer{role, client.id.value, {}, {}, {}};
    }
    for (const crypto::ServiceEntry& service : cluster.services) {
      services_.push_back(std::make_unique<ServiceInstance>(cluster, service.id, self, key, incidents_, *this));
    }
  }

  ~Impl() override {
    if (!log_ || failed_) return;
    if (const auto written = log_->commit(); !written) spdlog::error("{}", written.error());
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<void> start() {
    if (auto restored = restore(); !restored) return restored;
    auto tls = crypto::TlsContext::make(key_, [this](const crypto::PublicKey& key) { return holder(key); });
    if (!tls) return Error{tls.error()};
    network_ = std::make_unique<net::Network>(loop_, std::move(*tls), net_limits(cluster_), *this);
    if (auto listening = network_->listen(cluster_.nodes[self_.value].address); !listening) return listening;
    for (const crypto::NodeEntry& node : cluster_.nodes) {
      if (node.id < self_) network_->dial(node.address, node.key);
    }
    tick();
    return {};
  }

  [[nodiscard]] std::string status_json() const;

  // net::Handler
  void on_up(net::Channel& channel) override;
  void on_message(net::Channel& channel, const SharedBytes& bytes) override;
  void on_down(net::Channel& channel, std::string_view reason) override;
  void on_refused(Refusal reason, std::string_view who, std::string_view detail) override {
    if (strangers_.of(reason) == 0) spdlog::warn("refused {}: {} ({})", who, to_string(reason), detail);
    strangers_.add(reason);
  }

  // Outlet
  void to_all_nodes(const Message& message) override {
    const SharedBytes bytes = encode(message);
    for (net::Channel* channel : nodes_) send(channel, bytes);
  }
  void to_node(NodeId node, const Message& message) override { send(nodes_[node.value], encode(message)); }
  void to_host(HostId host, const Message& message) override { send(hosts_[host.value], encode(message)); }
  void to_all_hosts(const Message& message) override {
    const SharedBytes bytes = encode(message);
    for (net::Channel* channel : hosts_) send(channel, bytes);
  }
  void to_client(ClientId client, const Message& message) override {
    const auto it = clients_.find(client);
    if (it != clients_.end()) send(it->second, encode(message));
  }
  bool to_executor(ServiceId service, SlotId slot, Incarnation incarnation, const Message& message) override {
    net::Channel* channel = executor(service, slot, incarnation);
    return send(channel, encode(message)) == net::Sent::kQueued;
  }
  [[nodiscard]] std::size_t queued_bytes(ServiceId service, SlotId slot, Incarnation incarnation) const override {
    const net::Channel* channel = executor(service, slot, incarnation);
    if (channel == nullptr) return 0;
    const auto held = held_bytes_.find(channel);
    return channel->queued_bytes() + (held == held_bytes_.end() ? 0 : held->second);
  }
  void drop_stale_executors(ServiceId service) override {
    const Oversight& oversight = services_[service.value]->oversight();
    network_->close_if(
        [&](const crypto::Peer& peer) {
          return peer.role == crypto::Role::kExecutor && peer.service == service &&
                 !oversight.is_current(peer.slot, peer.incarnation);
        },
        "incarnation is no longer current");
  }
  void persist(ServiceId service, const LogRecord& record) override {
    if (log_) log_->add(service, record);
  }
  void sync(ServiceId) override {
    if (log_) log_->demand_sync();
  }

 private:
  Result<void> restore();
  [[nodiscard]] std::optional<crypto::Peer> holder(const crypto::PublicKey& key) const {
    if (const auto it = known_.find(key); it != known_.end()) return it->second;
    for (const auto& service : services_) {
      if (const auto held = service->oversight().holder_of(key)) {
        const ServiceId id = service->oversight().notice().service;
        return crypto::Peer{crypto::Role::kExecutor, 0, id, held->first, held->second};
      }
    }
    return std::nullopt;
  }

  net::Sent hold(net::Channel* channel, const SharedBytes& bytes) {
    std::size_t& held = held_bytes_[channel];
    if (channel->queued_bytes() + held + bytes.size() > cluster_.limits.send_queue_bytes_max) return net::Sent::kFull;
    held += bytes.size();
    held_.emplace_back(channel, bytes);
    return net::Sent::kQueued;
  }
  net::Sent send(net::Channel* channel, const SharedBytes& bytes) {
    if (channel == nullptr || failed_) return net::Sent::kClosed;
    const net::Sent sent = in_turn_ ? hold(channel, bytes) : channel->send(bytes);
    if (sent == net::Sent::kFull) {
      refused(channel->peer(), Refusal::kQueueFull);
      // What was dropped would never be said again; a new channel starts from what each side then needs. A client
      // asks again by itself.
      const crypto::Role role = channel->peer().role;
      if (role != crypto::Role::kClient && role != crypto::Role::kOperator) channel->close("send queue full");
    }
    return sent;
  }

  [[nodiscard]] net::Channel* executor(ServiceId service, SlotId slot, Incarnation incarnation) const {
    const auto it = executors_.find({service, slot});
    return it == executors_.end() || it->second->peer().incarnation != incarnation ? nullptr : it->second;
  }

  void remember(net::Channel& channel, net::Channel* value);
  void refused(const crypto::Peer& peer, Refusal reason);
  void answer_status(net::Channel& channel);
  void tick();
  void schedule_turn() {
    if (turn_scheduled_) return;
    turn_scheduled_ = true;
    boost::asio::post(loop_, [this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) turn();
    });
  }
  void turn();
  void keep_evidence();
  void fail(const std::string& why);

  boost::asio::io_context& loop_;
  const crypto::ClusterFile& cluster_;
  NodeId self_;
  const crypto::SecretKey& key_;
  NodeOptions options_;
  CodecLimits codec_limits_;
  IncidentLog incidents_;
  boost::asio::steady_timer timer_;
  std::map<crypto::PublicKey, crypto::Peer> known_;
  std::vector<std::unique_ptr<ServiceInstance>> services_;  // by id
  std::vector<net::Channel*> nodes_;                        // live channels, null where there is none
  std::vector<net::Channel*> hosts_;
  std::map<ClientId, net::Channel*> clients_;
  std::map<std::pair<ServiceId, SlotId>, net::Channel*> executors_;
  std::map<crypto::Peer, RefusalCounts> refusals_;  // executors without incarnation: bounded by the cluster file
  RefusalCounts strangers_;
  std::unique_ptr<DurableLog> log_;  // null with durability none
  int ticks_unwritten_ = 0;          // since the log was written last
  // What a turn wants to say waits for the turn's promises to be durable. A channel outlives the turn.
  bool in_turn_ = false;
  bool failed_ = false;
  std::vector<std::pair<net::Channel*, SharedBytes>> held_;
  std::map<const net::Channel*, std::size_t> held_bytes_;
  bool turn_scheduled_ = false;
  bool evidence_failed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // a posted turn may outlive us
  std::unique_ptr<net::Network> network_;                       // last: its end silences the handler first
};

// What the log gives back, to the cores.
Result<void> Node::Impl::restore() {
  if (cluster_.durability == crypto::Durability::kNone) return {};
  if (options_.data.empty()) return Error{"durability is not \"none\", and no data directory is given"};
  DurableLogOptions options;
  options.path = options_.data;
  options.cluster = cluster_.id;
  options.node = self_;
  options.services = static_cast<std::uint16_t>(cluster_.services.size());
  options.sync = cluster_.durability == crypto::Durability::kSync;
  Result<DurableLog::Opened> opened = DurableLog::open(options);
  if (!opened) return Error{opened.error()};
  if (!opened->damage.empty()) spdlog::error("LEARNER: {}", opened->damage);
  log_ = std::move(opened->log);
  for (const auto& service : services_) {
    const ServiceId id = service->oversight().notice().service;
    const Recovered& recovered = opened->services[id.value];
    spdlog::info("service {}: {} batches and the promises of view {} are back from the log{}", id.value,
                 recovered.ordered.size(), recovered.view.view.value,
                 recovered.learner ? "; this node learns and does not vote" : "");
    service->restore(recovered);
  }
  return {};
}

// Promises first, then words. What promises nothing is written with the next promise, or at the second tick.
void Node::Impl::turn() {
  turn_scheduled_ = false;
  if (failed_) return;
  in_turn_ = log_ != nullptr;
  for (const auto& service : services_) service->run();
  in_turn_ = false;
  if (log_ && (log_->promises() || ticks_unwritten_ >= 2)) {
    if (const auto written = log_->commit(); !written) return fail(written.error());
    ticks_unwritten_ = 0;
  }
  for (const auto& [channel, bytes] : held_) send(channel, bytes);
  held_.clear();
  held_bytes_.clear();
  network_->flush();
  keep_evidence();
}

// For people; that it cannot be written stops nobody.
void Node::Impl::keep_evidence() {
  for (std::size_t i = 0; i < services_.size(); ++i) {
    const crypto::ServiceEntry& service = cluster_.services[i];
    EvidenceFiles files(evidence_path(options_.data));
    const auto tell = [&](std::string_view what, Seq n, const Result<std::string>& path) {
      if (path) {
        spdlog::warn("service {}: batch {}: {} differ: see {} (zz explain)", i, n.value, what, *path);
      } else if (!std::exchange(evidence_failed_, true)) {
        spdlog::error("evidence is lost: {}", path.error());
      }
    };
    for (const Evidence& evidence : services_[i]->take_evidence()) {
      if (!options_.data.empty()) tell("replies", evidence.n, files.write(service.name, evidence));
    }
    for (const StateDifference& difference : services_[i]->take_state_evidence()) {
      if (options_.data.empty()) continue;
      tell("states after it", difference.n, files.write(service.name, service.adapter, difference));
    }
  }
}

// Nothing of this turn leaves. The handlers that are under way find a node that does nothing any more.
void Node::Impl::fail(const std::string& why) {
  spdlog::error("node {} stops: {}", self_.value, why);
  failed_ = true;
  held_.clear();
  held_bytes_.clear();
  boost::asio::post(loop_, [this, why, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    timer_.cancel();
    network_.reset();
    if (options_.on_failure) options_.on_failure(why);
  });
}

void Node::Impl::remember(net::Channel& channel, net::Channel* value) {
  const crypto::Peer& peer = channel.peer();
  switch (peer.role) {
    case crypto::Role::kNode:
      nodes_[peer.index] = value;
      break;
    case crypto::Role::kHost:
      hosts_[peer.index] = value;
      break;
    case crypto::Role::kClient:
    case crypto::Role::kOperator:
      if (value != nullptr) {
        clients_[peer.client()] = value;
      } else {
        clients_.erase(peer.client());
      }
      break;
    case crypto::Role::kExecutor: {
      const auto place = std::make_pair(peer.service, peer.slot);
      if (value != nullptr) {
        executors_[place] = value;
      } else if (const auto it = executors_.find(place); it != executors_.end() && it->second == &channel) {
        executors_.erase(it);
      }
      break;
    }
  }
}

void Node::Impl::on_up(net::Channel& channel) {
  spdlog::info("channel up: {}", crypto::to_string(channel.peer()));
  remember(channel, &channel);
  for (const auto& service : services_) service->peer_up(channel.peer());
  schedule_turn();
}

void Node::Impl::on_down(net::Channel& channel, std::string_view reason) {
  spdlog::info("channel down: {}: {}", crypto::to_string(channel.peer()), reason);
  remember(channel, nullptr);
  for (const auto& service : services_) service->peer_down(channel.peer());
  schedule_turn();
}

void Node::Impl::refused(const crypto::Peer& peer, Refusal reason) {
  crypto::Peer label = peer;
  label.incarnation = {};
  RefusalCounts& counts = refusals_[label];
  if (counts.of(reason) == 0) spdlog::info("refused a message of {}: {}", crypto::to_string(peer), to_string(reason));
  counts.add(reason);
}

void Node::Impl::on_message(net::Channel& channel, const SharedBytes& bytes) {
  Decoded decoded = decode(bytes, codec_limits_);
  Refusal refusal = decoded.refusal;
  if (refusal == Refusal::kNone) {
    if (std::holds_alternative<StatusQuery>(decoded.message.body)) {
      if (channel.peer().role == crypto::Role::kOperator) return answer_status(channel);
      refusal = Refusal::kWrongRole;
    } else if (decoded.message.service.value >= services_.size()) {
      refusal = Refusal::kUnknownService;
    } else {
      refusal = services_[decoded.message.service.value]->step(channel.peer(), decoded.message);
      schedule_turn();
    }
  }
  if (refusal != Refusal::kNone) refused(channel.peer(), refusal);
}

void Node::Impl::answer_status(net::Channel& channel) {
  send(&channel, encode(Message{ServiceId{}, StatusReport{status_json()}}));
  schedule_turn();
}

void Node::Impl::tick() {
  if (failed_) return;
  const Micros monotonic = micros_of(std::chrono::steady_clock::now().time_since_epoch());
  const Micros wall = micros_of(std::chrono::system_clock::now().time_since_epoch());
  for (const auto& service : services_) service->tick(monotonic, wall);
  ++ticks_unwritten_;
  turn();
  timer_.expires_after(std::chrono::milliseconds(cluster_.timing.tick_ms));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) tick();
  });
}

std::string Node::Impl::status_json() const {
  using nlohmann::json;
  json services = json::array();
  for (const auto& instance : services_) {
    const Oversight& oversight = instance->oversight();
    const EpochNotice notice = oversight.notice();
    json slots = json::array();
    const std::vector<SlotView> views = oversight.slots();
    for (std::size_t i = 0; i < views.size(); ++i) {
      slots.push_back({{"slot", i},
                       {"incarnation", views[i].incarnation.value},
                       {"active", views[i].active},
                       {"connected", views[i].connected},
                       {"last_vote", views[i].last_vote.value},
                       {"quarantine_ms", (views[i].quarantine.value + 999) / 1'000}});
    }
    json active = json::array();
    for (const SlotId slot : notice.active) active.push_back(slot.value);
    const OversightStats& stats = oversight.stats();
    services.push_back({{"service", cluster_.services[notice.service.value].name},
                        {"view", instance->replica().view().value},
                        {"changing", instance->replica().changing()},
                        {"view_changes", instance->replica().stats().view_changes},
                        {"view_timeout_ms", instance->replica().view_timeout().value / 1'000},
                        {"learner", instance->learner()},
                        {"stable", instance->stable().value},
                        {"primary", instance->replica().primary().value},
                        {"ordered", instance->replica().last_delivered().value},
                        {"closed", oversight.closed_through().value},
                        {"epoch", oversight.epoch().value},
                        {"active", std::move(active)},
                        {"slots", std::move(slots)},
                        {"divergences", stats.divergences},
                        {"wakes", stats.wakes},
                        {"evictions", stats.evictions},
                        {"rejuvenations", stats.rejuvenations},
                        {"not_deterministic", stats.not_deterministic},
                        {"first_correct_reply_us", incidents_.settled_us(notice.service)},
                        {"history_bytes", instance->log().bytes()},
                        {"waiting_requests", instance->replica().waiting_requests()}});
  }
  const auto counted = [](const RefusalCounts& counts) {
    json out = json::object();
    for (std::size_t i = 0; i < counts.counts.size(); ++i) {
      if (counts.counts[i] > 0) out[std::string(to_string(static_cast<Refusal>(i)))] = counts.counts[i];
    }
    return out;
  };
  json refusals = json::object();
  for (const auto& [peer, counts] : refusals_) refusals[crypto::to_string(peer)] = counted(counts);
  if (const json strangers = counted(strangers_); !strangers.empty()) refusals["unauthenticated"] = strangers;
  return json{{"node", self_.value},
              {"durability", to_string(cluster_.durability)},
              {"services", std::move(services)},
              {"refusals", std::move(refusals)}}
      .dump();
}

Node::Node(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, NodeId self, const crypto::SecretKey& key,
           NodeOptions options)
    : impl_(std::make_unique<Impl>(loop, cluster, self, key, std::move(options))) {}
Node::~Node() = default;
Result<void> Node::start() { return impl_->start(); }
std::string Node::status_json() const { return impl_->status_json(); }

}  // namespace zz::agreement
