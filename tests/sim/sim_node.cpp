#include "tests/sim/sim_node.hpp"

#include <algorithm>
#include <utility>

#include "tests/sim/adversary.hpp"
#include "tests/sim/sanitise.hpp"

namespace zz::sim {

using agreement::LogRecord;
using agreement::Message;

namespace {

constexpr ServiceId kService{0};
constexpr std::uint8_t kBothTwins = 3;

}  // namespace

// ---- disk and clock --------------------------------------------------------------------------------------------

const agreement::OrderedRecord* SimDisk::sync() {
  const agreement::OrderedRecord* last = nullptr;
  for (; synced_ < records_.size(); ++synced_) {
    if (const auto* ordered = std::get_if<agreement::OrderedRecord>(&records_[synced_])) last = ordered;
  }
  return last;
}

std::vector<LogRecord> SimDisk::crash(std::size_t kept) {
  records_.resize(synced_ + std::min(kept, unsynced()));
  std::vector<LogRecord> out(records_.begin() + static_cast<std::ptrdiff_t>(synced_), records_.end());
  synced_ = records_.size();
  return out;
}

void SimDisk::lose(std::size_t lost) {
  records_.resize(records_.size() - std::min(lost, records_.size()));
  synced_ = records_.size();
}

agreement::Recovered SimDisk::recovered() const {
  agreement::LogImage image;
  for (const LogRecord& record : records_) image.apply(record);
  return image.recovered();
}

Micros SimClock::monotonic(Micros now) const {
  const std::int64_t passed = now.value - anchor_;
  return Micros{anchor_value_ + passed + passed * ppm_ / 1'000'000};
}

void SimClock::set_drift(Micros now, std::int64_t parts_per_million) {
  anchor_value_ = monotonic(now).value;
  anchor_ = now.value;
  ppm_ = parts_per_million;
}

// ---- one copy of the correct code ------------------------------------------------------------------------------

struct SimNode::Body final : agreement::Outlet, Observer {
  Body(SimNode& owner, std::size_t which) : node(owner), index(which) {}

  struct Input {
    enum class Kind : std::uint8_t { kMessage, kUp, kDown };
    Kind kind;
    crypto::Peer peer;
    MessagePtr message;
  };

  SimNode& node;
  const std::size_t index;
  std::unique_ptr<agreement::ServiceInstance> instance;
  std::vector<Leaving> outbox;
  std::vector<LogRecord> records;
  std::vector<LogRecord> promised;  // being synced
  std::vector<Input> inbox;
  bool busy = false;  // syncing
  bool stale_executors = false;
  bool sync_demanded = false;
  Seq marked;     // deliveries that are in the outbox
  Seq delivered;  // and that the witness knows of

  [[nodiscard]] const Parties& parties() const { return node.kernel_.parties; }
  void put(Party to, MessagePtr message) {
    mark_deliveries();
    outbox.push_back({to, std::move(message), {}, nullptr});
  }
  // Where in the turn's messages a delivery stands.
  void mark_deliveries() {
    if (instance == nullptr || instance->log().last() == marked) return;
    marked = instance->log().last();
    outbox.push_back({0, nullptr, marked, nullptr});
  }

  void to_all_nodes(const Message& message) override {
    const auto shared = std::make_shared<const Message>(message);
    for (Party other = 0; other < parties().nodes; ++other) {
      if (other != node.party()) put(other, shared);
    }
  }
  void to_node(NodeId to, const Message& message) override { put(to.value, std::make_shared<const Message>(message)); }
  void to_host(HostId to, const Message& message) override {
    put(parties().host(to.value), std::make_shared<const Message>(message));
  }
  void to_all_hosts(const Message& message) override {
    const auto shared = std::make_shared<const Message>(message);
    for (std::size_t host = 0; host < parties().hosts; ++host) put(parties().host(host), shared);
  }
  void to_client(ClientId to, const Message& message) override {
    put(parties().client(to.value), std::make_shared<const Message>(message));
  }
  bool to_executor(ServiceId, SlotId slot, Incarnation incarnation, const Message& message) override {
    const Party to = parties().slot(slot.value);
    if (!node.network_.up(node.party(), to) || node.network_.peer(to).incarnation != incarnation) return false;
    put(to, std::make_shared<const Message>(message));
    return true;
  }
  [[nodiscard]] std::size_t queued_bytes(ServiceId, SlotId slot, Incarnation) const override {
    return node.network_.queued_bytes(node.party(), parties().slot(slot.value));
  }
  void drop_stale_executors(ServiceId) override { stale_executors = true; }
  void persist(ServiceId, const LogRecord& record) override {
    if (const auto* s = std::get_if<agreement::StableRecord>(&record)) {
      mark_deliveries();  // its own signature may be one of them
      outbox.push_back({0, nullptr, marked, s->certificate});
    }
    records.push_back(record);
  }
  void sync(ServiceId) override { sync_demanded = true; }

  void on_event(const Event& event) override {
    if (!node.trusted()) return;
    node.kernel_.observed(node.party(), event);
  }
};

SimNode::SimNode(Kernel& kernel, Network& network, NodeId id, const crypto::SecretKey& key, std::string kind,
                 std::map<NodeId, const crypto::SecretKey*> accomplices, std::uint64_t seed)
    : kernel_(kernel),
      network_(network),
      id_(id),
      key_(key),
      kind_(std::move(kind)),
      accomplices_(std::move(accomplices)),
      prng_(seed),
      groups_(kernel.parties.count(), kBothTwins) {
  bodies_.push_back(std::make_unique<Body>(*this, 0));
  if (kind_ == kTwin) bodies_.push_back(std::make_unique<Body>(*this, 1));
  if (!kind_.empty() && kind_ != kTwin) {
    adversary_ = make_adversary(kind_, prng_);
    ZZ_ASSERT(adversary_ != nullptr);
  }
}

SimNode::~SimNode() = default;

void SimNode::make_body(Body& body, const agreement::Recovered* recovered) {
  body.instance = std::make_unique<agreement::ServiceInstance>(kernel_.cluster, kService, id_, key_, body, body);
  body.marked = body.delivered = Seq{};
  if (recovered != nullptr) body.instance->restore(*recovered);
  body.instance->tick(clock.monotonic(kernel_.now), clock.wall(kernel_.now));
}

void SimNode::start() {
  ZZ_ASSERT(!alive_);
  alive_ = true;
  const bool again = ++life_ > 1;
  std::optional<agreement::Recovered> recovered;
  if (again) {
    recovered = disk_.recovered();
    recovered->learner = recovered->learner || std::exchange(damaged_, false);
    kernel_.witness->node_restarted(id_, amnesiac_);
    kernel_.count("recovery.restart");
    if (recovered->learner) kernel_.count("recovery.learner");
    if (!recovered->ordered.empty()) kernel_.count("recovery.replayed-order");
    if (recovered->view.changing) kernel_.count("recovery.restart-in-view-change");
    if (recovered->stable) kernel_.count("recovery.restart-with-stable-checkpoint");
  }
  if (kind_ == kTwin) regroup();
  for (const auto& body : bodies_) make_body(*body, recovered ? &*recovered : nullptr);
  for (const auto& body : bodies_) turn(*body);
  network_.party_up(party());
}

void SimNode::crash(CrashKind kind) {
  if (!alive_) return;
  view_changes_before_ = view_changes();
  alive_ = false;
  paused_ = false;
  const std::size_t unsynced = disk_.unsynced();
  for (const LogRecord& record : disk_.crash(kind == CrashKind::kTorn ? prng_.below(unsynced + 1) : 0)) {
    if (trusted()) kernel_.witness->persisted(id_, record, true);
  }
  if (kind == CrashKind::kRollback) {
    amnesiac_ = true;
    disk_.lose(1 + prng_.below(std::max<std::size_t>(disk_.size() / 2, 1)));
  }
  if (kind == CrashKind::kDamaged) {
    amnesiac_ = damaged_ = true;
    disk_.lose(chance(prng_, 30) ? disk_.size() : prng_.below(disk_.size() + 1));
  }
  for (const auto& body : bodies_) {
    body->instance.reset();
    body->outbox.clear();
    body->records.clear();
    body->promised.clear();
    body->inbox.clear();
    body->busy = body->stale_executors = body->sync_demanded = false;
  }
  network_.party_down(party());
}

void SimNode::pause() {
  if (!alive_ || paused_) return;
  paused_ = true;
  ++pauses_;
}

void SimNode::resume(std::uint64_t pause) {
  if (!alive_ || !paused_ || pause != pauses_) return;
  paused_ = false;
  for (const auto& body : bodies_) {
    if (body->busy) continue;
    body->instance->tick(clock.monotonic(kernel_.now), clock.wall(kernel_.now));
    drain(*body);
  }
}

bool SimNode::admits(const crypto::Peer& executor) const {
  if (executor.role != crypto::Role::kExecutor) return true;
  return std::any_of(bodies_.begin(), bodies_.end(), [&](const auto& body) {
    return body->instance->oversight().is_current(executor.slot, executor.incarnation);
  });
}

const agreement::ServiceInstance& SimNode::instance() const { return *bodies_.front()->instance; }

NodeStatus SimNode::status() const {
  NodeStatus out;
  const Body& body = *bodies_.front();
  out.alive = alive_;
  if (!alive_) return out;
  out.stable = body.instance->stable();
  const agreement::Replica& replica = body.instance->replica();
  out.view = replica.view();
  out.changing = replica.changing();
  out.delivered = replica.last_delivered();
  out.view_timeout = replica.view_timeout();
  out.waiting = replica.waiting_requests();
  out.stats = replica.stats();
  return out;
}

std::uint64_t SimNode::view_changes() const {
  const bool counts = alive_ && bodies_.front()->instance != nullptr;
  return view_changes_before_ + (counts ? bodies_.front()->instance->replica().stats().view_changes : 0);
}

// ---- input -----------------------------------------------------------------------------------------------------

bool SimNode::serves(const Body& body, Party other) const {
  return bodies_.size() == 1 || (groups_[other] >> body.index & 1) != 0;
}

void SimNode::deliver(Party from, const MessagePtr& message) {
  if (!alive_) return;
  for (const auto& body : bodies_) {
    if (!serves(*body, from)) continue;
    if (paused_ || body->busy) {
      body->inbox.push_back({Body::Input::Kind::kMessage, network_.peer(from), message});
      continue;
    }
    step(*body, network_.peer(from), message);
    turn(*body);
  }
}

void SimNode::link_up(Party other) {
  for (const auto& body : bodies_) {
    body->inbox.push_back({Body::Input::Kind::kUp, network_.peer(other), nullptr});
    if (!paused_ && !body->busy) drain(*body);
  }
}

void SimNode::link_down(Party other) {
  if (!alive_) return;
  for (const auto& body : bodies_) {
    body->inbox.push_back({Body::Input::Kind::kDown, network_.peer(other), nullptr});
    if (!paused_ && !body->busy) drain(*body);
  }
}

void SimNode::tick() {
  if (!alive_ || paused_) return;
  for (const auto& body : bodies_) {
    if (body->busy) continue;  // it comes again
    body->instance->tick(clock.monotonic(kernel_.now), clock.wall(kernel_.now));
    turn(*body);
  }
}

void SimNode::step(Body& body, const crypto::Peer& from, const MessagePtr& message) {
  if (adversary_) {
    AdversaryWorld world = adversary_world();
    if (!adversary_->incoming(world, Parcel{from, network_.peer(party()), message})) return;
  }
  Refusal refusal = Refusal::kUnknownService;
  if (message->service == kService) {
    Message copy = *message;
    refusal = body.instance->step(from, copy);
  }
  if (refusal != Refusal::kNone && !byzantine()) kernel_.refusals.add(refusal);
}

void SimNode::tell_channel(const crypto::Peer& peer, bool up) {
  if (peer.role != crypto::Role::kExecutor || !trusted()) return;
  kernel_.witness->channel(kernel_.now, id_, peer.slot, peer.incarnation, up);
}

// Everything that gathered, then one turn.
void SimNode::drain(Body& body) {
  std::vector<Body::Input> inputs;
  inputs.swap(body.inbox);
  for (const Body::Input& input : inputs) {
    switch (input.kind) {
      case Body::Input::Kind::kMessage:
        step(body, input.peer, input.message);
        break;
      case Body::Input::Kind::kUp:
        tell_channel(input.peer, true);
        body.instance->peer_up(input.peer);
        break;
      case Body::Input::Kind::kDown:
        tell_channel(input.peer, false);
        body.instance->peer_down(input.peer);
        break;
    }
  }
  turn(body);
}

// ---- turns -----------------------------------------------------------------------------------------------------

std::int64_t SimNode::sync_time() {
  if (disk_speed.slow_percent > 0 && chance(prng_, disk_speed.slow_percent)) {
    kernel_.count("fault.slow-disk");
    return between(prng_, 20'000, 500'000);
  }
  return between(prng_, disk_speed.least, disk_speed.most);
}

void SimNode::turn(Body& body) {
  body.instance->run();
  body.mark_deliveries();
  for (const agreement::StateDifference& found : body.instance->take_state_evidence()) {
    kernel_.count(found.first ? "evidence.object" : "evidence.roots");
  }
  bool promises = std::exchange(body.sync_demanded, false);
  if (!byzantine()) {
    for (LogRecord& record : body.records) {
      if (is_promise(record)) {
        promises = true;
        body.promised.push_back(record);
      } else if (trusted()) {
        kernel_.witness->persisted(id_, record, false);
      }
      disk_.write(std::move(record));
    }
  }
  body.records.clear();
  if (promises) {
    body.busy = true;
    kernel_.after(sync_time(), {Happening::Kind::kNodeSynced, party(), static_cast<Party>(body.index), life_, nullptr});
  } else {
    release(body);
  }
  if (std::exchange(body.stale_executors, false)) {
    for (std::size_t slot = 0; slot < kernel_.parties.slots; ++slot) {
      const Party other = kernel_.parties.slot(slot);
      if (network_.up(party(), other) && !admits(network_.peer(other))) network_.close(party(), other);
    }
  }
}

void SimNode::synced(const Happening& happening) {
  if (!alive_ || happening.number != life_) return;
  Body& body = *bodies_[happening.b];
  const agreement::OrderedRecord* const ordered = disk_.sync();
  if (trusted()) {
    if (ordered != nullptr) kernel_.witness->persisted(id_, *ordered, true);
    for (const LogRecord& record : body.promised) {
      // The witness learns of stable checkpoints among the messages, after the signatures that they rest on.
      if (!std::holds_alternative<agreement::StableRecord>(record)) kernel_.witness->persisted(id_, record, true);
    }
  }
  body.promised.clear();
  body.busy = false;
  release(body);
  if (!paused_ && !body.inbox.empty()) drain(body);
}

void SimNode::release(Body& body) {
  std::vector<Leaving> outbox;
  outbox.swap(body.outbox);
  for (const Leaving& leaving : outbox) {
    if (leaving.message) {
      leave(body, leaving.to, leaving.message);
      continue;
    }
    while (body.delivered < leaving.delivered) {
      body.delivered = body.delivered.next();
      if (trusted()) kernel_.witness->delivered(id_, body.instance->log().at(body.delivered));
    }
    if (leaving.stable && trusted()) {
      kernel_.witness->persisted(id_, agreement::StableRecord{leaving.stable}, true);
    }
  }
  outbox.clear();
  if (body.outbox.empty()) body.outbox.swap(outbox);  // keeps the memory
}

void SimNode::leave(Body& body, Party to, const MessagePtr& message) {
  if (!serves(body, to)) return;
  if (!network_.up(party(), to)) {
    // Signed all the same: once others' signatures have come, a certificate carries this one to everybody.
    if (trusted() && std::holds_alternative<agreement::Checkpoint>(message->body)) {
      kernel_.witness->sent(kernel_.now, Parcel{network_.peer(party()), network_.peer(party()), message});
    }
    return;
  }
  if (!adversary_) {
    network_.send(party(), to, message);
    return;
  }
  leaving_.clear();
  AdversaryWorld world = adversary_world();
  adversary_->outgoing(world, Parcel{network_.peer(party()), network_.peer(to), message}, leaving_);
  leave_as_told(leaving_);
}

// ---- Byzantine -------------------------------------------------------------------------------------------------

AdversaryWorld SimNode::adversary_world() {
  return AdversaryWorld{kernel_.cluster, id_, accomplices_, prng_, kernel_.counters, kernel_.now};
}

void SimNode::leave_as_told(std::vector<Adversary::Leaving>& parcels) {
  for (Adversary::Leaving& leaving : parcels) {
    const auto to = network_.party_of(leaving.parcel.to);
    if (!to || *to == party() || leaving.parcel.message == nullptr) continue;
    auto copy = std::make_shared<Message>(*leaving.parcel.message);
    if (!pass_the_wire(*copy, kernel_.cluster)) continue;
    network_.send(party(), *to, copy, std::max<std::int64_t>(leaving.delay.value, 0));
  }
  parcels.clear();
}

void SimNode::act() {
  if (!alive_) return;
  if (kind_ == kTwin && !regrouped_ && chance(prng_, 1)) regroup();
  if (!adversary_) return;
  leaving_.clear();
  AdversaryWorld world = adversary_world();
  adversary_->act(world, leaving_);
  leave_as_told(leaving_);
}

void SimNode::regroup() {
  kernel_.count("byzantine.twin.regroup");
  regrouped_ = false;
  for (Party other = 0; other < groups_.size(); ++other) {
    const std::uint64_t draw = prng_.below(10);
    groups_[other] = draw < 4 ? 1 : draw < 8 ? 2 : kBothTwins;
    // One channel can carry one story only; two would only be refused.
    if (!kernel_.parties.is_node(other) && groups_[other] == kBothTwins) groups_[other] = 1;
  }
}

void SimNode::regroup(const std::array<std::set<NodeId>, 2>& of_copies) {
  regroup();
  regrouped_ = true;
  for (std::uint16_t node = 0; node < kernel_.parties.nodes; ++node) {
    groups_[node] = 0;
    for (std::size_t copy = 0; copy < of_copies.size(); ++copy) {
      if (of_copies[copy].contains(NodeId{node})) groups_[node] |= static_cast<std::uint8_t>(1u << copy);
    }
  }
}

}  // namespace zz::sim
