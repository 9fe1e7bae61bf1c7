#include "net/link_fault.hpp"

namespace zz::net {
namespace {

// A link's own seed: mixes in every field of the peer, one generator step each.
std::uint64_t seed_of(std::uint64_t seed, const crypto::Peer& peer) {
  for (const std::uint64_t field : {static_cast<std::uint64_t>(peer.role), static_cast<std::uint64_t>(peer.index),
                                    static_cast<std::uint64_t>(peer.service.value),
                                    static_cast<std::uint64_t>(peer.slot.value), peer.incarnation.value}) {
    seed = Prng(seed ^ field).next();
  }
  return seed;
}

}  // namespace

LinkFate LinkFault::decide(const crypto::Peer& peer) {
  Prng& link = links_.try_emplace(peer, seed_of(seed_, peer)).first->second;
  // Every message takes the same number of draws, so that one fate does not shift the later ones.
  const bool drop = link.below(1000) < options_.drop_per_mille;
  const bool duplicate = link.below(1000) < options_.duplicate_per_mille;
  const bool delay = link.below(1000) < options_.delay_per_mille && options_.delay_ms_max > 0;
  const std::uint64_t lateness = link.next();
  const bool reorder = link.below(1000) < options_.reorder_per_mille;

  LinkFate fate;
  if (drop || cut_.contains(peer)) {
    fate.copies = 0;
    return fate;
  }
  if (duplicate) fate.copies = 2;
  if (delay) {
    fate.delay_ms = 1 + static_cast<std::uint32_t>(lateness % options_.delay_ms_max);
  } else {
    fate.overtaken = reorder;
  }
  return fate;
}

}  // namespace zz::net
