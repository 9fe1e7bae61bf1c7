#include "tests/sim/network.hpp"

#include <algorithm>
#include <utility>

namespace zz::sim {

namespace {

// A link of the healed core.
constexpr std::int64_t kGoodDelayMax = 5'000;

}  // namespace

Network::Network(Kernel& kernel, Endpoints& endpoints, std::uint64_t seed)
    : kernel_(kernel),
      endpoints_(endpoints),
      prng_(seed),
      peers_(kernel.parties.count()),
      core_(kernel.parties.count(), false),
      links_(kernel.parties.nodes * kernel.parties.count()) {}

std::size_t Network::place(Party a, Party b) const {
  const bool swap = kernel_.parties.is_node(b) && (!kernel_.parties.is_node(a) || b < a);
  const Party node = swap ? b : a;
  const Party other = swap ? a : b;
  ZZ_ASSERT(kernel_.parties.is_node(node));
  return node * kernel_.parties.count() + other;
}

std::optional<Party> Network::party_of(const crypto::Peer& peer) const {
  const Parties& parties = kernel_.parties;
  switch (peer.role) {
    case crypto::Role::kNode:
      if (peer.index < parties.nodes) return parties.node(peer.index);
      break;
    case crypto::Role::kHost:
      if (peer.index < parties.hosts) return parties.host(peer.index);
      break;
    case crypto::Role::kExecutor:
      if (peer.slot.value < parties.slots && peers_[parties.slot(peer.slot.value)] == peer) {
        return parties.slot(peer.slot.value);
      }
      break;
    case crypto::Role::kClient:
    case crypto::Role::kOperator:
      if (peer.index < parties.clients) return parties.client(peer.index);
      break;
  }
  return std::nullopt;
}

std::int64_t Network::delay(bool perfect) {
  const std::int64_t most = perfect ? std::min(weather_.delay_max, kGoodDelayMax) : weather_.delay_max;
  const std::int64_t least = std::min(weather_.delay_min, most);
  std::int64_t out = between(prng_, least, most);
  if (!perfect && weather_.slow_percent > 0 && chance(prng_, weather_.slow_percent)) out *= 10;
  return out;
}

bool Network::send(Party from, Party to, const MessagePtr& message, std::int64_t extra) {
  Link& between_them = link(from, to);
  if (!between_them.up) return false;
  const Parcel parcel{peers_[from], peers_[to], message};
  kernel_.witness->sent(kernel_.now, parcel);
  if (filter_ && filter_(parcel)) return true;
  Direction& way = between_them.directions[side(from, to)];
  const bool nodes = between_nodes(from, to);
  if (nodes) {
    if (way.cuts > 0) return true;
    if (!perfect(from, to)) {
      if (weather_.loss_percent > 0 && chance(prng_, weather_.loss_percent)) {
        kernel_.count("fault.loss");
        return true;
      }
      if (weather_.duplicate_percent > 0 && chance(prng_, weather_.duplicate_percent)) {
        kernel_.count("fault.duplicate");
        const std::int64_t usual = delay(false);
        kernel_.after(usual + between(prng_, 0, 1'000'000),
                      {Happening::Kind::kDeliver, from, to, between_them.connection, message});
      }
    }
  } else if (way.cuts > 0 || !way.stalled.empty()) {
    way.stalled.push_back(message);
    return true;
  }
  post(from, to, between_them, message, extra);
  return true;
}

void Network::post(Party from, Party to, Link& between_them, const MessagePtr& message, std::int64_t extra) {
  Direction& way = between_them.directions[side(from, to)];
  const bool good = perfect(from, to);
  std::int64_t at = kernel_.now.value + delay(good) + extra;
  at = std::max(at, way.clogged_until);
  const bool in_order = !between_nodes(from, to) || good || !weather_.reorder;
  if (in_order) {
    at = std::max(at, way.last + 1);
    way.last = at;
  }
  kernel_.queue.push(Micros{at}, {Happening::Kind::kDeliver, from, to, between_them.connection, message});
}

std::size_t Network::queued_bytes(Party from, Party to) const {
  return direction(from, to).stalled.size() * kBytesPerStalled;
}

bool Network::clear(Party from, Party to) const {
  const Direction& way = direction(from, to);
  return way.cuts == 0 && way.clogged_until <= kernel_.now.value;
}

void Network::arrive(const Happening& happening) {
  const Link& between_them = link(happening.a, happening.b);
  if (!between_them.up || between_them.connection != happening.number) return;
  endpoints_.deliver(happening.a, happening.b, happening.message);
}

// ---- channels --------------------------------------------------------------------------------------------------

void Network::dial(Party a, Party b, std::int64_t least, std::int64_t most) {
  Link& between_them = link(a, b);
  if (between_them.up || between_them.dialing) return;
  between_them.dialing = true;
  kernel_.after(between(prng_, least, most), {Happening::Kind::kConnect, a, b, 0, nullptr});
}

void Network::connect(const Happening& happening) {
  const Party node = kernel_.parties.is_node(happening.a) ? happening.a : happening.b;
  const Party other = node == happening.a ? happening.b : happening.a;
  Link& between_them = link(node, other);
  between_them.dialing = false;
  if (between_them.up || !endpoints_.alive(node) || !endpoints_.alive(other)) return;
  const bool cut = between_them.directions[0].cuts > 0 || between_them.directions[1].cuts > 0;
  if (cut || !endpoints_.admits(node, other)) return dial(node, other, 100'000, 300'000);
  between_them.up = true;
  ++between_them.connection;
  for (Direction& way : between_them.directions) way.stalled.clear();
  endpoints_.link_up(node, other);
}

void Network::take_down(Party a, Party b) {
  Link& between_them = link(a, b);
  if (!between_them.up) return;
  between_them.up = false;
  ++between_them.connection;
  for (Direction& way : between_them.directions) way.stalled.clear();
  const Party node = kernel_.parties.is_node(a) ? a : b;
  endpoints_.link_down(node, node == a ? b : a);
}

void Network::party_up(Party party) {
  const std::size_t others = kernel_.parties.is_node(party) ? kernel_.parties.count() : kernel_.parties.nodes;
  for (Party other = 0; other < others; ++other) {
    if (other != party) dial(party, other, 1'000, 50'000);
  }
}

void Network::party_down(Party party) {
  const std::size_t others = kernel_.parties.is_node(party) ? kernel_.parties.count() : kernel_.parties.nodes;
  for (Party other = 0; other < others; ++other) {
    if (other != party) take_down(party, other);
  }
}

void Network::reset(Party a, Party b) {
  take_down(a, b);
  dial(a, b, 1'000, 100'000);
}

void Network::close(Party a, Party b) { take_down(a, b); }

// ---- faults ----------------------------------------------------------------------------------------------------

void Network::cut(Party from, Party to) { ++direction(from, to).cuts; }

void Network::heal(Party from, Party to) {
  Link& between_them = link(from, to);
  Direction& way = between_them.directions[side(from, to)];
  if (way.cuts == 0) return;  // healed with the core
  if (--way.cuts > 0) return;
  std::deque<MessagePtr> stalled;
  stalled.swap(way.stalled);
  if (!between_them.up) return;
  for (const MessagePtr& message : stalled) post(from, to, between_them, message, 0);
}

void Network::heal_core() {
  for (Party node = 0; node < kernel_.parties.nodes; ++node) {
    for (Party other = 0; other < kernel_.parties.count(); ++other) {
      if (other == node || (kernel_.parties.is_node(other) && other < node) || !core_[node] || !core_[other]) continue;
      for (Direction& way : link(node, other).directions) way.clogged_until = 0;
      while (direction(node, other).cuts > 0) heal(node, other);
      while (direction(other, node).cuts > 0) heal(other, node);
    }
  }
}

void Network::clog(Party from, Party to, Micros until) {
  Direction& way = direction(from, to);
  way.clogged_until = std::max(way.clogged_until, until.value);
}

}  // namespace zz::sim
