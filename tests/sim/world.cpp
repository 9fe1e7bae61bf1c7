#include "tests/sim/world.hpp"

#include <algorithm>
#include <cinttypes>

#include "tests/sim/nemesis.hpp"
#include "tests/sim/witness.hpp"

namespace zz::sim {

namespace {

constexpr std::int64_t kMs = 1'000;
constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kBusyTick = 10 * kMs;
constexpr std::int64_t kIdleTick = 40 * kMs;
constexpr std::int64_t kClientTick = 20 * kMs;
constexpr std::int64_t kActTick = 20 * kMs;

std::set<NodeId> nodes_of(const Draw& draw, bool byzantine) {
  std::set<NodeId> out;
  for (std::uint16_t i = 0; i < draw.node_kinds.size(); ++i) {
    if (draw.node_kinds[i].empty() != byzantine) out.insert(NodeId{i});
  }
  return out;
}

std::set<SlotId> byzantine_slots(const Draw& draw) {
  std::set<SlotId> out;
  for (std::uint16_t i = 0; i < draw.slot_vices.size(); ++i) {
    if (draw.slot_vices[i]) out.insert(SlotId{i});
  }
  return out;
}

}  // namespace

RunResult run(const Plan& plan) { return World(plan).run(); }

World::World(const Plan& plan)
    : plan_(plan),
      draw_(draw(plan)),
      kernel_(draw_.cluster, draw_.parties),
      network_(kernel_, *this, plan.seed ^ 0x6e6574),
      prng_(plan.seed ^ 0x776f726c64),
      seen_view_changes_(draw_.parties.nodes),
      seen_delivered_(draw_.parties.nodes) {
  kernel_.trace = plan.trace;
  const std::set<NodeId> byzantine = nodes_of(draw_, true);
  kernel_.witness = make_witness(draw_.cluster, ServiceId{0}, byzantine, byzantine_slots(draw_));
  std::map<NodeId, const crypto::SecretKey*> accomplices;
  for (const NodeId node : byzantine) accomplices.emplace(node, &node_key(node));
  Prng seeds(plan.seed ^ 0x7365656473);
  for (std::uint16_t i = 0; i < parties().nodes; ++i) {
    network_.set_peer(parties().node(i), {crypto::Role::kNode, i, {}, {}, {}});
    nodes_.push_back(std::make_unique<SimNode>(kernel_, network_, NodeId{i}, node_key(NodeId{i}), draw_.node_kinds[i],
                                               accomplices, seeds.next()));
    nodes_.back()->disk_speed = draw_.disk;
  }
  for (std::uint16_t i = 0; i < parties().slots; ++i) {
    network_.set_peer(parties().host(i), {crypto::Role::kHost, i, {}, {}, {}});
    network_.set_peer(parties().slot(i), {crypto::Role::kExecutor, 0, ServiceId{0}, SlotId{i}, {}});
    hosts_.push_back(std::make_unique<SimHost>(kernel_, network_, HostId{i}, SlotId{i}, host_key(HostId{i}),
                                               draw_.slot_vices[i], seeds.next()));
    hosts_.back()->speed = draw_.hypervisor;
  }
  for (std::uint32_t i = 0; i < parties().clients; ++i) {
    network_.set_peer(parties().client(i), {crypto::Role::kClient, i, {}, {}, {}});
    const ClientId id{i};
    if (i < draw_.clients) {
      clients_.push_back(std::make_unique<SimClient>(kernel_, network_, id, draw_.workers[i], seeds.next()));
    } else {
      hostile_.push_back(std::make_unique<HostileClient>(kernel_, network_, id, seeds.next()));
    }
  }
  std::vector<bool> core(parties().count(), false);
  for (const NodeId node : draw_.core) core[parties().node(node.value)] = true;
  for (const SlotId slot : draw_.core_slots) {
    core[parties().slot(slot.value)] = core[parties().host(slot.value)] = true;
  }
  for (std::uint32_t i = 0; i < draw_.clients; ++i) core[parties().client(i)] = true;
  network_.set_core(std::move(core));
  network_.set_weather(draw_.weather);
  nemesis_ = std::make_unique<Nemesis>(*this, draw_, seeds.next());
  stall_.emplace(*this);
}

World::~World() = default;

// ---- the run ---------------------------------------------------------------------------------------------------

void World::begin() {
  for (const auto& node : nodes_) {
    node->start();
    if (node->byzantine()) {
      kernel_.count("byzantine-node." + node->kind());
      kernel_.after(kActTick, {Happening::Kind::kNodeAct, node->party(), 0, 0, nullptr});
    }
    kernel_.after(between(prng_, 1, kBusyTick), {Happening::Kind::kNodeTick, node->party(), 0, 0, nullptr});
  }
  for (const auto& host : hosts_) {
    if (host->byzantine()) kernel_.count(std::string("byzantine-slot-kind.") + std::string(to_string(*host->vice())));
    host->start();
  }
  const std::uint32_t total = plan_.requests;
  for_trickle_ = plan_.liveness ? std::min(total, 20u) / 2 : 0;
  for_later_ = plan_.liveness ? (total - for_trickle_) / 10 : 0;
  const std::uint32_t first = total - for_trickle_ - for_later_;
  const auto many = static_cast<std::uint32_t>(clients_.size());
  for (std::uint32_t i = 0; i < many; ++i) {
    const std::uint32_t share = first / many + (i < first % many ? 1 : 0);
    if (share == 0) continue;
    // Thinking times such that the whole safety phase has something to do.
    const std::int64_t rounds = std::max<std::int64_t>(1, share / draw_.workers[i]);
    clients_[i]->allot(share, 2 * draw_.gst.value / rounds);
    network_.party_up(parties().client(i));
  }
  for (std::uint32_t i = many; i < parties().clients; ++i) {
    network_.party_up(parties().client(i));
    kernel_.after(between(prng_, 0, 3 * kSecond), {Happening::Kind::kHostile, static_cast<Party>(i), 0, 0, nullptr});
  }
  kernel_.after(kClientTick, {Happening::Kind::kClientTick, 0, 0, 0, nullptr});
  kernel_.after(draw_.gst.value, {Happening::Kind::kStabilise, 0, 0, 0, nullptr});
  nemesis_->begin();
}

RunResult World::run() {
  if (plan_.setup) plan_.setup(*this);
  begin();
  while (!failure_ && phase_ != Phase::kDone && !kernel_.queue.empty()) {
    kernel_.now = kernel_.queue.next_time();
    const Happening happening = kernel_.queue.pop();
    ++kernel_.events;
    trace(happening);
    dispatch(happening);
    if (failure_ || plan_.beyond_bound) continue;
    if (auto violation = kernel_.witness->violation()) fail(std::move(*violation));
  }
  if (!failure_ && !plan_.beyond_bound) {
    if (auto violation = kernel_.witness->final_violation()) fail(std::move(*violation));
  }
  return result();
}

void World::fail(std::string what) {
  if (!failure_) failure_ = std::move(what);
}

void World::dispatch(const Happening& happening) {
  using Kind = Happening::Kind;
  switch (happening.kind) {
    case Kind::kDeliver:
      return network_.arrive(happening);
    case Kind::kConnect:
      return network_.connect(happening);
    case Kind::kNodeTick:
      return node_tick(happening.a);
    case Kind::kNodeSynced:
      return nodes_[happening.a]->synced(happening);
    case Kind::kNodeResume:
      return nodes_[happening.a]->resume(happening.number);
    case Kind::kNodeStart:
      return restart(NodeId{happening.a});
    case Kind::kNodeAct:
      kernel_.after(kActTick, {Kind::kNodeAct, happening.a, 0, 0, nullptr});
      return nodes_[happening.a]->act();
    case Kind::kHostTick:
      return hosts_[happening.a]->tick();
    case Kind::kHostStart:
      return restart_host(HostId{happening.a});
    case Kind::kBackend:
      return hosts_[happening.a]->backend_done(happening);
    case Kind::kGuestDies:
      return hosts_[happening.a]->kill_guest();
    case Kind::kSlotTick:
      return hosts_[happening.a]->slot_tick(happening);
    case Kind::kSlotSend:
      return hosts_[happening.a]->late_send(happening);
    case Kind::kClientTick:
      kernel_.after(kClientTick, {Kind::kClientTick, 0, 0, 0, nullptr});
      for (const auto& client : clients_) {
        client->tick();
        if (client->complaint() && !plan_.beyond_bound) fail("L1 " + *client->complaint());
      }
      check_limits();
      check_complaints();
      return check_phase();
    case Kind::kSubmit:
      return clients_[happening.a]->submit();
    case Kind::kHostile:
      return hostile_[happening.a - clients_.size()]->act();
    case Kind::kFault:
      return nemesis_->inject(static_cast<Fault>(happening.a));
    case Kind::kHeal:
      return nemesis_->heal(happening.number);
    case Kind::kHook: {
      const Hook hook = std::move(hooks_[happening.number]);
      return hook(*this);
    }
    case Kind::kStabilise:
      return stabilise();
  }
}

void World::trace(const Happening& happening) {
  MessageNumbers numbers;
  std::size_t kind = 0;
  if (happening.message) {
    kind = happening.message->body.index();
    numbers = numbers_of(happening.message->body);
    ++kernel_.delivered[kind];
  }
  kernel_.note(static_cast<std::uint64_t>(kernel_.now.value));
  kernel_.note(static_cast<std::uint64_t>(happening.kind) | std::uint64_t{happening.a} << 8 |
               std::uint64_t{happening.b} << 24 | static_cast<std::uint64_t>(kind) << 40);
  kernel_.note(happening.number);
  kernel_.note(numbers.n);
  kernel_.note(numbers.view);
  if (kernel_.trace == nullptr) return;
  const std::string_view name = happening.message ? message_name(kind) : to_string(happening.kind);
  std::fprintf(kernel_.trace, "%10" PRId64 " %3u %3u %-14.*s %" PRIu64 " %" PRIu64 "\n", kernel_.now.value,
               static_cast<unsigned>(happening.a), static_cast<unsigned>(happening.b), static_cast<int>(name.size()),
               name.data(), happening.message ? numbers.n : happening.number, numbers.view);
}

// A node that waits for nothing is ticked less often: most virtual time is idle.
void World::node_tick(Party party) {
  SimNode& node = *nodes_[party];
  std::int64_t next = kIdleTick;
  if (node.alive() && !node.paused()) {
    node.tick();
    const NodeStatus status = node.status();
    const bool moved = status.delivered != seen_delivered_[party];
    const bool open = node.instance().oversight().closed_through() < status.delivered;
    seen_delivered_[party] = status.delivered;
    if (status.waiting > 0 || status.changing || moved || open) next = kBusyTick;
    if (!node.byzantine() && status.stats.view_changes > seen_view_changes_[party]) {
      kernel_.count(std::string("complaint.") + std::string(to_string(status.stats.last_complaint)));
    }
    seen_view_changes_[party] = status.stats.view_changes;
  }
  kernel_.after(next, {Happening::Kind::kNodeTick, party, 0, 0, nullptr});
}

// ---- parties ---------------------------------------------------------------------------------------------------

bool World::alive(Party party) const {
  if (parties().is_node(party)) return nodes_[party]->alive();
  if (parties().is_host(party)) return hosts_[party - parties().host(0)]->alive();
  if (parties().is_slot(party)) return hosts_[party - parties().slot(0)]->on_duty();
  return true;
}

bool World::admits(Party node, Party other) const { return nodes_[node]->admits(network_.peer(other)); }

void World::link_up(Party node, Party other) {
  nodes_[node]->link_up(other);
  if (parties().is_node(other)) return nodes_[other]->link_up(node);
  if (parties().is_host(other)) return hosts_[other - parties().host(0)]->node_up(node);
  if (parties().is_slot(other)) return hosts_[other - parties().slot(0)]->slot_node_up(node);
  const std::size_t client = other - parties().client(0);
  if (client < clients_.size()) clients_[client]->link_up(node);
}

void World::link_down(Party node, Party other) {
  nodes_[node]->link_down(other);
  if (parties().is_node(other)) return nodes_[other]->link_down(node);
  if (parties().is_slot(other)) hosts_[other - parties().slot(0)]->slot_node_down(node);
}

void World::deliver(Party from, Party to, const MessagePtr& message) {
  if (parties().is_node(to)) return nodes_[to]->deliver(from, message);
  if (parties().is_host(to)) return hosts_[to - parties().host(0)]->deliver(from, message);
  if (parties().is_slot(to)) return hosts_[to - parties().slot(0)]->deliver_to_slot(from, message);
  const std::size_t client = to - parties().client(0);
  if (client < clients_.size()) clients_[client]->deliver(from, message);
}

// ---- for scenarios and the nemesis -----------------------------------------------------------------------------

void World::at(Micros time, Hook hook) {
  hooks_.push_back(std::move(hook));
  kernel_.after(time.value - kernel_.now.value, {Happening::Kind::kHook, 0, 0, hooks_.size() - 1, nullptr});
}

View World::view() const {
  std::vector<View> views;
  for (const auto& node : nodes_) {
    if (node->alive() && !node->byzantine() && !node->amnesiac()) views.push_back(node->status().view);
  }
  if (views.empty()) return View{};
  std::sort(views.rbegin(), views.rend());
  return views[std::min<std::size_t>(plan_.f, views.size() - 1)];
}

NodeId World::primary() const { return NodeId{static_cast<std::uint16_t>(view().value % parties().nodes)}; }

std::uint64_t World::submitted() const {
  std::uint64_t sum = 0;
  for (const auto& client : clients_) sum += client->submitted();
  return sum;
}

std::uint64_t World::answered() const {
  std::uint64_t sum = 0;
  for (const auto& client : clients_) sum += client->answered();
  return sum;
}

void World::crash(NodeId node, CrashKind kind) { node_at(node).crash(kind); }

void World::restart(NodeId node) {
  if (!node_at(node).alive()) node_at(node).start();
}

void World::pause(NodeId node, Micros time) {
  node_at(node).pause();
  kernel_.after(time.value, {Happening::Kind::kNodeResume, node.value, 0, node_at(node).pauses(), nullptr});
}

World::Hook World::isolate(NodeId node, bool incoming, bool outgoing) {
  for (Party other = 0; other < parties().count(); ++other) {
    if (other == node.value) continue;
    if (outgoing) network_.cut(node.value, other);
    if (incoming) network_.cut(other, node.value);
  }
  return [node, incoming, outgoing](World& world) {
    for (Party other = 0; other < world.parties().count(); ++other) {
      if (other == node.value) continue;
      if (outgoing) world.network_.heal(node.value, other);
      if (incoming) world.network_.heal(other, node.value);
    }
  };
}

World::Hook World::partition(const std::vector<std::set<NodeId>>& groups) {
  std::vector<std::pair<NodeId, NodeId>> apart;
  for (std::uint16_t a = 0; a < nodes(); ++a) {
    for (std::uint16_t b = 0; b < nodes(); ++b) {
      const bool together = std::any_of(groups.begin(), groups.end(), [&](const std::set<NodeId>& group) {
        return group.contains(NodeId{a}) && group.contains(NodeId{b});
      });
      if (a != b && !together) apart.emplace_back(NodeId{a}, NodeId{b});
    }
  }
  for (const auto& [a, b] : apart) cut(a, b);
  return [apart](World& world) {
    for (const auto& [a, b] : apart) world.heal(a, b);
  };
}

// Executors keep their state in memory: when more than g lose it at once, it is nowhere any more, and nobody can vote.
// So a guest may be lost only while all others are well.
bool World::may_lose(SlotId slot) const {
  std::size_t faulty = 1;
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    if (i == slot.value) continue;
    const SimHost& host = *hosts_[i];
    const bool well =
        !host.byzantine() && host.alive() && host.pool_slot().joined &&
        (host.pool_slot().state == vmpool::SlotState::kAsleep || host.pool_slot().state == vmpool::SlotState::kAwake);
    if (!well) ++faulty;
  }
  if (faulty > plan_.g) return false;
  // All correct nodes must know of it too, and the active slots be on duty and up to date.
  for (const auto& node : nodes_) {
    if (node->byzantine() || node->amnesiac() || !node->alive()) continue;
    const agreement::Oversight& oversight = node->instance().oversight();
    const agreement::EpochNotice notice = oversight.notice();
    for (const SlotId active : notice.active) {
      const SimHost& host = *hosts_[active.value];
      if (host.byzantine()) continue;
      if (!host.on_duty() || host.incarnation() != notice.incarnations[active.value]) return false;
      if (!host.all_here()) return false;  // those it has the rest from may be the ones to be lost
      if (host.executor().executed().value + 4 < node->status().delivered.value) return false;
    }
  }
  return true;
}

// ---- results ---------------------------------------------------------------------------------------------------

void World::finish_counters() {
  for (std::size_t i = 1; i < kernel_.refusals.counts.size(); ++i) {
    if (kernel_.refusals.counts[i] > 0) {
      kernel_.count("refused." + std::string(to_string(static_cast<Refusal>(i))), kernel_.refusals.counts[i]);
    }
  }
  for (std::size_t i = 0; i < kernel_.events_seen.size(); ++i) {
    if (kernel_.events_seen[i] > 0) {
      kernel_.count("event." + std::string(to_string(static_cast<EventKind>(i))), kernel_.events_seen[i]);
    }
  }
  for (std::size_t i = 0; i < kMessageKinds; ++i) {
    if (kernel_.delivered[i] > 0) kernel_.count("message." + std::string(message_name(i)), kernel_.delivered[i]);
  }
  for (const auto& client : clients_) {
    kernel_.count("client.retransmits", client->stats().retransmits);
    kernel_.count("client.hedges", client->stats().hedges);
    kernel_.count("client.busy", client->stats().busy);
  }
  for (const NodeId node : draw_.core) {
    const NodeStatus status = node_at(node).status();
    kernel_.count("recovery.view-change", node_at(node).view_changes());
    kernel_.count("recovery.new-view", status.stats.views_entered);
    kernel_.count("recovery.stable-checkpoint", status.stable.value > 0 ? 1 : 0);
    kernel_.count("slot.rejuvenated", node_at(node).instance().oversight().stats().rejuvenations);
    if (draw_.cluster.services.front().wake == crypto::WakePolicy::kOneByOne) {
      kernel_.count("wake.one-by-one", node_at(node).instance().oversight().stats().wakes);
    }
  }
}

RunResult World::result() {
  finish_counters();
  RunResult out;
  out.seed = plan_.seed;
  out.violation = failure_;
  out.submitted = submitted();
  out.answered = answered();
  out.virtual_time = kernel_.now;
  for (const auto& client : clients_) out.outage = std::max(out.outage, client->longest_wait());
  out.events = kernel_.events;
  out.trace_hash = kernel_.hash;
  for (const auto& node : nodes_) out.view_changes.push_back(node->view_changes());
  out.counters = std::move(kernel_.counters);
  return out;
}

}  // namespace zz::sim
