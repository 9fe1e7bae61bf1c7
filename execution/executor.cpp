#include "execution/executor.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

namespace {

constexpr std::size_t kBodyOverheadBytes = 32;  // of one body in a Replies message

// A bearer is left when it lags behind f+1 nodes' ORDERs for longer than the patience: body_timeout / kEagerness at
// first, twice as long after each time, and half again after kPromptBodies that came in a quarter of it. So a slow
// bearer costs little, and a network that is slow whoever bears costs few changes.
constexpr std::int64_t kEagerness = 20;
constexpr std::int64_t kGraceShare = 4;  // body_timeout / this is a new bearer's time to begin
constexpr std::uint32_t kPromptBodies = 64;
// Nodes send no bodies further beyond the last vote (OrderStream::kBatchesAhead): there nobody lags.
constexpr std::uint64_t kBodiesAhead = 256;

std::size_t bytes_of(const agreement::Vote& vote) { return sizeof vote + vote.replies.size() * sizeof(Digest); }

}  // namespace

Executor::Executor(const ExecutorConfig& config, state::ObjectStore& store, Observer& observer)
    : config_(config),
      observer_(observer),
      window_({config.f, config.held_bytes_max}),
      store_(store),
      own_({config.service, config.f, config.g, config.sessions}, store),
      phase_(own_.is_new() ? Phase::kRunning : Phase::kWaiting),
      active_(agreement::slots_of(own_.slots().active())),
      expired_digest_(agreement::reply_digest(config.expired_reply.view())),
      nodes_(std::size_t{3} * config.f + 1),
      patience_{config.body_timeout.value / kEagerness},
      by_home_(nodes_.size()),
      by_home_bytes_(nodes_.size()),
      clock_(config.checkpoints) {
  ZZ_ASSERT(config.f > 0 && nodes_.size() < 32);
}

// ---- nodes -----------------------------------------------------------------------------------------------------

void Executor::node_up(NodeId node) {
  ZZ_ASSERT(known(node));
  Node& state = nodes_[node.value];
  state.up = true;
  state.missed = Seq{};
  // Slots start with different bearers, and service k not with its first primary, who is busiest.
  const NodeId preferred{
      static_cast<std::uint16_t>((config_.service.value + std::size_t{1} + config_.slot.value) % nodes_.size())};
  if (!bearer_ || (node == preferred && state.strikes == 0)) {
    set_bearer(node);
  } else {
    subscribe(node, window_.next());
  }
  for (const agreement::ExecCheckpoint& told : told_) out_.checkpoints.push_back({node, told});
  if (votes_kept_.empty()) return;
  out_.votes_again.push_back({node, {votes_kept_.begin(), votes_kept_.end()}});
}

void Executor::node_down(NodeId node) {
  ZZ_ASSERT(known(node));
  nodes_[node.value].up = false;
  nodes_[node.value].subscribe = false;
  // One that comes and goes is not preferred again.
  if (bearer_ == node && nodes_[node.value].strikes == 0) nodes_[node.value].strikes = 1;
  std::erase_if(out_.votes_again, [node](const ExecutorOutput::VoteAgain& again) { return again.to == node; });
  std::erase_if(out_.checkpoints, [node](const ExecutorOutput::CheckpointTo& again) { return again.to == node; });
  if (bearer_ == node) change_bearer();
}

void Executor::subscribe(NodeId node, Seq from) {
  Node& state = nodes_[node.value];
  if (!state.up) return;
  state.from = state.subscribe ? std::min(state.from, from) : from;
  state.subscribe = true;
  if (from <= state.missed) state.missed = Seq{};
}

void Executor::set_bearer(std::optional<NodeId> node) {
  if (bearer_) {
    window_.forget_undecided_of(*bearer_);
    subscribe(*bearer_, window_.next());
  }
  bearer_ = node;
  bearer_since_ = now_;
  prompt_ = 0;
  if (node) subscribe(*node, window_.next());
}

// The best of the others that are up: fewest strikes, then who has said what is next, then the next in turn.
std::optional<NodeId> Executor::other_bearer() const {
  const std::size_t start = bearer_ ? bearer_->value + std::size_t{1} : 0;
  std::optional<NodeId> best;
  const auto rank = [this](NodeId node) {
    return std::pair(nodes_[node.value].strikes, !window_.heard(node, window_.next()));
  };
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const NodeId candidate{static_cast<std::uint16_t>((start + i) % nodes_.size())};
    if (!nodes_[candidate.value].up || candidate == bearer_) continue;
    if (!best || rank(candidate) < rank(*best)) best = candidate;
  }
  return best;
}

// Stays if there is no other.
void Executor::change_bearer() {
  std::optional<NodeId> best = other_bearer();
  if (!best && bearer_ && nodes_[bearer_->value].up) best = bearer_;
  set_bearer(best);
}

// ---- slow bearers ----------------------------------------------------------------------------------------------

bool Executor::bearer_lags() const {
  if (!bearer_ || running_ || !window_.next_decided() || window_.runnable()) return false;
  const std::int64_t grace = std::max(patience_.value, config_.body_timeout.value / kGraceShare);
  // A backlog comes at the pace of the link, but it comes.
  const std::int64_t decided = window_.decided_at(window_.next()).value;
  if (window_.next() <= backlog_) {
    return now_.value >= std::max({bearer_since_.value, last_body_at_.value, decided}) + grace;
  }
  return now_.value >= decided + patience_.value && now_.value >= bearer_since_.value + grace;
}

// It has to lag at two ticks in a row: after a pause of this process what is late may wait in its own sockets.
void Executor::watch_bearer() {
  const bool again = std::exchange(lagged_, bearer_lags());
  if (!again || !lagged_ || !other_bearer()) return;
  lagged_ = false;
  patience_.value = std::min(2 * patience_.value, config_.body_timeout.value);
  strike(*bearer_);
}

// The bearer has sent the bodies of n.
void Executor::note_lag(Seq n) {
  last_body_at_ = now_;
  if (n <= backlog_) return;
  const std::int64_t asked = bearer_since_.value;
  const std::int64_t lag =
      window_.decided(n) ? now_.value - std::max(window_.decided_at(n).value, asked) : std::int64_t{0};
  prompt_ = 4 * lag > patience_.value ? 0 : prompt_ + 1;
  if (prompt_ < kPromptBodies) return;
  prompt_ = 0;
  patience_.value = std::max(patience_.value / 2, config_.body_timeout.value / kEagerness);
}

void Executor::strike(NodeId node) {
  Node& state = nodes_[node.value];
  if (state.strikes < std::numeric_limits<std::uint32_t>::max()) ++state.strikes;
  if (bearer_ != node) return;
  state.struck_at = now_;
  ++stats_.bearer_changes;
  change_bearer();
}

// When only liars are up, each wrong batch would bring a whole stream of further ones: after the first, body_timeout
// decides.
void Executor::strike_liar(NodeId node) {
  Node& state = nodes_[node.value];
  const bool lately = state.struck_at && now_.value - state.struck_at->value < config_.body_timeout.value;
  if (!lately || bearer_ != node) return strike(node);
  if (state.strikes < std::numeric_limits<std::uint32_t>::max()) ++state.strikes;
}

void Executor::missed(NodeId node, Seq n) {
  Seq& first = nodes_[node.value].missed;
  if (first.value == 0 || n < first) first = n;
}

// Nodes whose words had no place are asked again once half of the room is free.
void Executor::resume_streams() {
  for (std::uint16_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (node.missed.value == 0) continue;
    const bool near = node.missed.value < window_.next().value + kOrderWindow / 2;
    if (!near || !window_.has_room()) continue;
    subscribe(NodeId{i}, std::max(node.missed, window_.next()));
    node.missed = Seq{};
    if (bearer_ == NodeId{i}) bearer_since_ = now_;
  }
}

void Executor::tick(Micros now) {
  now_ = now;
  for (Node& node : nodes_) node.checks = 0;
  watch_order();
  watch_bearer();
  const bool waiting = !running_ && (window_.next_decided() ? !window_.runnable() : window_.heard_ahead());
  if (!waiting) {
    waiting_since_.reset();
    return;
  }
  if (!waiting_since_ || waiting_for_ != window_.next()) {
    waiting_since_ = now;
    waiting_for_ = window_.next();
    return;
  }
  if (now.value - waiting_since_->value < config_.body_timeout.value) return;
  waiting_since_ = now;
  if (window_.next_decided()) {
    if (bearer_) strike(*bearer_);
    return;
  }
  // Something was lost: ask again whoever has not spoken of the next batch.
  for (std::uint16_t i = 0; i < nodes_.size(); ++i) {
    if (!window_.heard(NodeId{i}, window_.next())) subscribe(NodeId{i}, window_.next());
  }
}

// ---- input -----------------------------------------------------------------------------------------------------

Refusal Executor::step(NodeId from, const agreement::Orders& message) {
  if (!known(from)) return Refusal::kUnknownPeer;
  if (message.digests.empty() || message.first_n.value == 0) return Refusal::kMalformed;
  if (message.first_n.value > std::numeric_limits<std::uint64_t>::max() - message.digests.size())
    return Refusal::kMalformed;
  Refusal worst = Refusal::kNone;
  Seq n = message.first_n;
  for (const Digest& digest : message.digests) {
    const OrderWindow::Noted noted = window_.note(from, n, digest, now_);
    if (window_.decided(n) && n.value - window_.next().value >= kBodiesAhead) backlog_ = std::max(backlog_, n);
    if (noted.liar) strike_liar(*noted.liar);
    if (noted.refusal == Refusal::kOutOfWindow) {
      missed(from, n);
      return noted.refusal;
    }
    // Words of a renewed subscription repeat: no fault.
    if (noted.refusal == Refusal::kConflict) worst = noted.refusal;
    n = n.next();
  }
  return worst;
}

Refusal Executor::step(NodeId from, agreement::Batch message) {
  if (!known(from)) return Refusal::kUnknownPeer;
  if (!message.header || message.header->n.value == 0) return Refusal::kMalformed;
  if (message.header->service != config_.service) return Refusal::kUnknownService;
  const Seq n = message.header->n;
  // What an earlier bearer had under way is as good, once it is known to be right.
  const bool asked = bearer_ == from;
  if (!asked && !window_.decided_as(n, message.digest)) return Refusal::kNotAllowed;
  const Refusal refusal = window_.hold(from, std::move(message));
  if (asked && (refusal == Refusal::kOutOfWindow || refusal == Refusal::kQueueFull)) missed(from, n);
  if (asked && refusal == Refusal::kNone) note_lag(n);
  if (refusal == Refusal::kConflict) strike_liar(from);
  return refusal;
}

Refusal Executor::step(NodeId from, const agreement::FetchReplies& message) {
  if (!known(from)) return Refusal::kUnknownPeer;
  if (phase_ != Phase::kRunning) return Refusal::kNotReady;
  if (fetch_bytes_waiting_ > kFetchBytesWaiting) return Refusal::kQueueFull;
  if (message.digests) return tell_digests(from, message);
  agreement::Replies replies{message.n, {}};
  std::size_t bytes = 0;
  std::size_t total = 0;
  const auto flush = [&] {
    if (!replies.items.empty()) out_.replies.push_back({from, std::move(replies)});
    replies = agreement::Replies{message.n, {}};
    bytes = 0;
  };
  for (const agreement::FetchReplies::Item& item : message.items) {
    BodyLog::Found found = own_.sessions().cached(item.client, item.session, item.number);
    want_body(found.missing);
    if (!found.body) continue;
    const std::size_t cost = found.body->size() + kBodyOverheadBytes;
    if (total > 0 && total + cost > kFetchBytesMax) break;  // the node asks again for the rest
    if (bytes + cost > kRepliesBytesMax) flush();
    bytes += cost;
    total += cost;
    replies.items.push_back({item.index, std::move(*found.body)});
  }
  flush();
  fetch_bytes_waiting_ += total;
  return total > 0 || message.items.empty() ? Refusal::kNone : Refusal::kNotReady;
}

// Also of what it has executed before it has voted for the batch: it is what the vote will say.
Refusal Executor::tell_digests(NodeId from, const agreement::FetchReplies& message) {
  agreement::ReplyDigests told{message.n, {}};
  for (const agreement::FetchReplies::Item& item : message.items) {
    const SessionTable::Lookup found = own_.sessions().look_up(item.client, item.session, item.number);
    if (found.verdict != SessionTable::Verdict::kRun) told.items.push_back({item.index, found.digest});
  }
  if (told.items.empty()) return message.items.empty() ? Refusal::kNone : Refusal::kNotReady;
  fetch_bytes_waiting_ += told.items.size() * sizeof(agreement::ReplyDigests::Item);
  out_.digests.push_back({from, std::move(told)});
  return Refusal::kNone;
}

// The node asks again.
void Executor::want_body(const std::vector<state::Want>& missing) {
  for (const state::Want& want : missing) {
    if (out_.wants.size() < kBodyWantsMax) out_.wants.push_back(want);
  }
}

// ---- running ---------------------------------------------------------------------------------------------------

void Executor::begin(agreement::Batch batch) {
  running_.emplace(Running{});
  running_->batch = std::move(batch);
  running_->replies.reserve(running_->batch.requests.size());
  const Seq n = running_->batch.header->n;
  running_->designated = designated(n);
  history_ = agreement::history_digest(history_, running_->batch.digest);
  time_ = agreement::agreed_time(time_, *running_->batch.header);
}

// Answers what needs no running; stops at a request that does, or finishes the batch.
void Executor::advance() {
  while (running_->index < running_->batch.requests.size()) {
    const agreement::Request& request = *running_->batch.requests[running_->index];
    const SessionTable::Lookup found = own_.sessions().look_up(request.client, request.session, request.number);
    if (found.verdict == SessionTable::Verdict::kRun) return;
    if (found.verdict == SessionTable::Verdict::kRepeat) {
      ++stats_.repeats;
      BodyLog::Found cached;
      if (running_->designated) cached = own_.sessions().cached(request.client, request.session, request.number);
      answer(found.digest, cached.body ? &*cached.body : nullptr);
    } else {
      ++stats_.expired;
      answer(expired_digest_, &config_.expired_reply);
    }
  }
  finish();
}

std::optional<Invocation> Executor::next_invocation() {
  // Who has not heard yet that the state is another one has a service for the old one.
  const bool is_replaced = out_.adopted || out_.replays;
  if (phase_ != Phase::kRunning || is_replaced || (running_ && running_->outstanding)) return std::nullopt;
  while (!running_) {
    if ((due_ && !take_checkpoint()) || !window_.runnable()) return std::nullopt;
    begin(window_.take());
    advance();
  }
  running_->outstanding = true;
  const agreement::BatchHeader& header = *running_->batch.header;
  const agreement::Request& request = *running_->batch.requests[running_->index];
  return Invocation{header.n, time_, history_, request.client, request.op};
}

std::vector<Invocation> Executor::upcoming(Seq n, std::size_t limit) const {
  std::vector<Invocation> out;
  if (phase_ != Phase::kRunning && phase_ != Phase::kLoading) return out;
  const auto add = [&](const agreement::Batch& batch, std::size_t from) {
    if (batch.header->n <= n) return;
    for (std::size_t i = from; i < batch.requests.size() && out.size() < limit; ++i) {
      out.push_back({batch.header->n, Micros{}, Digest{}, batch.requests[i]->client, batch.requests[i]->op});
    }
  };
  if (running_) add(running_->batch, running_->index + 1);
  for (std::uint64_t ahead = 0; out.size() < limit && ahead < kOrderWindow; ++ahead) {
    const agreement::Batch* const batch = window_.peek(ahead);
    if (batch == nullptr) break;
    add(*batch, 0);
  }
  return out;
}

void Executor::complete(SharedBytes reply) {
  if (!running_ || !running_->outstanding) return;  // forgotten: another state was adopted, or the slot has ended
  running_->outstanding = false;
  ++stats_.requests;
  const agreement::Request& request = *running_->batch.requests[running_->index];
  const Digest digest = agreement::reply_digest(reply.view());
  own_.sessions().record(request.client, request.session, request.number, digest, reply.view());
  answer(digest, &reply);
  advance();
}

// The request at index is answered; a body that is no longer cached travels with nobody.
void Executor::answer(const Digest& digest, const SharedBytes* body) {
  const std::size_t index = running_->index++;
  running_->replies.push_back(digest);
  if (!running_->designated || body == nullptr) return;
  const auto nodes = static_cast<std::uint32_t>(nodes_.size());
  const NodeId home = agreement::home_of(running_->batch.requests[index]->session, nodes);
  send_body(home, static_cast<std::uint32_t>(index), *body);
}

void Executor::send_body(NodeId home, std::uint32_t index, const SharedBytes& body) {
  agreement::Replies& replies = by_home_[home.value];
  std::size_t& bytes = by_home_bytes_[home.value];
  const std::size_t cost = body.size() + kBodyOverheadBytes;
  if (bytes + cost > kRepliesBytesMax && !replies.items.empty()) {
    out_.replies.push_back({home, std::move(replies)});
    replies = agreement::Replies{};
    bytes = 0;
  }
  replies.n = running_->batch.header->n;
  replies.items.push_back({index, body});
  bytes += cost;
}

void Executor::finish() {
  const agreement::BatchHeader& header = *running_->batch.header;
  executed_ = header.n;
  ++stats_.batches;
  const Epoch epoch = own_.slots().epoch();
  keep_vote(std::make_shared<const agreement::Vote>(
      agreement::Vote{epoch, header.n, config_.slot, config_.incarnation, std::move(running_->replies)}));
  for (std::uint16_t i = 0; i < nodes_.size(); ++i) {
    if (by_home_[i].items.empty()) continue;
    out_.replies.push_back({NodeId{i}, std::move(by_home_[i])});
    by_home_[i] = agreement::Replies{};
    by_home_bytes_[i] = 0;
  }
  observer_.on_event(Event{.kind = EventKind::kVoted,
                           .service = config_.service,
                           .n = header.n,
                           .epoch = epoch,
                           .slot = config_.slot,
                           .incarnation = config_.incarnation});
  for (const agreement::SystemOp& op : header.system) {
    if (own_.slots().apply(header.n, op)) active_ = agreement::slots_of(own_.slots().active());
  }
  std::uint64_t bytes = 0;
  for (const agreement::RequestPtr& request : running_->batch.requests) bytes += request->op.size();
  due_ = clock_.passed(running_->batch.requests.size(), bytes);
  running_.reset();
  if (due_ && !take_checkpoint() && !to_save()) ++stats_.no_place;
  resume_streams();
}

void Executor::keep_vote(ExecutorOutput::VotePtr vote) {
  vote_bytes_kept_ += bytes_of(*vote);
  votes_kept_.push_back(vote);
  out_.votes.push_back(std::move(vote));
  while (votes_kept_.size() > kVotesKept || vote_bytes_kept_ > kVoteBytesKept) {
    vote_bytes_kept_ -= bytes_of(*votes_kept_.front());
    votes_kept_.pop_front();
  }
}

ExecutorOutput Executor::take_output() {
  for (std::uint16_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (!node.subscribe) continue;
    node.subscribe = false;
    if (phase_ == Phase::kEnded) continue;
    out_.subscribe.push_back({NodeId{i}, {std::max(node.from, window_.next()), bearer_ == NodeId{i}}});
  }
  fetch_bytes_waiting_ = 0;
  return std::exchange(out_, ExecutorOutput{});
}

}  // namespace zz::execution
