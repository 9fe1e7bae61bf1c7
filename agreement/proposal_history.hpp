#pragma once

// ProposalHistory: what this node stood for and prepared above h, over all views: the P and Q of its VIEW-CHANGEs
// (docs/protocol.md §7), with the headers and bodies that a new view may need again. A part of Replica; one thread,
// no IO.
//
// Invariants:
//  1. Per number at most one prepared claim, of the newest view; per (number, digest) one accepted claim, of the
//     newest view.
//  2. At most `per_number` digests per number are kept: the ones of the newest views. Forgetting a claim of Q can cost
//     a view change progress, never safety (P is never forgotten above h).

#include <optional>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement {

class ProposalHistory {
 public:
  struct Accepted {
    View view;
    Digest digest;
    HeaderPtr header;
    std::vector<RequestPtr> bodies;  // of an earlier view's slot, or empty
  };

  ProposalHistory(std::uint32_t window, std::uint32_t per_number);

  // Requires n in (low, low + window] for all of these.
  void accept(Seq n, View view, const Digest& digest, const HeaderPtr& header);
  void prepare(Seq n, View view, const Digest& digest);
  // The slot that held the batch is cleared: its bodies stay here.
  void keep_bodies(Seq n, const Digest& digest, std::vector<RequestPtr>&& bodies);

  [[nodiscard]] std::vector<Claim> prepared() const;      // ascending n
  [[nodiscard]] std::vector<Claim> pre_prepared() const;  // ascending (n, digest)
  [[nodiscard]] bool is_prepared(Seq n, View view, const Digest& digest) const;
  // Null when not held.
  [[nodiscard]] Accepted* find(Seq n, const Digest& digest);
  [[nodiscard]] HeaderPtr find_header(const Digest& digest) const;

  // Forgets everything up to n.
  void set_low(Seq n);

 private:
  struct Entry {
    Seq n;  // 0: unused
    std::optional<std::pair<View, Digest>> prepared;
    std::vector<Accepted> accepted;
  };
  Entry& at(Seq n);
  [[nodiscard]] const Entry* find(Seq n) const;

  Seq low_;
  std::uint32_t per_number_;
  std::vector<Entry> entries_;  // [n % window]
};

}  // namespace zz::agreement
