#include "execution/agent.hpp"

#include <openssl/crypto.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "agreement/agent_link.hpp"
#include "agreement/codec.hpp"
#include "base/assert.hpp"
#include "execution/agent_config.hpp"
#include "execution/agent_faults.hpp"
#include "execution/executor.hpp"
#include "execution/foresight.hpp"
#include "execution/http_adapter.hpp"
#include "execution/in_process_adapter.hpp"
#include "execution/kv_service.hpp"
#include "execution/reseed.hpp"
#include "execution/slot_store.hpp"
#include "net/channel.hpp"

namespace zz::execution {

namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kRunning{5};       // of requests in one turn; others wait for what else the loop has to do
constexpr milliseconds kDrain{2'000};     // for the last votes of a slot whose service died
constexpr milliseconds kStandstill{100};  // from which on a late tick is worth a word: votes are late too

Micros monotonic_now() {
  return Micros{std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count()};
}

}  // namespace

class Agent::Impl final : public net::Handler, public Observer, public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& loop, const crypto::ClusterFile& cluster, AgentOptions options, Done done)
      : loop_(loop),
        cluster_(cluster),
        service_(cluster.services[options.service.value]),
        options_(std::move(options)),
        done_(std::move(done)),
        control_(loop),
        timer_(loop),
        nodes_(cluster.nodes.size()) {
    codec_limits_.op_bytes_max = cluster.limits.op_bytes_max;
    codec_limits_.batch_requests_max = cluster.limits.batch_requests_max;
  }

  void start();
  // Ends everything at once, without a word to anybody.
  void shut_down();

  // net::Handler
  void on_up(net::Channel& channel) override;
  void on_message(net::Channel& channel, const SharedBytes& bytes) override;
  void on_down(net::Channel& channel, std::string_view reason) override;
  void on_refused(Refusal reason, std::string_view who, std::string_view detail) override;
  // Observer
  void on_event(const Event& event) override {
    if (event.kind == EventKind::kVoted) spdlog::trace("voted for batch {}", event.n.value);
  }

 private:
  Result<void> open_store();
  void make_adapter();
  void on_started(const Result<void>& result);
  void on_service_died(const std::string& why);
  void read_control();
  void on_control(std::string_view line);
  void take_identity(agreement::AgentIdentity identity);
  void take_fault(const std::string& kind);
  void tell_host(const agreement::FromAgent& message);
  [[nodiscard]] std::uint64_t on_duty_us() const;
  void tell_duty();
  void on_whole();
  void serve();
  void tick();
  void end_when_drained();
  void schedule_turn();
  void turn();
  void put_out();
  void run_service();
  void save_service();
  void on_reply(SharedBytes reply);
  void on_supplied();
  void foresee();
  void restart_service();
  // The executor's turn on the store's head, which a mounted state shares with it.
  template <class Function>
  auto with_executor(Function function) {
    const std::lock_guard lock(store_->head());
    return function(*executor_);
  }
  void carry_out(ExecutorOutput output);
  void send_vote(const SharedBytes& bytes);
  void release_held_votes();
  void send(net::Channel* channel, const SharedBytes& bytes);
  void refused(const net::Channel& channel, Refusal reason);
  // Ends the agent, after the current handler.
  void finish(const std::string& failure);

  template <class Body>
  [[nodiscard]] SharedBytes encoded(Body body) const {
    return agreement::encode(agreement::Message{options_.service, std::move(body)});
  }

  asio::io_context& loop_;
  const crypto::ClusterFile& cluster_;
  const crypto::ServiceEntry& service_;
  AgentOptions options_;
  Done done_;
  asio::local::stream_protocol::socket control_;
  std::string control_buffer_;
  asio::steady_timer timer_;
  agreement::CodecLimits codec_limits_;
  bool ready_ = false;  // the service
  bool finished_ = false;
  std::string dying_;  // why, once the service is dead
  Clock::time_point die_at_;
  std::optional<agreement::AgentIdentity> identity_;
  std::optional<crypto::SecretKey> key_;  // of this incarnation
  Clock::time_point on_duty_since_;
  Clock::time_point tick_at_;
  agreement::Duty duty_;  // as told

  std::unique_ptr<SlotStore> store_;
  std::unique_ptr<Adapter> adapter_;
  std::optional<Executor> executor_;  // from the identity on
  std::vector<net::Channel*> nodes_;  // live channels by node, null where there is none
  Clock::time_point node_seen_;
  bool turn_scheduled_ = false;
  int turns_held_ = 0;       // whose output waits for the next one's, which comes at once
  bool waits_ = false;       // for absent parts, since this turn
  bool voted_ = false;       // since a state was adopted
  bool saving_ = false;      // the service's state, for a checkpoint
  Foresight foresight_;
  bool in_adapter_ = false;  // execute() is on the stack: a reply now is no new turn
  bool lies_ = false;
  bool slow_ = false;
  HeldVotes held_votes_;
  RefusalCounts refusals_;
  std::unique_ptr<net::Network> network_;  // last: its end silences the handler first
};

// ---- start and control link ------------------------------------------------------------------------------------

Result<void> Agent::Impl::open_store() {
  SlotStore::Callbacks callbacks;
  callbacks.send = [this](NodeId node, agreement::Body body) { send(nodes_[node.value], encoded(std::move(body))); };
  callbacks.digested = [this](Seq n, const Digest& root) {
    with_executor([&](Executor& executor) { executor.checkpointed(n, root); });
    schedule_turn();
  };
  callbacks.supplied = [this] { on_supplied(); };
  callbacks.whole = [this] { on_whole(); };
  callbacks.stale = [this] {
    with_executor([this](Executor& executor) { executor.start_over(store_->kept()); });
    schedule_turn();
  };
  callbacks.failed = [this](const std::string& why) { on_service_died(why); };
  auto store = SlotStore::open(loop_, store_options(cluster_, options_), std::move(callbacks));
  if (!store) return Error{store.error()};
  store_ = std::move(*store);
  return {};
}

void Agent::Impl::make_adapter() {
  const auto on_missing = [this](const std::vector<state::Want>& wants) {
    store_->want(wants);
    schedule_turn();
  };
  if (service_.adapter == "kv") {
    const InProcessAdapter::Options options{.limits = {}, .reply_bytes_max = cluster_.limits.op_bytes_max};
    adapter_ = std::make_unique<InProcessAdapter>(std::make_unique<KvService>(), store_->objects(), options,
                                                  [this, on_missing](const std::vector<state::Want>& wants) {
                                                    foresight_.lacks(store_->urgent());
                                                    on_missing(wants);
                                                    waits_ = true;
                                                  });
  } else if (service_.adapter == "http") {
    HttpAdapterConfig config = http_config(cluster_, options_);
    config.store = {&store_->objects(), &store_->head(), {}, on_missing};
    adapter_ = std::make_unique<HttpAdapter>(loop_, std::move(config),
                                             [this](const std::string& why) { on_service_died(why); });
  }
}

void Agent::Impl::start() {
  boost::system::error_code error;
  control_.assign(asio::local::stream_protocol(), options_.control_fd, error);
  if (error) return finish("the control link is not a stream socket: " + error.message());
  read_control();
  if (const Result<void> opened = open_store(); !opened) return on_started(opened);
  make_adapter();
  if (!adapter_) return on_started(Error{"there is no adapter \"" + service_.adapter + "\""});
  adapter_->start([this](const Result<void>& result) { on_started(result); });
}

void Agent::Impl::on_started(const Result<void>& result) {
  if (finished_) return;
  if (!result) {
    tell_host({agreement::FromAgent::Kind::kFailed, result.error()});
    return finish(result.error());
  }
  ready_ = true;
  tell_host({agreement::FromAgent::Kind::kReady, {}});
  if (identity_) serve();
}

void Agent::Impl::read_control() {
  asio::async_read_until(control_, asio::dynamic_buffer(control_buffer_, agreement::kAgentLineMax + 1), '\n',
                         [self = shared_from_this()](const boost::system::error_code& error, std::size_t length) {
                           if (self->finished_) return;
                           if (error == asio::error::not_found) return self->finish("the host sent an overlong line");
                           if (error) return self->finish("");  // the host is gone, and so is this slot
                           const std::string line = self->control_buffer_.substr(0, length - 1);
                           self->control_buffer_.erase(0, length);
                           self->on_control(line);
                           OPENSSL_cleanse(const_cast<char*>(line.data()), line.size());
                           if (!self->finished_) self->read_control();
                         });
}

void Agent::Impl::on_control(std::string_view line) {
  auto message = agreement::parse_to_agent(line);
  if (!message) {
    spdlog::warn("{}", message.error());
    return;
  }
  if (message->identity) take_identity(*message->identity);
  if (!message->fault.empty()) take_fault(message->fault);
}

void Agent::Impl::take_identity(agreement::AgentIdentity identity) {
  if (identity_) {
    spdlog::warn("a second identity was ignored");
  } else if (identity.service != options_.service || identity.slot != options_.slot ||
             identity.incarnation != options_.incarnation) {
    spdlog::error("an identity for another slot or incarnation was ignored");
  } else {
    identity_ = identity;
    if (ready_) serve();
  }
  OPENSSL_cleanse(identity.key_seed.data(), identity.key_seed.size());
}

void Agent::Impl::take_fault(const std::string& kind) {
  if (!cluster_.allow_faults) {
    spdlog::warn("fault \"{}\" ignored: the cluster file does not allow faults", kind);
    return;
  }
  if (kind != "wrong-reply" && kind != "slow") return spdlog::warn("fault \"{}\" is not one of the agent's", kind);
  (kind == "slow" ? slow_ : lies_) = true;
  spdlog::warn("fault injected: {}", kind);
  tell_host({agreement::FromAgent::Kind::kFaulted, {}});
}

void Agent::Impl::tell_host(const agreement::FromAgent& message) {
  boost::system::error_code ignored;  // a host that is gone shows at the next read
  asio::write(control_, asio::buffer(agreement::encode(message) + "\n"), ignored);
}

std::uint64_t Agent::Impl::on_duty_us() const {
  const auto passed = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - on_duty_since_);
  return static_cast<std::uint64_t>(passed.count());
}

void Agent::Impl::tell_duty() {
  duty_.touched_bytes = store_->fetched().urgent_bytes;
  tell_host({agreement::FromAgent::Kind::kDuty, {}, duty_});
}

void Agent::Impl::on_whole() {
  duty_.whole_us = on_duty_us();
  tell_duty();
  const StateFetcherStats& fetched = store_->fetched();
  spdlog::info("the whole state is here after {} ms: {} bytes fetched, {} of them on demand", *duty_.whole_us / 1'000,
               fetched.bytes, fetched.urgent_bytes);
}

void Agent::Impl::on_service_died(const std::string& why) {
  if (finished_ || !dying_.empty()) return;
  spdlog::error("{}", why);
  tell_host({agreement::FromAgent::Kind::kFailed, why});
  if (!executor_) return finish(why);
  // The batch that is being run is finished with 502s: if it was a request that did this, all slots say the same of it.
  dying_ = why;
  die_at_ = Clock::now() + kDrain;
  schedule_turn();
}

void Agent::Impl::finish(const std::string& failure) {
  if (finished_) return;
  finished_ = true;
  asio::post(loop_, [self = shared_from_this(), failure] {
    self->shut_down();
    if (self->done_) std::exchange(self->done_, nullptr)(failure);
  });
}

void Agent::Impl::shut_down() {
  finished_ = true;
  network_.reset();
  adapter_.reset();
  store_.reset();
  timer_.cancel();
  boost::system::error_code ignored;
  control_.close(ignored);
}

// ---- duty ------------------------------------------------------------------------------------------------------

void Agent::Impl::serve() {
  reseed(identity_->entropy);
  key_ = crypto::SecretKey::from_seed(identity_->key_seed);
  OPENSSL_cleanse(identity_->key_seed.data(), identity_->key_seed.size());
  auto tls = crypto::TlsContext::make(*key_, [this](const crypto::PublicKey& peer) -> std::optional<crypto::Peer> {
    for (const crypto::NodeEntry& node : cluster_.nodes) {
      if (node.key == peer) return crypto::Peer{crypto::Role::kNode, node.id.value, {}, {}, {}};
    }
    return std::nullopt;
  });
  if (!tls) {
    tell_host({agreement::FromAgent::Kind::kFailed, tls.error()});
    return finish(tls.error());
  }
  net::NetLimits limits;
  limits.frame_bytes_max = cluster_.limits.frame_bytes_max;
  limits.send_queue_bytes_max = cluster_.limits.send_queue_bytes_max;
  network_ = std::make_unique<net::Network>(loop_, std::move(*tls), limits, *this);
  ExecutorConfig config = executor_config(cluster_, options_);
  config.saves_first = !adapter_->state_is_in_store();
  executor_.emplace(config, store_->objects(), *this);
  for (const crypto::NodeEntry& node : cluster_.nodes) network_->dial(node.address, node.key);
  node_seen_ = on_duty_since_ = tick_at_ = Clock::now();
  spdlog::info("on duty as incarnation {} of slot {}", options_.incarnation.value, options_.slot.value);
  tick();
}

void Agent::Impl::tick() {
  if (const auto late = std::chrono::duration_cast<milliseconds>(Clock::now() - tick_at_); late > kStandstill)
    spdlog::info("nothing was done for {} ms", late.count());
  store_->tick(monotonic_now());
  with_executor([](Executor& executor) { executor.tick(monotonic_now()); });
  const bool connected = std::ranges::any_of(nodes_, [](const net::Channel* channel) { return channel != nullptr; });
  if (connected) node_seen_ = Clock::now();
  if (Clock::now() - node_seen_ > milliseconds(kNodesGoneMs))
    return finish("no agreement node was to be reached for " + std::to_string(kNodesGoneMs / 1'000) + " s");
  release_held_votes();
  turn();
  put_out();
  if (!dying_.empty()) end_when_drained();
  tick_at_ = Clock::now() + milliseconds(cluster_.timing.tick_ms);
  timer_.expires_at(tick_at_);
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error && !self->finished_) self->tick();
  });
}

void Agent::Impl::end_when_drained() {
  const auto is_out = [](const net::Channel* channel) { return channel == nullptr || channel->queued_bytes() == 0; };
  const bool drained = !executor_->mid_batch() && std::ranges::all_of(nodes_, is_out);
  if (drained || Clock::now() >= die_at_) finish(dying_);
}

void Agent::Impl::on_up(net::Channel& channel) {
  const NodeId node = channel.peer().node();
  spdlog::info("channel up: {}", crypto::to_string(channel.peer()));
  nodes_[node.value] = &channel;
  store_->node_up(node);
  with_executor([node](Executor& executor) { executor.node_up(node); });
  schedule_turn();
}

void Agent::Impl::on_down(net::Channel& channel, std::string_view reason) {
  const NodeId node = channel.peer().node();
  spdlog::info("channel down: {}: {}", crypto::to_string(channel.peer()), reason);
  if (nodes_[node.value] != &channel) return;  // replaced by a newer one
  nodes_[node.value] = nullptr;
  store_->node_down(node);
  with_executor([node](Executor& executor) { executor.node_down(node); });
  schedule_turn();
}

void Agent::Impl::on_message(net::Channel& channel, const SharedBytes& bytes) {
  agreement::Decoded decoded = agreement::decode(bytes, codec_limits_);
  if (decoded.refusal != Refusal::kNone) return refused(channel, decoded.refusal);
  if (decoded.message.service != options_.service) return refused(channel, Refusal::kUnknownService);
  const NodeId from = channel.peer().node();
  agreement::Body& body = decoded.message.body;
  Refusal refusal = Refusal::kWrongRole;
  if (const auto* wish = std::get_if<agreement::FetchState>(&body)) {
    refusal = store_->step(from, *wish,
                           with_executor([wish](const Executor& executor) { return executor.snapshot_of(wish->n); }));
  } else if (const auto* parts = std::get_if<agreement::StateParts>(&body)) {
    refusal = store_->step(from, *parts);
  } else {
    refusal = with_executor([&](Executor& executor) {
      if (const auto* orders = std::get_if<agreement::Orders>(&body)) return executor.step(from, *orders);
      if (auto* batch = std::get_if<agreement::Batch>(&body)) return executor.step(from, std::move(*batch));
      if (const auto* fetch = std::get_if<agreement::FetchReplies>(&body)) return executor.step(from, *fetch);
      if (const auto* stable = std::get_if<agreement::Stable>(&body)) return executor.step(from, *stable);
      return Refusal::kWrongRole;
    });
  }
  schedule_turn();
  if (refusal != Refusal::kNone) refused(channel, refusal);
}

void Agent::Impl::on_refused(Refusal reason, std::string_view who, std::string_view detail) {
  if (refusals_.of(reason) == 0) spdlog::warn("refused {}: {} ({})", who, to_string(reason), detail);
  refusals_.add(reason);
}

void Agent::Impl::refused(const net::Channel& channel, Refusal reason) {
  if (refusals_.of(reason) == 0)
    spdlog::info("refused a message of {}: {}", crypto::to_string(channel.peer()), to_string(reason));
  refusals_.add(reason);
}

// ---- turns -----------------------------------------------------------------------------------------------------

void Agent::Impl::schedule_turn() {
  if (turn_scheduled_) return;
  turn_scheduled_ = true;
  asio::post(loop_, [self = shared_from_this()] {
    if (!self->finished_) self->turn();
  });
}

void Agent::Impl::turn() {
  turn_scheduled_ = false;
  run_service();
  const bool more = turn_scheduled_ && executor_->mid_batch() && executor_->is_behind(kBehindBatches);
  if (more && ++turns_held_ < kTurnsTogether) return;
  put_out();
}

void Agent::Impl::put_out() {
  turns_held_ = 0;
  carry_out(with_executor([](Executor& executor) { return executor.take_output(); }));
  if (finished_) return;
  if (const auto task = executor_->to_digest()) store_->digest(*task);
  foresee();
  if (voted_ && !executor_->mid_batch() && !executor_->is_behind(0)) store_->settled();
  store_->turn();
  network_->flush();
}

void Agent::Impl::run_service() {
  if (store_->crowded()) return;  // the next tick looks again
  const auto until = Clock::now() + kRunning;
  for (int i = 0; i < kInvocationsPerTurn; ++i) {
    if (!ready_ || (!dying_.empty() && !executor_->mid_batch())) return;
    const auto invocation = with_executor([](Executor& executor) { return executor.next_invocation(); });
    if (!invocation) return save_service();
    in_adapter_ = true;
    adapter_->execute(*invocation, [this](SharedBytes reply) { on_reply(std::move(reply)); });
    in_adapter_ = false;
    if (i % 4 == 3 && Clock::now() >= until) break;  // looking costs what a small request does
  }
  schedule_turn();
}

void Agent::Impl::save_service() {
  const std::optional<Micros> agreed = executor_->to_save();
  if (!agreed || std::exchange(saving_, true)) return;
  adapter_->save(*agreed, [this] {
    saving_ = false;
    with_executor([](Executor& executor) { executor.saved(); });
    schedule_turn();
  });
}

// Who waits for a round trip asks for what later requests need with the same one, or as soon as they come.
void Agent::Impl::foresee() {
  if (!std::exchange(waits_, false) && !store_->urgent()) return;
  const auto upcoming = [this](Seq n, std::size_t limit) {
    return with_executor([n, limit](Executor& executor) { return executor.upcoming(n, limit); });
  };
  foresight_.look(upcoming, *adapter_);
}

void Agent::Impl::on_reply(SharedBytes reply) {
  with_executor([&](Executor& executor) { executor.complete(lies_ ? falsify(reply) : std::move(reply)); });
  if (!in_adapter_) schedule_turn();
}

void Agent::Impl::on_supplied() {
  with_executor([](Executor& executor) { executor.supplied(); });
  adapter_->supplied();
  schedule_turn();
}

// On the state that was adopted, or the first one.
void Agent::Impl::restart_service() {
  ready_ = saving_ = false;
  adapter_->replaced([this](const Result<void>& result) {
    if (finished_) return;
    if (!result) return on_service_died(result.error());
    ready_ = true;
    schedule_turn();
  });
}

// In the order of the members of the output.
void Agent::Impl::carry_out(ExecutorOutput output) {
  if (!output.ended.empty()) {
    spdlog::error("{}", output.ended);
    return finish(output.ended);
  }
  if (output.adopted) {
    spdlog::info("adopted the stable state after batch {}", output.adopted->state.n.value);
    store_->adopted(output.adopted->state.n);
    voted_ = false;
  } else if (output.replays) {
    spdlog::warn("nobody has the stable state any more: the order is run again from batch 1");
    store_->replays();
  }
  if (output.adopted || output.replays) {
    foresight_.restart();
    restart_service();
  }
  store_->want(output.wants);
  waits_ = waits_ || !output.wants.empty();
  for (const ExecutorOutput::SubscribeAt& at : output.subscribe) send(nodes_[at.to.value], encoded(at.subscribe));
  for (const ExecutorOutput::VoteAgain& again : output.votes_again) {
    if (slow_) break;
    for (const ExecutorOutput::VotePtr& vote : again.votes) send(nodes_[again.to.value], encoded(*vote));
  }
  for (const ExecutorOutput::VotePtr& vote : output.votes) send_vote(encoded(*vote));
  for (ExecutorOutput::RepliesTo& to : output.replies) send(nodes_[to.to.value], encoded(std::move(to.replies)));
  for (ExecutorOutput::DigestsTo& to : output.digests) send(nodes_[to.to.value], encoded(std::move(to.digests)));
  for (ExecutorOutput::CheckpointTo& to : output.checkpoints) {
    to.checkpoint.signature = key_->sign(agreement::exec_checkpoint_fields(cluster_.id, to.checkpoint));
    const SharedBytes bytes = encoded(to.checkpoint);
    for (std::size_t node = 0; node < nodes_.size(); ++node) {
      if (!to.to || to.to->value == node) send(nodes_[node], bytes);
    }
  }
  if (output.stable) store_->stable(output.stable->certificate, output.stable->snapshot);
}

void Agent::Impl::send_vote(const SharedBytes& bytes) {
  voted_ = true;
  if (slow_) return held_votes_.hold(Clock::now() + milliseconds(kSlowVoteMs), bytes);
  for (net::Channel* channel : nodes_) send(channel, bytes);
  if (duty_.voted_us) return;
  duty_.voted_us = on_duty_us();
  if (!store_->fetching()) duty_.whole_us = duty_.voted_us;
  tell_duty();
}

void Agent::Impl::release_held_votes() {
  while (const auto bytes = held_votes_.take_due(Clock::now())) {
    for (net::Channel* channel : nodes_) send(channel, *bytes);
  }
}

void Agent::Impl::send(net::Channel* channel, const SharedBytes& bytes) {
  if (channel == nullptr) return;
  // A lost vote would leave that node unable to close its batch; a new channel gets the kept votes again.
  if (channel->send(bytes) == net::Sent::kFull) channel->close("send queue full");
}

// ---- agent -----------------------------------------------------------------------------------------------------

Agent::Agent(asio::io_context& loop, const crypto::ClusterFile& cluster, AgentOptions options, Done done) {
  ZZ_ASSERT(options.service.value < cluster.services.size());
  impl_ = std::make_shared<Impl>(loop, cluster, std::move(options), std::move(done));
}
Agent::~Agent() { impl_->shut_down(); }
void Agent::start() { impl_->start(); }

}  // namespace zz::execution
