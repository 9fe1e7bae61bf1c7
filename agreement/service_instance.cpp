#include "agreement/service_instance.hpp"

#include <algorithm>
#include <bit>

namespace zz::agreement {

namespace {

// FETCH-ORDERs of one node that are answered between two ticks: an answer is up to kAnswerBytesMax long.
constexpr std::uint32_t kOrdersPerTick = 4;

ReplicaConfig replica_config(const crypto::ClusterFile& cluster, ServiceId service, NodeId self) {
  ReplicaConfig config;
  config.service = service;
  config.self = self;
  config.f = cluster.f;
  config.window = cluster.limits.window_batches;
  config.batch_requests_max = cluster.limits.batch_requests_max;
  config.batch_bytes_max = cluster.limits.batch_bytes_max;
  config.client_window = cluster.limits.client_window;
  config.client_sessions_max = cluster.limits.client_sessions_max;
  config.clock_bound = Micros{std::int64_t{cluster.timing.clock_bound_ms} * 1'000};
  config.body_timeout = Micros{std::int64_t{cluster.timing.body_timeout_ms} * 1'000};
  config.view_timeout = Micros{std::int64_t{cluster.timing.view_timeout_ms} * 1'000};
  config.view_timeout_max = Micros{std::int64_t{cluster.timing.view_timeout_max_ms} * 1'000};
  config.progress = Micros{std::int64_t{cluster.timing.progress_ms} * 1'000};
  return config;
}

CheckpointRules checkpoint_rules(const crypto::Limits& limits) {
  return {limits.checkpoint_batches, limits.checkpoint_requests, limits.checkpoint_bytes};
}

ReplyBookConfig book_config(const crypto::ClusterFile& cluster, NodeId self, std::uint32_t g) {
  ReplyBookConfig config;
  config.self = self;
  config.n = cluster.n();
  config.f = cluster.f;
  config.client_window = cluster.limits.client_window;
  config.sessions_max = cluster.limits.sessions_max;
  config.client_sessions_max = cluster.limits.client_sessions_max;
  config.g = g;
  return config;
}

}  // namespace

ServiceInstance::ServiceInstance(const crypto::ClusterFile& cluster, ServiceId service, NodeId self,
                                 const crypto::SecretKey& key, Observer& observer, Outlet& outlet)
    : cluster_(cluster),
      service_(service),
      self_(self),
      outlet_(outlet),
      authority_(cluster, service, self, key),
      oversight_(cluster, service, self, key, observer),
      replica_(replica_config(cluster, service, self), authority_, oversight_, observer),
      log_(cluster.limits.history_bytes_max),
      book_(book_config(cluster, self, cluster.services[service.value].g)),
      checkpoints_(checkpoint_rules(cluster.limits), service, self, cluster.f, authority_, observer),
      catch_up_(self, cluster.n(), Micros{std::int64_t{cluster.timing.body_timeout_ms} * 1'000}, authority_),
      relay_({.slots = static_cast<std::uint32_t>(cluster.services[service.value].slots.size())}),
      helped_(cluster.n()),
      subscriptions_(cluster.services[service.value].slots.size()) {}

// The order is told anew to everything that follows from it. What executors voted is theirs to say again.
void ServiceInstance::restore(const Recovered& recovered) {
  replica_.restore(recovered);
  learner_ = recovered.learner;
  checkpoints_.set_silent(learner_);
  if (learner_) outlet_.persist(service_, LearnerRecord{true});
  if (recovered.stable) static_cast<void>(checkpoints_.step(recovered.stable));
  for (const CertificatePtr& certificate : recovered.certificates) checkpoints_.keep(certificate);
  static_cast<void>(run_ordering());
  static_cast<void>(checkpoints_.take_output());  // it is what the log says
}

Refusal ServiceInstance::step(const crypto::Peer& from, Message& message) {
  switch (from.role) {
    case crypto::Role::kNode:
      return from_node(from.node(), message);
    case crypto::Role::kHost:
      return from_host(from.host(), message);
    case crypto::Role::kExecutor:
      return from_executor(from, message);
    case crypto::Role::kClient:
    case crypto::Role::kOperator:
      return from_client(from.client(), message);
  }
  return Refusal::kWrongRole;
}

Refusal ServiceInstance::from_node(NodeId node, Message& message) {
  if (auto* m = std::get_if<PrePrepare>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Prepare>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Commit>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<FetchBodies>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Bodies>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Suspect>(&message.body)) return oversight_.step(*m);
  if (auto* m = std::get_if<Closings>(&message.body)) return oversight_.step(node, *m);
  if (auto* m = std::get_if<Propose>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<FetchHeaders>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Headers>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<VouchQuery>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Vouched>(&message.body)) return replica_.step(node, *m);
  if (auto* m = std::get_if<Progress>(&message.body)) return on_progress(node, *m);
  if (auto* m = std::get_if<Checkpoint>(&message.body)) return checkpoints_.step(node, *m);
  if (auto* m = std::get_if<Stable>(&message.body)) return checkpoints_.step(m->certificate);
  if (auto* m = std::get_if<FetchOrder>(&message.body)) return on_fetch_order(node, *m);
  if (auto* m = std::get_if<OrderProof>(&message.body)) {
    const Refusal refusal = catch_up_.step(node, *m);
    if (refusal == Refusal::kNone) checkpoints_.keep(m->certificate);
    // It does not go on from what was delivered here. A correct node's would.
    if (refusal == Refusal::kConflict) checkpoints_.contradicted(node, m->from);
    return refusal;
  }
  if (auto* m = std::get_if<Batch>(&message.body)) return catch_up_.step(node, *m);
  if (auto* m = std::get_if<ViewChangePtr>(&message.body)) {
    const Refusal refusal = replica_.step(node, *m);
    if (refusal == Refusal::kNone) learn_from(**m);
    return refusal;
  }
  if (auto* m = std::get_if<NewViewPtr>(&message.body)) {
    const Refusal refusal = replica_.step(node, *m);
    if (refusal != Refusal::kNone) return refusal;
    for (const ViewChangePtr& change : (*m)->proof) learn_from(*change);
    return refusal;
  }
  return Refusal::kWrongRole;
}

// Requires a valid VIEW-CHANGE. No correct node prepares anything else in the view in which a batch was committed, or
// after it.
void ServiceInstance::learn_from(const ViewChange& change) {
  if (change.stable) static_cast<void>(checkpoints_.step(change.stable));
  for (const Claim& claim : change.prepared) {
    if (claim.n > log_.last()) break;  // ascending
    const Delivery& batch = log_.at(claim.n);
    if (batch.committed_in && claim.view >= *batch.committed_in && claim.digest != batch.digest) {
      checkpoints_.contradicted(change.signer, claim.n);
    }
  }
}

Refusal ServiceInstance::on_progress(NodeId node, const Progress& message) {
  const Refusal refusal = replica_.step(node, message);
  if (refusal != Refusal::kNone) return refusal;
  if (learner_) review_learner(node, message);
  help_to_close(node, message);
  Helped& helped = helped_[node.value];
  const bool stays = helped.said == message.stable;
  helped.said = message.stable;
  const std::int64_t pause = std::int64_t{cluster_.timing.progress_ms} * 500;
  if (helped.certificate_at && now_.value - helped.certificate_at->value < pause) return Refusal::kNone;
  if (message.stable < stable()) {
    helped.certificate_at = now_;
    outlet_.to_node(node, wrap(Stable{checkpoints_.stable()}));
  } else if (stays && message.stable == stable()) {
    for (Checkpoint& mine : checkpoints_.own()) {
      helped.certificate_at = now_;
      outlet_.to_node(node, wrap(std::move(mine)));
    }
  }
  return Refusal::kNone;
}

// A node that has delivered and does not get on with closing may have been told something else by a slot than the
// others. What is stable here, it learns from the certificate.
void ServiceInstance::help_to_close(NodeId node, const Progress& message) {
  Helped& helped = helped_[node.value];
  const bool stays = std::exchange(helped.closed, message.closed) == message.closed;
  if (!stays || message.closed >= message.delivered || message.closed < stable()) return;
  const std::int64_t pause = std::int64_t{cluster_.timing.progress_ms} * 500;
  if (helped.closings_at && now_.value - helped.closings_at->value < pause) return;
  Closings words{message.closed.next(), {}};
  std::size_t known = 0;  // up to the last digest that is
  for (Seq n = words.first_n; n <= message.delivered && words.digests.size() < kClosingsMax; n = n.next()) {
    const std::optional<Digest> digest = oversight_.closed_digest(n);
    words.digests.push_back(digest.value_or(Digest{}));
    if (digest) known = words.digests.size();
  }
  words.digests.resize(known);
  if (known == 0) return;
  helped.closings_at = now_;
  outlet_.to_node(node, wrap(std::move(words)));
}

// What this node promised before it lost its log lies within a window of a checkpoint that was stable then, or within
// two of any that 2f+1 others know now: f+1 of those who signed it are correct and have delivered it.
void ServiceInstance::review_learner(NodeId node, const Progress& message) {
  if (learner_free_at_) return;
  if (message.stable <= stable()) learner_heard_ |= 1u << node.value;
  if (static_cast<std::uint32_t>(std::popcount(learner_heard_)) < 2 * cluster_.f + 1) return;
  learner_free_at_ = Seq{stable().value + 2 * std::uint64_t{cluster_.limits.window_batches}};
}

Refusal ServiceInstance::on_fetch_order(NodeId node, const FetchOrder& message) {
  if (message.from.value == 0) return Refusal::kMalformed;
  Helped& helped = helped_[node.value];
  if (helped.orders >= kOrdersPerTick) return Refusal::kQuota;
  ++helped.orders;
  for (Body& body : answer_fetch_order(log_, checkpoints_, message, kAnswerBytesMax)) {
    outlet_.to_node(node, wrap(std::move(body)));
  }
  return Refusal::kNone;
}

Refusal ServiceInstance::from_host(HostId host, Message& message) {
  if (auto* m = std::get_if<Join>(&message.body)) return oversight_.step(*m);
  if (auto* m = std::get_if<SlotDead>(&message.body)) return oversight_.step(host, *m);
  return Refusal::kWrongRole;
}

Refusal ServiceInstance::from_executor(const crypto::Peer& peer, Message& message) {
  if (peer.service != service_) return Refusal::kUnknownService;
  if (!oversight_.is_current(peer.slot, peer.incarnation)) return Refusal::kStaleIncarnation;
  const auto executor = executors_.find(peer.slot);
  if (executor == executors_.end() || executor->second.incarnation != peer.incarnation) return Refusal::kNotReady;
  if (auto* m = std::get_if<Vote>(&message.body)) {
    const Seq n = m->n;
    const Refusal refusal = oversight_.step(peer.slot, peer.incarnation, std::move(*m));
    // A repeated vote still says how far the executor is.
    if (refusal == Refusal::kNone || refusal == Refusal::kDuplicate) executor->second.stream.voted(n);
    return refusal;
  }
  if (auto* m = std::get_if<Subscribe>(&message.body)) {
    oversight_.subscribed(peer.slot, peer.incarnation, m->from);
    subscriptions_[peer.slot.value].waiting = *m;
    review_subscriptions(peer.slot);
    return Refusal::kNone;
  }
  if (auto* m = std::get_if<ExecCheckpoint>(&message.body)) return oversight_.step(peer.slot, peer.incarnation, *m);
  if (auto* m = std::get_if<FetchState>(&message.body)) {
    oversight_.fetches(peer.slot, peer.incarnation);
    return relay_.request(peer.slot, peer.incarnation, std::move(*m));
  }
  if (auto* m = std::get_if<StateParts>(&message.body)) {
    if (StateEvidence::is_own(m->ticket)) return state_evidence_.step(peer.slot, peer.incarnation, *m);
    return relay_.answer(peer.slot, peer.incarnation, std::move(*m));
  }
  if (auto* m = std::get_if<Replies>(&message.body)) {
    // What a liar answers is evidence and nothing else.
    if (evidence_.bodies(peer.slot, peer.incarnation, *m)) return Refusal::kNone;
    return take_replies(executor->second, std::move(*m));
  }
  if (auto* m = std::get_if<ReplyDigests>(&message.body)) {
    if (m->n.value == 0 || m->n > log_.last()) return Refusal::kNotWanted;
    return book_.digests(peer.slot, *log_.at(m->n).header, *m);
  }
  return Refusal::kWrongRole;
}

void ServiceInstance::review_subscriptions(SlotId slot) {
  Subscriptions& own = subscriptions_[slot.value];
  const std::int64_t span = std::int64_t{cluster_.timing.body_timeout_ms} * 1'000;
  if (now_.value - own.since.value >= span) own = {now_, 0, own.waiting};
  const auto executor = executors_.find(slot);
  if (!own.waiting || own.count >= kSubscriptionsMax || executor == executors_.end()) return;
  ++own.count;
  executor->second.stream.subscribe(*std::exchange(own.waiting, std::nullopt));
}

Refusal ServiceInstance::take_replies(Executor& executor, Replies message) {
  if (message.n.value == 0) return Refusal::kMalformed;
  if (message.n <= log_.last()) return book_.bodies(*log_.at(message.n).header, message);
  std::size_t bytes = 0;
  for (const Replies::Item& item : message.items) bytes += item.body.size();
  const bool in_order = executor.early.empty() || executor.early.back().n <= message.n;
  if (!in_order || message.n.value - log_.last().value > cluster_.limits.window_batches) return Refusal::kOutOfWindow;
  if (executor.early.size() >= kEarlyRepliesMax || bytes > kEarlyBytesMax - executor.early_bytes) {
    return Refusal::kQueueFull;
  }
  for (Replies::Item& item : message.items) item.body = SharedBytes::copy(item.body.view());
  executor.early_bytes += bytes;
  executor.early.push_back(std::move(message));
  return Refusal::kNone;
}

void ServiceInstance::take_early_replies() {
  for (auto& [slot, executor] : executors_) {
    while (!executor.early.empty() && executor.early.front().n <= log_.last()) {
      const Replies message = std::move(executor.early.front());
      executor.early.pop_front();
      for (const Replies::Item& item : message.items) executor.early_bytes -= item.body.size();
      static_cast<void>(book_.bodies(*log_.at(message.n).header, message));
    }
  }
}

Refusal ServiceInstance::from_client(ClientId client, Message& message) {
  auto* requests = std::get_if<Requests>(&message.body);
  if (requests == nullptr) return Refusal::kWrongRole;
  Refusal worst = Refusal::kNone;
  for (Requests::Item& item : requests->items) {
    const Refusal refusal = take_request(client, requests->session, item);
    if (refusal != Refusal::kNone) worst = refusal;
  }
  return worst;
}

Refusal ServiceInstance::take_request(ClientId client, SessionId session, Requests::Item& item) {
  if (log_.full()) {  // nothing new, but what is ordered is still answered
    if (book_.ask(client, session, item.number) == Refusal::kNone) return Refusal::kNone;
    reject(client, session, item.number, Refusal::kQueueFull);
    return Refusal::kQueueFull;
  }
  auto request = std::make_shared<Request>();
  request->client = client;
  request->session = session;
  request->number = item.number;
  request->flags = item.flags;
  request->op = SharedBytes::copy(item.op.view());  // kept for long: not with the whole frame it came in
  request->digest = request_digest(service_, client, session, item.number, item.flags, request->op.view());
  const Refusal refusal = replica_.vouch(std::move(request));
  if (refusal == Refusal::kNone) return refusal;
  if (refusal == Refusal::kDuplicate) {  // asks for its answer again; one not delivered yet is answered in time
    return book_.ask(client, session, item.number) == Refusal::kQuota ? Refusal::kQuota : Refusal::kNone;
  }
  reject(client, session, item.number, refusal);
  return refusal;
}

void ServiceInstance::reject(ClientId client, SessionId session, RequestNumber number, Refusal reason) {
  outlet_.to_client(client, wrap(Rejected{session, number, static_cast<std::uint8_t>(reason)}));
}

void ServiceInstance::peer_up(const crypto::Peer& peer) {
  if (peer.role == crypto::Role::kNode) replica_.peer_up(peer.node());
  if (peer.role == crypto::Role::kHost) outlet_.to_host(peer.host(), wrap(oversight_.notice()));
  if (peer.role == crypto::Role::kExecutor && peer.service == service_) {
    if (!oversight_.is_current(peer.slot, peer.incarnation)) return;
    executors_[peer.slot] = Executor{peer.incarnation, {}, {}, 0};
    subscriptions_[peer.slot.value].waiting.reset();
    oversight_.channel_up(peer.slot, peer.incarnation);
    relay_.channel_up(peer.slot, peer.incarnation);
    tell_stable(peer.slot, peer.incarnation);
  }
}

// Proof of the state that an executor may begin with.
void ServiceInstance::tell_stable(SlotId slot, Incarnation incarnation) {
  if (!checkpoints_.stable()) return;
  static_cast<void>(outlet_.to_executor(service_, slot, incarnation, wrap(Stable{checkpoints_.stable()})));
}

void ServiceInstance::peer_down(const crypto::Peer& peer) {
  if (peer.role != crypto::Role::kExecutor || peer.service != service_) return;
  const auto executor = executors_.find(peer.slot);
  if (executor == executors_.end() || executor->second.incarnation != peer.incarnation) return;
  executors_.erase(executor);
  oversight_.channel_down(peer.slot, peer.incarnation);
  relay_.channel_down(peer.slot);
}

void ServiceInstance::tick(Micros monotonic, Micros wall) {
  now_ = monotonic;
  for (Helped& helped : helped_) helped.orders = 0;
  for (const auto& [slot, executor] : executors_) review_subscriptions(slot);
  replica_.tick(monotonic, wall);
  oversight_.tick(monotonic);
  catch_up_.tick(monotonic);
  relay_.tick(monotonic);
  book_.tick(monotonic);
  oversight_.unanswered(book_.in_vain());
  evidence_.tick(monotonic);
  state_evidence_.tick(monotonic);
}

bool ServiceInstance::run_ordering() {
  ReplicaOutput out = replica_.take_output();
  for (const LogRecord& record : out.log) outlet_.persist(service_, record);
  for (Outgoing& outgoing : out.send) {
    if (auto* progress = std::get_if<Progress>(&outgoing.body)) progress->closed = oversight_.closed_through();
    const Message message = wrap(std::move(outgoing.body));
    if (outgoing.to) {
      outlet_.to_node(*outgoing.to, message);
    } else {
      outlet_.to_all_nodes(message);
    }
  }
  for (Delivery& batch : out.deliver) take_delivery(batch);
  if (!out.deliver.empty()) take_early_replies();
  return !out.send.empty() || !out.deliver.empty();
}

void ServiceInstance::take_delivery(Delivery& batch) {
  log_.append(batch);
  agreeing_.emplace_back();
  book_.open(batch);
  oversight_.deliver(batch);
  std::uint64_t bytes = 0;
  for (const RequestPtr& request : batch.requests) bytes += request->op.size();
  const Seq n = batch.header->n;
  if (checkpoints_.delivered(n, batch.requests.size(), bytes, batch.history, oversight_.table_digest())) {
    oversight_.checkpoint_due(n);
    const CertificatePtr proof = checkpoints_.covering(n);
    if (stable_n(proof) == n) oversight_.confirm_root(n, proof->state.root);
  }
  presume_closed();
}

// What 2f+1 nodes have closed.
void ServiceInstance::presume_closed() {
  const Seq n = std::min(stable(), log_.last());
  oversight_.presume_closed(n);
  book_.presume_closed(n);
}

bool ServiceInstance::run_oversight() {
  if (!oversight_.has_output()) return false;
  OversightOutput out = oversight_.take_output();
  for (Suspect& suspect : out.suspects) outlet_.to_all_nodes(wrap(std::move(suspect)));
  for (OversightOutput::WakeFor& wake : out.wakes) outlet_.to_host(wake.host, wrap(wake.wake));
  for (SystemOp& op : out.propose) replica_.propose(std::move(op));
  for (OversightOutput::Closed& closed : out.closed) {
    book_.close(*log_.at(closed.n).header, closed.replies);
    agreeing_[closed.n.value - 1] = std::move(closed.agreeing);
  }
  for (const OversightOutput::RootDifference& difference : out.root_differences) state_evidence_.open(difference);
  for (const OversightOutput::Root& settled : out.roots) {
    checkpoints_.settled(settled.n, settled.root);
    state_evidence_.settled(settled.n, settled.root);
  }
  for (OversightOutput::Difference& difference : out.differences) take_difference(std::move(difference));
  if (out.table_changed) {
    outlet_.to_all_hosts(wrap(oversight_.notice()));
    outlet_.drop_stale_executors(service_);
    book_.forget_words();
  }
  return !out.propose.empty() || !out.closed.empty() || !out.roots.empty() || out.table_changed;
}

// Closed batches make checkpoints, checkpoints move h and lead nodes that are behind.
bool ServiceInstance::run_checkpoints() {
  while (checkpoints_.results_through() < oversight_.closed_through()) {
    const Seq n = checkpoints_.results_through().next();
    const std::optional<Digest> digest = oversight_.closed_digest(n);
    if (!digest) break;  // closed by others before a restart: the next certificate leads on
    checkpoints_.closed(n, *digest);
  }
  CheckpointOutput out = checkpoints_.take_output();
  // Who signs a checkpoint has the order up to there: others let go of what they have once it is stable.
  if (!out.send.empty()) outlet_.sync(service_);
  for (Checkpoint& message : out.send) outlet_.to_all_nodes(wrap(std::move(message)));
  for (const CheckpointOutput::Root& root : out.taken_over) oversight_.confirm_root(root.n, root.root);
  if (out.stable) {
    outlet_.persist(service_, StableRecord{out.stable});
    replica_.set_stable(out.stable);
    oversight_.confirm_root(stable(), out.stable->state.root);
    for (const auto& [slot, executor] : executors_) tell_stable(slot, executor.incarnation);
  }
  presume_closed();
  if (learner_free_at_ && stable() >= *learner_free_at_) {
    learner_ = false;
    learner_free_at_.reset();
    outlet_.persist(service_, LearnerRecord{false});
    replica_.set_learner(false);
    checkpoints_.set_silent(false);
  }
  return !out.send.empty() || !out.taken_over.empty() || out.stable;
}

bool ServiceInstance::run_catch_up() {
  catch_up_.at(replica_.last_delivered(), replica_.history(), stable());
  CatchUpOutput out = catch_up_.take_output();
  for (auto& [node, wish] : out.ask) outlet_.to_node(node, wrap(wish));
  for (const Batch& batch : out.batches) replica_.adopt(batch);
  return !out.batches.empty();
}

void ServiceInstance::fetch_replies(FetchReplies wanted) {
  std::vector<SlotId> holders = agreeing_[wanted.n.value - 1];
  if (holders.size() <= cluster_.services[service_.value].g) {  // closed on others' words: these may all be liars
    for (const auto& [slot, executor] : executors_) {
      if (std::find(holders.begin(), holders.end(), slot) == holders.end()) holders.push_back(slot);
    }
  }
  const Message message = wrap(std::move(wanted));
  for (std::size_t i = 0; i < holders.size(); ++i) {
    const SlotId slot = holders[fetch_turn_++ % holders.size()];
    const auto executor = executors_.find(slot);
    if (executor == executors_.end()) continue;
    if (outlet_.to_executor(service_, slot, executor->second.incarnation, message)) return;
  }
}

void ServiceInstance::ask_slots(FetchReplies wanted) {
  const Message message = wrap(std::move(wanted));
  for (const auto& [slot, executor] : executors_) {
    if (!oversight_.is_current(slot, executor.incarnation)) continue;
    static_cast<void>(outlet_.to_executor(service_, slot, executor.incarnation, message));
  }
}

void ServiceInstance::run_replies() {
  ReplyBookOutput out = book_.take_output();
  for (ReplyBookOutput::ToClient& to : out.acks) outlet_.to_client(to.client, wrap(std::move(to.acks)));
  for (FetchReplies& wanted : out.fetch) fetch_replies(std::move(wanted));
  for (FetchReplies& wanted : out.ask) ask_slots(std::move(wanted));
}

void ServiceInstance::run_streams() {
  for (auto& [slot, executor] : executors_) {
    while (!executor.stream.up_to_date(log_)) {
      const std::size_t queued = outlet_.queued_bytes(service_, slot, executor.incarnation);
      std::optional<Body> body = executor.stream.next(log_, queued);
      if (!body || !outlet_.to_executor(service_, slot, executor.incarnation, wrap(std::move(*body)))) break;
    }
  }
}

void ServiceInstance::run_relay() {
  for (StateRelayOutput::Item& item : relay_.take_output().to_executor) {
    Message message = std::visit([this](auto& body) { return wrap(std::move(body)); }, item.message);
    static_cast<void>(outlet_.to_executor(service_, item.to, item.incarnation, message));
  }
}

void ServiceInstance::take_difference(OversightOutput::Difference&& difference) {
  const Delivery& batch = log_.at(difference.n);
  if (difference.sides.size() == 1) {  // against what was closed before
    OversightOutput::Difference::Side closing;
    closing.agrees = true;
    for (const Reference& reference : batch.header->references) {
      const std::optional<Digest> digest = book_.digest_of(difference.n, reference);
      if (!digest) return;
      closing.replies.push_back(*digest);
    }
    for (const SlotId slot : agreeing_[difference.n.value - 1]) {
      closing.slots.emplace_back(slot, oversight_.notice().incarnations[slot.value]);
    }
    difference.sides.push_back(std::move(closing));
  }
  evidence_.open(batch, difference);
}

void ServiceInstance::run_evidence() {
  for (EvidenceBook::Ask& ask : evidence_.take_asks()) {
    static_cast<void>(outlet_.to_executor(service_, ask.slot, ask.incarnation, wrap(std::move(ask.wanted))));
  }
  for (StateEvidence::Ask& ask : state_evidence_.take_asks()) {
    static_cast<void>(outlet_.to_executor(service_, ask.slot, ask.incarnation, wrap(std::move(ask.wanted))));
  }
}

void ServiceInstance::run() {
  bool busy = true;
  while (busy) {
    busy = run_ordering();
    busy = run_checkpoints() || busy;  // before oversight looks for trouble: others may have closed what came late
    busy = run_oversight() || busy;
    busy = run_catch_up() || busy;
  }
  run_replies();
  run_relay();
  run_evidence();
  run_streams();
}

}  // namespace zz::agreement
