#pragma once

// A whole cluster around the oversight core, on one thread and in simulated time: 3f+1 Oversights, an order that all
// of them are delivered in the same sequence but not at the same moment, hosts that wake on f+1 WAKEs and replace on
// f+1 notices, and executors that replay from the beginning. Every link is a queue of its own that a seeded generator
// empties bit by bit. What must always hold is checked on the way.

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agreement/slot_table.hpp"
#include "base/prng.hpp"
#include "oversight_test_support.hpp"

namespace zz::agreement {

enum class Fault : std::uint8_t {
  kNone,
  kLies,         // every reply
  kEquivocates,  // tells some nodes the truth
  kSilent,       // connected, says nothing
  kSlow,         // one batch in 300 ms
  kDies,         // its host says so
};

struct TroupeOptions {
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::uint64_t seed = 0;    // 0: every link delivers everything at once
  bool faulty_node = false;  // the last node signs whatever it likes
  bool blips = false;        // channels of executors break now and then for a moment
  std::function<void(crypto::ClusterFile&)> configure = {};
};

class Troupe {
 public:
  explicit Troupe(const TroupeOptions& options)
      : options_(options), parties(options.f, options.g, options.configure), random_(options.seed + 1) {
    for (std::uint16_t i = 0; i < parties.cluster.n(); ++i) {
      auto node = std::make_unique<Node>();
      node->core =
          std::make_unique<Oversight>(parties.cluster, ServiceId{0}, NodeId{i}, parties.node_keys[i], node->memory);
      node->core->tick(now_);
      nodes.push_back(std::move(node));
    }
    for (std::uint16_t i = 0; i < 2 * options.g + 1; ++i) {
      hosts.emplace_back(options, parties.cluster.n());
      boot(SlotId{i}, i <= options.g);
    }
  }

  // ---- the play

  void request() { pending_requests_ += 1; }
  // The slot's present incarnation misbehaves from its next batch on.
  void infect(std::uint16_t slot, Fault fault) {
    Host& host = hosts[slot];
    host.fault = fault;
    if (fault == Fault::kLies || fault == Fault::kEquivocates) liars.insert({slot, host.incarnation.value});
    if (fault != Fault::kDies) return;
    for (std::uint16_t i = 0; i < nodes.size(); ++i) {
      disconnect(SlotId{slot}, i);
      const SlotDead dead{SlotId{slot}, host.incarnation};
      send(100 + slot, i, [this, i, slot, dead] { static_cast<void>(nodes[i]->core->step(HostId{slot}, dead)); });
    }
    host.awake = false;
  }
  void round() {
    now_.value += 5 * kMs;
    ++rounds_;
    cut_batch();
    for (std::uint16_t i = 0; i < nodes.size(); ++i) deliver_to(i);
    for (std::uint16_t i = 0; i < hosts.size(); ++i) run_host(SlotId{i});
    if (options_.faulty_node && random_.below(20) == 0) misbehave();
    move_messages();
    for (std::uint16_t i = 0; i < nodes.size(); ++i) {
      nodes[i]->core->tick(now_);
      collect(i);
    }
  }
  void rounds(int count) {
    for (int i = 0; i < count; ++i) round();
  }
  // False if it does not come true within so many rounds.
  bool until(const std::function<bool()>& done, int limit = 4'000) {
    for (int i = 0; i < limit; ++i) {
      if (done()) return true;
      round();
    }
    return done();
  }

  // ---- questions

  [[nodiscard]] bool all_closed() const {
    return std::all_of(nodes.begin(), nodes.end(),
                       [this](const auto& node) { return node->core->closed_through().value == order.size(); });
  }
  [[nodiscard]] std::size_t awake() const {
    return static_cast<std::size_t>(std::count_if(hosts.begin(), hosts.end(), [](const Host& h) { return h.awake; }));
  }
  // Back to g+1 awake ones that are the active ones, g asleep and joined, and nothing open anywhere.
  [[nodiscard]] bool at_rest() const {
    if (!all_closed() || awake() != options_.g + 1) return false;
    const EpochNotice notice = nodes[0]->core->notice();
    for (const auto& node : nodes) {
      if (!(node->core->notice() == notice)) return false;
    }
    for (const SlotId slot : notice.active) {
      if (!hosts[slot.value].awake) return false;
    }
    for (std::size_t i = 0; i < hosts.size(); ++i) {
      if (hosts[i].incarnation != notice.incarnations[i]) return false;
    }
    return true;
  }

  struct Node {
    Memory memory;
    std::unique_ptr<Oversight> core;
    std::set<std::uint64_t> closed;
    std::size_t checked_events = 0;
    std::size_t stale = 0;  // votes refused for their epoch or incarnation
  };
  struct Link {  // between an executor and a node
    bool up = false;
    std::size_t sent = 0;
    std::uint64_t retry_round = 0;
  };
  struct Host {
    Host(const TroupeOptions& options, std::size_t n)
        : table(ServiceId{0}, options.f, options.g), links(n), notices(n), wakes(n) {}
    Incarnation incarnation;
    bool awake = false;
    Fault fault = Fault::kNone;
    std::uint64_t boots_at = 0;  // round; 0: there is a guest
    std::uint64_t joins_at = 0;
    // The executor.
    SlotTable table;
    std::vector<Vote> votes;  // [n - 1]
    std::vector<Link> links;
    // What the host was told.
    std::vector<std::optional<EpochNotice>> notices;
    std::vector<std::optional<std::pair<Epoch, Incarnation>>> wakes;
  };

 private:
  const TroupeOptions options_;

 public:
  const Parties parties;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<Host> hosts;
  std::vector<Delivery> order;
  std::set<std::pair<std::uint16_t, std::uint64_t>> liars;  // slot, incarnation
  std::size_t wake_ups = 0;

 private:
  // ---- the order

  void cut_batch() {
    if (pending_requests_ == 0 && proposals_.empty()) return;
    std::uint64_t slowest = order.size();
    for (const auto& node : nodes) slowest = std::min(slowest, node->core->closed_through().value);
    if (order.size() - slowest > 100) return;  // the ordering core's window
    order.push_back(make_delivery(Seq{order.size() + 1}, pending_requests_, std::move(proposals_), now_));
    pending_requests_ = 0;
    proposals_.clear();
  }
  void deliver_to(std::uint16_t i) {
    std::size_t& at = delivered_[i];
    while (at < order.size() && (options_.seed == 0 || random_.below(3) != 0)) {
      nodes[i]->core->deliver(order[at++]);
      collect(i);
    }
  }
  [[nodiscard]] bool executable(std::uint64_t n) const {
    std::size_t count = 0;
    for (const auto& [node, at] : delivered_) count += at >= n ? 1u : 0u;
    return count > options_.f;
  }

  // ---- links

  void send(std::uint32_t from, std::uint32_t to, std::function<void()> message) {
    links_[{from, to}].push_back(std::move(message));
  }
  void move_messages() {
    for (auto& [ends, queue] : links_) {
      while (!queue.empty() && (options_.seed == 0 || random_.below(4) != 0)) {
        const std::function<void()> message = std::move(queue.front());
        queue.pop_front();
        message();
        if (ends.second < nodes.size()) collect(static_cast<std::uint16_t>(ends.second));
      }
    }
  }

  // ---- nodes

  void collect(std::uint16_t i) {
    OversightOutput out = nodes[i]->core->take_output();
    for (const Suspect& suspect : out.suspects) broadcast(i, suspect);
    for (const auto& [host, wake] : out.wakes) {
      send(i, 100u + host.value, [this, i, wake = wake] { take_wake(i, wake); });
    }
    for (SystemOp& op : out.propose) {
      for (const auto& node : nodes) EXPECT_EQ(node->core->admissible(op), Refusal::kNone);
      if (i == 0) proposals_.push_back(std::move(op));
    }
    for (const OversightOutput::Closed& closed : out.closed) {
      EXPECT_TRUE(nodes[i]->closed.insert(closed.n.value).second) << "closed twice";
      EXPECT_GT(closed.agreeing.size(), options_.g);
      EXPECT_EQ(closed.replies, replies_saying(closed.n, closed.replies.size(), "right"));
    }
    if (out.table_changed) {
      for (std::uint16_t slot = 0; slot < hosts.size(); ++slot) {
        if (!nodes[i]->core->is_current(SlotId{slot}, hosts[slot].incarnation)) disconnect(SlotId{slot}, i);
        send(i, 100u + slot, [this, i, slot, notice = nodes[i]->core->notice()] { take_notice(i, slot, notice); });
      }
    }
    const auto& events = nodes[i]->memory.events;
    for (std::size_t& at = nodes[i]->checked_events; at < events.size(); ++at) {
      if (events[at].kind != EventKind::kEvicted || events[at].why != "wrong") continue;
      EXPECT_TRUE(liars.contains({events[at].slot.value, events[at].incarnation.value}))
          << "slot " << events[at].slot.value << " was evicted as wrong and never lied";
    }
  }
  void broadcast(std::uint16_t from, const Suspect& suspect) {
    for (std::uint16_t to = 0; to < nodes.size(); ++to) {
      if (to == from) continue;
      send(from, to, [this, to, suspect] { static_cast<void>(nodes[to]->core->step(suspect)); });
    }
  }
  // The last node accuses somebody of something, in its own name and in others', and asks for wake-ups.
  void misbehave() {
    const auto self = static_cast<std::uint16_t>(nodes.size() - 1);
    const auto slot = static_cast<std::uint16_t>(random_.below(hosts.size()));
    Suspect suspect = parties.suspect({.signer = self,
                                       .slot = slot,
                                       .why = static_cast<Suspicion>(random_.below(3)),
                                       .agreeing = slots_of(static_cast<SlotMask>(random_.below(1u << hosts.size()))),
                                       .epoch = nodes[0]->core->epoch().value,
                                       .incarnation = hosts[slot].incarnation.value,
                                       .n = 1 + random_.below(order.size() + 1)});
    broadcast(self, suspect);
    suspect.signer = NodeId{static_cast<std::uint16_t>(random_.below(self))};
    broadcast(self, suspect);
    take_wake(self, Wake{ServiceId{0}, NodeId{self}, suspect.epoch, SlotId{slot}, suspect.incarnation, {}, 0, {}});
  }

  // ---- hosts

  void boot(SlotId slot, bool wake_at_once) {
    Host& host = hosts[slot.value];
    const Incarnation next = host.incarnation.next();
    const auto notices = std::move(host.notices);
    host = Host(options_, nodes.size());
    host.notices = notices;
    host.incarnation = next;
    host.awake = wake_at_once;
    host.joins_at = rounds_;
  }
  void send_join(SlotId slot) {
    const Join join = parties.join(slot, hosts[slot.value].incarnation);
    for (std::uint16_t i = 0; i < nodes.size(); ++i) {
      send(100u + slot.value, i, [this, i, join] { static_cast<void>(nodes[i]->core->step(join)); });
    }
  }
  void take_wake(std::uint16_t from, const Wake& wake) {
    Host& host = hosts[wake.slot.value];
    host.wakes[from] = {wake.epoch, wake.incarnation};
    const auto same = std::count(host.wakes.begin(), host.wakes.end(), host.wakes[from]);
    if (same > static_cast<std::ptrdiff_t>(options_.f) && wake.incarnation == host.incarnation) wake_up(host);
  }
  void wake_up(Host& host) {
    if (host.awake || host.boots_at != 0 || host.fault == Fault::kDies) return;
    host.awake = true;
    ++wake_ups;
  }
  void take_notice(std::uint16_t from, std::uint16_t slot, const EpochNotice& notice) {
    Host& host = hosts[slot];
    host.notices[from] = notice;
    const auto same = std::count(host.notices.begin(), host.notices.end(), host.notices[from]);
    if (same <= static_cast<std::ptrdiff_t>(options_.f)) return;
    if (notice.evicted_through[slot] >= host.incarnation && host.boots_at == 0) {
      for (std::uint16_t i = 0; i < nodes.size(); ++i) disconnect(SlotId{slot}, i);
      host.awake = false;
      host.boots_at = rounds_ + 20;
      return;
    }
    const bool active = std::binary_search(notice.active.begin(), notice.active.end(), SlotId{slot});
    if (notice.incarnations[slot] == host.incarnation && active) wake_up(host);
  }
  void run_host(SlotId slot) {
    Host& host = hosts[slot.value];
    if (host.boots_at != 0) {
      if (rounds_ >= host.boots_at) boot(slot, false);
      return;
    }
    if (rounds_ >= host.joins_at && !nodes[0]->core->is_current(slot, host.incarnation)) {
      host.joins_at = rounds_ + 200;
      send_join(slot);
    }
    if (host.awake) run_executor(slot);
  }

  // ---- executors

  void run_executor(SlotId slot) {
    Host& host = hosts[slot.value];
    const bool slowly = host.fault == Fault::kSlow;
    for (int i = 0; i < 8 && host.fault != Fault::kSilent && executable(host.votes.size() + 1); ++i) {
      if (slowly && (rounds_ % 60 != 0 || i > 0)) break;
      const Delivery& batch = order[host.votes.size()];
      const Seq n = batch.header->n;
      const std::string say = host.fault == Fault::kLies || host.fault == Fault::kEquivocates ? "lie" : "right";
      host.votes.push_back(
          {host.table.epoch(), n, slot, host.incarnation, replies_saying(n, batch.header->references.size(), say)});
      for (const SystemOp& op : batch.header->system) host.table.apply(n, op);
    }
    for (std::uint16_t i = 0; i < nodes.size(); ++i) talk(slot, i);
  }
  void talk(SlotId slot, std::uint16_t i) {
    Host& host = hosts[slot.value];
    Link& link = host.links[i];
    if (!link.up) {
      if (rounds_ < link.retry_round || !nodes[i]->core->is_current(slot, host.incarnation)) return;
      nodes[i]->core->channel_up(slot, host.incarnation);
      link.up = true;
      link.sent = link.sent > 10 ? link.sent - 10 : 0;  // what may have been lost is said again
    }
    for (; link.sent < host.votes.size(); ++link.sent) {
      Vote vote = host.votes[link.sent];
      if (host.fault == Fault::kEquivocates && random_.below(2) == 0) {
        vote.replies = replies_saying(vote.n, vote.replies.size(), "right");
      }
      send(200u + slot.value, i, [this, i, vote = std::move(vote)] {
        const Refusal why = nodes[i]->core->step(vote.slot, vote.incarnation, vote);
        EXPECT_NE(why, Refusal::kStaleEpoch);
        EXPECT_NE(why, Refusal::kMalformed);
      });
    }
    if (options_.blips && random_.below(2'000) == 0) {
      disconnect(slot, i);
      link.retry_round = rounds_ + random_.below(30);
    }
  }
  void disconnect(SlotId slot, std::uint16_t i) {
    Link& link = hosts[slot.value].links[i];
    if (!link.up) return;
    link.up = false;
    nodes[i]->core->channel_down(slot, hosts[slot.value].incarnation);
  }

  Prng random_;
  Micros now_{1'000'000};
  std::uint64_t rounds_ = 1;
  std::size_t pending_requests_ = 0;
  std::vector<SystemOp> proposals_;
  std::map<std::uint16_t, std::size_t> delivered_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::deque<std::function<void()>>> links_;
};

}  // namespace zz::agreement
