#include "vmpool/host_daemon.hpp"

#include <spdlog/spdlog.h>
#include <sys/random.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "agreement/codec.hpp"
#include "base/assert.hpp"
#include "net/channel.hpp"
#include "vmpool/control_server.hpp"
#include "vmpool/host_files.hpp"
#include "vmpool/pool.hpp"

namespace zz::vmpool {
namespace {

using Json = nlohmann::json;
using Kind = BackendCall::Kind;

Micros monotonic_now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return Micros{std::chrono::duration_cast<std::chrono::microseconds>(now).count()};
}

std::array<std::uint8_t, 32> fresh_entropy() {
  std::array<std::uint8_t, 32> out{};
  ZZ_ASSERT(::getrandom(out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()));
  return out;
}

net::NetLimits limits_of(const crypto::ClusterFile& cluster) {
  net::NetLimits out;
  out.frame_bytes_max = cluster.limits.frame_bytes_max;
  out.send_queue_bytes_max = cluster.limits.send_queue_bytes_max;
  return out;
}

agreement::CodecLimits codec_limits_of(const crypto::ClusterFile& cluster) {
  agreement::CodecLimits out;
  out.op_bytes_max = cluster.limits.op_bytes_max;
  out.batch_requests_max = cluster.limits.batch_requests_max;
  return out;
}

// The pool's events, for people.
class Log final : public Observer {
 public:
  explicit Log(const crypto::ClusterFile& cluster) : cluster_(cluster) {}
  void on_event(const Event& event) override {
    if (event.kind == EventKind::kSlotState) {
      spdlog::info("slot {} of {} (incarnation {}): {}", event.slot.value, cluster_.services[event.service.value].name,
                   event.incarnation.value, event.why);
    } else if (event.kind == EventKind::kRefused) {
      spdlog::debug("node {}: refused: {}", event.node.value, event.why);
    }
  }

 private:
  const crypto::ClusterFile& cluster_;
};

// An unsigned number that fits the id; nothing otherwise.
template <class Id>
std::optional<Id> id_in(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned()) return std::nullopt;
  const auto value = it->get<std::uint64_t>();
  if (value > std::numeric_limits<typename Id::rep>::max()) return std::nullopt;
  return Id{static_cast<typename Id::rep>(value)};
}

std::string text_in(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

// One life's way back to work, for people.
struct Waking {
  GuestId guest;
  std::optional<Micros> asked_at;
  std::optional<Micros> handed_at;
  agreement::Duty duty;
};

}  // namespace

struct HostDaemon::State final : public net::Handler, public std::enable_shared_from_this<HostDaemon::State> {
  State(boost::asio::io_context& io, const crypto::ClusterFile& cluster_file, HostOptions given,
        const crypto::SecretKey& host_key, Hypervisor& hypervisor)
      : loop(io),
        cluster(cluster_file),
        options(std::move(given)),
        key(host_key),
        backend(hypervisor),
        log(cluster_file),
        codec_limits(codec_limits_of(cluster_file)),
        timer(io) {}

  boost::asio::io_context& loop;
  const crypto::ClusterFile& cluster;
  const HostOptions options;
  const crypto::SecretKey& key;
  Hypervisor& backend;
  Log log;
  const agreement::CodecLimits codec_limits;
  boost::asio::steady_timer timer;
  std::optional<Pool> pool;
  std::optional<net::Network> network;
  std::unique_ptr<ControlServer> control;
  std::map<GuestId, crypto::SecretKey> keys;                   // of guests that were not handed theirs yet
  std::map<std::pair<ServiceId, SlotId>, std::string> errors;  // last one per slot
  std::map<std::pair<ServiceId, SlotId>, Waking> wakings;      // of the newest life that was asked for or went on duty
  RefusalCounts refusals;
  std::function<void(std::string)> on_fatal;
  std::function<void()> on_stopped;

  // ---- start and stop ------------------------------------------------------------------------------------------

  Result<void> start() {
    const std::string counter = host_incarnation_path(options.dir, options.id);
    const auto used_up = load_incarnation(counter);
    if (!used_up) return Error{used_up.error()};
    // The lookup outlives nothing: it is a copy.
    std::map<crypto::PublicKey, crypto::Peer> nodes;
    for (const crypto::NodeEntry& node : cluster.nodes)
      nodes[node.key] = {crypto::Role::kNode, node.id.value, {}, {}, {}};
    auto tls = crypto::TlsContext::make(key, [nodes](const crypto::PublicKey& peer) -> std::optional<crypto::Peer> {
      const auto it = nodes.find(peer);
      return it == nodes.end() ? std::nullopt : std::optional(it->second);
    });
    if (!tls) return Error{tls.error()};
    auto server = ControlServer::make(
        loop, host_socket_path(options.dir, options.id),
        [this](const Json& command, ControlServer::Answer answer) { on_command(command, std::move(answer)); });
    if (!server) return Error{server.error()};
    control = std::move(*server);
    network.emplace(loop, std::move(*tls), limits_of(cluster), *this);
    for (const crypto::NodeEntry& node : cluster.nodes) network->dial(node.address, node.key);
    backend.set_on_dead([weak = weak_from_this()](const GuestId& guest) {
      if (const auto self = weak.lock()) self->guest_died(guest);
    });
    backend.set_on_duty([weak = weak_from_this()](const GuestId& guest, const agreement::Duty& duty) {
      if (const auto self = weak.lock()) self->waking(guest).duty = duty;
    });
    pool.emplace(cluster, options.id, key, *used_up, log);
    tick();
    return {};
  }

  void tick() {
    pool->tick(monotonic_now());
    carry_out();
    timer.expires_after(std::chrono::milliseconds(kPoolTickMs));
    timer.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (self && !error) self->tick();
    });
  }

  void stop(std::function<void()> stopped) {
    on_stopped = std::move(stopped);
    if (pool) {
      pool->tick(monotonic_now());
      pool->stop();
      carry_out();
    } else {
      boost::asio::post(loop, std::exchange(on_stopped, nullptr));
    }
  }

  // ---- the core's wishes ---------------------------------------------------------------------------------------

  // The order matters: an incarnation may be used only once its number is on disk.
  void carry_out() {
    const PoolOutput out = pool->take_output();
    if (out.used_up) {
      const auto stored = store_incarnation(host_incarnation_path(options.dir, options.id), *out.used_up);
      if (!stored) return fatal(stored.error());
    }
    for (const BackendCall& call : out.calls) carry_out(call);
    for (const PoolOutput::JoinFor& join : out.joins) send(join.to, {join.join.service, join.join});
    for (const PoolOutput::DeadFor& dead : out.dead) send(dead.to, {dead.service, dead.dead});
    if (on_stopped && pool->stopped()) boost::asio::post(loop, std::exchange(on_stopped, nullptr));
  }

  void carry_out(const BackendCall& call) {
    Hypervisor::Done done = [weak = weak_from_this(), call](const Result<void>& result) {
      if (const auto self = weak.lock()) self->called(call, result);
    };
    switch (call.kind) {
      case Kind::kBoot:
        return backend.boot(call.guest, std::move(done));
      case Kind::kFreeze:
        return backend.freeze(call.guest, std::move(done));
      case Kind::kThaw:
        return backend.thaw(call.guest, std::move(done));
      case Kind::kHandOver: {
        const auto it = keys.find(call.guest);
        ZZ_ASSERT(it != keys.end());
        const Identity identity{call.guest, call.epoch, it->second.seed(), fresh_entropy()};
        keys.erase(it);
        return backend.hand_over(identity, std::move(done));
      }
      case Kind::kDestroy:
        keys.erase(call.guest);
        return backend.destroy(call.guest, std::move(done));
    }
  }

  Waking& waking(const GuestId& guest) {
    Waking& last = wakings[{guest.service, guest.slot}];
    if (last.guest != guest) last = Waking{guest, {}, {}, {}};
    return last;
  }

  void called(const BackendCall& call, const Result<void>& result) {
    if (!result) note_error(call.guest, result.error());
    if (call.kind == Kind::kHandOver && result) waking(call.guest).handed_at = monotonic_now();
    CallResult report{call.id, result.ok(), {}};
    if (call.kind == Kind::kBoot && result) {
      crypto::SecretKey fresh = crypto::SecretKey::generate();
      report.key = fresh.public_key();
      keys.insert_or_assign(call.guest, std::move(fresh));
    }
    pool->tick(monotonic_now());
    pool->step(report);
    carry_out();
  }

  void guest_died(const GuestId& guest) {
    note_error(guest, to_string(guest) + " ended by itself");
    pool->tick(monotonic_now());
    pool->guest_died(guest);
    carry_out();
  }

  void note_error(const GuestId& guest, const std::string& text) {
    spdlog::warn("{}", text);
    errors[{guest.service, guest.slot}] = text;
  }

  void send(std::optional<NodeId> to, const agreement::Message& message) {
    const SharedBytes bytes = agreement::encode(message);
    for (const crypto::NodeEntry& node : cluster.nodes) {
      if (to && *to != node.id) continue;
      // What does not leave now is told again when the node comes back.
      net::Channel* channel = network->find({crypto::Role::kNode, node.id.value, {}, {}, {}});
      if (channel != nullptr) channel->send(bytes);
    }
  }

  void fatal(const std::string& why) {
    spdlog::error("{}", why);
    if (const auto tell = std::exchange(on_fatal, nullptr)) tell(why);
  }

  // ---- the nodes -----------------------------------------------------------------------------------------------

  void on_up(net::Channel& channel) override {
    spdlog::debug("channel to {} is up", crypto::to_string(channel.peer()));
    pool->node_up(channel.peer().node());
    carry_out();
  }

  void on_message(net::Channel& channel, const SharedBytes& bytes) override {
    const agreement::Decoded decoded = agreement::decode(bytes, codec_limits);
    Refusal why = decoded.refusal;
    if (why == Refusal::kNone) why = take(channel.peer().node(), decoded.message);
    if (why != Refusal::kNone) refusals.add(why);
    // Wrong bytes from an authenticated node cannot be the network's doing.
    if (decoded.refusal != Refusal::kNone) channel.close(to_string(why));
  }

  Refusal take(NodeId from, const agreement::Message& message) {
    Refusal why = Refusal::kWrongRole;
    pool->tick(monotonic_now());
    if (const auto* wake = std::get_if<agreement::Wake>(&message.body)) {
      why = pool->step(from, *wake);
      if (why == Refusal::kNone) note_asked({wake->service, wake->slot, wake->incarnation});
    }
    if (const auto* notice = std::get_if<agreement::EpochNotice>(&message.body)) why = pool->step(from, *notice);
    carry_out();
    return why;
  }

  void note_asked(const GuestId& guest) {
    std::optional<Micros>& asked_at = waking(guest).asked_at;
    if (!asked_at) asked_at = monotonic_now();
  }

  void on_down(net::Channel& channel, std::string_view reason) override {
    spdlog::debug("channel to {} is down: {}", crypto::to_string(channel.peer()), reason);
  }

  void on_refused(Refusal reason, std::string_view who, std::string_view detail) override {
    refusals.add(reason);
    spdlog::debug("{}: refused: {}: {}", who, to_string(reason), detail);
  }

  // ---- the owner -----------------------------------------------------------------------------------------------

  void on_command(const Json& command, ControlServer::Answer answer) {
    const std::string name = text_in(command, "cmd");
    if (name == "status") return answer(status());
    if (name == "fault") return fault(command, std::move(answer));
    answer(ControlServer::refusal("unknown command \"" + name + "\" (status, fault)"));
  }

  [[nodiscard]] Json status() const {
    Json slots = Json::array();
    for (const PoolSlot& slot : pool->slots()) {
      Json entry = {{"service", slot.service.value},
                    {"slot", slot.slot.value},
                    {"incarnation", slot.incarnation.value},
                    {"state", to_string(slot.state)},
                    {"joined", slot.joined},
                    {"failures", slot.failures},
                    {"pids", backend.processes({slot.service, slot.slot, slot.incarnation})}};
      const auto error = errors.find({slot.service, slot.slot});
      if (error != errors.end()) entry["error"] = error->second;
      const auto last = wakings.find({slot.service, slot.slot});
      if (last != wakings.end() && last->second.guest.incarnation == slot.incarnation) {
        entry["waking"] = in_words(last->second);
      }
      slots.push_back(std::move(entry));
    }
    Json refused = Json::object();
    for (std::size_t i = 0; i < refusals.counts.size(); ++i) {
      if (refusals.counts[i] > 0) refused[std::string(to_string(static_cast<Refusal>(i)))] = refusals.counts[i];
    }
    return {{"host", options.id.value}, {"slots", std::move(slots)}, {"refused", std::move(refused)}};
  }

  static Json in_words(const Waking& waking) {
    Json out = Json::object();
    if (waking.asked_at) out["asked_us"] = waking.asked_at->value;
    if (!waking.handed_at) return out;
    const auto since = static_cast<std::uint64_t>(waking.handed_at->value);
    out["handed_us"] = since;
    if (waking.duty.voted_us) out["voted_us"] = since + *waking.duty.voted_us;
    if (waking.duty.whole_us) out["whole_us"] = since + *waking.duty.whole_us;
    out["touched_bytes"] = waking.duty.touched_bytes;
    return out;
  }

  void fault(const Json& command, ControlServer::Answer answer) {
    const auto refuse = [&answer](const std::string& why) { answer(ControlServer::refusal(why)); };
    if (!cluster.allow_faults) return refuse("this cluster was not made with --allow-faults");
    const auto service = id_in<ServiceId>(command, "service");
    const auto slot = id_in<SlotId>(command, "slot");
    if (!service || !slot) return refuse("a fault needs \"service\" and \"slot\", both numbers");
    const std::string name = text_in(command, "kind");
    const auto kind = parse_fault(name);
    if (!kind) return refuse("unknown fault \"" + name + "\" (wrong-reply, silent, slow, crash)");
    for (const PoolSlot& mine : pool->slots()) {
      if (mine.service != *service || mine.slot != *slot) continue;
      const GuestId guest{mine.service, mine.slot, mine.incarnation};
      spdlog::warn("{}: injecting fault {}", to_string(guest), name);
      return backend.inject(guest, *kind, [answer = std::move(answer)](const Result<void>& result) {
        answer(result ? Json{{"ok", true}} : ControlServer::refusal(result.error()));
      });
    }
    refuse("slot " + std::to_string(slot->value) + " of service " + std::to_string(service->value) +
           " is not on this host");
  }
};

HostDaemon::HostDaemon(boost::asio::io_context& loop, const crypto::ClusterFile& cluster, HostOptions options,
                       const crypto::SecretKey& key, Hypervisor& backend)
    : state_(std::make_shared<State>(loop, cluster, std::move(options), key, backend)) {}

HostDaemon::~HostDaemon() {
  state_->backend.set_on_dead(nullptr);
  state_->backend.set_on_duty(nullptr);
  state_->control.reset();
  state_->network.reset();
}

Result<void> HostDaemon::start() { return state_->start(); }
void HostDaemon::stop(std::function<void()> stopped) { state_->stop(std::move(stopped)); }
void HostDaemon::set_on_fatal(std::function<void(std::string)> on_fatal) { state_->on_fatal = std::move(on_fatal); }

}  // namespace zz::vmpool
