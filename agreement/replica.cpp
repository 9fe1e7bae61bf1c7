#include "agreement/replica.hpp"

#include <utility>

#include "agreement/replica_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

RequestLimits limits_of(const ReplicaConfig& config) {
  return {config.client_window, config.client_sessions_max, config.client_bytes_max, config.requests_bytes_max};
}

}  // namespace

Replica::State::State(const ReplicaConfig& replica_config, const SystemRules& system_rules, Observer& event_observer)
    : config(replica_config),
      nodes(3 * replica_config.f + 1),
      rules(system_rules),
      observer(event_observer),
      requests(limits_of(replica_config)) {
  ZZ_ASSERT(config.f > 0 && config.f <= crypto::kFaultsMax && config.self.value < nodes);
  ZZ_ASSERT(config.batch_requests_max > 0 && config.pipeline_depth > 0);
}

NodeId Replica::State::primary() const {
  return NodeId{static_cast<std::uint16_t>((config.service.value + view.value) % nodes)};
}

void Replica::State::report(EventKind kind, Seq n) {
  Event event;
  event.kind = kind;
  event.service = config.service;
  event.n = n;
  event.node = config.self;
  observer.on_event(event);
}

// ---- votes -----------------------------------------------------------------------------------------------------

Refusal Replica::State::check_sender(NodeId from) const {
  if (from.value >= nodes) return Refusal::kUnknownPeer;
  return from == config.self ? Refusal::kWrongRole : Refusal::kNone;
}

Refusal Replica::State::check(NodeId from, View v, Seq n) const {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (v < view) return Refusal::kStaleView;
  if (v > view) return Refusal::kFutureView;
  return log.in_window(n) ? Refusal::kNone : Refusal::kOutOfWindow;
}

// By its own judgement, or because f+1 distinct nodes do, of which one is correct. The pre-prepare is the primary's
// voice.
bool Replica::State::stands_for(const Slot& slot) const {
  if (slot.unvouched == 0 && slot.clock_ok && fits(slot)) return true;
  return 1 + slot.prepares.count(slot.digest) >= config.f + 1;
}

void Replica::State::advance(Slot& slot) {
  if (slot.phase == Phase::kPrePrepared && stands_for(slot)) {
    slot.phase = Phase::kAccepted;
    if (!is_primary()) {
      static_cast<void>(slot.prepares.add(config.self, slot.digest));
      send({}, Prepare{slot.view, slot.n, slot.digest});
    }
  }
  if (slot.phase == Phase::kAccepted && slot.prepares.count(slot.digest) >= 2 * config.f) {
    slot.phase = Phase::kPrepared;
    static_cast<void>(slot.commits.add(config.self, slot.digest));
    send({}, Commit{slot.view, slot.n, slot.digest});
    report(EventKind::kPrepared, slot.n);
  }
  if (slot.phase == Phase::kPrepared && slot.commits.count(slot.digest) >= 2 * config.f + 1) {
    slot.phase = Phase::kCommitted;
    report(EventKind::kCommitted, slot.n);
    if (slot.missing > 0) fetch(slot);
    deliver_ready();
  }
}

// ---- delivery --------------------------------------------------------------------------------------------------

void Replica::State::deliver_ready() {
  while (true) {
    Slot* slot = log.find(delivered.next());
    if (slot == nullptr || slot->phase != Phase::kCommitted || slot->missing > 0) return;
    deliver(*slot);
  }
}

void Replica::State::deliver(Slot& slot) {
  ZZ_ASSERT(slot.n == delivered.next() && slot.header->time > delivered_time);
  requests.deliver(slot.n, slot.header->references);
  for (const SystemOp& op : slot.header->system) system.delivered(op);
  history = history_digest(history, slot.digest);
  delivered = slot.n;
  delivered_time = slot.header->time;
  slot.phase = Phase::kDelivered;
  out.deliver.push_back({slot.header, slot.digest, history, slot.bodies});
}

// ---- reconnects ------------------------------------------------------------------------------------------------

void Replica::State::resend(NodeId to, const Slot& slot) {
  if (slot.phase >= Phase::kAccepted && is_primary()) send(to, PrePrepare{slot.view, slot.header, slot.digest});
  if (slot.phase >= Phase::kAccepted && !is_primary()) send(to, Prepare{slot.view, slot.n, slot.digest});
  if (slot.phase >= Phase::kPrepared) send(to, Commit{slot.view, slot.n, slot.digest});
}

void Replica::State::resend_all(NodeId to) {
  for (Seq n = log.low().next(); n <= log.top(); n = n.next()) {
    if (const Slot* slot = log.find(n)) resend(to, *slot);
  }
}

// At most once per body_timeout for a peer, or a channel that comes and goes would cost a window of messages each time.
void Replica::State::resend_due() {
  for (std::uint16_t i = 0; i < nodes; ++i) {
    Newcomer& newcomer = newcomers[i];
    if (!newcomer.waits) continue;
    if (newcomer.told && elapsed.value - newcomer.told_at.value < config.body_timeout.value) continue;
    newcomer = {false, true, elapsed};
    resend_all(NodeId{i});
  }
}

// ---- Replica ---------------------------------------------------------------------------------------------------

Replica::Replica(const ReplicaConfig& config, const SystemRules& rules, Observer& observer)
    : state_(std::make_unique<State>(config, rules, observer)) {}

Replica::~Replica() = default;

void Replica::tick(Micros wall) {
  State& s = *state_;
  if (s.ticked && wall > s.wall) s.elapsed.value += wall.value - s.wall.value;
  s.wall = wall;
  s.ticked = true;
  s.retry_fetches();
  s.resend_due();
}

Refusal Replica::vouch(RequestPtr request) {
  const RequestTable::Vouched vouched = state_->requests.vouch(request);
  if (vouched.refusal == Refusal::kNone && vouched.claimed_by.value != 0) {
    state_->arrived(vouched.claimed_by, vouched.index, request);
  }
  return vouched.refusal;
}

void Replica::propose(SystemOp op) { state_->propose(std::move(op)); }

Refusal Replica::step(NodeId from, const PrePrepare& message) { return state_->pre_prepare(from, message); }

Refusal Replica::step(NodeId from, const Prepare& message) {
  State& s = *state_;
  if (const Refusal refusal = s.check(from, message.view, message.n); refusal != Refusal::kNone) return refusal;
  if (from == s.primary()) return Refusal::kWrongRole;  // its pre-prepare is its word
  Slot& slot = s.log.at(message.n, s.view);
  const Refusal refusal = slot.prepares.add(from, message.digest);
  if (refusal == Refusal::kNone) s.advance(slot);
  return refusal;
}

Refusal Replica::step(NodeId from, const Commit& message) {
  State& s = *state_;
  if (const Refusal refusal = s.check(from, message.view, message.n); refusal != Refusal::kNone) return refusal;
  Slot& slot = s.log.at(message.n, s.view);
  const Refusal refusal = slot.commits.add(from, message.digest);
  if (refusal == Refusal::kNone) s.advance(slot);
  return refusal;
}

Refusal Replica::step(NodeId from, const FetchBodies& message) { return state_->give_bodies(from, message); }

Refusal Replica::step(NodeId from, const Bodies& message) { return state_->take_bodies(from, message); }

void Replica::peer_up(NodeId node) {
  State& s = *state_;
  if (s.check_sender(node) != Refusal::kNone) return;
  s.newcomers[node.value].waits = true;
  s.resend_due();
}

void Replica::set_low_watermark(Seq n) {
  State& s = *state_;
  ZZ_ASSERT(n <= s.delivered);
  if (n > s.log.low()) s.log.set_low(n);
}

ReplicaOutput Replica::take_output() {
  state_->cut_batches();
  return std::exchange(state_->out, {});
}

View Replica::view() const { return state_->view; }
NodeId Replica::primary() const { return state_->primary(); }
Seq Replica::last_delivered() const { return state_->delivered; }
Seq Replica::low_watermark() const { return state_->log.low(); }
std::size_t Replica::waiting_requests() const { return state_->requests.pending(); }

}  // namespace zz::agreement
