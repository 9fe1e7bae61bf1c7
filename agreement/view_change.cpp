#include "agreement/view_change.hpp"

#include <algorithm>
#include <tuple>

namespace zz::agreement {
namespace {

// Null: P has no entry for n.
const Claim* prepared_at(const ViewChange& message, Seq n) {
  const auto& claims = message.prepared;
  const auto at = std::lower_bound(claims.begin(), claims.end(), n, [](const Claim& c, Seq key) { return c.n < key; });
  return at != claims.end() && at->n == n ? &*at : nullptr;
}

// The batch was pre-prepared at the signer in the claim's view or a later one.
bool pre_prepared(const ViewChange& message, const Claim& claim) {
  const auto& claims = message.pre_prepared;
  const auto at = std::lower_bound(claims.begin(), claims.end(), claim, [](const Claim& a, const Claim& b) {
    return std::tie(a.n, a.digest) < std::tie(b.n, b.digest);
  });
  return at != claims.end() && at->n == claim.n && at->digest == claim.digest && at->view >= claim.view;
}

// What to take for n, which lies above every stable checkpoint in the set, so that "has a stable checkpoint below n"
// holds of every message. All zero: null.
std::optional<Digest> decide(std::uint32_t f, const std::vector<ViewChangePtr>& messages, Seq n) {
  std::vector<Claim> entries;
  for (const ViewChangePtr& message : messages) {
    if (const Claim* claim = prepared_at(*message, n)) entries.push_back(*claim);
  }
  const std::size_t silent = messages.size() - entries.size();
  std::sort(entries.begin(), entries.end(), [](const Claim& a, const Claim& b) {
    return std::tie(b.view, a.digest) < std::tie(a.view, b.digest);  // newest view first
  });
  for (const Claim& claim : entries) {
    const auto agrees = [&claim](const Claim& other) {
      return other.view < claim.view || (other.view == claim.view && other.digest == claim.digest);
    };
    const auto vouches = [&claim](const ViewChangePtr& message) { return pre_prepared(*message, claim); };
    const auto agreeing = silent + static_cast<std::size_t>(std::count_if(entries.begin(), entries.end(), agrees));
    if (agreeing < 2 * f + 1) continue;
    if (std::count_if(messages.begin(), messages.end(), vouches) >= f + 1) return claim.digest;
  }
  if (silent >= 2 * f + 1) return Digest{};
  return std::nullopt;
}

}  // namespace

std::optional<NewViewChoice> choose(std::uint32_t f, std::uint32_t window, const std::vector<ViewChangePtr>& messages) {
  if (messages.size() < 2 * f + 1) return std::nullopt;
  NewViewChoice choice;
  for (const ViewChangePtr& message : messages) {
    if (stable_n(message->stable) > stable_n(choice.stable)) choice.stable = message->stable;
  }
  const Seq start = stable_n(choice.stable);
  std::uint64_t length = 0;  // up to the highest number that somebody prepared
  for (const ViewChangePtr& message : messages) {
    for (const Claim& claim : message->prepared) {
      if (claim.n <= start || claim.n.value - start.value > window) continue;
      length = std::max(length, claim.n.value - start.value);
    }
  }
  for (std::uint64_t i = 1; i <= length; ++i) {
    const std::optional<Digest> digest = decide(f, messages, Seq{start.value + i});
    if (!digest) return std::nullopt;
    choice.chosen.push_back(*digest);
  }
  while (!choice.chosen.empty() && choice.chosen.back().is_zero()) choice.chosen.pop_back();
  return choice;
}

}  // namespace zz::agreement
