#include "client/client.hpp"

#include <sodium.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>

#include "agreement/codec.hpp"
#include "net/channel.hpp"

namespace zz::client {
namespace {

namespace asio = boost::asio;
using agreement::Acks;
using agreement::Message;
using agreement::Rejected;
using agreement::Requests;

// Sessions that ended and wait for their last requests, per service; beyond it there is no room for a new one.
constexpr std::size_t kEndedSessionsMax = 8;
constexpr std::size_t kFrameOverhead = 4u << 10;
// Of a session's home and the f nodes after it, which answer unasked, none may be out of reach for so long: each
// request would wait for a hedge.
constexpr Micros kHomeGone{500'000};

Micros monotonic() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return Micros{std::chrono::duration_cast<std::chrono::microseconds>(now).count()};
}

Micros from_ms(std::uint32_t ms) { return Micros{std::int64_t{ms} * 1000}; }

// One session with the callbacks of its outstanding requests.
struct Live {
  Live(ServiceId of, const SessionConfig& config) : service(of), core(config), done(config.window) {}

  // Takes no new requests.
  [[nodiscard]] bool ended() const { return left_home || core.ended(); }

  ServiceId service;
  Session core;
  bool left_home = false;          // its home is gone; what is outstanding still completes
  std::vector<Client::Done> done;  // by number % window
};

struct Service {
  std::vector<Live*> open;  // sessions that take requests, or have just ended
  std::size_t turn = 0;     // whose turn it is
  std::size_t ended = 0;    // sessions that only wait for their last replies
};

void add(SessionStats& sum, const SessionStats& s) {
  sum.submitted += s.submitted;
  sum.replies += s.replies;
  sum.rejected += s.rejected;
  sum.timed_out += s.timed_out;
  sum.hedges += s.hedges;
  sum.retransmits += s.retransmits;
  sum.busy += s.busy;
  sum.wrong_bodies += s.wrong_bodies;
  sum.conflicts += s.conflicts;
}

net::NetLimits net_limits(const crypto::Limits& limits) {
  net::NetLimits out;
  out.frame_bytes_max = limits.frame_bytes_max;
  out.send_queue_bytes_max = limits.send_queue_bytes_max;
  return out;
}

}  // namespace

struct Client::State final : net::Handler {
  State(asio::io_context& on_loop, const crypto::ClusterFile& of, const ClientOptions& with, crypto::TlsContext tls)
      : loop(on_loop),
        cluster(of),
        options(with),
        timer(on_loop),
        channels(of.nodes.size(), nullptr),
        down_since(of.nodes.size(), now),
        services(of.services.size()),
        next_home(randombytes_uniform(of.n())),
        network(on_loop, std::move(tls), net_limits(of.limits), *this) {
    codec.op_bytes_max = cluster.limits.op_bytes_max;
    codec.batch_requests_max = cluster.limits.batch_requests_max;
  }

  // ---- sessions ----

  SessionConfig new_session() {
    const auto& timing = cluster.timing;
    SessionConfig config;
    config.f = cluster.f;
    config.window = cluster.limits.client_window;
    config.message_bytes_max =
        std::min<std::size_t>(cluster.limits.batch_bytes_max, cluster.limits.frame_bytes_max - kFrameOverhead);
    config.hedge = from_ms(timing.hedge_ms);
    config.retransmit = from_ms(timing.retransmit_ms);
    config.timeout = options.timeout;
    // Random, with homes in turn: equal shares of the nodes' work of carrying bodies.
    std::uint64_t id = 0;
    randombytes_buf(&id, sizeof(id));
    const std::uint64_t n = cluster.n();
    id >>= 1;
    for (std::uint64_t tried = 1; tried < n && is_poor(next_home % n); ++tried) ++next_home;
    config.id.value = id - id % n + next_home++ % n;
    return config;
  }

  [[nodiscard]] bool is_gone(std::uint64_t node) const {
    return channels[node] == nullptr && now.value - down_since[node].value >= kHomeGone.value;
  }
  // A home whose sessions would wait for hedges.
  [[nodiscard]] bool is_poor(std::uint64_t home) const {
    for (std::uint64_t i = 0; i <= cluster.f; ++i) {
      if (is_gone((home + i) % cluster.n())) return true;
    }
    return false;
  }
  // There is a better home.
  [[nodiscard]] bool should_leave(const Live& live) const {
    if (!is_poor(agreement::home_of(live.core.id(), cluster.n()).value)) return false;
    for (std::uint64_t home = 0; home < cluster.n(); ++home) {
      if (!is_poor(home)) return true;
    }
    return false;
  }

  // A session with room, or null.
  Live* pick(ServiceId service) {
    Service& of = services[service.value];
    for (Live* live : of.open) live->left_home = should_leave(*live) && of.ended < kEndedSessionsMax;
    of.ended += std::erase_if(of.open, [](const Live* live) { return live->ended(); });
    while (of.open.size() < options.sessions && of.ended < kEndedSessionsMax) {
      lives.push_back(std::make_unique<Live>(service, new_session()));
      of.open.push_back(lives.back().get());
    }
    for (std::size_t tried = 0; tried < of.open.size(); ++tried) {
      Live* live = of.open[of.turn++ % of.open.size()];
      if (live->core.has_room()) return live;
    }
    return nullptr;
  }

  Refusal submit(ServiceId service, SharedBytes op, Done done) {
    if (service.value >= cluster.services.size()) return Refusal::kUnknownService;
    if (op.size() > cluster.limits.op_bytes_max) return Refusal::kOversize;
    if (!turn_pending) now = monotonic();
    for (Live* known : services[service.value].open) {  // a tick may end a session: before one is picked
      known->core.tick(now);
      if (known->core.has_output()) schedule();
    }
    Live* live = pick(service);
    if (live == nullptr) return Refusal::kQueueFull;
    live->core.tick(now);  // a new session does not know the time yet
    const auto number = live->core.submit(std::move(op));
    if (!number) return Refusal::kQueueFull;
    live->done[number->value % live->done.size()] = std::move(done);
    schedule();
    return Refusal::kNone;
  }

  // ---- turns ----

  // Everything that gathers in one loop turn leaves together.
  void schedule() {
    if (turn_pending) return;
    turn_pending = true;
    asio::post(loop, [this, alive = std::weak_ptr<void>(life)] {
      if (!alive.expired()) run_turn();
    });
  }

  void run_turn() {
    turn_pending = true;  // what callbacks submit leaves in the second round
    for (int round = 0; round < 2; ++round) {
      for (std::size_t i = 0; i < lives.size(); ++i) carry_out(*lives[i]);
    }
    turn_pending = false;
    drop_finished();
    if (std::any_of(lives.begin(), lives.end(), [](const auto& live) { return live->core.has_output(); })) schedule();
    if (!timer_running && outstanding() > 0) start_timer();
  }

  void drop_finished() {
    std::erase_if(lives, [this](const std::unique_ptr<Live>& live) {
      if (!live->ended() || live->core.outstanding() > 0 || live->core.has_output()) return false;
      Service& of = services[live->service.value];
      if (std::erase(of.open, live.get()) == 0) --of.ended;
      add(past, live->core.stats());
      return true;
    });
  }

  // Callbacks may submit, to this session too.
  void carry_out(Live& live) {
    if (!live.core.has_output()) return;
    SessionOutput out = live.core.take_output();
    for (auto& send : out.send) {
      const SharedBytes bytes = encode(Message{live.service, std::move(send.requests)});
      for (std::size_t node = 0; node < channels.size(); ++node) {
        if (channels[node] == nullptr || (send.to && send.to->value != node)) continue;
        // A full queue loses the message; the session sends again in time.
        static_cast<void>(channels[node]->send(bytes));
      }
    }
    std::vector<Done> callbacks;  // taken first: a callback may submit, and that reuses places
    callbacks.reserve(out.completed.size());
    for (const Completed& completed : out.completed) {
      callbacks.push_back(std::exchange(live.done[completed.number.value % live.done.size()], nullptr));
    }
    for (std::size_t i = 0; i < callbacks.size(); ++i) {
      const Completed& completed = out.completed[i];
      callbacks[i](Answer{completed.outcome, completed.reply, completed.reason});
    }
  }

  void start_timer() {
    timer_running = true;
    timer.expires_after(std::chrono::milliseconds(cluster.timing.tick_ms));
    timer.async_wait([this, alive = std::weak_ptr<void>(life)](const boost::system::error_code& error) {
      if (alive.expired() || error) return;
      timer_running = false;
      now = monotonic();
      for (const auto& live : lives) live->core.tick(now);
      run_turn();
    });
  }

  [[nodiscard]] std::size_t outstanding() const {
    std::size_t sum = 0;
    for (const auto& live : lives) sum += live->core.outstanding();
    return sum;
  }

  // ---- channels ----

  void on_up(net::Channel& channel) override {
    if (channel.peer().role != crypto::Role::kNode) return;
    const NodeId node = channel.peer().node();
    channels[node.value] = &channel;
    for (const auto& live : lives) live->core.channel_up(node);
    schedule();
  }

  void on_down(net::Channel& channel, std::string_view) override {
    for (std::size_t node = 0; node < channels.size(); ++node) {
      if (channels[node] != &channel) continue;
      channels[node] = nullptr;
      down_since[node] = monotonic();
    }
  }

  void on_message(net::Channel& channel, const SharedBytes& message) override {
    if (channel.peer().role != crypto::Role::kNode) return refusals.add(Refusal::kWrongRole);
    const agreement::Decoded decoded = agreement::decode(message, codec);
    const Refusal refusal =
        decoded.refusal != Refusal::kNone
            ? decoded.refusal
            : std::visit([&](const auto& body) { return take(channel.peer().node(), body); }, decoded.message.body);
    if (refusal != Refusal::kNone) refusals.add(refusal);
  }

  void on_refused(Refusal reason, std::string_view, std::string_view) override { refusals.add(reason); }

  Refusal take(NodeId from, const Acks& acks) { return step(from, acks.session, acks); }
  Refusal take(NodeId from, const Rejected& rejected) { return step(from, rejected.session, rejected); }
  template <class Other>
  Refusal take(NodeId, const Other&) {
    return Refusal::kWrongRole;
  }

  template <class Word>
  Refusal step(NodeId from, SessionId session, const Word& word) {
    for (const auto& live : lives) {
      if (live->core.id() != session) continue;
      if (!turn_pending) now = monotonic();
      live->core.tick(now);
      const Refusal refusal = live->core.step(from, word);
      if (live->core.has_output()) schedule();
      return refusal;
    }
    return Refusal::kSessionExpired;
  }

  asio::io_context& loop;
  const crypto::ClusterFile& cluster;
  ClientOptions options;
  agreement::CodecLimits codec;
  asio::steady_timer timer;
  bool timer_running = false;
  bool turn_pending = false;
  Micros now = monotonic();
  std::vector<std::unique_ptr<Live>> lives;
  std::vector<net::Channel*> channels;  // by node; null: none
  std::vector<Micros> down_since;       // by node; of those without a channel
  std::vector<Service> services;
  std::uint64_t next_home;
  SessionStats past;  // of sessions that are gone
  RefusalCounts refusals;
  std::shared_ptr<int> life = std::make_shared<int>(0);  // posted work checks it
  net::Network network;                                  // last: it calls into everything above
};

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}
Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::open(asio::io_context& loop, const crypto::ClusterFile& cluster,
                                             const crypto::SecretKey& key, const ClientOptions& options) {
  if (options.sessions == 0 || options.sessions > cluster.limits.client_sessions_max) {
    return Error{"client: sessions must be 1.." + std::to_string(cluster.limits.client_sessions_max) +
                 " (client_sessions_max of the cluster file)"};
  }
  auto lookup = [&cluster](const crypto::PublicKey& peer) -> std::optional<crypto::Peer> {
    for (const auto& node : cluster.nodes) {
      if (node.key == peer) return crypto::Peer{crypto::Role::kNode, node.id.value, {}, {}, {}};
    }
    return std::nullopt;
  };
  auto tls = crypto::TlsContext::make(key, std::move(lookup));
  if (!tls) return Error{tls.error()};
  auto state = std::make_unique<State>(loop, cluster, options, std::move(*tls));
  for (const auto& node : cluster.nodes) state->network.dial(node.address, node.key);
  return std::unique_ptr<Client>(new Client(std::move(state)));
}

Refusal Client::submit(ServiceId service, SharedBytes op, Done done) {
  return state_->submit(service, std::move(op), std::move(done));
}

std::uint32_t Client::connected_nodes() const {
  std::uint32_t up = 0;
  for (const net::Channel* channel : state_->channels) up += channel != nullptr ? 1 : 0;
  return up;
}
std::size_t Client::outstanding() const { return state_->outstanding(); }
SessionStats Client::stats() const {
  SessionStats sum = state_->past;
  for (const auto& live : state_->lives) add(sum, live->core.stats());
  return sum;
}
const RefusalCounts& Client::refusals() const { return state_->refusals; }

}  // namespace zz::client
