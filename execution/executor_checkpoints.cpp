// The executor's checkpoints: snapshots, certificates, and states that are adopted.

#include <algorithm>
#include <utility>

#include "agreement/certificates.hpp"
#include "base/assert.hpp"
#include "execution/executor.hpp"

namespace zz::execution {

// ---- own checkpoints -------------------------------------------------------------------------------------------

// False: the store has no place for a snapshot now, or not yet the service's state.
bool Executor::take_checkpoint() {
  if (to_save()) return false;
  if (!std::exchange(saved_, true)) own_.save({executed_, history_, time_});
  std::optional<state::Snapshot> snapshot = store_.snapshot();
  if (!snapshot) return false;
  due_ = saved_ = service_saved_ = false;
  ++stats_.checkpoints;
  taken_.push_back({executed_, history_, std::move(*snapshot), std::nullopt, false});
  return true;
}

std::optional<Micros> Executor::to_save() const {
  if (!due_ || !config_.saves_first || service_saved_ || phase_ != Phase::kRunning) return std::nullopt;
  return time_;
}

std::optional<Executor::ToDigest> Executor::to_digest() const {
  for (const Taken& taken : taken_) {
    if (!taken.root) return ToDigest{taken.n, taken.snapshot};
  }
  return std::nullopt;
}

void Executor::checkpointed(Seq n, const Digest& root) {
  const auto taken = std::find_if(taken_.begin(), taken_.end(), [n](const Taken& one) { return one.n == n; });
  if (taken == taken_.end() || taken->root || phase_ == Phase::kEnded) return;  // a newer state came between
  taken->root = root;
  const agreement::ExecCheckpoint told{config_.service, config_.slot, config_.incarnation, n, root, {}};
  told_.push_back(told);
  if (told_.size() > kCheckpointsKept) told_.pop_front();
  out_.checkpoints.push_back({std::nullopt, told});
  compare();
  forget_snapshots();
}

// Is the own state at the newest certificate the certified one?
void Executor::compare() {
  if (!newest_) return;
  const agreement::CheckpointState& certified = newest_->state;
  const auto taken = std::find_if(taken_.begin(), taken_.end(), [&](const Taken& one) { return one.n == certified.n; });
  if (taken == taken_.end() || !taken->root || taken->stable) return;
  if (taken->history != certified.history) {
    return end("another order was certified: batch " + std::to_string(certified.n.value));
  }
  if (*taken->root != certified.root) {
    return end("the state is not the certified one after batch " + std::to_string(certified.n.value));
  }
  taken->stable = true;
  ++stats_.stable;
  out_.stable = ExecutorOutput::Stable{newest_, taken->snapshot};
  observer_.on_event(Event{.kind = EventKind::kCheckpoint,
                           .service = config_.service,
                           .n = certified.n,
                           .slot = config_.slot,
                           .incarnation = config_.incarnation});
}

// What a certificate has overtaken is of no use to anybody, nor are all stable ones but the newest.
void Executor::forget_snapshots() {
  std::size_t stable = 0;
  for (auto taken = taken_.rbegin(); taken != taken_.rend(); ++taken) {
    const bool overtaken = taken->root && newest_ && taken->n < newest_->state.n;
    if (taken->stable ? ++stable > kStablesKept : overtaken) taken->snapshot.reset();
  }
  std::erase_if(taken_, [](const Taken& taken) { return !taken.snapshot; });
}

state::Snapshot Executor::snapshot_of(Seq n) const {
  const auto taken = std::find_if(taken_.begin(), taken_.end(), [n](const Taken& one) { return one.n == n; });
  return taken != taken_.end() && taken->root ? taken->snapshot : nullptr;
}

// ---- certificates ----------------------------------------------------------------------------------------------

Refusal Executor::step(NodeId from, const agreement::Stable& message) {
  if (!known(from)) return Refusal::kUnknownPeer;
  if (!message.certificate) return Refusal::kMalformed;
  const agreement::StableCertificate& certificate = *message.certificate;
  const Refusal form = agreement::form_of(certificate, config_.service, config_.f);
  if (form != Refusal::kNone) return form;
  if (phase_ == Phase::kEnded) return Refusal::kNotReady;
  if (certificate.state.n <= agreement::stable_n(newest_)) return Refusal::kDuplicate;
  Node& node = nodes_[from.value];
  if (node.checks >= kChecksPerTick) return Refusal::kQuota;
  ++node.checks;
  if (!config_.genuine || !config_.genuine(certificate)) {
    ++stats_.forged;
    return Refusal::kBadSignature;
  }
  newest_ = message.certificate;
  ++newer_;
  judge_newest();
  return Refusal::kNone;
}

// Others keep kStablesKept states: as long as they have the one that is being loaded, a newer one would only mean
// to begin again, and under load they come faster than a state can be loaded.
void Executor::judge_newest() {
  const Seq n = newest_->state.n;
  if (phase_ == Phase::kLoading) {
    if (newer_ >= kStablesKept) adopt(newest_);
    return;
  }
  const bool nothing_run = executed_.value == 0 && !running_;
  if (phase_ == Phase::kWaiting || nothing_run || (n > executed_ && n.value - executed_.value > kOrderWindow)) {
    return adopt(newest_);
  }
  compare();
  forget_snapshots();
}

// Nodes let go of the order that a certificate covers.
void Executor::watch_order() {
  const bool lost = phase_ == Phase::kRunning && !running_ && !window_.runnable() && newest_ &&
                    newest_->state.n > executed_ && newest_->state.n > lost_;
  if (!lost) return order_lost_since_.reset();
  if (!order_lost_since_) order_lost_since_ = now_;
  if (now_.value - order_lost_since_->value >= kOrderLostTimeouts * config_.body_timeout.value) adopt(newest_);
}

// ---- adopted states --------------------------------------------------------------------------------------------

bool Executor::start_over(const agreement::CertificatePtr& kept) {
  if (phase_ == Phase::kEnded || !newest_ || !base_) return false;
  if (base_->state.n < newest_->state.n && newest_->state.n > lost_) {
    adopt(newest_);
    return true;
  }
  if (++stale_ < kStaleMax) return false;
  lost_ = newest_->state.n;
  // The disk is not trusted: it may have been another's.
  const bool usable = kept && kept->state.n > kept_ && kept->state.n <= lost_ && config_.genuine &&
                      agreement::form_of(*kept, config_.service, config_.f) == Refusal::kNone && config_.genuine(*kept);
  if (!usable) {
    replay();
    return true;
  }
  kept_ = kept->state.n;
  adopt(kept);
  return true;
}

void Executor::adopt(agreement::CertificatePtr certificate) {
  const agreement::CheckpointState& state = certificate->state;
  store_.adopt(state.root);
  own_.begin_load();
  phase_ = Phase::kLoading;
  std::erase_if(taken_, [&](const Taken& taken) { return !taken.stable || taken.n >= state.n; });
  begin_after(state.n, state.history);
  base_ = certificate;
  ++stats_.adopted;
  out_.replays = false;
  out_.adopted = std::move(certificate);
  go_on_loading();
}

// Nodes keep the order (decision 0010). A certificate for what it comes past is compared as ever.
void Executor::replay() {
  store_.clear();
  own_.begin_load();
  phase_ = Phase::kRunning;
  taken_.clear();
  told_.clear();
  votes_kept_.clear();
  vote_bytes_kept_ = 0;
  time_ = {};
  active_ = agreement::slots_of(own_.slots().active());
  begin_after({}, {});
  base_.reset();
  ++stats_.replayed;
  out_.adopted.reset();
  out_.replays = true;
}

// What was going on is forgotten.
void Executor::begin_after(Seq n, const Digest& history) {
  running_.reset();
  for (agreement::Replies& replies : by_home_) replies = agreement::Replies{};
  std::fill(by_home_bytes_.begin(), by_home_bytes_.end(), 0);
  clock_.reset();
  due_ = saved_ = service_saved_ = false;
  executed_ = n;
  history_ = history;
  order_lost_since_.reset();
  waiting_since_.reset();
  lagged_ = false;
  window_.go_to(n.next());
  for (std::uint16_t i = 0; i < nodes_.size(); ++i) {
    nodes_[i].missed = Seq{};
    nodes_[i].subscribe = false;  // it may be for what lies behind
    subscribe(NodeId{i}, window_.next());
  }
  out_.wants.clear();
  out_.stable.reset();
  newer_ = 0;
  stale_ = 0;
}

void Executor::supplied() {
  if (phase_ == Phase::kLoading) go_on_loading();
}

void Executor::go_on_loading() {
  SlotState::Loading loading = own_.load();
  out_.wants.insert(out_.wants.end(), loading.wants.begin(), loading.wants.end());
  if (!loading.damage.empty()) return end("the certified state is damaged: " + loading.damage);
  if (!loading.head) return;
  const agreement::CheckpointState& state = base_->state;
  if (loading.head->n != state.n || loading.head->history != state.history) {
    return end("the certified state is that of another batch");
  }
  time_ = loading.head->time;
  active_ = agreement::slots_of(own_.slots().active());
  phase_ = Phase::kRunning;
  // What is here of it is worth to be persisted, and to be given to others.
  if (std::optional<state::Snapshot> snapshot = store_.snapshot()) {
    taken_.push_back({state.n, state.history, std::move(*snapshot), state.root, true});
    out_.stable = ExecutorOutput::Stable{base_, taken_.back().snapshot};
  }
  forget_snapshots();
}

void Executor::end(std::string why) {
  phase_ = Phase::kEnded;
  running_.reset();
  taken_.clear();
  told_.clear();
  votes_kept_.clear();
  observer_.on_event(Event{.kind = EventKind::kConflict,
                           .service = config_.service,
                           .n = newest_->state.n,
                           .slot = config_.slot,
                           .incarnation = config_.incarnation,
                           .why = why});
  out_ = ExecutorOutput{};
  out_.ended = std::move(why);
}

}  // namespace zz::execution
