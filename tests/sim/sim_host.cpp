#include "tests/sim/sim_host.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "agreement/certificates.hpp"

namespace zz::sim {

using execution::Executor;
using execution::ExecutorOutput;
using execution::state::ObjectStore;
using vmpool::BackendCall;
using Kind = BackendCall::Kind;

namespace {

constexpr std::int64_t kHostTick = 100'000;
constexpr std::int64_t kSlotTick = 50'000;
// The drawn clusters have checkpoints every few requests: a window may hold many.
constexpr std::uint32_t kSnapshotsMax = 512;
constexpr std::string_view kExpired = "error session expired";

crypto::SecretKey guest_key(const vmpool::GuestId& guest) {
  std::array<std::uint8_t, 32> seed{};
  seed[0] = 0x5a;
  seed[1] = static_cast<std::uint8_t>(guest.slot.value);
  std::memcpy(&seed[8], &guest.incarnation.value, sizeof guest.incarnation.value);
  return crypto::SecretKey::from_seed(seed);
}

std::uint64_t first_of(const Digest& digest) {
  std::uint64_t out = 0;
  std::memcpy(&out, digest.bytes.data(), sizeof out);
  return out;
}

std::uint64_t mix(std::uint64_t hash, ByteView bytes) {
  for (const std::uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3ULL;
  return hash ^ (hash >> 31) ^ bytes.size();
}

SharedBytes falsify(const SharedBytes& reply) {
  Bytes out(reply.view().begin(), reply.view().end());
  out.push_back('!');
  return SharedBytes(std::move(out));
}

SharedBytes with_a_bit_flipped(const SharedBytes& bytes, Prng& prng) {
  Bytes out(bytes.view().begin(), bytes.view().end());
  if (!out.empty()) out[prng.below(out.size())] ^= 1;
  return SharedBytes(std::move(out));
}

}  // namespace

SimHost::SimHost(Kernel& kernel, Network& network, HostId id, SlotId slot, const crypto::SecretKey& key,
                 std::optional<SlotVice> vice, std::uint64_t seed)
    : kernel_(kernel), network_(network), id_(id), slot_(slot), key_(key), vice_(vice), acts_(vice), prng_(seed) {
  deceived_ = prng_.next();
}

SimHost::~SimHost() = default;

void SimHost::start() {
  ZZ_ASSERT(!alive());
  ++life_;
  pool_ = std::make_unique<vmpool::Pool>(kernel_.cluster, id_, key_, used_up_, *this);
  pool_->tick(kernel_.now);
  carry_out();
  network_.party_up(party());
  if (life_ == 1) kernel_.after(kHostTick, {Happening::Kind::kHostTick, id_.value, 0, 0, nullptr});
}

void SimHost::crash() {
  if (!alive()) return;
  end_guest();
  pool_.reset();
  pending_.clear();
  network_.party_down(party());
}

void SimHost::kill_guest() {
  if (!alive() || !guest_) return;
  const vmpool::GuestId guest = *guest_;
  end_guest();
  guest_ = guest;  // what is left of it goes with destroy
  pool_->tick(kernel_.now);
  pool_->guest_died(guest);
  carry_out();
}

void SimHost::end_guest() {
  if (executor_) {
    executor_.reset();
    service_.reset();
    fetcher_.reset();
    source_.reset();
    store_.reset();
    network_.party_down(slot_party());
  }
  guest_.reset();
}

// ---- the pool --------------------------------------------------------------------------------------------------

void SimHost::tick() {
  kernel_.after(kHostTick, {Happening::Kind::kHostTick, id_.value, 0, 0, nullptr});
  if (!alive()) return;
  pool_->tick(kernel_.now);
  carry_out();
}

void SimHost::deliver(Party node, const MessagePtr& message) {
  if (!alive()) return;
  Refusal why = Refusal::kWrongRole;
  pool_->tick(kernel_.now);
  if (const auto* wake = std::get_if<agreement::Wake>(&message->body)) why = pool_->step(NodeId{node}, *wake);
  if (const auto* notice = std::get_if<agreement::EpochNotice>(&message->body)) {
    why = pool_->step(NodeId{node}, *notice);
  }
  if (why != Refusal::kNone) kernel_.refusals.add(why);
  carry_out();
}

void SimHost::node_up(Party node) {
  if (!alive()) return;
  pool_->node_up(NodeId{node});
  carry_out();
}

void SimHost::carry_out() {
  const vmpool::PoolOutput out = pool_->take_output();
  if (out.used_up) used_up_ = *out.used_up;
  for (const BackendCall& one : out.calls) call(one);
  const auto send = [this](std::optional<NodeId> to, const agreement::Message& message) {
    const auto shared = std::make_shared<const agreement::Message>(message);
    for (Party node = 0; node < kernel_.parties.nodes; ++node) {
      if (!to || to->value == node) network_.send(party(), node, shared);
    }
  };
  for (const auto& join : out.joins) send(join.to, {join.join.service, join.join});
  for (const auto& dead : out.dead) send(dead.to, {dead.service, dead.dead});
}

void SimHost::call(const BackendCall& call) {
  if (call.kind == Kind::kThaw) kernel_.witness->woken(kernel_.now, call.guest.slot, call.guest.incarnation);
  if (call.kind == Kind::kDestroy && guest_ == call.guest) end_guest();
  pending_.emplace(call.id.value, call);
  // The first guests hold the only state there is: a hand-over that failed could cost more than g of them.
  const bool quick = call.kind == Kind::kHandOver;
  const bool ok = quick || speed.failure_percent == 0 || !chance(prng_, speed.failure_percent);
  if (!ok) kernel_.count("fault.boot-failure");
  kernel_.after(quick ? 1'000 : between(prng_, speed.least, speed.most),
                {Happening::Kind::kBackend, id_.value, static_cast<Party>(ok ? 1 : 0), call.id.value, nullptr});
}

void SimHost::backend_done(const Happening& happening) {
  const auto found = pending_.find(happening.number);
  if (!alive() || found == pending_.end()) return;
  const BackendCall call = found->second;
  pending_.erase(found);
  vmpool::CallResult result{call.id, happening.b != 0, {}};
  if (call.kind == Kind::kBoot && result.ok) {
    guest_ = call.guest;
    guest_key_ = guest_key(call.guest);
    result.key = guest_key_->public_key();
  }
  if (call.kind == Kind::kHandOver && result.ok && guest_ == call.guest && !executor_) begin_duty();
  pool_->tick(kernel_.now);
  pool_->step(result);
  carry_out();
}

// ---- the guest -------------------------------------------------------------------------------------------------

void SimHost::begin_duty() {
  execution::ExecutorConfig config;
  config.slot = slot_;
  config.incarnation = guest_->incarnation;
  config.f = kernel_.cluster.f;
  config.g = kernel_.cluster.services.front().g;
  config.sessions.client_window = kernel_.cluster.limits.client_window;
  config.sessions.sessions_max = kernel_.cluster.limits.sessions_max;
  config.sessions.client_sessions_max = kernel_.cluster.limits.client_sessions_max;
  config.body_timeout = Micros{std::int64_t{kernel_.cluster.timing.body_timeout_ms} * 1'000};
  config.expired_reply = SharedBytes::copy(kExpired);
  config.genuine = [this](const agreement::StableCertificate& certificate) {
    return agreement::genuine(kernel_.cluster, certificate);
  };
  const crypto::Limits& limits = kernel_.cluster.limits;
  config.checkpoints = {limits.checkpoint_batches, limits.checkpoint_requests, limits.checkpoint_bytes};
  execution::state::StoreOptions options;
  options.snapshots_max = kSnapshotsMax;
  auto opened = ObjectStore::open(options);
  ZZ_ASSERT(opened.ok());
  store_ = std::move(opened->store);
  executor_ = std::make_unique<Executor>(config, *store_, *this);
  service_ = std::make_unique<execution::InProcessAdapter>(
      std::make_unique<execution::KvService>(), *store_,
      execution::InProcessAdapter::Options{{}, kernel_.cluster.limits.op_bytes_max},
      [this](const std::vector<execution::state::Want>& wants) { fetcher_->want(wants); });
  execution::StateFetcherConfig fetching;
  fetching.self = slot_;
  fetching.f = config.f;
  fetching.g = config.g;
  fetcher_ = std::make_unique<execution::StateFetcher>(fetching, *store_);
  fetcher_->tick(kernel_.now);
  source_ = std::make_unique<execution::StateSource>(
      execution::StateSource::Options{slot_, static_cast<std::uint32_t>(kernel_.parties.nodes)}, *store_);
  acts_ = vice_;
  state_ = 0;
  told_.clear();
  witnessed_ = Seq{};
  states_.clear();
  network_.set_peer(slot_party(), {crypto::Role::kExecutor, 0, ServiceId{0}, slot_, guest_->incarnation});
  executor_->tick(kernel_.now);
  network_.party_up(slot_party());
  kernel_.after(kSlotTick, {Happening::Kind::kSlotTick, slot_.value, 0, guest_->incarnation.value, nullptr});
}

void SimHost::slot_tick(const Happening& happening) {
  if (!executor_ || guest_->incarnation.value != happening.number) return;
  kernel_.after(kSlotTick, {Happening::Kind::kSlotTick, slot_.value, 0, happening.number, nullptr});
  executor_->tick(kernel_.now);
  fetcher_->tick(kernel_.now);
  slot_turn();
}

void SimHost::slot_node_up(Party node) {
  if (!executor_) return;
  executor_->node_up(NodeId{node});
  fetcher_->node_up(NodeId{node});
  slot_turn();
}

void SimHost::slot_node_down(Party node) {
  if (!executor_) return;
  executor_->node_down(NodeId{node});
  fetcher_->node_down(NodeId{node});
  slot_turn();
}

void SimHost::deliver_to_slot(Party node, const MessagePtr& message) {
  if (!executor_) return;
  Refusal refusal = Refusal::kWrongRole;
  const NodeId from{node};
  if (message->service != ServiceId{0}) {
    refusal = Refusal::kUnknownService;
  } else if (const auto* orders = std::get_if<agreement::Orders>(&message->body)) {
    refusal = executor_->step(from, *orders);
  } else if (const auto* batch = std::get_if<agreement::Batch>(&message->body)) {
    refusal = executor_->step(from, *batch);
  } else if (const auto* fetch = std::get_if<agreement::FetchReplies>(&message->body)) {
    refusal = executor_->step(from, *fetch);
  } else if (const auto* stable = std::get_if<agreement::Stable>(&message->body)) {
    refusal = executor_->step(from, *stable);
  } else if (const auto* wish = std::get_if<agreement::FetchState>(&message->body)) {
    refusal = give_state(from, *wish);
  } else if (const auto* parts = std::get_if<agreement::StateParts>(&message->body)) {
    refusal = fetcher_->step(from, *parts);
  }
  if (refusal != Refusal::kNone) kernel_.refusals.add(refusal);
  slot_turn();
}

// Digests at once what is a checkpoint up to n.
void SimHost::digest_until(Seq n) {
  constexpr std::uint64_t kAll = std::numeric_limits<std::uint64_t>::max();
  for (auto due = executor_->to_digest(); due && due->n <= n; due = executor_->to_digest()) {
    while (store_->digest_some(due->snapshot, kAll) == execution::state::Progress::kMore) {
    }
    const Digest root = *ObjectStore::root(due->snapshot);
    if (due->n == n) state_ = first_of(root);
    executor_->checkpointed(due->n, root);
  }
  while (store_->reclaim_some(std::numeric_limits<std::size_t>::max())) {
  }
}

// The state after each batch executed since the last call.
void SimHost::after_executing(bool ran) {
  if (ran) state_ = mix(state_, executor_->history().bytes);
  while (witnessed_ < executor_->executed()) {
    witnessed_ = witnessed_.next();
    states_.push_back(state_);
    digest_until(witnessed_);
  }
  digest_until(witnessed_);  // one that waited for a place
}

void SimHost::on_reply(const SharedBytes& op, SharedBytes reply) {
  state_ = mix(mix(state_, op.view()), reply.view());
  const bool lie = acts_ == SlotVice::kWrong || (acts_ == SlotVice::kSometimesWrong && chance(prng_, 3));
  if (lie) kernel_.count("byzantine-slot.wrong-reply");
  executor_->complete(lie ? falsify(reply) : std::move(reply));
  after_executing(true);
}

void SimHost::run_service() {
  while (true) {
    const auto invocation = executor_->next_invocation();
    after_executing(false);
    if (!invocation) return;
    service_->execute(*invocation, [this, op = invocation->op](SharedBytes reply) { on_reply(op, std::move(reply)); });
  }
}

void SimHost::slot_turn() {
  for (bool first = true;; first = false) {
    // First what the last step led to: the state may be another one.
    const bool something = carry_out_all();
    if (!executor_) return;
    const bool arrived = fetch_state();
    if (!executor_ || (!something && !arrived && !first)) return;
    run_service();
  }
}

bool SimHost::carry_out_all() {
  const ExecutorOutput out = executor_->take_output();
  carry_out(out);
  if (!executor_) return true;
  const agreement::CertificatePtr& newest = executor_->newest();
  if (const auto told = told_.find(agreement::stable_n(newest)); told != told_.end()) {
    const bool goes_on = told->second != newest->state.root;
    if (goes_on) kernel_.witness->goes_on(slot_, guest_->incarnation, told->first);
    told_.erase(told_.begin(), std::next(told));
  }
  return !out.empty();
}

// True: something came that the slot waits for.
bool SimHost::fetch_state() {
  source_->sent();
  execution::StateFetcherOutput out = fetcher_->take_output();
  for (auto& [node, wish] : out.ask) {
    kernel_.count("slot.state-asked");
    send_from_slot(node.value, std::move(wish));
  }
  if (out.complete) kernel_.count("slot.state-whole");
  if (out.stale) {
    kernel_.count("slot.state-stale");
    if (executor_->start_over()) carry_out_all();
    if (!executor_) return false;
  }
  if (!out.arrived) return false;
  executor_->supplied();
  service_->supplied();
  return true;
}

// A slot that lies about its replies gives wrong state, one that lies to some nodes gives it to them, and one that is
// silent gives none.
Refusal SimHost::give_state(NodeId from, const agreement::FetchState& wish) {
  execution::StateSource::Answer answer = source_->answer(from, wish, executor_->snapshot_of(wish.n));
  const bool lies = acts_ == SlotVice::kWrong || (acts_ == SlotVice::kSometimesWrong && chance(prng_, 3)) ||
                    (acts_ == SlotVice::kTwoFaced && (deceived_ >> from.value & 1) != 0);
  if (lies && !answer.parts.parts.empty()) {
    kernel_.count("byzantine-slot.wrong-state");
    SharedBytes& bytes = answer.parts.parts[prng_.below(answer.parts.parts.size())].bytes;
    bytes = chance(prng_, 50) ? falsify(bytes) : with_a_bit_flipped(bytes, prng_);
  }
  if (acts_ != SlotVice::kSilent) send_from_slot(from.value, std::move(answer.parts));
  return answer.refusal;
}

void SimHost::carry_out(const ExecutorOutput& out) {
  if (!out.ended.empty()) {
    kernel_.count("slot.ended");
    return kill_guest();
  }
  if (out.adopted) {
    kernel_.count("slot.adopted");
    fetcher_->begin(out.adopted->state.n);
    service_->replaced([](const Result<void>&) {});
    witnessed_ = out.adopted->state.n;
    told_.clear();
    kernel_.witness->adopted(slot_, guest_->incarnation, out.adopted);
    state_ = first_of(out.adopted->state.root);
  }
  if (out.replays) {
    kernel_.count("slot.replays");
    fetcher_->end();
    service_->replaced([](const Result<void>&) {});
    witnessed_ = {};
    told_.clear();
    kernel_.witness->replays(slot_, guest_->incarnation);
    state_ = 0;
  }
  fetcher_->want(out.wants);
  if (out.stable && fetcher_->active()) fetcher_->rebase(out.stable->certificate->state.n);
  for (const auto& at : out.subscribe) send_from_slot(at.to.value, at.subscribe);
  for (const auto& again : out.votes_again) {
    for (const auto& vote : again.votes) send_vote(vote, again.to);
  }
  for (std::size_t i = 0; i < out.votes.size(); ++i) {
    const agreement::Vote& vote = *out.votes[i];
    if (!vice_) {
      Digest state;
      std::memcpy(state.bytes.data(), &states_[i], sizeof states_[i]);
      kernel_.witness->executed(slot_, vote.incarnation, vote.n, vote.replies, state);
    }
    send_vote(out.votes[i], std::nullopt);
  }
  states_.erase(states_.begin(), states_.begin() + static_cast<std::ptrdiff_t>(out.votes.size()));
  if (acts_ == SlotVice::kSilent) return;
  for (const auto& to : out.replies) send_from_slot(to.to.value, to.replies);
  for (const auto& to : out.digests) send_digests(to);
  for (const auto& checkpoint : out.checkpoints) {
    told_.emplace(checkpoint.checkpoint.n, checkpoint.checkpoint.root);
    send_checkpoint(checkpoint);
  }
}

// A slot that lies about its replies, lies about those of before, too.
void SimHost::send_digests(const ExecutorOutput::DigestsTo& to) {
  const bool lies = acts_ == SlotVice::kWrong || (acts_ == SlotVice::kSometimesWrong && chance(prng_, 3)) ||
                    (acts_ == SlotVice::kTwoFaced && (deceived_ >> to.to.value & 1) != 0);
  agreement::ReplyDigests said = to.digests;
  if (lies) {
    kernel_.count("byzantine-slot.wrong-digest");
    for (agreement::ReplyDigests::Item& item : said.items) item.digest.bytes[0] ^= 1;
  }
  send_from_slot(to.to.value, std::move(said));
}

void SimHost::sign(agreement::ExecCheckpoint& said) const {
  said.signature = guest_key_->sign(agreement::exec_checkpoint_fields(kernel_.cluster.id, said));
}

// A slot that lies about its replies, lies about its state too.
void SimHost::send_checkpoint(const ExecutorOutput::CheckpointTo& checkpoint) {
  const auto as_signed = [this](agreement::ExecCheckpoint said) {
    sign(said);
    return std::make_shared<const agreement::Message>(agreement::Message{ServiceId{0}, said});
  };
  const MessagePtr truth = as_signed(checkpoint.checkpoint);
  agreement::ExecCheckpoint false_one = checkpoint.checkpoint;
  false_one.root.bytes[0] ^= 1;
  const bool lies = acts_ == SlotVice::kWrong || (acts_ == SlotVice::kSometimesWrong && chance(prng_, 3));
  MessagePtr lie;
  if (lies || acts_ == SlotVice::kTwoFaced) {
    lie = as_signed(false_one);
    kernel_.count("byzantine-slot.wrong-root");
  }
  for (Party node = 0; node < kernel_.parties.nodes; ++node) {
    if (checkpoint.to && checkpoint.to->value != node) continue;
    const bool deceive = lies || (lie != nullptr && (deceived_ >> node & 1) != 0);
    const MessagePtr& message = deceive ? lie : truth;
    if (acts_ == SlotVice::kLate) {
      kernel_.count("byzantine-slot.late");
      kernel_.after(between(prng_, 300'000, 2'500'000),
                    {Happening::Kind::kSlotSend, slot_.value, node, guest_->incarnation.value, message});
      continue;
    }
    post(node, message);
  }
}

void SimHost::send_from_slot(Party node, agreement::Body body) {
  post(node, std::make_shared<const agreement::Message>(agreement::Message{ServiceId{0}, std::move(body)}));
}

void SimHost::post(Party node, const MessagePtr& message) {
  if (!tamper_) {
    network_.send(slot_party(), node, message);
    return;
  }
  auto changed = std::make_shared<agreement::Message>(*message);
  if (tamper_(NodeId{node}, changed->body)) network_.send(slot_party(), node, std::move(changed));
}

agreement::Vote SimHost::falsified(const agreement::Vote& vote) const {
  agreement::Vote out = vote;
  for (Digest& digest : out.replies) digest.bytes[0] ^= 1;
  return out;
}

void SimHost::send_vote(const ExecutorOutput::VotePtr& vote, std::optional<NodeId> to) {
  if (acts_ == SlotVice::kSilent) return kernel_.count("byzantine-slot.silent");
  const auto message = std::make_shared<const agreement::Message>(agreement::Message{ServiceId{0}, *vote});
  MessagePtr lie;
  if (acts_ == SlotVice::kTwoFaced) {
    lie = std::make_shared<const agreement::Message>(agreement::Message{ServiceId{0}, falsified(*vote)});
    kernel_.count("byzantine-slot.two-faced");
  }
  for (Party node = 0; node < kernel_.parties.nodes; ++node) {
    if (to && to->value != node) continue;
    if (acts_ == SlotVice::kLate) {
      kernel_.count("byzantine-slot.late");
      kernel_.after(between(prng_, 300'000, 2'500'000),
                    {Happening::Kind::kSlotSend, slot_.value, node, vote->incarnation.value, message});
      continue;
    }
    const bool deceive = lie != nullptr && (deceived_ >> node & 1) != 0;
    post(node, deceive ? lie : message);
  }
}

void SimHost::late_send(const Happening& happening) {
  if (!executor_ || guest_->incarnation.value != happening.number) return;
  post(happening.b, happening.message);
}

}  // namespace zz::sim
