#include "agreement/proposal_history.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace zz::agreement {

ProposalHistory::ProposalHistory(std::uint32_t window, std::uint32_t per_number)
    : per_number_(per_number), entries_(window) {
  ZZ_ASSERT(window > 0 && per_number > 0);
}

ProposalHistory::Entry& ProposalHistory::at(Seq n) {
  ZZ_ASSERT(n > low_ && n.value - low_.value <= entries_.size());
  Entry& entry = entries_[n.value % entries_.size()];
  if (entry.n != n) entry = Entry{n, {}, {}};
  return entry;
}

const ProposalHistory::Entry* ProposalHistory::find(Seq n) const {
  const Entry& entry = entries_[n.value % entries_.size()];
  return n.value != 0 && entry.n == n ? &entry : nullptr;
}

void ProposalHistory::accept(Seq n, View view, const Digest& digest, const HeaderPtr& header) {
  Entry& entry = at(n);
  for (Accepted& accepted : entry.accepted) {
    if (accepted.digest != digest) continue;
    accepted.view = std::max(accepted.view, view);
    return;
  }
  if (entry.accepted.size() == per_number_) {
    const auto prepared = entry.prepared;
    const auto oldest =
        std::min_element(entry.accepted.begin(), entry.accepted.end(), [&](const auto& a, const auto& b) {
          const bool keep_a = prepared && prepared->second == a.digest;  // what is prepared may be asked of this node
          const bool keep_b = prepared && prepared->second == b.digest;
          return keep_a != keep_b ? keep_b : a.view < b.view;
        });
    entry.accepted.erase(oldest);
  }
  entry.accepted.push_back({view, digest, header, {}});
}

void ProposalHistory::prepare(Seq n, View view, const Digest& digest) {
  Entry& entry = at(n);
  if (!entry.prepared || entry.prepared->first < view) entry.prepared = {view, digest};
}

void ProposalHistory::keep_bodies(Seq n, const Digest& digest, std::vector<RequestPtr>&& bodies) {
  Accepted* accepted = find(n, digest);
  if (accepted == nullptr) return;
  if (accepted->bodies.size() != bodies.size()) {
    accepted->bodies = std::move(bodies);
    return;
  }
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    if (!accepted->bodies[i]) accepted->bodies[i] = std::move(bodies[i]);
  }
}

std::vector<Claim> ProposalHistory::prepared() const {
  std::vector<Claim> out;
  for (std::uint64_t i = 1; i <= entries_.size(); ++i) {
    const Entry* entry = find(Seq{low_.value + i});
    if (entry != nullptr && entry->prepared) out.push_back({entry->n, entry->prepared->second, entry->prepared->first});
  }
  return out;
}

std::vector<Claim> ProposalHistory::pre_prepared() const {
  std::vector<Claim> out;
  for (std::uint64_t i = 1; i <= entries_.size(); ++i) {
    const Entry* entry = find(Seq{low_.value + i});
    if (entry == nullptr) continue;
    for (const Accepted& accepted : entry->accepted) out.push_back({entry->n, accepted.digest, accepted.view});
  }
  std::sort(out.begin(), out.end());
  return out;
}

bool ProposalHistory::is_prepared(Seq n, View view, const Digest& digest) const {
  const Entry* entry = find(n);
  return entry != nullptr && entry->prepared && *entry->prepared == std::make_pair(view, digest);
}

ProposalHistory::Accepted* ProposalHistory::find(Seq n, const Digest& digest) {
  const Entry* entry = find(n);
  if (entry == nullptr) return nullptr;
  for (Accepted& accepted : at(n).accepted) {
    if (accepted.digest == digest) return &accepted;
  }
  return nullptr;
}

HeaderPtr ProposalHistory::find_header(const Digest& digest) const {
  for (const Entry& entry : entries_) {
    for (const Accepted& accepted : entry.accepted) {
      if (accepted.digest == digest && accepted.header) return accepted.header;
    }
  }
  return nullptr;
}

void ProposalHistory::set_low(Seq n) {
  ZZ_ASSERT(n >= low_);
  low_ = n;
  for (Entry& entry : entries_) {
    if (entry.n.value != 0 && entry.n <= low_) entry = Entry{};
  }
}

}  // namespace zz::agreement
