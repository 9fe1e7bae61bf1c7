#pragma once

// Byzantine agreement nodes of the simulator (docs/protocol.md §1: up to f of them). Behind each one runs correct
// code; the adversary changes, withholds, delays or adds to what that code says. All randomness comes from the seeded
// Prng it is given.
//
//   silent           drops everything, some kinds of message, or everything to some parties
//   slow             holds messages for 0.5 to 3 view timeouts; proposals for 0.9 of one
//   equivocate       other batches for one (view, n) to disjoint groups, with votes that match
//   mutate           small changes: n, view or epoch by one, one bit of a digest, swapped fields, another service
//   replay           says again what it has heard or said, also from earlier views
//   forge            VIEW-CHANGEs, CHECKPOINTs and NEW-VIEWs in others' names, invented requests, bodies of garbage
//   lie-view-change  false claims, other claims to each receiver, NEW-VIEWs with another choice or proof
//   lie-checkpoint   wrong, early and contradicting CHECKPOINTs, certificates of f signers, false proofs of the order
//   complain         asks for view changes, wake-ups and evictions all the time
//   unfair           starves one client
//   bad-time         proposes times in the past, in the future, or the same again
//   mixed            all of these by turns
//
// Memory is bounded by fixed numbers of messages and proposals. Every act is counted as "byzantine.<kind>.<what>".

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/hooks.hpp"

namespace zz::sim {

const std::vector<std::string>& adversary_kinds();
// Requires one of adversary_kinds().
std::unique_ptr<Adversary> make_adversary(std::string_view kind, Prng& prng);

}  // namespace zz::sim
