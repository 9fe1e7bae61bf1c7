#pragma once

// VouchBook: which other nodes vouch for requests that this node does not have (docs/protocol.md §4). A part of
// RequestTable; one thread, no IO.
//
// Bounds: the last kPerNodeMax references of each node, so that a node can only push out its own.

#include <array>
#include <cstdint>
#include <deque>
#include <map>

#include "agreement/messages.hpp"
#include "crypto/cluster.hpp"

namespace zz::agreement {

class VouchBook {
 public:
  static constexpr std::uint32_t kNodes = 3 * crypto::kFaultsMax + 1;
  static constexpr std::size_t kPerNodeMax = 4'096;
  using Nodes = std::uint16_t;  // bit per node
  static_assert(kNodes <= 16);

  // True once per reference, as long as it is remembered: when `enough` nodes vouch for it. Requires from.value <
  // kNodes.
  bool add(NodeId from, const Reference& reference, std::uint32_t enough);
  [[nodiscard]] Nodes nodes(const Reference& reference) const;
  // Whatever digest was vouched for under this number.
  void erase(ClientId client, SessionId session, RequestNumber number);
  [[nodiscard]] bool empty() const { return known_.empty(); }

 private:
  struct Known {
    Nodes nodes = 0;
    bool told = false;
  };
  std::map<Reference, Known> known_;
  std::array<std::deque<Reference>, kNodes> by_age_;  // per node, oldest first; may name what is erased
};

}  // namespace zz::agreement
