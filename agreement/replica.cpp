#include "agreement/replica.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "agreement/replica_state.hpp"
#include "base/assert.hpp"

namespace zz::agreement {
namespace {

RequestLimits limits_of(const ReplicaConfig& config) {
  RequestLimits limits;
  limits.window = config.window;
  limits.client_window = config.client_window;
  limits.client_sessions_max = config.client_sessions_max;
  limits.client_bytes_max = config.client_bytes_max;
  limits.bytes_max = config.requests_bytes_max;
  limits.f = config.f;
  return limits;
}

// Q has to fit one VIEW-CHANGE.
std::uint32_t digests_per_number(const ReplicaConfig& config) {
  constexpr std::uint32_t kDigestsMax = 16;
  return std::clamp(static_cast<std::uint32_t>(kClaimsMax / config.window), 1u, kDigestsMax);
}

PrimaryWatch::Config watch_config(const ReplicaConfig& config) {
  PrimaryWatch::Config out;
  out.nodes = 3 * config.f + 1;
  out.base = config.view_timeout;
  out.max = config.view_timeout_max;
  out.body_timeout = config.body_timeout;
  return out;
}

}  // namespace

Replica::State::State(const ReplicaConfig& replica_config, Authority& signing, const SystemRules& system_rules,
                      Observer& event_observer)
    : config(replica_config),
      nodes(3 * replica_config.f + 1),
      authority(signing),
      rules(system_rules),
      observer(event_observer),
      requests(limits_of(replica_config)),
      log(replica_config.window),
      history_of_votes(replica_config.window, digests_per_number(replica_config)),
      watch(watch_config(replica_config)),
      recent(replica_config.window) {
  ZZ_ASSERT(config.f > 0 && config.f <= crypto::kFaultsMax && config.self.value < nodes);
  ZZ_ASSERT(config.batch_requests_max > 0 && config.pipeline_depth > 0 && config.window >= 8);
}

void Replica::State::report(EventKind kind, Seq n, std::string_view why) {
  Event event;
  event.kind = kind;
  event.service = config.service;
  event.n = n;
  event.node = config.self;
  event.view = view;
  event.why = why;
  observer.on_event(event);
}

// ---- votes -----------------------------------------------------------------------------------------------------

Refusal Replica::State::check_sender(NodeId from) const {
  if (from.value >= nodes) return Refusal::kUnknownPeer;
  return from == config.self ? Refusal::kWrongRole : Refusal::kNone;
}

Refusal Replica::State::check(NodeId from, View v, Seq n) {
  if (const Refusal refusal = check_sender(from); refusal != Refusal::kNone) return refusal;
  if (v < view) return Refusal::kStaleView;
  if (v > view) return Refusal::kFutureView;
  if (log.in_window(n)) return Refusal::kNone;
  if (n > log.low()) refused_later = true;
  return Refusal::kOutOfWindow;
}

// A new view's choice needs no further judgement. A proposal does: by this node's own, or because f+1 distinct nodes
// stand for it, of which one is correct. The pre-prepare is the primary's voice.
bool Replica::State::stands_for(const Slot& slot) const {
  if (slot.chosen) return true;
  if (slot.clock_ok && slot.missing == 0 && fits(slot) && all_vouched(slot)) return true;
  return 1 + slot.prepares.count(slot.digest) >= config.f + 1;
}

// Every reference by this node, or by f+1 others, the primary among them. (A client may have given this node another
// request under that number.) A word is in nobody's log: who gave it may crash and have nothing. So the body is fetched
// before this node stands for it on such a word, and goes to the log with its own.
bool Replica::State::all_vouched(const Slot& slot) const {
  if (slot.unvouched == 0) return true;
  for (std::size_t i = 0; i < slot.bodies.size(); ++i) {
    if (slot.bodies[i]) continue;
    const auto others = requests.who_vouches(slot.header->references[i]) & ~(1u << primary().value);
    if (static_cast<std::uint32_t>(std::popcount(others)) < config.f) return false;
  }
  return true;
}

void Replica::State::stand_for(Slot& slot) {
  slot.phase = Phase::kAccepted;
  history_of_votes.accept(slot.n, view, slot.digest, slot.header);
  out.log.push_back(AcceptedRecord{view, slot.n, slot.digest, slot.header, slot.bodies});
  if (is_primary()) return;
  static_cast<void>(slot.prepares.add(config.self, slot.digest));
  send({}, Prepare{slot.view, slot.n, slot.digest});
}

void Replica::State::advance(Slot& slot) {
  if (changing || slot.phase == Phase::kEmpty) return;
  // Without a voice, or without a need for it: 2f+1 others' is enough to learn what is ordered.
  if (learner || slot.n <= stable_n(newest_stable)) {
    if (slot.phase < Phase::kCommitted && slot.commits.count(slot.digest) >= 2 * config.f + 1) {
      slot.phase = Phase::kPrepared;
    }
  } else {
    if (slot.phase == Phase::kPrePrepared && stands_for(slot)) stand_for(slot);
    if (slot.phase == Phase::kPrePrepared && slot.missing > 0 && all_vouched(slot)) fetch(slot);
    if (slot.phase == Phase::kAccepted && slot.prepares.count(slot.digest) >= 2 * config.f) {
      slot.phase = Phase::kPrepared;
      history_of_votes.prepare(slot.n, view, slot.digest);
      out.log.push_back(PreparedRecord{view, slot.n, slot.digest});
      static_cast<void>(slot.commits.add(config.self, slot.digest));
      send({}, Commit{slot.view, slot.n, slot.digest});
      report(EventKind::kPrepared, slot.n);
    }
  }
  if (slot.phase == Phase::kPrepared && slot.commits.count(slot.digest) >= 2 * config.f + 1) {
    slot.phase = slot.n <= delivered ? Phase::kDelivered : Phase::kCommitted;
    report(EventKind::kCommitted, slot.n);
    if (slot.phase == Phase::kDelivered) return;  // committed again in this view
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
  slot.phase = Phase::kDelivered;
  settle_delivery(slot.header, slot.digest, slot.bodies);
  out.deliver.back().committed_in = slot.view;
  follow_stable();
}

void Replica::State::settle_delivery(const HeaderPtr& header, const Digest& digest, std::vector<RequestPtr> bodies) {
  ZZ_ASSERT(header->n == delivered.next() && bodies.size() == header->references.size());
  requests.deliver(header->n, header->references);
  std::optional<ClientId> last;  // references come in runs of one client
  for (const Reference& reference : header->references) {
    if (reference.client != last) watch.ordered(reference.client);
    last = reference.client;
  }
  for (const SystemOp& op : header->system) system.delivered(delivered.next(), op);
  history = history_digest(history, digest);
  delivered = header->n;
  log.set_top(delivered);
  delivered_time = agreed_time(delivered_time, *header);
  out.log.push_back(OrderedRecord{delivered, digest, header, bodies});
  Delivery& delivery = recent[delivered.value % config.window];
  delivery = {header, digest, history, delivered_time, std::move(bodies)};
  out.deliver.push_back(delivery);
}

const Delivery* Replica::State::find_recent(Seq n) const {
  const Delivery& delivery = recent[n.value % config.window];
  return delivery.header && delivery.header->n == n ? &delivery : nullptr;
}

void Replica::State::set_stable(const CertificatePtr& certificate) {
  if (stable_n(certificate) <= stable_n(newest_stable)) return;
  newest_stable = certificate;
  history_of_votes.set_low(stable_n(newest_stable));
  follow_stable();
}

// h follows the stable checkpoint as far as this node has delivered: what it fetches up to there needs no votes.
void Replica::State::follow_stable() {
  const Seq n = std::min(stable_n(newest_stable), delivered);
  if (n <= log.low()) return;
  for (Seq i = log.low().next(); i <= n && i <= log.top(); i = i.next()) {
    if (Slot* slot = log.find(i)) end_fetch(*slot);
  }
  log.set_low(n);
  if (accepted_view && !changing) open_chosen(*accepted_view);  // what lay beyond the window
  if (changing) try_new_view();
  if (std::exchange(refused_later, false)) say_progress({});  // so that it is said again
}

// ---- Replica ---------------------------------------------------------------------------------------------------

Replica::Replica(const ReplicaConfig& config, Authority& authority, const SystemRules& rules, Observer& observer)
    : state_(std::make_unique<State>(config, authority, rules, observer)) {}

Replica::~Replica() = default;

void Replica::restore(const Recovered& recovered) { state_->restore(recovered); }

void Replica::tick(Micros monotonic, Micros wall) {
  State& s = *state_;
  s.now = monotonic;
  s.wall = wall;
  s.ticked = true;
  s.retry_fetches();
  s.ask_headers();
  s.ask_proposals();
  s.watch_primary();
  s.speak_for_waiting();
  if (!s.progress_said_at || s.now.value - s.progress_said_at->value >= s.config.progress.value) s.say_progress({});
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
Refusal Replica::step(NodeId from, const FetchHeaders& message) { return state_->give_headers(from, message); }
Refusal Replica::step(NodeId from, const Headers& message) { return state_->take_headers(from, message); }
Refusal Replica::step(NodeId from, const ViewChangePtr& message) { return state_->view_change(from, message); }
Refusal Replica::step(NodeId from, const NewViewPtr& message) { return state_->new_view(from, message); }
Refusal Replica::step(NodeId from, const Progress& message) { return state_->progress(from, message); }
Refusal Replica::step(NodeId from, const VouchQuery& message) { return state_->vouch_query(from, message); }
Refusal Replica::step(NodeId from, const Vouched& message) { return state_->vouched(from, message); }
Refusal Replica::step(NodeId from, const Propose& message) { return state_->take_proposed(from, message); }

void Replica::peer_up(NodeId node) {
  State& s = *state_;
  if (s.check_sender(node) != Refusal::kNone) return;
  s.peers[node.value].fresh = true;
  s.say_progress(node);
}

void Replica::set_stable(const CertificatePtr& certificate) { state_->set_stable(certificate); }

void Replica::adopt(const Batch& batch) {
  State& s = *state_;
  if (batch.header->n != s.delivered.next()) return;  // the normal path was faster
  if (Slot* slot = s.log.find(batch.header->n)) {
    s.end_fetch(*slot);
    if (slot->header && slot->digest != batch.digest) s.requests.release(slot->n, slot->header->references);
  }
  s.settle_delivery(batch.header, batch.digest, batch.requests);
  s.follow_stable();
  if (Slot* slot = s.log.find(s.delivered)) {
    if (slot->phase == Phase::kCommitted) slot->phase = Phase::kDelivered;
  }
  s.deliver_ready();
}

void Replica::set_learner(bool learner) {
  State& s = *state_;
  if (s.learner == learner) return;
  s.learner = learner;
  if (!learner) s.watch.entered(s.view);
}

ReplicaOutput Replica::take_output() {
  state_->cut_batches();
  return std::exchange(state_->out, {});
}

View Replica::view() const { return state_->view; }
bool Replica::changing() const { return state_->changing; }
NodeId Replica::primary() const { return state_->primary(); }
Seq Replica::last_delivered() const { return state_->delivered; }
const Digest& Replica::history() const { return state_->history; }
Seq Replica::low_watermark() const { return state_->log.low(); }
std::size_t Replica::waiting_requests() const { return state_->requests.pending(); }
Micros Replica::view_timeout() const { return state_->watch.timeout(); }
const ReplicaStats& Replica::stats() const { return state_->stats; }

}  // namespace zz::agreement
