#pragma once

// Network: the links between agreement nodes and everybody. One thread, virtual time.
//
// A link between two nodes may lose, repeat and reorder single messages. Every other link models TCP: in order and
// reliable until it is reset; a cut makes it stall. A reset shows on both sides, and what was under way is lost.
// After the healing (Kernel::stable_phase) links between core parties are perfect; all others stay as they are.

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "tests/sim/kernel.hpp"

namespace zz::sim {

// The parties, as the network sees them.
class Endpoints {
 public:
  virtual ~Endpoints() = default;
  [[nodiscard]] virtual bool alive(Party party) const = 0;
  // Whether this node accepts a channel of that (living) party now.
  [[nodiscard]] virtual bool admits(Party node, Party other) const = 0;
  virtual void link_up(Party node, Party other) = 0;
  virtual void link_down(Party node, Party other) = 0;
  virtual void deliver(Party from, Party to, const MessagePtr& message) = 0;
};

struct Weather {
  std::int64_t delay_min = 200;
  std::int64_t delay_max = 2'000;
  std::uint32_t slow_percent = 0;  // messages that take ten times as long
  std::uint32_t loss_percent = 0;
  std::uint32_t duplicate_percent = 0;
  bool reorder = false;
};

class Network {
 public:
  Network(Kernel& kernel, Endpoints& endpoints, std::uint64_t seed);

  // Who a party is. An executor's incarnation changes.
  [[nodiscard]] const crypto::Peer& peer(Party party) const { return peers_[party]; }
  void set_peer(Party party, const crypto::Peer& peer) { peers_[party] = peer; }
  // Nothing for a peer that is not (or no longer) there.
  [[nodiscard]] std::optional<Party> party_of(const crypto::Peer& peer) const;

  void set_weather(const Weather& weather) { weather_ = weather; }
  [[nodiscard]] const Weather& weather() const { return weather_; }
  void set_core(std::vector<bool> core) { core_ = std::move(core); }
  // Scenarios: true = this parcel is lost.
  void set_filter(std::function<bool(const Parcel&)> filter) { filter_ = std::move(filter); }

  // False when there is no channel. One of the two is a node.
  bool send(Party from, Party to, const MessagePtr& message, std::int64_t extra = 0);
  [[nodiscard]] bool up(Party a, Party b) const { return link(a, b).up; }
  [[nodiscard]] std::size_t queued_bytes(Party from, Party to) const;
  // Neither cut nor clogged.
  [[nodiscard]] bool clear(Party from, Party to) const;
  [[nodiscard]] bool clear_both(Party a, Party b) const { return clear(a, b) && clear(b, a); }

  void arrive(const Happening& happening);
  void connect(const Happening& happening);

  // A party has begun / ended: its links come up by and by / are gone.
  void party_up(Party party);
  void party_down(Party party);
  // Both sides see the channel go; it comes back by itself.
  void reset(Party a, Party b);
  // Takes it down and leaves it so until the next party_up or reset.
  void close(Party a, Party b);

  // Cuts add up: each is healed on its own.
  void cut(Party from, Party to);
  void heal(Party from, Party to);
  void heal_core();
  void clog(Party from, Party to, Micros until);

 private:
  static constexpr std::size_t kBytesPerStalled = 512;
  struct Direction {
    std::uint32_t cuts = 0;
    std::int64_t clogged_until = 0;
    std::int64_t last = 0;  // arrival of the last message in order
    std::deque<MessagePtr> stalled;
  };
  struct Link {
    bool up = false;
    bool dialing = false;
    std::uint32_t connection = 0;
    Direction directions[2];  // 0: from the node side
  };

  [[nodiscard]] std::size_t place(Party a, Party b) const;
  [[nodiscard]] Link& link(Party a, Party b) { return links_[place(a, b)]; }
  [[nodiscard]] const Link& link(Party a, Party b) const { return links_[place(a, b)]; }
  [[nodiscard]] std::size_t side(Party from, Party to) const {
    return kernel_.parties.is_node(from) && (!kernel_.parties.is_node(to) || from < to) ? 0 : 1;
  }
  [[nodiscard]] Direction& direction(Party from, Party to) { return link(from, to).directions[side(from, to)]; }
  [[nodiscard]] const Direction& direction(Party from, Party to) const {
    return link(from, to).directions[side(from, to)];
  }
  [[nodiscard]] bool between_nodes(Party a, Party b) const {
    return kernel_.parties.is_node(a) && kernel_.parties.is_node(b);
  }
  [[nodiscard]] bool perfect(Party a, Party b) const { return kernel_.stable_phase && core_[a] && core_[b]; }
  [[nodiscard]] std::int64_t delay(bool perfect);
  void post(Party from, Party to, Link& between_them, const MessagePtr& message, std::int64_t extra);
  void dial(Party a, Party b, std::int64_t least, std::int64_t most);
  void take_down(Party a, Party b);

  Kernel& kernel_;
  Endpoints& endpoints_;
  Prng prng_;
  Weather weather_;
  std::vector<crypto::Peer> peers_;
  std::vector<bool> core_;
  std::vector<Link> links_;  // node * parties + other
  std::function<bool(const Parcel&)> filter_;
};

}  // namespace zz::sim
