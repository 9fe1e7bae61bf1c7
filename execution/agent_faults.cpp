#include "execution/agent_faults.hpp"

#include <algorithm>
#include <utility>

namespace zz::execution {

SharedBytes falsify(const SharedBytes& reply) {
  Bytes out(reply.view().begin(), reply.view().end());
  const auto is_alnum = [](std::uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  const auto last = std::find_if(out.rbegin(), out.rend(), is_alnum);
  if (last == out.rend()) {
    out.push_back('!');
  } else if (*last >= '0' && *last <= '9') {
    *last = static_cast<std::uint8_t>('0' + (*last - '0' + 1) % 10);
  } else {
    *last = *last == 'x' ? 'y' : 'x';
  }
  return SharedBytes(std::move(out));
}

void HeldVotes::hold(Clock::time_point due, SharedBytes vote) {
  if (held_.size() < kMost) held_.push_back({due, std::move(vote)});
}

std::optional<SharedBytes> HeldVotes::take_due(Clock::time_point now) {
  if (held_.empty() || held_.front().due > now) return std::nullopt;
  SharedBytes vote = std::move(held_.front().vote);
  held_.pop_front();
  return vote;
}

}  // namespace zz::execution
