#pragma once

// LinkFault: what a bad network does to the messages a process sends, decided message by message from a seed.
// The same seed, options and sequence of messages to a peer give the same fates, whatever happens on other
// links. Applied in Channel::send (Network::set_link_fault); TLS below it is untouched, so the receiver sees
// lost, doubled, late and overtaken messages, never broken ones. For tests and `zz fault`. One thread.

#include <cstdint>
#include <map>
#include <set>

#include "base/prng.hpp"
#include "crypto/peer.hpp"

namespace zz::net {

// Shares are per mille of the messages, decided independently in the order of the members.
struct LinkFaultOptions {
  std::uint32_t drop_per_mille = 0;
  std::uint32_t duplicate_per_mille = 0;
  std::uint32_t delay_per_mille = 0;
  std::uint32_t delay_ms_max = 0;  // a delayed message is late by 1..delay_ms_max; 0 = no delays
  std::uint32_t reorder_per_mille = 0;
};

// What becomes of one message. At most one of delay_ms and overtaken is set.
struct LinkFate {
  std::uint32_t copies = 1;    // 0 = lost
  std::uint32_t delay_ms = 0;  // the last copy leaves this much later
  bool overtaken = false;  // the last copy leaves right after the next message to the same peer, or soon if none comes
};

class LinkFault {
 public:
  LinkFault(std::uint64_t seed, LinkFaultOptions options) : seed_(seed), options_(options) {}

  // Nothing leaves for `peer` until heal().
  void cut(const crypto::Peer& peer) { cut_.insert(peer); }
  void heal(const crypto::Peer& peer) { cut_.erase(peer); }
  void set_options(LinkFaultOptions options) { options_ = options; }
  // The fate of the next message to `peer`.
  LinkFate decide(const crypto::Peer& peer);

 private:
  std::uint64_t seed_;
  LinkFaultOptions options_;
  std::set<crypto::Peer> cut_;
  std::map<crypto::Peer, Prng> links_;
};

}  // namespace zz::net
