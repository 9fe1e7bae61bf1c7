#include "agreement/vouch_book.hpp"

#include <bit>

#include "base/assert.hpp"

namespace zz::agreement {

bool VouchBook::add(NodeId from, const Reference& reference, std::uint32_t enough) {
  ZZ_ASSERT(from.value < kNodes);
  const Nodes bit = static_cast<Nodes>(1u << from.value);
  std::deque<Reference>& by_age = by_age_[from.value];
  if ((nodes(reference) & bit) != 0) return false;
  if (by_age.size() >= kPerNodeMax) {
    const auto oldest = known_.find(by_age.front());
    if (oldest != known_.end()) {
      oldest->second.nodes = static_cast<Nodes>(oldest->second.nodes & ~bit);
      if (oldest->second.nodes == 0) known_.erase(oldest);
    }
    by_age.pop_front();
  }
  by_age.push_back(reference);
  Known& known = known_[reference];
  known.nodes = static_cast<Nodes>(known.nodes | bit);
  if (known.told || static_cast<std::uint32_t>(std::popcount(known.nodes)) < enough) return false;
  known.told = true;
  return true;
}

VouchBook::Nodes VouchBook::nodes(const Reference& reference) const {
  const auto at = known_.find(reference);
  return at == known_.end() ? Nodes{0} : at->second.nodes;
}

void VouchBook::erase(ClientId client, SessionId session, RequestNumber number) {
  auto at = known_.lower_bound(Reference{client, session, number, {}});
  while (at != known_.end() && at->first.client == client && at->first.session == session &&
         at->first.number == number) {
    at = known_.erase(at);
  }
}

}  // namespace zz::agreement
