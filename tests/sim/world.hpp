#pragma once

// World: one simulated cluster and its run: a safety phase in which faults come and go, then a liveness phase in which
// a core is healed and the rest stays bad for ever. Scenarios take part through hooks (at). One thread, virtual time.
//
// The run ends when everything that must be is done, or with the first violation. Liveness is checked here:
//   L1 every request is answered within kAnswerBound of the healing
//   L2 views settle: afterwards none changes whose primary is of the core
//   L3 all nodes of the core get to the same place of the order
//   L4 no complaint of a node of the core stays open: of the primary, or of what executors voted
//   L5 stable checkpoints follow within two intervals
//   L6 no busy loop: events per virtual second are bounded
//   L7 before the healing too something is answered while 2f+1 nodes are timely (stall.hpp)
// and of what needs time I25: g+1 slots are awake again once all slots are well.

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/draw.hpp"
#include "tests/sim/kernel.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/plan.hpp"
#include "tests/sim/sim_client.hpp"
#include "tests/sim/sim_host.hpp"
#include "tests/sim/sim_node.hpp"
#include "tests/sim/stall.hpp"

namespace zz::sim {

class Nemesis;

class World final : public Endpoints {
 public:
  explicit World(const Plan& plan);
  ~World() override;
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  RunResult run();

  // ---- for scenarios ----

  using Hook = std::function<void(World&)>;
  // At that virtual time, or at once when it has passed.
  void at(Micros time, Hook hook);
  void after(Micros delay, Hook hook) { at(Micros{kernel_.now.value + delay.value}, std::move(hook)); }

  [[nodiscard]] Micros now() const { return kernel_.now; }
  [[nodiscard]] std::uint16_t nodes() const { return parties().nodes; }
  [[nodiscard]] NodeStatus status(NodeId node) const { return node_at(node).status(); }
  // Of the highest view that f+1 living correct nodes have reached.
  [[nodiscard]] NodeId primary() const;
  [[nodiscard]] View view() const;
  [[nodiscard]] std::uint64_t submitted() const;
  [[nodiscard]] std::uint64_t answered() const;
  // The oldest open request of a correct client.
  [[nodiscard]] std::optional<SimClient::Waiting> waiting(std::size_t client) const {
    return clients_[client]->oldest();
  }
  [[nodiscard]] Counters& counters() { return kernel_.counters; }
  [[nodiscard]] const Draw& drawn() const { return draw_; }
  // The run fails with this text.
  void fail(std::string what);

  void crash(NodeId node, CrashKind kind = CrashKind::kClean);
  void restart(NodeId node);
  void pause(NodeId node, Micros time);
  void jump_clock(NodeId node, Micros offset) { node_at(node).clock.set_offset(offset.value); }
  void set_drift(NodeId node, std::int64_t ppm) { node_at(node).clock.set_drift(kernel_.now, ppm); }
  void crash_host(HostId host) { hosts_[host.value]->crash(); }
  void restart_host(HostId host) {
    if (!hosts_[host.value]->alive()) hosts_[host.value]->start();
  }
  void kill_guest(SlotId slot) { hosts_[slot.value]->kill_guest(); }

  // Links of nodes with nodes.
  void cut(NodeId from, NodeId to) { network_.cut(from.value, to.value); }
  void heal(NodeId from, NodeId to) { network_.heal(from.value, to.value); }
  // Any party: see parties().
  [[nodiscard]] Network& network() { return network_; }
  [[nodiscard]] const Network& network() const { return network_; }
  [[nodiscard]] const Parties& parties() const { return draw_.parties; }
  // Cuts a node from everybody, in one direction or both; the returned action heals.
  Hook isolate(NodeId node, bool incoming = true, bool outgoing = true);
  // Nodes of different groups do not hear each other; a node may be in several.
  Hook partition(const std::vector<std::set<NodeId>>& groups);

  [[nodiscard]] SimNode& node_at(NodeId node) { return *nodes_[node.value]; }
  [[nodiscard]] const SimNode& node_at(NodeId node) const { return *nodes_[node.value]; }
  [[nodiscard]] SimHost& host_at(HostId host) { return *hosts_[host.value]; }
  [[nodiscard]] const SimHost& host_at(HostId host) const { return *hosts_[host.value]; }
  [[nodiscard]] Kernel& kernel() { return kernel_; }

  // Whether one more slot may lose its guest: with it at most g are Byzantine or on their way back.
  [[nodiscard]] bool may_lose(SlotId slot) const;

  // ---- Endpoints ----

  [[nodiscard]] bool alive(Party party) const override;
  [[nodiscard]] bool admits(Party node, Party other) const override;
  void link_up(Party node, Party other) override;
  void link_down(Party node, Party other) override;
  void deliver(Party from, Party to, const MessagePtr& message) override;

 private:
  enum class Phase : std::uint8_t { kSafety, kAnswering, kTrickle, kSettling, kQuiet, kDone };

  void begin();
  void dispatch(const Happening& happening);
  void trace(const Happening& happening);
  void node_tick(Party node);
  void stabilise();
  void bad_for_ever(NodeId node);
  void bad_for_ever(SlotId slot);
  void flap(NodeId id);
  void lose(SlotId slot, bool for_good);
  void check_phase();
  void enter(Phase phase);
  void check_limits();
  void check_complaints();
  [[nodiscard]] bool must_be_calm() const;
  [[nodiscard]] std::size_t awake() const;
  void check_settled();
  [[nodiscard]] bool settled() const;
  [[nodiscard]] std::string describe() const;
  void late(std::string_view invariant, const std::string& what);
  void finish_counters();
  [[nodiscard]] RunResult result();

  const Plan& plan_;
  Draw draw_;
  Kernel kernel_;
  Network network_;
  Prng prng_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<std::unique_ptr<SimHost>> hosts_;  // by slot
  std::vector<std::unique_ptr<SimClient>> clients_;
  std::vector<std::unique_ptr<HostileClient>> hostile_;
  std::unique_ptr<Nemesis> nemesis_;
  std::vector<Hook> hooks_;
  std::optional<std::string> failure_;

  std::optional<Stall> stall_;

  Phase phase_ = Phase::kSafety;
  Micros phase_began_{};
  std::uint32_t for_later_ = 0;  // requests kept for after the healing
  std::uint32_t for_trickle_ = 0;
  Micros answered_at_;
  Micros second_began_{};
  std::uint64_t second_events_ = 0;
  std::vector<std::uint64_t> seen_view_changes_;  // by node
  std::vector<Seq> seen_delivered_;
  Micros answering_took_{};
  Micros healed_at_{};
  bool slots_flap_ = false;  // for ever
};

}  // namespace zz::sim
